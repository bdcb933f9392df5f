//! `dit-cli sample`.

mod beside;
mod hashes;
mod options;
mod request;
mod summary;

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use dit_args::{SampleArgs, SamplePrecisionArg};
use dit_catalog::Kind;
use dit_classes::ClassNames;
use dit_config::DitConfig;
use dit_diffusion::{Noise, ReplayedNoise, SeededNoise};
use dit_files::parts_of;
use dit_model::Dit;
use dit_sample::{
    CfgChannels, Kept, LateProvenance, Others, OutputPaths, Outputs, Pipeline, Plan, Precision, Provenance, Settings,
    SharedOutputs, Source, Timings, batch_size_that_fits,
};
use dit_vae::AutoencoderKl;
use dit_weights::{Checkpoint, Codec, SafetensorsFile, TensorSource, VaeCheckpoint, sha256_of, to_tensor};
use tch::Device;

use self::{
    beside::Beside,
    hashes::{Hashes, unhashed},
    request::Request,
    summary::Summary,
};
use crate::{
    interrupt::OnInterrupt,
    machine,
    open::{Library, Located, told},
    progress::StepBar,
    speak::{print_json, say},
    usage::wrong_usage,
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
        batch_size_that_fits(config, settings.precision, guided, memory)
    });
    let classes = request.classes(&names).map_err(|error| match error.is::<dit_classes::Error>() {
        true => error.context(files.about_classes(&names)),
        false => error,
    })?;
    let plan = Plan::new(config, settings.clone(), request.first_image, classes, batch_size)?;
    tracing::info!(?device, threads, batch_size, images = plan.classes().len(), "plan");
    let (noise, noise_source) = open_noise(&request)?;
    plan.check_noise(config, &*noise)?;
    let picture_size = files.picture_size();
    let beside = Beside::open(&request, &files, &plan)?;
    let inputs = files.inputs(&request).into_iter().chain(beside.files()).collect::<Vec<_>>();
    request.outputs.check(&plan, picture_size, request.shows, &inputs)?;

    let hashes = Hashes::of(&files, &beside, &request);
    if request.outputs.needs_hashes() || args.json || request.from_png.is_some() {
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
    if request.from_png.is_some() {
        request.check_sources(provenance.get()?)?;
    }
    let pipeline = files.load(device, plan.settings().precision)?;
    let pipeline = beside.join(pipeline, device, plan.settings().precision)?;
    hashes.unchanged()?;
    files.check_codec()?;
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
    if plan.settings().cache > 0.0 {
        say(format_args!(
            "--cache {}: {:.0} % of the passes through the blocks were taken from an earlier step; `dit-cli calibrate-cache` \
             tells the drift",
            plan.settings().cache,
            100.0 * cached.share_reused()
        ));
    }
    let written = written?;
    for path in &written[..written.len().min(8)] {
        say(format_args!("wrote {}", path.display()));
    }
    if written.len() > 8 {
        say(format_args!("wrote {} files in all", written.len()));
    }
    if args.json {
        let seconds_total = start.elapsed().as_secs_f64();
        let summary = Summary::new(provenance.get()?, &plan, config, &timings, seconds_load, seconds_total, &written);
        print_json(&summary)?;
    }
    Ok(())
}

/// The checkpoints of a request, opened: descriptions only.
struct Files {
    dit_at: Located,
    checkpoint: Checkpoint,
    vae: Option<(VaeCheckpoint, Located)>,
    /// Nobody asked for this codec: it must be the one that the checkpoint knows.
    must_be: Option<Codec>,
}

impl Files {
    fn open(request: &Request) -> Result<Self> {
        let library = Library::discover()?;
        let dit_at = match &request.checkpoint {
            Some(text) => library.locate(text, Kind::Dit).with_context(|| request.hint("--ckpt"))?,
            None => library.default_checkpoint()?,
        };
        let opened_as = &request.opened_as;
        let options = told(dit_at.options.clone(), opened_as.model.as_deref(), opened_as.num_heads)?;
        let checkpoint = Checkpoint::open(&dit_at.path, &options)
            .with_context(|| format!("cannot sample from {}", dit_at.path.display()))?;
        let codec = checkpoint.metadata().codec.as_ref();
        let mut must_be = None;
        let vae = match locate_vae(&library, request, &dit_at, codec)? {
            Some(at) => {
                let vae = VaeCheckpoint::open(&at.path)
                    .with_context(|| format!("cannot decode with {}", at.path.display()))?;
                if let (Some(codec), None) = (codec, &request.vae) {
                    // Beside loading, after which it is compared.
                    vae.digest().start();
                    must_be = Some(codec.clone());
                }
                Some((vae, at))
            }
            None => None,
        };
        Ok(Self { dit_at, checkpoint, vae, must_be })
    }

    /// Whether the codec is the one that the checkpoint was trained on, where nobody asked for another. Waits for its hash.
    fn check_codec(&self) -> Result<()> {
        match (&self.must_be, &self.vae) {
            (Some(codec), Some((vae, at))) => check_trained_on(codec, vae, at, &self.dit_at),
            _ => Ok(()),
        }
    }

    /// Width and height of the pictures in pixels, where there is a codec.
    fn picture_size(&self) -> Option<(u32, u32)> {
        let factor = self.vae.as_ref()?.0.config().downsampling() as u32;
        let latent = self.checkpoint.config().latent;
        Some((latent.width as u32 * factor, latent.height as u32 * factor))
    }

    /// Files that no output may replace.
    fn inputs<'a>(&'a self, request: &'a Request) -> Vec<&'a Path> {
        let vae = self.vae.iter().flat_map(|(vae, _)| vae.files());
        let given = request.noise.iter().chain(&request.from_png).chain(&request.init).chain(&request.classifier);
        self.checkpoint.files().iter().chain(vae).chain(given).map(PathBuf::as_path).collect()
    }

    /// What to say beside an error about class names.
    fn about_classes(&self, names: &ClassNames) -> String {
        let listed: Vec<&str> = (0..names.len().min(20)).filter_map(|class| names.name(class)).collect();
        if names.len() == 1 {
            return format!("{} has a single class, 0: it was trained without labels", self.dit_at.name);
        }
        let mut text = match listed.len() as u32 == names.len() && !listed.is_empty() {
            true => format!("the classes of {} are {}", self.dit_at.name, listed.join(", ")),
            false => format!("the classes of {}", self.dit_at.name),
        };
        if self.dit_at.name == dit_catalog::DEMO {
            text.push_str(" (ImageNet's need DiT-XL/2: `cargo xtask fetch-weights`)");
        }
        text
    }

    fn vae_source(&self) -> Result<Option<Source>> {
        let source = |(vae, at): &(VaeCheckpoint, Located)| -> Result<Source> {
            Ok(Source { name: at.name.clone(), sha256: vae.sha256()?.to_owned() })
        };
        self.vae.as_ref().map(source).transpose()
    }

    fn load(&self, device: Device, precision: Precision) -> Result<Pipeline> {
        let kind = precision.kind();
        let vae = self.vae.as_ref().map(|(vae, _)| AutoencoderKl::load(vae, device, kind)).transpose()?;
        Ok(Pipeline::new(Dit::load_with(&self.checkpoint, device, kind, precision.kernels())?, vae)?)
    }
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

/// Says what is left of a run that did not come to its end.
fn say_kept(kept: Result<Option<Kept>, dit_sample::Error>) {
    match kept {
        Ok(None) => say(format_args!("\nstopped")),
        Ok(Some(Kept { files, parts, pictures, of })) => match &files[..] {
            [] => say(format_args!("\nstopped; no image was finished")),
            [.., last] => {
                let last = last.display();
                say(format_args!(
                    "\nstopped; finished images are kept: {pictures} of {of} pictures, {} files, the last {last}",
                    files.len()
                ));
                for part in parts {
                    say(format_args!("{}: a part, hence not under the name that was asked for", part.display()));
                }
            }
        },
        Err(error) => say(format_args!("\nstopped; finished images could not be kept: {error}")),
    }
}

/// Scales on all channels and on three are not alike.
fn say_translation(args: &SampleArgs, settings: &Settings, config: &DitConfig) {
    if args.guidance.cfg_channels.is_some() && settings.cfg_channels == CfgChannels::All && config.in_channels == 4 {
        let scale = settings.cfg_scale;
        if scale != 1.0 {
            say(format_args!(
                "guidance {scale} on all four channels acts about as {:.4} on three; for {scale} on three, pass --cfg-scale {:.4}",
                CfgChannels::three_for_four(scale),
                CfgChannels::four_for_three(scale)
            ));
        }
    }
}

/// Files that the run will replace are named before it begins.
fn say_replaced(outputs: &OutputPaths, plan: &Plan, provenance: &LateProvenance) -> Result<()> {
    let files = [&outputs.png, &outputs.npz, &outputs.latents, &outputs.animation, &outputs.trajectory];
    for path in files.into_iter().flatten().filter(|path| path.exists()) {
        say(format_args!("{} exists and will be replaced", path.display()));
    }
    for part in [&outputs.npz, &outputs.latents].into_iter().flatten().flat_map(|path| parts_of(path)) {
        say(format_args!("{} is what an interrupted run left, and stays", part.display()));
    }
    let Some(dir) = &outputs.dir else { return Ok(()) };
    let Others { replaced, kept } = Others::find(dir, plan, provenance)?;
    if replaced > 0 {
        say(format_args!("{}: {replaced} pictures were made otherwise, and will be replaced", dir.display()));
    }
    if kept > 0 {
        say(format_args!("{}: {kept} pictures have numbers that this run has not, and stay", dir.display()));
    }
    Ok(())
}

fn locate_vae(
    library: &Library,
    request: &Request,
    dit: &Located,
    trained_on: Option<&Codec>,
) -> Result<Option<Located>> {
    let known = dit.pairs_with.clone().or_else(|| beside(&dit.path));
    match (request.vae.as_deref(), known, trained_on) {
        (Some("none"), ..) => Ok(None),
        (Some(text), ..) => Ok(Some(library.locate(text, Kind::Vae).with_context(|| request.hint("--vae"))?)),
        (None, Some(known), _) => Ok(Some(library.locate(&known, Kind::Vae)?)),
        (None, None, Some(Codec { name, sha256 })) => {
            let about = || {
                let dit = &dit.name;
                format!(
                    "{dit} was trained on the latents of {name} (SHA-256 {sha256})\n  \
                     help: pass --vae with that codec, or put it beside the checkpoint"
                )
            };
            Ok(Some(library.locate_codec(name, &dit.path).with_context(about)?))
        }
        (None, None, None) => wrong_usage!(
            "which VAE decodes {}?\n  help: pass --vae with its folder, file or name, or --vae none with --latents",
            dit.name
        ),
    }
}

/// That a codec which nobody asked for is the one that the checkpoint knows.
fn check_trained_on(codec: &Codec, vae: &VaeCheckpoint, at: &Located, dit: &Located) -> Result<()> {
    let found = vae.sha256()?;
    if found == codec.sha256 {
        return Ok(());
    }
    bail!(
        "{} is not the codec that {} was trained on: its SHA-256 is {found}, not {}\n  \
         help: pass --vae with the right one, or with this one to decode with it nonetheless",
        at.name,
        dit.name,
        codec.sha256
    )
}

/// The codec of a diffusers pipeline folder: `vae/` in it, or beside its `transformer/`.
fn beside(dit: &Path) -> Option<String> {
    let folders = [Some(dit), dit.parent()];
    let vae =
        folders.into_iter().flatten().map(|folder| folder.join("vae")).find(|vae| vae.join("config.json").is_file())?;
    vae.to_str().map(str::to_owned)
}

/// What `--noise` reads.
const NOISE_FILE: &str =
    "expected `z` (N, C, H, W), the noise to start from, and `steps` (S, N, C, H, W) for samplers that add noise";

/// The seeded noise, or the recorded one and what file it was.
fn open_noise(request: &Request) -> Result<(Box<dyn Noise>, Option<Source>)> {
    let Some(path) = &request.noise else {
        return Ok((Box::new(SeededNoise::new(request.seed)), None));
    };
    let context = || format!("--noise {}", path.display());
    let file = SafetensorsFile::open(path).or_else(|error| match error {
        dit_weights::Error::Io { .. } => Err(error).with_context(context),
        // What a picture's first bytes would mean in the header of safetensors helps nobody.
        _ => bail!("{}: it is no safetensors file, which noise is replayed from: {NOISE_FILE}", context()),
    })?;
    if !file.infos().contains_key("z") {
        bail!("{}: it has no tensor `z`: {NOISE_FILE}", context());
    }
    let mut noise = ReplayedNoise::new(&to_tensor(&file, "z").with_context(context)?)?;
    if file.infos().contains_key("steps") {
        noise = noise.with_steps(&to_tensor(&file, "steps").with_context(context)?)?;
    }
    let full = path.canonicalize().unwrap_or_else(|_| path.clone());
    let source = Source { name: full.display().to_string(), sha256: sha256_of(&[path])? };
    Ok((Box::new(noise), Some(source)))
}
