//! `cargo xtask train-demo`: from pictures to the weights in `weights/demo`.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use dit_files::AtomicFile;
use dit_weights::sha256_of;

use crate::{
    demo, libtorch,
    measured::DEBIAN_TRAIN,
    training::{Wanted, average_in, succeed, train},
    ui::{self, Stages},
    workspace::Workspace,
};

/// Train the demo's weights anew, and put them into weights/demo
///
/// Pictures to latents, latents to a model by configs/fashion.toml, its average to weights/demo in f16, its hash into
/// the manifest, its pictures into docs/images/demo.png. About an hour of one quiet CPU core (six steps a second). Interrupt it at any
/// time: the same command continues; after the recipe or the pictures have changed, it asks for another --out.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  sudo apt install dataset-fashion-mnist && cargo xtask train-demo\n  cargo xtask train-demo --data fashion-mnist/train-images-idx3-ubyte.gz\n  cargo xtask train-demo --steps 200"
)]
pub struct Args {
    /// Training pictures of Fashion-MNIST, an IDX file with its labels beside it
    #[arg(long, value_name = "PATH", default_value = DEBIAN_TRAIN)]
    data: PathBuf,
    /// Folder for latents and run, to be continued from
    #[arg(long, value_name = "DIR", default_value = "target/train-demo")]
    out: PathBuf,
    /// CPU threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Train, but leave weights/, docs/ and the manifest as they are
    #[arg(long)]
    keep: bool,
    /// A trial of so many steps in place of the recipe's, in a run of its own; implies --keep
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
}

/// The classes, in the order of the labels (Xiao, Rasul & Vollgraf 2017).
const CLASSES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];
/// What is replaced, below the root.
const WEIGHTS: &str = "weights/demo/dit-fashion.safetensors";
const MANIFEST: &str = "weights/manifest.json";
const PICTURE: &str = "docs/images/demo.png";

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    ensure!(
        args.data.exists(),
        "{} is not there\n  help: install Debian's package dataset-fashion-mnist, or pass --data",
        args.data.display()
    );
    let mut stages = Stages::new();
    let root = workspace.root();
    stages.run("libtorch", || libtorch::ensure(workspace, libtorch::Wanted::any()))?;
    let binary = stages.run("build", || demo::build(workspace))?;
    let out = std::path::absolute(root.join(&args.out))?;
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let latents = out.join("latents");
    stages.run("latents", || {
        let mut command = Command::new(&binary);
        command.arg("precompute-latents").arg("--data").arg(&args.data).arg("--out").arg(&latents);
        command.args(args.threads.iter().map(|threads| format!("--threads={threads}")));
        command.arg("--vae").arg(root.join("weights/demo/vae-fashion")).args(["--image-size", "32", "--crop", "pad"]);
        succeed("dit-cli precompute-latents", &mut command)
    })?;
    let recipe = root.join("configs/fashion.toml");
    let (run, overrides) = match args.steps {
        // The recipe's warm-up may be longer than a trial.
        Some(steps) => {
            let warm_up = format!("optim.warmup_steps={}", steps / 40);
            (format!("run-{steps}"), vec![format!("train.steps={steps}"), warm_up])
        }
        None => ("run".to_owned(), Vec::new()),
    };
    let run = out.join(run);
    let wanted = Wanted { recipe: &recipe, overrides, data: &latents, run: &run, threads: args.threads, log: None };
    let checkpoint = stages.run("train", || train(&binary, &wanted))?;
    let average = average_in(&checkpoint)?;
    ui::say(format_args!("trained: {}", average.display()));
    if !args.keep && args.steps.is_none() {
        stages.run("weights", || replace_weights(root, &binary, &out, &average))?;
        stages.run("picture", || draw(root, &binary))?;
        ui::say(format_args!("replaced: {WEIGHTS}, {MANIFEST}, {PICTURE}"));
    }
    ui::say(stages.summary());
    Ok(ExitCode::SUCCESS)
}

/// The average in f16, with the classes' names, and its hash in the manifest.
///
/// Both are written whole beside their places before either is put there, so that what ends this early leaves the old pair or,
/// between two renames, new weights beside the old hash: `fetch-weights --verify` tells, and the same command does it all again.
fn replace_weights(root: &Path, binary: &Path, out: &Path, average: &Path) -> Result<()> {
    let names = out.join("classes.json");
    fs::write(&names, serde_json::to_string(&CLASSES)?).with_context(|| format!("cannot write {}", names.display()))?;
    let converted = out.join("dit-fashion.safetensors");
    let mut command = Command::new(binary);
    command.arg("convert").arg(average).arg(&converted).args(["--dtype", "f16", "--force"]);
    command.arg("--class-names").arg(&names);
    succeed("dit-cli convert", &mut command)?;
    put(root, &converted)
}

/// Puts a file in the weights' place, and its length and hash into the manifest.
fn put(root: &Path, converted: &Path) -> Result<()> {
    let path = root.join(MANIFEST);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let bytes = fs::read(converted).with_context(|| format!("cannot read {}", converted.display()))?;
    let sha256 = sha256_of(&[converted])?;
    let text = with_hash(&text, WEIGHTS.trim_start_matches("weights/"), bytes.len() as u64, &sha256)?;
    let write = |path: &Path, bytes: &[u8]| -> Result<AtomicFile> {
        let mut file = AtomicFile::create(path)?;
        let written = file.write_all(bytes).and_then(|()| file.file_mut().sync_all());
        written.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(file)
    };
    let pair = [write(&root.join(WEIGHTS), &bytes)?, write(&path, text.as_bytes())?];
    pair.into_iter()
        .try_for_each(AtomicFile::commit)
        .with_context(|| format!("cannot replace {WEIGHTS} and {MANIFEST}"))
}

/// The manifest's text with another length and hash of one file, all else as it was.
fn with_hash(text: &str, file: &str, bytes: u64, sha256: &str) -> Result<String> {
    let lines: Vec<String> = text
        .lines()
        .map(|line| match line.trim_start().strip_prefix(&format!("{{\"path\": \"{file}\",")) {
            None => line.to_owned(),
            Some(rest) => {
                let indent = &line[..line.len() - line.trim_start().len()];
                let comma = if rest.trim_end().ends_with(',') { "," } else { "" };
                format!("{indent}{{\"path\": \"{file}\", \"bytes\": {bytes}, \"sha256\": \"{sha256}\"}}{comma}")
            }
        })
        .collect();
    let changed = format!("{}\n", lines.join("\n"));
    ensure!(changed.contains(sha256), "the manifest has no line for {file}");
    Ok(changed)
}

fn draw(root: &Path, binary: &Path) -> Result<()> {
    let mut command = Command::new(binary);
    command.current_dir(root).args(["sample", "--ckpt", "dit-fashion-demo", "--class", "0-9", "--num-samples", "4"]);
    succeed("dit-cli sample", command.args(["--steps", "50", "--out", PICTURE]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_manifest_are_replaced_together_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let (weights, manifest) = (root.path().join(WEIGHTS), root.path().join(MANIFEST));
        fs::create_dir_all(weights.parent().unwrap()).unwrap();
        fs::write(&weights, "old").unwrap();
        let converted = root.path().join("converted");
        fs::write(&converted, "new weights").unwrap();
        // A manifest that has no place for them: nothing is replaced.
        fs::write(&manifest, "{}\n").unwrap();
        put(root.path(), &converted).unwrap_err();
        assert_eq!(fs::read(&weights).unwrap(), b"old");
        let line = |bytes: u64, sha256: &str| {
            format!("{{\"path\": \"demo/dit-fashion.safetensors\", \"bytes\": {bytes}, \"sha256\": \"{sha256}\"}}\n")
        };
        fs::write(&manifest, line(3, "aa")).unwrap();
        put(root.path(), &converted).unwrap();
        assert_eq!(fs::read(&weights).unwrap(), b"new weights");
        assert_eq!(fs::read_to_string(&manifest).unwrap(), line(11, &sha256_of(&[&weights]).unwrap()));
        let left = fs::read_dir(weights.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "nothing is left beside them");
    }

    #[test]
    fn one_hash_changes_and_nothing_else() {
        let manifest = "{\n  \"files\": [\n    {\"path\": \"demo/a\", \"bytes\": 1, \"sha256\": \"aa\"},\n    {\"path\": \"demo/b\", \"bytes\": 2, \"sha256\": \"bb\"}\n  ]\n}\n";
        let changed = with_hash(manifest, "demo/a", 7, "cc").unwrap();
        assert_eq!(changed, manifest.replace("\"bytes\": 1, \"sha256\": \"aa\"", "\"bytes\": 7, \"sha256\": \"cc\""));
        let changed = with_hash(manifest, "demo/b", 8, "dd").unwrap();
        assert_eq!(changed, manifest.replace("\"bytes\": 2, \"sha256\": \"bb\"", "\"bytes\": 8, \"sha256\": \"dd\""));
        assert!(with_hash(manifest, "demo/c", 1, "ee").is_err());
    }
}
