//! `dit-cli train`.

mod about;
mod cost;
mod ending;
mod evaluation;
mod screen;
mod settings;

use std::{fs, io, path::Path, rc::Rc};

use anyhow::{Context, Result, anyhow, bail};
use dit_args::TrainArgs;
use dit_catalog::Kind;
use dit_config::{DitConfig, LatentSize, StandardModel};
use dit_data::shard::{LatentFolder, Manifest};
use dit_files::{WriteError, remove_unfinished, write_atomically};
use dit_recipe::{DataShape, Every, HeldOut, Precision, Recipe};
use dit_train::{
    Outcome, Run, StopRequest, TrainError, refuse_changes,
    watch::{FidChart, JsonLog, LossChart, SampleGrids, Session, TensorBoard, Together, expected_loss},
};
use dit_vae::AutoencoderKl;
use dit_weights::VaeCheckpoint;
use serde::Serialize;
use tch::Device;

use self::{
    cost::Costs,
    ending::{CurrentStage, Stage},
    evaluation::Asked,
    screen::Screen,
    settings::Settings,
};
use crate::{
    commands::evaluate::input,
    interrupt, machine,
    open::Library,
    panic,
    speak::{print_json, print_out, say},
    usage::{Usage, wrong_usage},
};

/// The recipe's name in the run's folder.
const RECIPE: &str = "recipe.toml";

/// What helps a run that memory did not suffice for.
const MEMORY_HELP: &str = "once a step was taken, the last whole one is kept: continue with --resume when more memory is free; or begin again with --set \
    train.accumulate=2 (or more), or --set train.checkpoint_activations=true";

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    out: String,
    finished: bool,
    step: u64,
    steps_now: u64,
    checkpoint: String,
    loss: Option<f64>,
    images_per_second: f64,
    seconds_total: f64,
    peak_rss_bytes: Option<u64>,
}

pub fn run(args: &TrainArgs) -> Result<()> {
    let recipe = recipe(args)?;
    if args.print_config {
        return print_out(format_args!("{}", recipe.to_toml()));
    }
    let (stop, stage) = (StopRequest::new(), CurrentStage::default());
    if !args.plan {
        stage.listen(&stop)?;
    }
    let settings = Settings::of(args);
    let data = data(&settings)?;
    let config = recipe.model_config(shape(&data))?;
    // Before anything that takes time.
    match (&args.out, args.plan) {
        (Some(out), false) if args.resume => {
            Run::check_begun(out)?;
            Run::check_recipe(&recipe, out)?;
        }
        (Some(out), false) => check_folder(out)?,
        _ => {}
    }
    let device = settings.open_device()?;
    if recipe.train.precision == Precision::Tf32 && !device.is_cuda() {
        wrong_usage!("train.precision is tf32, which only CUDA devices have; fp32 and bf16 work everywhere");
    }
    let threads = settings.set_threads()?;
    panic::help_for_memory(MEMORY_HELP);
    let (codec, records) = (&data.manifest().settings.vae.config, data.len());
    let classes = data.manifest().class_names.len();
    let ignore_memory = settings.ignore_memory;
    cost::say_plan(&recipe, &Costs { config: &config, codec, records, classes, device, ignore_memory })?;
    let (Some(out), false) = (&args.out, args.plan) else { return Ok(()) };
    let (vae, vae_name) = match (recipe.samples.every, recipe.eval.every) {
        (Every::Never, Every::Never) => (None, settings.vae),
        _ => {
            let (vae, name) = vae_of(settings.vae.as_deref(), data.manifest(), device)?;
            (Some(Rc::new(vae)), Some(name))
        }
    };
    let asked = Asked::open(&recipe, data.manifest(), device)?;
    let session = Session { vae: vae_name, ignore_memory, ..about::session(&data, device, threads)? };
    Job { args, recipe: &recipe, config: &config, data: &data, out, device, stop, stage }.train(session, vae, asked)
}

/// Whether a run can begin there. A run's folder explains itself: one that is something else's is refused, files in it (a log of the
/// shell's, say) are told about.
fn check_folder(out: &Path) -> Result<()> {
    Run::check_new(out)?;
    // One that is not there is made; a file in its place is an error of making it.
    let Ok(entries) = out.read_dir() else { return Ok(()) };
    let names = |entry: fs::DirEntry| (entry.file_name().to_string_lossy().into_owned(), entry.path().is_dir());
    let mut found: Vec<(String, bool)> = entries.flatten().map(names).collect();
    if found.iter().any(|(name, _)| name == "sessions.jsonl") {
        return Ok(());
    }
    // What a start that failed leaves, hidden files, and what a disk of its own has.
    found.retain(|(name, _)| name != "checkpoints" && name != "lost+found" && !name.starts_with('.'));
    found.sort();
    let Some((first, _)) = found.first() else { return Ok(()) };
    let (out, more) = (
        out.display(),
        match found.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        },
    );
    match found.iter().find(|(_, is_folder)| *is_folder) {
        Some((folder, _)) => bail!(
            "{out} is no run's folder: it holds {folder}/{more}\n  \
             help: choose another --out; a folder that is not there is made"
        ),
        None => {
            say(format_args!("warning: {out} holds {first}{more}, which is no run's; the run's files come beside it"));
            Ok(())
        }
    }
}

/// The recipe: as named, else that of the run that continues, else the original's; with what --set says.
fn recipe(args: &TrainArgs) -> Result<Recipe> {
    let path = match (&args.config, &args.out) {
        (Some(config), _) => Some(config.clone()),
        (None, Some(out)) if args.resume => {
            Run::check_begun(out)?;
            Some(out.join(RECIPE))
        }
        (None, _) => None,
    };
    let recipe = match path {
        None => Recipe::from_toml("", &args.overrides)?,
        Some(path) => {
            let text = fs::read_to_string(&path).map_err(|error| not_read(&path, error))?;
            let recipe = Recipe::from_toml(&text, &args.overrides);
            if let (Err(_), true, Some(out)) = (&recipe, args.resume, &args.out) {
                check_changes(&text, &args.overrides, out)?;
            }
            recipe.map_err(|error| match error.is_of_overrides() {
                true => error.into(),
                false => anyhow::Error::new(error).context(path.display().to_string()),
            })?
        }
    };
    Ok(recipe.with(|sections| {
        // As seen from anywhere: the run may be continued from another folder.
        let absolute = |path: &mut String| {
            if let Ok(found) = Path::new(path).canonicalize() {
                *path = found.display().to_string();
            }
        };
        if let HeldOut::Folder(folder) = &mut sections.validation.held_out {
            absolute(folder);
        }
        sections.eval.reference.iter_mut().for_each(absolute);
        sections.eval.features = input::from_anywhere(&sections.eval.features);
    })?)
}

/// Why a recipe cannot be read: it may be a model's name.
fn not_read(path: &Path, error: io::Error) -> anyhow::Error {
    let name = path.to_string_lossy();
    match name.parse::<StandardModel>() {
        Ok(model) => Usage(format!(
            "--config takes a recipe's file, and {name} is the name of a model\n  \
             help: pass --config configs/{}.toml, or --set model.name={model} without --config",
            model.to_string().to_lowercase().replace('/', "-")
        ))
        .into(),
        Err(_) => anyhow::Error::new(error).context(format!("cannot read the recipe {name}")),
    }
}

/// That a text which is no recipe does not change what may not change in the run: no mending of it would help then.
fn check_changes(text: &str, overrides: &[String], out: &Path) -> Result<()> {
    // A run without a recipe that can be read explains itself when it is opened.
    let begun = fs::read_to_string(out.join(RECIPE)).ok().and_then(|text| Recipe::from_toml(&text, &[]).ok());
    let Some(Ok(changes)) = begun.map(|begun| begun.changes(text, overrides)) else { return Ok(()) };
    // The folder of held-out latents may have moved, which the run itself can tell.
    Ok(refuse_changes(out, changes.into_iter().filter(|change| change.key != "validation.held_out"))?)
}

/// The latents: as named, else those of the run that continues.
fn data(settings: &Settings) -> Result<LatentFolder> {
    let Some(path) = &settings.data else {
        wrong_usage!(
            "--data is missing: the folder of latents to train on\n  \
             help: make one with `dit-cli precompute-latents --data PICTURES --out LATENTS`"
        )
    };
    Ok(LatentFolder::open(path)?)
}

fn shape(data: &LatentFolder) -> DataShape {
    let layout = data.layout();
    DataShape {
        latent: LatentSize::square(layout.side()),
        channels: layout.channels(),
        num_classes: data.manifest().class_names.len(),
    }
}

/// The codec that decodes pictures, the one that made the latents, and the name by which it is found from anywhere.
fn vae_of(named: Option<&str>, manifest: &Manifest, device: Device) -> Result<(AutoencoderKl, String)> {
    let made_by = &manifest.settings.vae;
    let name = named.unwrap_or(&made_by.name);
    let help = "pass --vae, or --set samples.every=never and eval.every=never to train without pictures";
    let located = Library::discover()?
        .locate(name, Kind::Vae)
        .with_context(|| format!("the codec of the latents is needed for pictures; {help}"))?;
    let checkpoint = VaeCheckpoint::open(&located.path)?;
    if checkpoint.sha256()? != made_by.sha256 {
        bail!("{name} is not the codec that made these latents (another SHA-256)\n  help: {help}");
    }
    Ok((AutoencoderKl::load(&checkpoint, device, tch::Kind::Float)?, located.name))
}

/// What everything below needs.
struct Job<'a> {
    args: &'a TrainArgs,
    recipe: &'a Recipe,
    config: &'a DitConfig,
    data: &'a LatentFolder,
    out: &'a Path,
    device: Device,
    stop: StopRequest,
    stage: CurrentStage,
}

impl Job<'_> {
    fn train(&self, session: Session, vae: Option<Rc<AutoencoderKl>>, asked: Option<Asked<'_>>) -> Result<()> {
        let Self { args, recipe, data, out, device, .. } = *self;
        let mut run = match args.resume {
            true => Run::resume(recipe, data.path(), out, device).map_err(not_resumed)?,
            false => Run::start(recipe, data.path(), out, device)?,
        };
        let begun = run.step();
        // From here on the folder is a run's: whatever ends the next hours, the same command continues.
        let session = Session { from_step: begun, ..session };
        session.append(out).with_context(|| format!("cannot write into {}", out.display()))?;
        let _ = remove_unfinished(&out.join(RECIPE)); // what cannot be removed is a hidden file beside it
        write_atomically(&out.join(RECIPE), recipe.to_toml().as_bytes())?;
        if let (Some(vae), Some(asked)) = (&vae, asked) {
            run.evaluate_with(Box::new(asked.prepare(vae.clone(), out)?));
        }
        match begun {
            0 => say(format_args!("training in {}", out.display())),
            step => say(format_args!("continuing {} from step {step}", out.display())),
        }

        let mut screen = Screen::new(self.stage.clone());
        let mut observers = self.observers(vae, &mut screen)?;
        self.stage.set(Stage::Training);
        let outcome = run.train(&mut observers, &self.stop);
        drop(observers);
        screen.finish();
        match outcome {
            Ok(outcome) => self.report(&outcome, &screen),
            Err(error) if error.is_disk_full() => bail!("{error}\n  help: {}", self.where_there_is_room(&run)),
            Err(error) => Err(error.into()),
        }
    }

    fn observers<'b>(&self, vae: Option<Rc<AutoencoderKl>>, screen: &'b mut Screen) -> Result<Together<'b>> {
        let Self { recipe, config, out, .. } = *self;
        let together = Together::new().and(JsonLog::new(out)).and(LossChart::new(
            out,
            format!("{config}: training"),
            expected_loss(recipe, config),
        ));
        let together = match (vae, recipe.samples.every) {
            (Some(vae), Every::Steps(_)) => together.and(SampleGrids::new(out, recipe, vae)?),
            _ => together,
        };
        let together = match recipe.eval.every {
            Every::Steps(_) => together.and(FidChart::new(out, format!("{config}: FID of few samples"))),
            Every::Never => together,
        };
        Ok(together.and(TensorBoard::new(out)).and(screen))
    }

    /// What to do once there is room for checkpoints.
    fn where_there_is_room(&self, run: &Run) -> String {
        let (program, out) = (program(), self.out.display());
        match run.newest_checkpoint() {
            Some(newest) => {
                format!("make room, and continue from {} with {program} train --out {out} --resume", newest.display())
            }
            None => format!(
                "make room, and begin again: no checkpoint could be written, so that the {} steps taken cannot be continued",
                run.step()
            ),
        }
    }

    /// Says how it ended, and what to do next. An interrupted run ends the process with the code of one.
    fn report(&self, outcome: &Outcome, screen: &Screen) -> Result<()> {
        let Self { args, recipe, out, .. } = *self;
        let (finished, step, checkpoint) = match outcome {
            Outcome::Finished { step, checkpoint } => (true, *step, checkpoint),
            Outcome::Stopped { step, checkpoint } => (false, *step, checkpoint),
        };
        let (steps, time) = screen.progress(step);
        let seconds = time.as_secs_f64();
        say(format_args!("{} steps taken, {} of them now, in {}", step, steps, screen::duration(seconds)));
        match screen.last_window() {
            Some((1, losses)) => say(format_args!("{} in the last step", screen::losses(&losses))),
            Some((steps, losses)) => say(format_args!("{} over the last {steps} steps", screen::losses(&losses))),
            None => {}
        }
        say(format_args!("checkpoint: {}", checkpoint.display()));
        let (program, out) = (program(), out.display());
        if finished {
            let ema = recipe.ema.decays.first().copied().unwrap_or_default();
            let weights =
                if screen.lags(ema) { "model.safetensors".to_owned() } else { format!("ema-{ema}.safetensors") };
            let model = checkpoint.join(weights);
            say(format_args!("next: {program} sample --ckpt {}", model.display()));
        } else {
            say(format_args!("next: {program} train --out {out} --resume"));
        }
        if args.json {
            print_json(&Summary {
                out: out.to_string(),
                finished,
                step,
                steps_now: steps,
                checkpoint: checkpoint.display().to_string(),
                loss: screen.last_window().map(|(_, losses)| losses.total),
                images_per_second: (steps * recipe.train.batch_size as u64) as f64 / seconds.max(1e-9),
                seconds_total: seconds,
                peak_rss_bytes: machine::peak_rss_bytes(),
            })?;
        }
        if !finished {
            interrupt::exit_now(interrupt::EXIT_CODE);
        }
        Ok(())
    }
}

/// A run continues where it is: no other place helps one whose folder may not be written to.
fn not_resumed(error: TrainError) -> anyhow::Error {
    let denied = |kind| matches!(kind, io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
    let file = match &error {
        TrainError::Io { path, source, .. } if denied(source.kind()) => path,
        TrainError::Write(WriteError::Denied { path }) => path,
        _ => return error.into(),
    };
    anyhow!(
        "{} cannot be written to: permission denied, or the file system is read-only\n  \
         help: a run continues in its own folder: change its permissions, or continue a copy of all of it elsewhere",
        file.display()
    )
}

/// How this program was called.
fn program() -> String {
    std::env::args_os().next().map_or("dit-cli".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: TrainError, expected: &str, not: &str) {
        let text = not_resumed(error).to_string();
        assert!(text.contains(expected) && !text.contains(not), "{text}");
    }

    #[test]
    fn a_run_that_may_not_be_written_to_is_not_sent_elsewhere() {
        let denied = || io::ErrorKind::PermissionDenied.into();
        let path = || "run/.lock".into();
        let (help, not) = ("run/.lock cannot be written to: permission denied", "choose another place");
        check(TrainError::Io { action: "lock", path: path(), source: denied() }, help, not);
        check(TrainError::Write(WriteError::new(Path::new("run/.lock"), denied())), help, not);
        check(TrainError::Locked { path: path() }, "run/.lock", "permission denied");
    }
}
