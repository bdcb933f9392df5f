//! `dit-cli precompute-latents`.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use dit_args::{CropArg, FlipArg, PrecisionArg, PrecomputeArgs, StoreArg};
use dit_catalog::Kind;
use dit_data::{
    CropRecipe, Source,
    shard::{self, Encoding, EncodingPrecision, Flips, FolderWriter, Settings, SourceIdentity, Store, VaeIdentity},
};
use dit_precompute::{Progress, Report, RunOptions, SourceRecords};
use dit_vae::AutoencoderKl;
use dit_weights::VaeCheckpoint;
use indicatif::ProgressBar;
use serde::Serialize;
use tch::Device;

use crate::{
    interrupt::OnInterrupt,
    machine,
    open::Library,
    progress::bar,
    speak::{counted, print_json, say},
    usage::wrong_usage,
};

/// Side of the pictures where --image-size does not say, as ImageNet's models are trained.
const DEFAULT_SIZE: usize = 256;
/// On a CPU, pixels encoded at once where --batch-size does not say: activations of more leave the cache, and of much fewer
/// the threads wait for one another.
const CPU_BATCH_PIXELS: usize = 256 * 256;
const LARGEST_CPU_BATCH: usize = 64;
/// On a GPU: of so many, the widest feature maps take 1 GB each in fp32.
const CUDA_BATCH_PIXELS: usize = 32 * 256 * 256;
const LARGEST_CUDA_BATCH: usize = 256;
/// Where no bar can be drawn, how often a line says how far it is.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    out: String,
    records: u64,
    skipped: u64,
    shards: usize,
    bytes: u64,
    /// Records of this run; the others were there already.
    encoded_now: u64,
    images_per_second: f64,
    decode_busy: f64,
    encode_busy: f64,
    seconds_total: f64,
    peak_rss_bytes: Option<u64>,
    verified: bool,
    mean: Vec<f64>,
    std: Vec<f64>,
}

pub fn run(args: &PrecomputeArgs) -> Result<()> {
    check(args)?;
    let start = Instant::now();
    let interrupt = OnInterrupt::install()?;
    let report = match &args.data {
        Some(data) => Some(precompute(args, data, &interrupt)?),
        None => None,
    };
    let manifest = match &report {
        Some(report) if !args.verify => report.manifest.clone(),
        _ => {
            let verified = shard::verify(&args.out)?;
            say(format_args!(
                "every byte of {} is as it was written",
                counted(verified.manifest.shards.len(), "shard")
            ));
            verified.manifest
        }
    };
    let Some(summary) = &manifest.summary else {
        bail!(
            "{} is not finished: {} of {} shards are there\n  help: pass --data to continue it",
            args.out.display(),
            manifest.shards.len(),
            manifest.settings.shard_count()
        );
    };
    let progress = report.as_ref().map(|report| report.progress);
    let encoded_now = progress.map_or(0, |progress| progress.done - progress.resumed);
    say(format_args!(
        "{}: {} records in {}, {} skipped",
        args.out.display(),
        summary.records,
        counted(manifest.shards.len(), "shard"),
        summary.skipped
    ));
    if args.json {
        let summary = Summary {
            out: args.out.display().to_string(),
            records: summary.records,
            skipped: summary.skipped,
            shards: manifest.shards.len(),
            bytes: manifest.shards.iter().map(|shard| shard.bytes).sum(),
            encoded_now,
            images_per_second: progress.map_or(0.0, |progress| rate(&progress)),
            decode_busy: progress.map_or(0.0, |progress| progress.decode_busy),
            encode_busy: progress.map_or(0.0, |progress| progress.encode_busy),
            seconds_total: start.elapsed().as_secs_f64(),
            peak_rss_bytes: machine::peak_rss_bytes(),
            verified: args.verify,
            mean: summary.mean.clone(),
            std: summary.std.clone(),
        };
        print_json(&summary)?;
    }
    Ok(())
}

fn check(args: &PrecomputeArgs) -> Result<()> {
    for (flag, value) in
        [("--batch-size", args.batch_size), ("--workers", args.workers), ("--shard-size", Some(args.shard_size))]
    {
        if value.is_some_and(|value| !(1..=1 << 20).contains(&value)) {
            wrong_usage!("{flag} {}: expected 1 to {}", value.unwrap_or(0), 1 << 20);
        }
    }
    if args.workers.is_some_and(|workers| workers > 1024) {
        wrong_usage!("--workers: expected 1 to 1024");
    }
    if let Some(size) = args.image_size.filter(|size| !(1..=1 << 14).contains(size)) {
        wrong_usage!("--image-size {size}: expected 1 to {}", 1 << 14);
    }
    if !(0.0..=1.0).contains(&args.max_skipped) {
        wrong_usage!("--max-skipped {}: expected a fraction, 0 to 1", args.max_skipped);
    }
    if args.limit == Some(0) {
        wrong_usage!("--limit 0: there is nothing to do");
    }
    Ok(())
}

fn precompute(args: &PrecomputeArgs, data: &Path, interrupt: &OnInterrupt) -> Result<Report> {
    let library = Library::discover()?;
    let located = library.locate(&args.vae, Kind::Vae)?;
    let checkpoint = VaeCheckpoint::open(&located.path)?;
    let image_size = args.image_size.unwrap_or(DEFAULT_SIZE);
    let made_for = checkpoint.config().sample_size;
    if args.image_size.is_none() && made_for != DEFAULT_SIZE {
        say(format_args!(
            "note: {DEFAULT_SIZE} px, the default; {} was made for {made_for}: --image-size {made_for}",
            located.name
        ));
    }
    let vae = VaeIdentity {
        name: located.name,
        sha256: checkpoint.sha256()?.to_owned(),
        config: checkpoint.config().clone(),
    };
    let (encoding, device) = encoding(args, image_size)?;
    let source = Source::open(data)?;
    let records = (source.len() as u64).min(args.limit.unwrap_or(u64::MAX));
    say(format_args!(
        "{}: {}, {records} records, {} classes",
        data.display(),
        source.kind(),
        source.class_names().len()
    ));
    let kind = match encoding.precision {
        EncodingPrecision::Fp32 => tch::Kind::Float,
        EncodingPrecision::Bf16 => tch::Kind::BFloat16,
    };
    let settings = Settings {
        image_size,
        crop: match args.crop {
            CropArg::Adm => CropRecipe::Adm,
            CropArg::Pad => CropRecipe::Pad,
        },
        flips: match args.flip {
            FlipArg::Both => Flips::Both,
            FlipArg::None => Flips::None,
        },
        store: match args.store {
            StoreArg::F16 => Store::F16,
            StoreArg::F32 => Store::F32,
        },
        shard_size: args.shard_size,
        vae,
        source: SourceIdentity { fingerprint: source.fingerprint(), records },
        encoding,
    };
    let writer =
        FolderWriter::open(&args.out, settings, source.class_names().to_vec()).map_err(dit_precompute::Error::from)?; // which knows what a full disk is
    let codec = AutoencoderKl::load_encoder(&checkpoint, device, kind)?;
    checkpoint.digest().unchanged()?; // so that it is the one that the manifest names
    let defaults = RunOptions::default();
    let options = RunOptions { workers: args.workers.unwrap_or(defaults.workers), max_skipped: args.max_skipped };

    let done = Arc::new(AtomicU64::new(0));
    let done_then = Arc::clone(&done);
    interrupt.set(move || {
        say(format_args!(
            "\nstopped at {} of {records}; the same command continues",
            done_then.load(Ordering::Relaxed)
        ));
    });
    let bar = Bar::new();
    let mut last_line = Instant::now();
    let _no_grad = tch::no_grad_guard();
    let report = dit_precompute::run(&SourceRecords::new(&source), &codec, writer, &options, &mut |progress| {
        done.store(progress.done, Ordering::Relaxed);
        bar.show(&progress);
        if bar.is_hidden() && last_line.elapsed() >= BETWEEN_LINES {
            last_line = Instant::now();
            say(format_args!("{} of {}: {}", progress.done, progress.total, describe(&progress)));
        }
    });
    bar.finish();
    interrupt.clear();
    let report = report?;
    say(format_args!("{}", describe(&report.progress)));
    Ok(report)
}

/// How the codec computes: as asked, else as the folder was begun, else as suits the machine.
fn encoding(args: &PrecomputeArgs, image_size: usize) -> Result<(Encoding, Device)> {
    let begun = shard::settings_in(&args.out)?.map(|settings| settings.encoding);
    let device = args.device.clone().or(begun.as_ref().map(|begun| begun.device.clone()));
    let device = machine::open_device(device.as_deref().unwrap_or("auto"))
        .context("the device that the latents are computed on")?;
    let on_cpu = device == Device::Cpu;
    let begun = begun.as_ref();
    let batch_size = args.batch_size.or(begun.map(|begun| begun.batch_size));
    let precision = args.precision.map(|precision| match precision {
        PrecisionArg::Fp32 => EncodingPrecision::Fp32,
        PrecisionArg::Bf16 => EncodingPrecision::Bf16,
    });
    // CUDA's results do not depend on the CPU's threads.
    let threads = machine::set_threads(args.threads.or(begun.filter(|_| on_cpu).map(|begun| begun.threads)))?;
    let encoding = Encoding {
        device: if on_cpu { "cpu" } else { "cuda" }.to_owned(),
        precision: precision.or(begun.map(|begun| begun.precision)).unwrap_or(EncodingPrecision::Fp32),
        threads: if on_cpu { threads } else { 1 },
        batch_size: batch_size.unwrap_or_else(|| default_batch(on_cpu, image_size)),
    };
    Ok((encoding, device))
}

/// Of the pictures' size alone, as it decides bits of the latents.
fn default_batch(on_cpu: bool, image_size: usize) -> usize {
    let (pixels, largest) = match on_cpu {
        true => (CPU_BATCH_PIXELS, LARGEST_CPU_BATCH),
        false => (CUDA_BATCH_PIXELS, LARGEST_CUDA_BATCH),
    };
    (pixels / (image_size * image_size)).clamp(1, largest)
}

/// Images of this run per second.
fn rate(progress: &Progress) -> f64 {
    (progress.done - progress.resumed) as f64 / progress.elapsed.as_secs_f64().max(1e-9)
}

fn describe(progress: &Progress) -> String {
    if progress.total == progress.resumed {
        return "every record was encoded already".to_owned();
    }
    let rate = rate(progress);
    let left = progress.total - progress.done;
    let left = match left {
        0 => String::new(),
        _ if rate > 0.0 => {
            let seconds = (left as f64 / rate) as u64;
            format!(", {}:{:02}:{:02} left", seconds / 3600, seconds / 60 % 60, seconds % 60)
        }
        _ => String::new(),
    };
    format!(
        "{rate:.1} images/s{left}, decoding threads {:.0} % busy, encoder {:.0} % busy, {} skipped",
        100.0 * progress.decode_busy,
        100.0 * progress.encode_busy,
        progress.skipped
    )
}

/// The progress bar: on a terminal only.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        Self(bar("{wide_bar} {pos}/{len}\n{msg}"))
    }

    fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }

    fn show(&self, progress: &Progress) {
        self.0.set_length(progress.total);
        self.0.set_position(progress.done);
        if !self.0.is_hidden() {
            self.0.set_message(describe(progress));
        }
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}
