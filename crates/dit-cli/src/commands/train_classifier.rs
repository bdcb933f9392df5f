//! `dit-cli train-classifier`.

use std::{fs, path::Path, time::Instant};

use anyhow::{Result, bail};
use dit_args::TrainClassifierArgs;
use dit_classifier::{Bucket, ClassifierSpec, Error, StepReport, Training, TrainingOptions, accuracy};
use dit_data::shard::LatentFolder;
use dit_files::{ensure_apart, ensure_writable};
use indicatif::ProgressBar;
use serde::Serialize;

use super::resumable::{Fault, Resumable, Session};
use crate::{
    machine,
    progress::bar,
    speak::{print_json, say},
    usage::wrong_usage,
};

/// Equal ranges of timesteps in which the accuracy is told.
const BUCKETS: usize = 5;
/// Latents judged at once.
const JUDGED_AT_ONCE: usize = 500;
/// Losses and accuracies are told as means over so many steps.
const TOLD_EVERY: u64 = 200;

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    out: String,
    parameters: u64,
    bytes: u64,
    steps: u64,
    /// Steps of this run; the others were there already.
    steps_now: u64,
    seconds: f64,
    validation: Vec<Range>,
}

/// A [`Bucket`].
#[derive(Serialize)]
struct Range {
    first_timestep: usize,
    last_timestep: usize,
    accuracy: f64,
}

pub fn run(args: &TrainClassifierArgs) -> Result<()> {
    let start = Instant::now();
    let inputs: Vec<&Path> = std::iter::once(args.data.as_path()).chain(args.validation.as_deref()).collect();
    ensure_apart(&args.out, &inputs)?;
    ensure_writable(&args.out)?;
    if args.save_every == 0 {
        wrong_usage!("--save-every 0: expected the number of steps between two states on disk");
    }
    let session = Session::begin(&args.out)?;
    let device = machine::open_device(args.machine.device.as_deref().unwrap_or("auto"))?;
    machine::set_threads(args.machine.threads)?;
    let folder = LatentFolder::open(&args.data)?;
    let validation = args.validation.as_ref().map(LatentFolder::open).transpose()?;
    let spec = spec(args, &folder);
    if let Some(validation) = &validation {
        let (theirs, ours) = (&validation.manifest().settings.vae, &folder.manifest().settings.vae);
        if theirs.sha256 != ours.sha256 || validation.manifest().class_names != folder.manifest().class_names {
            bail!("--validation {}: it is of another codec, or of other classes", validation.path().display());
        }
    }
    let options = TrainingOptions {
        steps: args.steps,
        batch_size: args.batch_size,
        learning_rate: args.lr,
        weight_decay: args.weight_decay,
        seed: args.seed,
    };
    let mut training = match session.found() {
        Some(state) => Training::resume(folder, &spec, options, device, &state)?,
        None => Training::new(folder, &spec, options, device)?,
    };
    let begun_at = training.steps_taken();
    let bar = bar("{msg} {wide_bar} step {pos}/{len} {rate} steps/s {eta} left");
    bar.set_length(args.steps);
    let mut told = Told { bar: bar.clone(), loss: 0.0, right: 0.0, count: 0 };
    let session =
        session.train(&mut training, args.save_every, &bar, &mut |training, report| told.tell(training, report))?;
    let about = training.about();
    session.until_written(|| training.classifier().save(&args.out, &about))?;
    say(format_args!("wrote {}", args.out.display()));

    let ranges = match validation {
        Some(folder) => accuracy(training.classifier(), folder, BUCKETS, JUDGED_AT_ONCE)?,
        None => Vec::new(),
    };
    for Bucket { first, last, accuracy } in &ranges {
        say(format_args!("timesteps {first:3} to {last:3}: {:.1} % right", 100.0 * accuracy));
    }
    if args.json {
        let range = |bucket: &Bucket| Range {
            first_timestep: bucket.first,
            last_timestep: bucket.last,
            accuracy: bucket.accuracy,
        };
        print_json(&Summary {
            out: args.out.display().to_string(),
            parameters: training.classifier().parameters(),
            bytes: fs::metadata(&args.out)?.len(),
            steps: training.steps_taken(),
            steps_now: training.steps_taken() - begun_at,
            seconds: start.elapsed().as_secs_f64(),
            validation: ranges.iter().map(range).collect(),
        })?;
    }
    // Last, so that whatever failed above finds the trained weights again.
    session.finish()
}

impl Resumable for Training {
    type Report = StepReport;
    type Error = Error;

    fn step(&mut self) -> Result<StepReport, Error> {
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
        self.is_before_the_step()
    }
}

/// Tells losses and accuracies, as means over steps.
struct Told {
    bar: ProgressBar,
    loss: f64,
    right: f64,
    count: u64,
}

impl Told {
    fn tell(&mut self, training: &Training, report: StepReport) {
        (self.loss, self.right, self.count) = (self.loss + report.loss, self.right + report.accuracy, self.count + 1);
        if !report.step.is_multiple_of(TOLD_EVERY) && !training.is_done() {
            return;
        }
        let (loss, right) = (self.loss / self.count as f64, 100.0 * self.right / self.count as f64);
        self.bar.set_message(format!("loss {loss:.3}"));
        if self.bar.is_hidden() {
            say(format_args!("step {}: loss {loss:.4}, {right:.1} % right over all noise levels", report.step));
        }
        (self.loss, self.right, self.count) = (0.0, 0.0, 0);
    }
}

fn spec(args: &TrainClassifierArgs, folder: &LatentFolder) -> ClassifierSpec {
    let layout = folder.layout();
    ClassifierSpec {
        hidden: args.hidden,
        depth: args.depth,
        heads: args.heads,
        patch: args.patch,
        in_channels: layout.channels(),
        latent: [layout.side(), layout.side()],
        num_classes: folder.manifest().class_names.len(),
    }
}
