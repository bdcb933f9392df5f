//! `dit-cli train-classifier`.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use dit_args::TrainClassifierArgs;
use dit_classifier::{Bucket, ClassifierSpec, Error, Training, TrainingOptions, accuracy};
use dit_data::shard::LatentFolder;
use dit_files::{ensure_apart, ensure_writable};
use dit_train::StopRequest;
use serde::Serialize;

use crate::{
    interrupt, machine,
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

/// A state that could not be written is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(180);
/// Training that has no steps left tries to write what it has as often as this.
const WAIT_AT_THE_END: Duration = Duration::from_secs(10);

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
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
    let stop = StopRequest::new();
    let asked = stop.clone();
    interrupt::ask_first(move || {
        asked.request();
        say(format_args!("\nstopping after this step, with its state on the disk; Ctrl-C once more stops at once"));
    })?;
    let lock = Lock::take(&args.out)?;
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
    let state = state_path(args);
    let mut training = if state.exists() {
        Training::resume(folder, &spec, options, device, &state)?
    } else {
        Training::new(folder, &spec, options, device)?
    };
    let begun_at = training.steps_taken();
    if begun_at > 0 {
        say(format_args!("continues {} at step {begun_at}", state.display()));
    }
    train(args, &mut training, &state, &stop)?;
    if !training.is_done() {
        say(format_args!(
            "{} of {} steps taken; the same command continues from {}",
            training.steps_taken(),
            args.steps,
            state.display()
        ));
        drop(lock);
        interrupt::exit_now(interrupt::EXIT_CODE);
    }
    let about = training.about();
    until_written(&stop, || training.classifier().save(&args.out, &about))?;
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
            out: args.out.clone(),
            parameters: training.classifier().parameters(),
            bytes: fs::metadata(&args.out)?.len(),
            steps: training.steps_taken(),
            steps_now: training.steps_taken() - begun_at,
            seconds: start.elapsed().as_secs_f64(),
            validation: ranges.iter().map(range).collect(),
        })?;
    }
    // Last, so that whatever failed above finds the trained weights again.
    match fs::remove_file(&state) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", state.display()))
        }
        _ => Ok(()),
    }
}

/// Keeps a second process from training the same file: `OUT.lock`, there as long as the training.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(out: &Path) -> Result<Self> {
        let path = beside(out, ".lock");
        let cannot = || format!("cannot lock {}", path.display());
        loop {
            let file = File::options().write(true).create(true).truncate(false).open(&path).with_context(cannot)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => bail!(
                    "another process is training {}\n  help: wait for it to end, or choose another --out",
                    out.display()
                ),
                Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
            }
            // One that has just ended may have taken the file away between the two.
            let inode = file.metadata().with_context(cannot)?.ino();
            if fs::metadata(&path).is_ok_and(|metadata| metadata.ino() == inode) {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still held. One that stays is taken over by the next process.
        let _ = fs::remove_file(&self.path);
    }
}

/// Does `write` until the disk takes it, or `stop` is requested.
fn until_written(stop: &StopRequest, mut write: impl FnMut() -> Result<(), Error>) -> Result<()> {
    let mut told = false;
    loop {
        let error = match write() {
            Err(error) if error.is_refused_file() && !stop.is_requested() => error,
            other => return Ok(other?),
        };
        if !std::mem::replace(&mut told, true) {
            say(format_args!(
                "warning: {error}\n  it is tried again until it can be written: make room; Ctrl-C gives up"
            ));
        }
        let failed = Instant::now();
        while failed.elapsed() < WAIT_AT_THE_END && !stop.is_requested() {
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// All steps that are left, or those until `stop` is requested; the state written now and then, and at the end.
fn train(args: &TrainClassifierArgs, training: &mut Training, state: &Path, stop: &StopRequest) -> Result<()> {
    let bar = bar("{msg} {wide_bar} step {pos}/{len} {rate} steps/s {eta} left");
    bar.set_length(args.steps);
    let (mut loss, mut right, mut count) = (0.0, 0.0, 0_u64);
    let mut again: Option<Instant> = None;
    while !training.is_done() && !stop.is_requested() {
        let report = training.step()?;
        (loss, right, count) = (loss + report.loss, right + report.accuracy, count + 1);
        bar.set_position(report.step);
        if report.step.is_multiple_of(TOLD_EVERY) || training.is_done() {
            let (loss, right) = (loss / count as f64, 100.0 * right / count as f64);
            bar.set_message(format!("loss {loss:.3}"));
            if bar.is_hidden() {
                say(format_args!("step {}: loss {loss:.4}, {right:.1} % right over all noise levels", report.step));
            }
        }
        if report.step.is_multiple_of(TOLD_EVERY) {
            (loss, right, count) = (0.0, 0.0, 0);
        }
        let due = report.step.is_multiple_of(args.save_every) || again.is_some_and(|at| Instant::now() >= at);
        if due && !training.is_done() {
            again = match training.save(state) {
                Ok(()) => None,
                Err(error) if error.is_refused_file() => {
                    bar.suspend(|| say(format_args!("warning: no state of step {}: {error}", report.step)));
                    Some(Instant::now() + RETRY_AFTER)
                }
                Err(error) => return Err(error.into()),
            };
        }
    }
    bar.finish_and_clear();
    until_written(stop, || training.save(state))
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

/// Where the state is until the training is done: `OUT.training` beside the result.
fn state_path(args: &TrainClassifierArgs) -> PathBuf {
    beside(&args.out, ".training")
}

/// `out` with more after its name.
fn beside(out: &Path, more: &str) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(more);
    out.with_file_name(name)
}
