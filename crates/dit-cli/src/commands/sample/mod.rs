//! `dit-cli sample`.

mod beside;
mod files;
mod hashes;
mod noise;
mod options;
mod repeated;
mod request;
mod said;
mod summary;

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use anyhow::{Result, bail};
use dit_args::{SampleArgs, SamplePrecisionArg};
use dit_classes::ClassNames;
use dit_diffusion::Noise;
use dit_sample::{LateProvenance, Outputs, Pipeline, Plan, Provenance, SharedOutputs, Timings, batch_size_that_fits};

use self::{
    beside::Beside,
    files::Files,
    hashes::{Hashes, unhashed},
    noise::open_noise,
    request::Request,
    said::{say_faster, say_kept, say_replaced, say_translation, say_written},
    summary::Summary,
};
use crate::{
    interrupt::OnInterrupt,
    machine,
    progress::StepBar,
    run_folder,
    speak::{print_json, say},
};

/// Who writes the files.
const SOFTWARE: &str = concat!("dit-rs ", env!("CARGO_PKG_VERSION"));

pub fn run(args: &SampleArgs) -> Result<()> {
    let start = Instant::now();
    let interrupt = OnInterrupt::install()?;
    let request = Arc::new(Request::from_args(args)?);
    let device = machine::open_device(&request.device)?;
    let threads = machine::set_threads(request.threads)?;
    let files = Files::open(&request)?;
    let config = files.checkpoint.config();
    say(format_args!("checkpoint: {} ({config})", files.dit_at.name));
    run_folder::warn_of_lag(&files.checkpoint)?;
    tracing::info!(path = %files.dit_at.path.display(), layout = %files.checkpoint.source_layout(), "transformer");
    if let Some((_, at)) = &files.vae {
        tracing::info!(path = %at.path.display(), "latent codec");
    }

    let downsampling = files.vae.as_ref().map_or(8, |(vae, _)| vae.config().downsampling());
    request.check_image_size(config, downsampling)?;
    let names = ClassNames::of_checkpoint(files.checkpoint.class_names(), config.num_classes)?;
    let settings = request.settings(config, &files.checkpoint.process(), &names, device)?;
    if args.precision == Some(SamplePrecisionArg::Auto) {
        say(format_args!("precision: {}, the fastest faithful one here", settings.precision.name()));
    }
    say_translation(args, &settings, config);
    let batch_size = request.batch_size.unwrap_or_else(|| {
        let memory = machine::memory_for_batches(device);
        let guided = settings.cfg_scale != 1.0 || settings.guidance.autoguidance_scale.is_some();
        batch_size_that_fits(config, settings.precision, guided, device, memory)
    });
    let classes = request.classes(&names).map_err(|error| match error.is::<dit_classes::Error>() {
        true => files.explain(&error, &names).into(),
        false => error,
    })?;
    let plan = Plan::new(config, settings.clone(), request.first_image, classes, batch_size)?;
    tracing::info!(?device, threads, batch_size, images = plan.classes().len(), "plan");
    if args.precision.is_none() && request.repeated.is_none() {
        say_faster(&plan, config, device);
    }
    let (noise, noise_source) = open_noise(&request)?;
    plan.check_noise(config, &*noise)?;
    let picture_size = files.picture_size();
    let beside = Beside::open(&request, &files, &plan)?;
    let inputs = files.inputs(&request).into_iter().chain(beside.files()).collect::<Vec<_>>();
    let checked = request.outputs.check(&plan, picture_size, request.shows, &inputs);
    checked.map_err(|error| request.explain_output(error))?;

    let hashes = Hashes::of(&files, &beside, &request);
    if request.outputs.needs_hashes() || args.json || request.repeated.is_some() {
        hashes.start();
    }
    let unhashed = Provenance {
        software: SOFTWARE.to_owned(),
        checkpoint: unhashed(&files.dit_at),
        opened_as: request.opened_as.clone(),
        vae: files.vae.as_ref().map(|(_, at)| unhashed(at)),
        settings,
        noise: noise_source,
        weaker: beside.weaker_source(),
        classifier: beside.classifier_source()?,
        init: beside.init_source()?,
        labels: request.labels,
        device: machine::device_name(device),
        threads,
        batch_size,
    };
    let provenance = LateProvenance::new(unhashed, hashes.clone());
    if let Some(repeated) = &request.repeated {
        repeated.check_sources(provenance.get()?)?;
    }
    let pipeline = files.load(device, plan.settings().precision)?;
    let pipeline = beside.join(pipeline, device, plan.settings().precision)?;
    hashes.unchanged()?;
    files.check_codec()?;
    run_folder::check(&files.checkpoint)?;
    let seconds_load = start.elapsed().as_secs_f64();
    tracing::info!(seconds = seconds_load, precision = plan.settings().precision.name(), "weights are loaded");
    say_replaced(&request.outputs, &plan, &provenance)?;

    let labels: BTreeMap<u32, String> =
        plan.classes().iter().filter_map(|&class| Some((class, names.name(class)?.to_owned()))).collect();
    let outputs = SharedOutputs::default();
    let (on_signal, needs_hashes) = (outputs.clone(), request.outputs.needs_hashes());
    interrupt.set(move || {
        if needs_hashes && !hashes.are_done() {
            say(format_args!("\nstopping once the checkpoints are hashed; Ctrl-C again ends at once"));
        }
        say_kept(on_signal.finish_at_exit());
    });
    outputs.open(|| {
        let shape = [config.in_channels, config.latent.height, config.latent.width].map(|extent| extent as i64);
        let paths = request.outputs.clone();
        Outputs::create(paths, &plan, picture_size, shape, provenance.clone(), labels, request.shows)
    })?;

    let bar = StepBar::new();
    let result = run_plan(&pipeline, &plan, &*noise, &outputs, &bar);
    bar.finish();
    let timings = match result {
        Ok(timings) => timings,
        Err(error) => {
            say_kept(outputs.finish_early());
            interrupt.clear();
            return Err(error);
        }
    };
    let found = outputs.found();
    let written = outputs.finish();
    interrupt.clear();
    if found > 0 {
        say(format_args!("{found} of {} pictures were there already, made by the same recipe", plan.classes().len()));
    }
    let cached = pipeline.cache_report();
    if plan.settings().cache > 0.0 && cached.computed > 0 {
        say(format_args!(
            "--cache {}: {:.0} % of the passes through the blocks were taken from an earlier step; `dit-cli calibrate-cache` \
             tells the drift",
            plan.settings().cache,
            100.0 * cached.share_reused()
        ));
    }
    let (written, failure) = written.map_or((Vec::new(), None), |kept| (kept.files, kept.failure));
    say_written(&written);
    failure.map_or(Ok(()), Err)?;
    if args.json {
        let seconds_total = start.elapsed().as_secs_f64();
        let summary = Summary::new(provenance.get()?, &plan, config, &timings, seconds_load, seconds_total, &written);
        print_json(&summary)?;
    }
    Ok(())
}

/// Runs, and turns a panic of libtorch (out of memory, say) into an error, so that finished images can be kept; the panic's
/// own message has been shown then.
fn run_plan(
    pipeline: &Pipeline,
    plan: &Plan,
    noise: &dyn Noise,
    outputs: &SharedOutputs,
    bar: &StepBar,
) -> Result<Timings> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        dit_sample::run(pipeline, plan, noise, outputs, &mut |progress| {
            bar.show(progress);
            ControlFlow::Continue(())
        })
    }));
    match result {
        Ok(result) => Ok(result?),
        Err(_) => bail!("the run was stopped by the error above"),
    }
}
