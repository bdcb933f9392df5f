//! Training of the demo's feature network.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use dit_args::TrainFeaturesArgs;
use dit_data::Source;
use dit_eval::{DemoNotes, EpochReport, Error, FeatureRecipe, FeatureReport, FeatureTraining, GreyPictures};

use super::resumable::{Fault, Resumable, Session};
use crate::{machine, progress::bar, speak::say};

/// Steps between two states on disk: a quarter of a minute.
const SAVE_EVERY: u64 = 100;

pub fn run(args: &TrainFeaturesArgs) -> Result<()> {
    machine::set_threads(args.threads)?;
    let recipe = fs::read_to_string(&args.config).with_context(|| format!("cannot read {}", args.config.display()))?;
    let settings = FeatureRecipe::from_toml(&recipe).with_context(|| args.config.display().to_string())?;
    let test_path = args.test.clone().map_or_else(|| test_beside(&args.data), Ok)?;
    dit_files::ensure_apart(&args.out, &[args.data.as_path(), &test_path, &args.config])?;
    dit_files::ensure_writable(&args.out)?;
    let session = Session::begin(&args.out)?;
    let source = Source::open(&args.data)?;
    let train = GreyPictures::load(&source)?;
    let test = GreyPictures::load(&Source::open(&test_path)?)?;
    say(format_args!("{} pictures to train on, {} to test on", train.len(), test.len()));
    let mut training = match session.found() {
        Some(state) => FeatureTraining::resume(&train, &test, &settings, &state)?,
        None => FeatureTraining::new(&train, &test, &settings)?,
    };
    let start = Instant::now();
    let bar = bar("{wide_bar} step {pos}/{len} {rate} steps/s {eta} left");
    bar.set_length(training.steps());
    let session = session.train(&mut training, SAVE_EVERY, &bar, &mut |_, report| {
        let Some(EpochReport { epoch, loss, accuracy }) = report.epoch else { return };
        let (epochs, right, seconds) = (settings.epochs, 100.0 * accuracy, start.elapsed().as_secs());
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        bar.suspend(|| {
            say(format_args!(
                "epoch {epoch:>3}/{epochs}  loss {loss:.4}  accuracy {right:.2} %  {minutes}:{seconds:02}"
            ));
        });
    })?;
    let more = BTreeMap::from([("recipe".to_owned(), recipe), ("data".to_owned(), source.fingerprint())]);
    let notes = DemoNotes { more, ..DemoNotes::default() };
    let trained = session.until_written(|| training.write(&args.out, notes.clone()))?;
    let accuracy = 100.0 * trained.test_accuracy().unwrap_or(0.0);
    say(format_args!("{}: {accuracy:.2} % of the test set right, as stored", args.out.display()));
    session.finish()
}

impl Resumable for FeatureTraining<'_> {
    type Report = FeatureReport;
    type Error = Error;

    fn step(&mut self) -> Result<FeatureReport, Error> {
        self.step()
    }

    fn save(&self, path: &Path) -> Result<(), Error> {
        self.save(path)
    }

    fn steps_taken(&self) -> u64 {
        self.steps_taken()
    }

    fn is_done(&self) -> bool {
        self.is_done()
    }
}

impl Fault for Error {
    fn is_refused_file(&self) -> bool {
        self.is_refused_file()
    }

    fn changed_nothing(&self) -> bool {
        // Its normalisations have seen the batch.
        false
    }
}

/// The test images of the MNIST family in the folder of the training images.
fn test_beside(data: &Path) -> Result<PathBuf> {
    let folder = if data.is_dir() { data } else { data.parent().unwrap_or(Path::new("")) };
    let names = ["t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz", "t10k-images.idx3-ubyte"];
    match names.into_iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("no {} in {}\n  help: pass --test", names[0], folder.display()),
    }
}
