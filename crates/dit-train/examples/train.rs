//! Trains a small network: `train [LATENTS RUN [RECIPE [resume]]]`. Without arguments on made-up latents, in a temporary folder.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
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
use dit_train::{Event, Observer, ObserverError, Run, StopRequest};
use tch::Device;

const RECIPE: &str = "
[model]
hidden = 64
depth = 2
heads = 2
patch = 2
[train]
steps = 100
batch_size = 32
log_every = 20
[ema]
decays = [0.9]
";

struct Printer;

impl Observer for Printer {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Window(report) => {
                let (loss, rate) = (report.losses.total, report.images_per_second);
                println!("step {:5}  loss {loss:.4}  {rate:.1} images/s", report.step);
            }
            Event::CheckpointWritten { path, .. } => println!("wrote {}", path.display()),
            Event::NonFinite { report, remedy } => println!("{report}: {remedy:?}"),
            Event::CheckpointFailed { error, .. } => println!("{error}"),
            _ => {}
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let temporary = tempfile::tempdir()?;
    let (latents, folder) = match arguments.as_slice() {
        [latents, folder, ..] => (PathBuf::from(latents), PathBuf::from(folder)),
        _ => (made_up_latents(&temporary.path().join("latents"))?, temporary.path().join("run")),
    };
    let text = arguments.get(2).map_or_else(|| Ok(RECIPE.to_owned()), fs::read_to_string)?;
    let recipe = Recipe::from_toml(&text, &[])?;
    let mut run = match arguments.get(3) {
        Some(_) => Run::resume(&recipe, &latents, &folder, Device::Cpu)?,
        None => Run::start(&recipe, &latents, &folder, Device::Cpu)?,
    };
    println!("{:?}", run.train(&mut Printer, &StopRequest::new())?);
    Ok(())
}

/// 256 latents of 8 × 8, smooth and different in each of two classes.
fn made_up_latents(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    const RECORDS: u64 = 256;
    fs::create_dir_all(folder)?;
    let config = VaeConfig::new(VaeSpec::default())?;
    let settings = Settings {
        image_size: 64,
        crop: CropRecipe::Adm,
        flips: Flips::Both,
        store: Store::F16,
        shard_size: RECORDS as usize,
        vae: VaeIdentity { name: "none".to_owned(), sha256: "0".repeat(64), config },
        source: SourceIdentity { fingerprint: "made up".to_owned(), records: RECORDS },
        encoding: Encoding { device: "cpu".to_owned(), precision: EncodingPrecision::Fp32, threads: 1, batch_size: 32 },
    };
    let layout = settings.layout()?;
    let mut writer = FolderWriter::open(folder, settings, vec!["waves".to_owned(), "steps".to_owned()])?;
    for plan in writer.missing() {
        let records = plan.first..plan.first + plan.covered;
        let mut shard = ShardBuffer::new(plan.index, plan.first, layout);
        let keys = records.clone().map(|record| record.to_string()).collect();
        let labels = records.clone().map(|record| (record % 2) as i64).collect();
        let values: Vec<f32> =
            records.flat_map(|record| [0, 1].into_iter().flat_map(move |flip| moments(record, flip))).collect();
        shard.push(EncodedBatch::new(&layout, plan.first, keys, labels, Vec::new(), &values)?);
        writer.commit(shard)?;
    }
    writer.finish()?;
    Ok(folder.to_owned())
}

/// Means and log-variances (8, 8, 8) of a record or its mirror image.
fn moments(record: u64, flip: usize) -> Vec<f32> {
    let mean = |place: usize| {
        let column = if flip == 1 { 7 - place % 8 } else { place % 8 };
        let wave = (column as f32 + record as f32).sin() * 6.0;
        if record.is_multiple_of(2) { wave } else { 6.0 * wave.signum() }
    };
    (0..256).map(mean).chain(std::iter::repeat_n(-8.0, 256)).collect()
}
