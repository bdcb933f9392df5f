//! Optimiser steps of a real run of `dit-train`: its data feed, its averages, its guardian. The run's observer is where the
//! questions are answered, so that training waits between two of them.

use std::{
    io::{BufRead, Lines, StdinLock},
    path::Path,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use dit_config::{VaeConfig, VaeSpec};
use dit_data::{
    CropRecipe,
    shard::{
        EncodedBatch, Encoding, EncodingPrecision, Flips, FolderWriter, Settings, ShardBuffer, SourceIdentity, Store,
        VaeIdentity,
    },
};
use dit_recipe::Recipe;
use dit_train::{Event, Observer, ObserverError, Run, StopRequest, TrainError};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::Precision;
use crate::case::{Case, TrainTask};
use crate::serve::{Question, peak_rss_bytes, rate_of, say, write_values};

/// Steps before the first question, as the peers take them.
const WARM_UP: u64 = 2;
/// Losses that are compared: of the first weights, and after an update or two.
const COMPARED: usize = 3;

/// Trains until stdin ends.
pub fn serve(case: &Case, task: &TrainTask, device: Device, precision: Precision) -> Result<()> {
    let precision = match precision {
        Precision::Fp32 => "fp32",
        Precision::Bf16 => "bf16",
        Precision::Int8 => bail!("int8 is for sampling"),
    };
    let start = Instant::now();
    let recipe = format!(
        "[model]\nname = \"{}\"\n[train]\nsteps = 1000000000\nbatch_size = {}\nprecision = \"{precision}\"\n\
         checkpoint_every = 1000000000\nlog_every = 1000000000\n",
        task.name, task.batch
    );
    let recipe = Recipe::from_toml(&recipe, &[])?;
    let folder = case.input.with_extension(format!("{}.run", std::process::id()));
    let mut run = Run::start(&recipe, &task.latents, &folder, device)?;
    let flop = 3.0 * 2.0 * run.config().macs() as f64 * task.batch as f64;
    let mut server = Server {
        questions: std::io::stdin().lock().lines(),
        device,
        begun: start,
        loaded: start.elapsed().as_secs_f64(),
        flop,
        asked: None,
        losses: Vec::new(),
    };
    let outcome = run.train(&mut server, &StopRequest::new());
    drop(run);
    let _ = std::fs::remove_dir_all(&folder); // a leftover harms nobody
    match outcome {
        Err(TrainError::Observer(error)) if error.is::<EndOfQuestions>() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("the run took all its steps"),
    }
}

/// How an end of stdin ends the run: at once, without a checkpoint.
#[derive(Debug)]
struct EndOfQuestions;

impl std::fmt::Display for EndOfQuestions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no more questions")
    }
}

impl std::error::Error for EndOfQuestions {}

struct Server {
    questions: Lines<StdinLock<'static>>,
    device: Device,
    begun: Instant,
    loaded: f64,
    flop: f64,
    /// When the step that is being taken was asked for.
    asked: Option<Instant>,
    losses: Vec<f32>,
}

impl Observer for Server {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        let Event::Step(report) = event else { return Ok(()) };
        crate::rate::synchronize(self.device);
        self.losses.push(report.losses.total as f32);
        if let Some(asked) = self.asked.take() {
            say(&json!({ "seconds": asked.elapsed().as_secs_f64(), "loss": report.losses.total }))?;
        }
        if report.step < WARM_UP {
            return Ok(());
        }
        if report.step == WARM_UP {
            say(&json!({
                "ready": true,
                "engine": concat!("dit-rs ", env!("CARGO_PKG_VERSION")),
                "seconds_load": self.loaded,
                "seconds_prepare": self.begun.elapsed().as_secs_f64() - self.loaded,
                "flop": self.flop,
            }))?;
        }
        loop {
            let line = self.questions.next().ok_or(EndOfQuestions)??;
            match serde_json::from_str(&line)? {
                Question::Step => {
                    self.asked = Some(Instant::now());
                    return Ok(());
                }
                Question::Output { path } => {
                    let compared = self.losses.get(..COMPARED.min(self.losses.len())).unwrap_or_default();
                    say(&write_values(&path, compared)?)?;
                }
                Question::Rate => say(&rate_of(self.device))?,
                Question::Memory => say(&json!({ "peak_rss_bytes": peak_rss_bytes() }))?,
            }
        }
    }
}

/// A folder of random latents, four batches of them; kept where it is.
pub fn write_latents(folder: &Path, image_size: usize, batch: u32, classes: usize) -> Result<()> {
    let config = VaeConfig::new(VaeSpec::default())?;
    let records = u64::from(batch) * 4;
    let settings = Settings {
        image_size,
        crop: CropRecipe::Adm,
        flips: Flips::Both,
        store: Store::F16,
        shard_size: records as usize,
        vae: VaeIdentity { name: "random".to_owned(), sha256: "0".repeat(64), config },
        source: SourceIdentity { fingerprint: "random latents for a measurement".to_owned(), records },
        encoding: Encoding {
            device: "cpu".to_owned(),
            precision: EncodingPrecision::Fp32,
            threads: 1,
            batch_size: records as usize,
        },
    };
    let layout = settings.layout().map_err(anyhow::Error::msg)?;
    let side = (image_size / settings.vae.config.downsampling()) as i64;
    let channels = settings.vae.config.latent_channels as i64;
    let names = (0..classes).map(|class| class.to_string()).collect();
    let mut writer = FolderWriter::open(folder, settings, names)?;
    for plan in writer.missing() {
        // Means as raw latents of pictures spread, log-variances of a sure encoder.
        let shape = [plan.covered as i64, 2, 1, channels, side, side];
        let means = Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 5.0;
        let moments = Tensor::cat(&[&means, &means.full_like(-15.0)], 2);
        let values = Vec::try_from(&moments.view(-1))?;
        let keys = (0..plan.covered).map(|record| record.to_string()).collect();
        let labels = (0..plan.covered).map(|record| (record as usize * 37 % classes) as i64).collect();
        let mut shard = ShardBuffer::new(plan.index, plan.first, layout);
        shard.push(EncodedBatch::new(&layout, plan.first, keys, labels, Vec::new(), &values)?);
        writer.commit(shard)?;
    }
    if writer.manifest().summary.is_none() {
        writer.finish().context("the latents' folder cannot be finished")?;
    }
    Ok(())
}
