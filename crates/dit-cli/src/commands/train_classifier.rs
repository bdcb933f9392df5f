//! `dit-cli train-classifier`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use dit_classifier::{Bucket, ClassifierSpec, Training, TrainingOptions, accuracy};
use dit_data::shard::LatentFolder;
use dit_files::ensure_writable;
use serde::Serialize;

use crate::{
    args::TrainClassifierArgs,
    interrupt::OnInterrupt,
    machine,
    progress::bar,
    speak::{print_json, say},
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
    ensure_writable(&args.out)?;
    if args.save_every == 0 {
        bail!("--save-every 0: expected the number of steps between two states on disk");
    }
    let _interrupt = OnInterrupt::install()?; // the state on disk is whole at any time: there is nothing to keep
    let device = machine::parse_device(args.device.as_deref().unwrap_or("auto"))?;
    machine::set_threads(args.threads)?;
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
    train(args, &mut training, &state)?;
    let about = training.about();
    training.classifier().save(&args.out, &about)?;
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

/// All steps that are left, the state written now and then.
fn train(args: &TrainClassifierArgs, training: &mut Training, state: &Path) -> Result<()> {
    let bar = bar("{msg} {wide_bar} step {pos}/{len} {rate} steps/s {eta} left");
    bar.set_length(args.steps);
    let (mut loss, mut right, mut count) = (0.0, 0.0, 0_u64);
    while !training.is_done() {
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
        if report.step.is_multiple_of(args.save_every) || training.is_done() {
            training.save(state)?;
        }
    }
    bar.finish_and_clear();
    Ok(())
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
    let mut name = args.out.file_name().unwrap_or_default().to_owned();
    name.push(".training");
    args.out.with_file_name(name)
}
