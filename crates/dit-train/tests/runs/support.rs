use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use dit_config::{VaeConfig, VaeSpec};
use dit_data::{
    CropRecipe,
    shard::{
        EncodedBatch, Encoding, EncodingPrecision, Flips, FolderWriter, Settings, ShardBuffer, SourceIdentity, Store,
        VaeIdentity,
    },
};
use dit_recipe::Recipe;
use dit_train::{
    EvaluationReport, Event, NonFiniteReport, Observer, ObserverError, Outcome, Remedy, Run, StepReport, StopRequest,
    TrainError, ValidationReport, WindowReport,
};
use tch::Device;

pub const RECORDS: u64 = 96;
/// C · h · w: 4 channels of 4 × 4.
const LATENT: usize = 64;
/// What raw latents are multiplied by.
pub const SCALE: f64 = 0.5;

/// A network whose steps take a millisecond, on 21 timesteps.
const RECIPE: &str = "
[model]
hidden = 16
depth = 2
heads = 2
patch = 2
[diffusion]
steps = 21
[train]
steps = 12
batch_size = 8
log_every = 1
checkpoint_every = 100
[optim]
lr = 1e-3
[ema]
decays = [0.5]
";

/// How the latents of a record come about.
#[derive(Debug, Clone, Copy)]
pub enum Latents {
    /// Smooth values that differ by record, class and mirror image.
    Varied,
    /// Means of 2, in mirror images of 4, and no variance to speak of.
    Constant,
    /// As varied, but the posterior of this record has a deviation of e^100.
    Overflowing(u64),
}

impl Latents {
    fn moments(self, record: u64, flip: usize) -> Vec<f32> {
        let mean = |place: usize| match self {
            Self::Constant => 2.0 + 2.0 * flip as f32,
            Self::Varied | Self::Overflowing(_) => {
                2.0 * ((record % 3) as f32 + record as f32 * 0.7 + place as f32 * 0.3 + flip as f32).sin()
            }
        };
        let logvar = match self {
            Self::Constant => -60.0,
            Self::Overflowing(bad) if bad == record => 200.0,
            Self::Varied | Self::Overflowing(_) => -3.0,
        };
        (0..LATENT).map(mean).chain(std::iter::repeat_n(logvar, LATENT)).collect()
    }

    /// Writes them, in three classes.
    pub fn write(self, folder: &Path) -> PathBuf {
        let spec = VaeSpec { block_out_channels: vec![32, 32], scaling_factor: SCALE, ..VaeSpec::default() };
        let settings = Settings {
            image_size: 8,
            crop: CropRecipe::Pad,
            flips: Flips::Both,
            store: Store::F32,
            shard_size: 40,
            vae: VaeIdentity { name: "none".to_owned(), sha256: "0".repeat(64), config: VaeConfig::new(spec).unwrap() },
            source: SourceIdentity { fingerprint: format!("{self:?}"), records: RECORDS },
            encoding: Encoding {
                device: "cpu".to_owned(),
                precision: EncodingPrecision::Fp32,
                threads: 1,
                batch_size: 10,
            },
        };
        let path = folder.join(format!("latents-{self:?}"));
        fs::create_dir_all(&path).unwrap();
        let layout = settings.layout().unwrap();
        let mut writer = FolderWriter::open(&path, settings, ["a", "b", "c"].map(str::to_owned).to_vec()).unwrap();
        for plan in writer.missing() {
            let mut shard = ShardBuffer::new(plan.index, plan.first, layout);
            let records = plan.first..plan.first + plan.covered;
            let keys = records.clone().map(|record| record.to_string()).collect();
            let labels = records.clone().map(|record| (record % 3) as i64).collect();
            let values: Vec<f32> = records
                .flat_map(|record| [0, 1].into_iter().flat_map(move |flip| self.moments(record, flip)))
                .collect();
            shard.push(EncodedBatch::new(&layout, plan.first, keys, labels, Vec::new(), &values).unwrap());
            writer.commit(shard).unwrap();
        }
        writer.finish().unwrap();
        path
    }
}

/// The small recipe with these keys.
#[track_caller]
pub fn recipe(keys: &[&str]) -> Recipe {
    let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    Recipe::from_toml(RECIPE, &keys).unwrap_or_else(|error| panic!("{error}"))
}

/// A place for runs.
pub struct Place {
    pub folder: tempfile::TempDir,
    pub latents: PathBuf,
}

impl Place {
    pub fn new(latents: Latents) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let latents = latents.write(folder.path());
        Self { folder, latents }
    }

    pub fn run_folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn start(&self, recipe: &Recipe, name: &str) -> Result<Run, TrainError> {
        Run::start(recipe, &self.latents, &self.run_folder(name), Device::Cpu)
    }

    pub fn resume(&self, recipe: &Recipe, name: &str) -> Result<Run, TrainError> {
        Run::resume(recipe, &self.latents, &self.run_folder(name), Device::Cpu)
    }

    /// A whole run.
    #[track_caller]
    pub fn train(&self, recipe: &Recipe, name: &str) -> Seen {
        let mut seen = Seen::default();
        let outcome = self.start(recipe, name).unwrap().train(&mut seen, &StopRequest::new()).unwrap();
        assert!(matches!(outcome, Outcome::Finished { .. }));
        seen
    }

    /// The files of a checkpoint by name.
    pub fn checkpoint(&self, name: &str, step: u64) -> BTreeMap<String, Vec<u8>> {
        let folder = self.run_folder(name).join(format!("checkpoints/step-{step:08}"));
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let file = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
        entries.map(|entry| file(entry.unwrap())).collect()
    }
}

/// Everything that was told.
#[derive(Debug, Default)]
pub struct Seen {
    pub steps: Vec<StepReport>,
    pub windows: Vec<WindowReport>,
    pub validations: Vec<ValidationReport>,
    pub written: Vec<u64>,
    pub failed: Vec<(u64, bool)>,
    pub non_finite: Vec<(NonFiniteReport, Remedy)>,
    pub lagging: Vec<f64>,
    pub samples: Vec<u64>,
    pub evaluations: Vec<u64>,
    /// Asked to stop when the run waits for its disk.
    pub stop_waiting: Option<StopRequest>,
}

impl Observer for Seen {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Step(report) => self.steps.push(**report),
            Event::Window(report) => self.windows.push((*report).clone()),
            Event::Validation(report) => self.validations.push((*report).clone()),
            Event::Evaluation(report) => self.evaluations.push(report.step),
            Event::CheckpointWritten { step, .. } => self.written.push(*step),
            Event::CheckpointFailed { step, error, newest } => {
                assert_eq!(*newest, self.written.last().copied());
                self.failed.push((*step, error.is_disk_full()));
            }
            Event::NonFinite { report, remedy } => self.non_finite.push(((*report).clone(), *remedy)),
            Event::WaitingForRoom { .. } => self.stop_waiting.iter().for_each(StopRequest::request),
            Event::EmaLags(lag) => self.lagging.push(lag.decay),
            Event::SamplesDue { step, ema, .. } => {
                assert!(!ema.pos_embed().requires_grad());
                self.samples.push(*step);
            }
            _ => {}
        }
        Ok(())
    }
}

/// FID of nothing.
pub fn evaluation(step: u64) -> EvaluationReport {
    EvaluationReport {
        step,
        samples: 50,
        features: "f".to_owned(),
        cfg_scale: 1.0,
        fid: 2.0,
        interval: [1.0, 3.0],
        time: Duration::ZERO,
    }
}
