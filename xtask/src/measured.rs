//! Samples of a checkpoint and their quality: drawn by `dit-cli sample`, measured by `dit-cli evaluate`, kept as records.

mod record;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub use self::record::{Draw, Estimate, Quality};
use self::record::{METHOD, Record, Subject};
use crate::{
    demo,
    libtorch::{self, Wanted},
    training::succeed,
    ui,
    workspace::Workspace,
};
use anyhow::{Context, Result, ensure};
use dit_weights::sha256_of;

/// Classes of Fashion-MNIST.
pub const CLASSES: u64 = 10;
/// Samples computed at once.
const BATCH: &str = "100";
/// The codec that samples are decoded with.
const CODEC: &str = "vae-fashion-demo";
/// The feature network that measures them, below the root.
const FEATURES: &str = "weights/demo/features-fashion.safetensors";
/// Where Debian's package dataset-fashion-mnist puts the training and the test pictures.
pub const DEBIAN_TRAIN: &str = "/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz";
const DEBIAN_TEST: &str = "/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz";

/// What the commands that measure samples of clothes have in common.
#[derive(clap::Args)]
pub struct LabArgs {
    /// Training pictures of Fashion-MNIST, an IDX file: the reference of FID and its kin
    #[arg(long, value_name = "PATH", default_value = DEBIAN_TRAIN)]
    pub pictures: PathBuf,
    /// Test pictures, whose numbers are what perfect samples would have
    #[arg(long, value_name = "PATH", default_value = DEBIAN_TEST)]
    pub test_pictures: PathBuf,
    /// CPU threads of each run
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// A dit-cli that is built already
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Write the page from what is there, and train and sample nothing
    #[arg(long)]
    pub report_only: bool,
}

impl LabArgs {
    /// The dit-cli that was named, else one built now; none where only the page is to be written.
    pub fn binary(&self, workspace: &Workspace) -> Result<Option<PathBuf>> {
        match (self.report_only, &self.binary) {
            (true, _) => Ok(None),
            (false, Some(binary)) => Ok(Some(std::path::absolute(binary)?)),
            (false, None) => {
                libtorch::ensure(workspace, Wanted::any())?;
                demo::build(workspace).map(Some)
            }
        }
    }
}

/// Draws and measures, each set once: the record of a set that is there is read.
pub struct Lab<'a> {
    root: &'a Path,
    /// None: records are read, and nothing is drawn.
    binary: Option<&'a Path>,
    folder: PathBuf,
    reference: PathBuf,
    reference_sha256: String,
    features_sha256: String,
    threads: usize,
}

impl<'a> Lab<'a> {
    /// Records in `folder`, against the pictures in `reference`.
    pub fn new(
        root: &'a Path,
        binary: Option<&'a Path>,
        folder: PathBuf,
        reference: &Path,
        threads: usize,
    ) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let reference = pictures(reference)?;
        let reference_sha256 = sha256_of(&[&reference])?;
        let features = root.join(FEATURES);
        let features_sha256 = sha256_of(&[&features]).with_context(|| format!("cannot read {}", features.display()))?;
        Ok(Self { root, binary, folder, reference, reference_sha256, features_sha256, threads })
    }

    /// Whether nothing is drawn.
    fn only_reads(&self) -> bool {
        self.binary.is_none()
    }

    /// What was measured; of a report of what there is, nothing but a word on what is left out where it was not.
    ///
    /// # Errors
    /// As `measured`, where samples could be drawn.
    pub fn if_there<T>(&self, measured: Result<T>) -> Result<Option<T>> {
        match measured {
            Err(error) if self.only_reads() => {
                ui::say(format_args!("left out: {error:#}"));
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// The quality of samples of a checkpoint's file, under the name `name`.
    pub fn samples(&self, name: &str, checkpoint: &Path, draw: &Draw) -> Result<Quality> {
        let subject = Subject { draw: Some(draw.clone()), ..self.subject(checkpoint)? };
        self.measure(name, &subject, |binary| {
            let npz = self.folder.join(format!("{name}.npz"));
            ui::say(format_args!("{name}: {} samples", CLASSES * draw.per_class));
            let mut command = Command::new(binary);
            command.current_dir(self.root).arg("sample").arg("--ckpt").arg(checkpoint).arg("--npz").arg(&npz);
            command.args(["--vae", CODEC, "--class", "0-9", "--batch-size", BATCH]);
            command.args(["--sampler", &draw.sampler, "--steps", &draw.steps]);
            command.arg(format!("--num-samples={}", draw.per_class));
            command.arg(format!("--cfg-scale={}", draw.cfg_scale)).arg(format!("--threads={}", self.threads));
            succeed("dit-cli sample", command.stderr(Stdio::null()))?;
            let evaluation = self.evaluate(binary, &npz, &[])?;
            // Tens of megabytes that the same command makes again.
            fs::remove_file(&npz).with_context(|| format!("cannot remove {}", npz.display()))?;
            Ok(evaluation)
        })
    }

    /// The quality of pictures in a file.
    pub fn pictures(&self, name: &str, path: &Path) -> Result<Quality> {
        let path = pictures(path)?;
        let subject = self.subject(&path)?;
        self.measure(name, &subject, |binary| self.evaluate(binary, &path, &[]))
    }

    /// The quality of what the codec makes of pictures in a file.
    pub fn reconstructions(&self, name: &str, path: &Path) -> Result<Quality> {
        let path = pictures(path)?;
        let subject = Subject { reconstructed: true, ..self.subject(&path)? };
        self.measure(name, &subject, |binary| self.evaluate(binary, &path, &["--reconstruct", CODEC]))
    }

    /// A file of pictures, as it is.
    fn subject(&self, file: &Path) -> Result<Subject> {
        let sha256 = sha256_of(&[file]).with_context(|| format!("cannot read {}", file.display()))?;
        let reference = self.reference_sha256.clone();
        Ok(Subject { sha256, draw: None, reconstructed: false, reference, method: METHOD })
    }

    fn measure(
        &self,
        name: &str,
        subject: &Subject,
        measure: impl FnOnce(&Path) -> Result<serde_json::Value>,
    ) -> Result<Quality> {
        let path = self.folder.join(format!("{name}.json"));
        if let Some(record) = Record::read(&path)
            && record.is_of(subject, &self.features_sha256)
        {
            return Ok(record.quality);
        }
        let missing = || {
            let path = path.display();
            format!("{path} is not of this checkpoint, feature network and method: run it without --report-only")
        };
        let evaluation = measure(self.binary.with_context(missing)?)?;
        let quality =
            serde_json::from_value(evaluation["metrics"].clone()).context("dit-cli evaluate said too little")?;
        let record = Record { subject: subject.clone(), quality, evaluation };
        ensure!(
            record.is_of(subject, &self.features_sha256),
            "dit-cli evaluate measured with another feature network than {FEATURES}\n  help: unset DIT_WEIGHTS_DIR"
        );
        record.write(&path)?;
        Ok(quality)
    }

    fn evaluate(&self, binary: &Path, samples: &Path, more: &[&str]) -> Result<serde_json::Value> {
        let mut command = Command::new(binary);
        command.current_dir(self.root).arg("evaluate").arg(samples).arg(&self.reference);
        command.args(["--features", "demo", "--image-size", "32", "--crop", "pad", "--json"]);
        command.args(["--batch-size", "64", "--metrics", "fid,kid,pr"]).args(more);
        command.arg("--cache").arg(self.folder.join("features")).arg(format!("--threads={}", self.threads));
        let output = command.stdin(Stdio::null()).output().context("dit-cli evaluate does not start")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "dit-cli evaluate failed ({})\n{said}", output.status);
        serde_json::from_slice(&output.stdout).context("dit-cli evaluate printed no JSON")
    }
}

/// The file itself, or what to do where there is none.
fn pictures(path: &Path) -> Result<PathBuf> {
    ensure!(
        path.is_file(),
        "{} is not there\n  help: install Debian's package dataset-fashion-mnist, or name the file",
        path.display()
    );
    Ok(std::path::absolute(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quality(fid: f64, features_sha256: &str) -> serde_json::Value {
        let of =
            |value: f64| serde_json::json!({"value": value, "low": value - 0.5, "high": value + 0.5, "method": "m"});
        serde_json::json!({
            "features": {"sha256": features_sha256},
            "metrics": {"fid": of(fid), "kid": of(0.01), "precision": of(0.7), "recall": of(0.6)},
        })
    }

    #[test]
    fn a_record_is_measured_once_and_never_taken_for_anothers() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (reference, one, other) = (file("r.gz", "r"), file("one", "1"), file("other", "2"));
        fs::create_dir_all(folder.path().join("weights/demo")).unwrap();
        file(FEATURES, "network");
        let records = folder.path().join("records");
        let lab = Lab::new(folder.path(), Some(Path::new("unused")), records.clone(), &reference, 1).unwrap();
        let draw = |cfg_scale| Draw { per_class: 5, sampler: "ddim".into(), steps: "10".into(), cfg_scale };
        let mut times = 0;
        let mut check = |file: &Path, scale: f64, fid: f64, expected: f64| {
            let subject = Subject { draw: Some(draw(scale)), ..lab.subject(file).unwrap() };
            let measured = lab.measure("a", &subject, |_| {
                times += 1;
                Ok(quality(fid, &lab.features_sha256))
            });
            assert_eq!(measured.unwrap().fid.value, expected);
        };
        check(&one, 1.0, 3.0, 3.0);
        check(&one, 1.0, 4.0, 3.0);
        check(&one, 2.0, 5.0, 5.0);
        check(&other, 2.0, 6.0, 6.0);
        assert_eq!(times, 3);
        let subject = lab.subject(&other).unwrap();
        let error = lab.measure("b", &subject, |_| Ok(quality(1.0, "another"))).unwrap_err();
        assert!(error.to_string().contains("another feature network"), "{error}");
        let reader = || Lab::new(folder.path(), None, records.clone(), &reference, 1).unwrap();
        let refused = |file: &Path| {
            let error = reader().samples("a", file, &draw(2.0)).unwrap_err();
            assert!(error.to_string().contains("--report-only"), "{error}");
        };
        let kept = || assert_eq!(reader().samples("a", &other, &draw(2.0)).unwrap().fid.value, 6.0);
        kept();
        refused(&one);
        // A report leaves out what was not measured, but a run that measures does not.
        let missing = |lab: &Lab| lab.if_there(lab.subject(Path::new("missing")).map(|_| ()));
        assert_eq!(missing(&reader()).unwrap(), None);
        assert!(missing(&lab).is_err());
        // A record of another method is none; one that does not tell its method is of the first.
        let path = records.join("a.json");
        let text = fs::read_to_string(&path).unwrap();
        let present = format!("\"method\": {METHOD}");
        assert!(text.contains(&present), "{text}");
        let with_method = |line: &str| fs::write(&path, text.replace(&present, line)).unwrap();
        for older in ["\"unknown\": 1", "\"method\": 0", "\"method\": 1"] {
            with_method(older);
            refused(&other);
        }
        with_method(&present);
        kept();
        file(FEATURES, "another network");
        refused(&other);
    }
}
