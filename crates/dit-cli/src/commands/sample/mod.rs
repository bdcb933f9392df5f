//! `dit-cli sample`.

mod request;
mod summary;

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use dit_classes::ClassNames;
use dit_diffusion::{Noise, ReplayedNoise, SeededNoise};
use dit_model::Dit;
use dit_sample::{Outputs, Pipeline, Plan, Provenance, Source, batch_size_that_fits};
use dit_vae::AutoencoderKl;
use dit_weights::{Checkpoint, SafetensorsFile, TensorSource, VaeCheckpoint, sha256_of, to_tensor};

use self::{request::Request, summary::Summary};
use crate::{
    args::SampleArgs,
    interrupt::OnInterrupt,
    machine,
    open::{Library, Located, told},
    progress::StepBar,
};

/// Who writes the files.
const SOFTWARE: &str = concat!("dit-rs ", env!("CARGO_PKG_VERSION"));

pub fn run(args: &SampleArgs) -> Result<()> {
    let start = Instant::now();
    let interrupt = OnInterrupt::install()?;
    let request = Request::from_args(args)?;
    let device = machine::parse_device(&request.device)?;
    let threads = machine::set_threads(request.threads)?;
    let library = Library::discover()?;

    let dit_at = match &request.checkpoint {
        Some(text) => library.locate(text, dit_catalog::Kind::Dit)?,
        None => library.default_checkpoint()?,
    };
    let options = told(dit_at.options.clone(), request.opened_as.model.as_deref(), request.opened_as.num_heads)?;
    let checkpoint = Checkpoint::open(&dit_at.path, &options)?;
    let config = checkpoint.config().clone();
    eprintln!("checkpoint: {} ({config}, {})", dit_at.name, dit_at.path.display());
    request.check_image_size(&config)?;
    let vae = locate_vae(&library, &request, &dit_at)?
        .map(|at| Ok::<_, anyhow::Error>((VaeCheckpoint::open(&at.path)?, at)))
        .transpose()?;

    let names = ClassNames::of_checkpoint(checkpoint.class_names(), config.num_classes)?;
    let classes = request.classes(&names)?;
    let settings = request.settings(&config)?;
    let guided = settings.cfg_scale != 1.0;
    let batch_size = request
        .batch_size
        .unwrap_or_else(|| batch_size_that_fits(&config, settings.precision, guided, machine::available_memory()));
    let plan = Plan::new(&config, settings.clone(), request.first_image, classes, batch_size)?;
    let (noise, noise_source) = open_noise(&request)?;

    let provenance = Provenance {
        software: SOFTWARE.to_owned(),
        checkpoint: Source { name: dit_at.name.clone(), sha256: checkpoint.sha256()?.to_owned() },
        opened_as: request.opened_as.clone(),
        vae: match &vae {
            Some((vae, at)) => Some(Source { name: at.name.clone(), sha256: vae.sha256()?.to_owned() }),
            None => None,
        },
        settings: settings.clone(),
        noise: noise_source,
        device: machine::device_name(device),
        threads,
        batch_size,
    };
    request.check_sources(&provenance)?;

    let kind = settings.precision.kind();
    let vae = match vae {
        Some((vae, _)) => Some(AutoencoderKl::load(&vae, device, kind)?),
        None => None,
    };
    let pipeline = Pipeline::new(Dit::load(&checkpoint, device, kind)?, vae)?;
    let seconds_load = start.elapsed().as_secs_f64();

    let labels: BTreeMap<u32, String> =
        plan.classes().iter().filter_map(|&class| Some((class, names.name(class)?.to_owned()))).collect();
    let outputs = Outputs::create(
        request.outputs.clone(),
        &plan,
        pipeline.picture_size(),
        provenance.clone(),
        labels,
        request.shows,
    )?;
    let outputs = Arc::new(Mutex::new(outputs));
    let on_signal = Arc::clone(&outputs);
    interrupt.set(move || keep_finished(&on_signal));

    let bar = StepBar::new();
    let result = run_plan(&pipeline, &plan, &*noise, &outputs, &bar);
    bar.finish();
    interrupt.clear();
    let timings = match result {
        Ok(timings) => timings,
        Err(error) => {
            keep_finished(&outputs);
            return Err(error.into());
        }
    };
    let written = outputs.lock().unwrap_or_else(PoisonError::into_inner).finish()?;
    for path in &written[..written.len().min(8)] {
        eprintln!("wrote {}", path.display());
    }
    if written.len() > 8 {
        eprintln!("wrote {} files in all", written.len());
    }
    if args.json {
        let summary =
            Summary::new(&provenance, &plan, &config, &timings, seconds_load, start.elapsed().as_secs_f64(), &written);
        println!("{}", serde_json::to_string_pretty(&summary)?);
    }
    Ok(())
}

fn run_plan(
    pipeline: &Pipeline,
    plan: &Plan,
    noise: &dyn Noise,
    outputs: &Mutex<Outputs>,
    bar: &StepBar,
) -> Result<dit_sample::Timings, dit_sample::Error> {
    dit_sample::run(pipeline, plan, noise, outputs, &mut |progress| {
        bar.show(progress);
        ControlFlow::Continue(())
    })
}

/// Completes the outputs with what is finished, when the rest will not come.
fn keep_finished(outputs: &Mutex<Outputs>) {
    let result = outputs.lock().unwrap_or_else(PoisonError::into_inner).finish_early();
    match result {
        Ok(written) if written.is_empty() => eprintln!("\nstopped; no image was finished"),
        Ok(written) => eprintln!("\nstopped; finished images are kept in {}", written[0].display()),
        Err(error) => eprintln!("\nstopped; finished images could not be kept: {error}"),
    }
}

fn locate_vae(library: &Library, request: &Request, dit: &Located) -> Result<Option<Located>> {
    match (request.vae.as_deref(), &dit.pairs_with) {
        (Some("none"), _) => Ok(None),
        (Some(text), _) => Ok(Some(library.locate(text, dit_catalog::Kind::Vae)?)),
        (None, Some(name)) => Ok(Some(library.locate(name, dit_catalog::Kind::Vae)?)),
        (None, None) => match beside(&dit.path) {
            Some(path) => Ok(Some(library.locate(&path, dit_catalog::Kind::Vae)?)),
            None => bail!(
                "which VAE decodes {}?\n  help: pass --vae with its folder, file or name, or --vae none with --latents",
                dit.name
            ),
        },
    }
}

/// The codec of a diffusers pipeline folder: `vae/` in it, or beside its `transformer/`.
fn beside(dit: &Path) -> Option<String> {
    let folders = [Some(dit), dit.parent()];
    let vae =
        folders.into_iter().flatten().map(|folder| folder.join("vae")).find(|vae| vae.join("config.json").is_file())?;
    vae.to_str().map(str::to_owned)
}

/// The seeded noise, or the recorded one and what file it was.
fn open_noise(request: &Request) -> Result<(Box<dyn Noise>, Option<Source>)> {
    let Some(path) = &request.noise else {
        return Ok((Box::new(SeededNoise::new(request.seed)), None));
    };
    let file = SafetensorsFile::open(path)?;
    let context = || format!("--noise {}", path.display());
    if !file.infos().contains_key("z") {
        bail!("{}: it has no tensor `z` (N, C, H, W)", context());
    }
    let mut noise = ReplayedNoise::new(&to_tensor(&file, "z").with_context(context)?)?;
    if file.infos().contains_key("steps") {
        noise = noise.with_steps(&to_tensor(&file, "steps").with_context(context)?)?;
    }
    let source = Source { name: path.display().to_string(), sha256: sha256_of(&[path])? };
    Ok((Box::new(noise), Some(source)))
}
