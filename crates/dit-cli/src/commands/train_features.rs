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
use dit_eval::{DemoNotes, FeatureRecipe, GreyPictures, train_demo};

use crate::{machine, speak::say};

pub fn run(args: &TrainFeaturesArgs) -> Result<()> {
    machine::set_threads(args.threads)?;
    let recipe = fs::read_to_string(&args.config).with_context(|| format!("cannot read {}", args.config.display()))?;
    let settings = FeatureRecipe::from_toml(&recipe).with_context(|| args.config.display().to_string())?;
    let test_path = args.test.clone().map_or_else(|| test_beside(&args.data), Ok)?;
    dit_files::ensure_apart(&args.out, &[args.data.as_path(), &test_path, &args.config])?;
    dit_files::ensure_writable(&args.out)?;
    let source = Source::open(&args.data)?;
    let train = GreyPictures::load(&source)?;
    let test = GreyPictures::load(&Source::open(&test_path)?)?;
    say(format_args!("{} pictures to train on, {} to test on", train.len(), test.len()));
    let more = BTreeMap::from([("recipe".to_owned(), recipe), ("data".to_owned(), source.fingerprint())]);
    let notes = DemoNotes { more, ..DemoNotes::default() };
    let start = Instant::now();
    let trained = train_demo(&train, &test, &settings, &args.out, notes, &mut |report| {
        let seconds = start.elapsed().as_secs();
        say(format_args!(
            "epoch {:>3}/{}  loss {:.4}  accuracy {:.2} %  {}:{:02}",
            report.epoch,
            settings.epochs,
            report.loss,
            100.0 * report.accuracy,
            seconds / 60,
            seconds % 60
        ));
    })?;
    let accuracy = 100.0 * trained.test_accuracy().unwrap_or(0.0);
    say(format_args!("{}: {accuracy:.2} % of the test set right, as stored", args.out.display()));
    Ok(())
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
