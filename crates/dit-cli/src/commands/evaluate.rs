//! Samples measured against a reference.

pub mod input;
mod label_policy;
mod record;

use std::{collections::BTreeSet, path::Path, time::Instant};

use anyhow::{Result, bail};
use dit_args::{CropArg, EvaluateArgs, MetricArg};
use dit_data::CropRecipe;
use dit_eval::{
    FeatureNetwork, Fit, LeftOut, Metric, Pictures, Reference, Statistics, StatisticsNotes, evaluate,
    evaluate_possible, statistics_of,
};

use self::{
    input::{Input, features, network},
    record::{Network, Record, Side},
};
use crate::{
    machine,
    speak::{print_json, print_out, say},
    usage::wrong_usage,
};

/// Who writes records and statistics.
const SOFTWARE: &str = concat!("dit-rs ", env!("CARGO_PKG_VERSION"));
/// Fewer samples than this and a number says little about the distribution.
const FEW: usize = 10_000;

/// The arguments know no feature network.
const _: () = assert!(dit_args::LARGEST_BATCH == dit_eval::FeatureSet::CHUNK);

pub fn run(args: &EvaluateArgs) -> Result<()> {
    let start = Instant::now();
    let device = machine::open_device(args.machine.device.as_deref().unwrap_or("auto"))?;
    machine::set_threads(args.machine.threads)?;
    let fit = fit_of(args)?;
    match (&args.stats, &args.out, &args.samples, &args.reference) {
        (Some(data), Some(out), None, None) => {
            dit_files::ensure_apart(out, &[data.as_path()])?;
            dit_files::ensure_writable(out)?;
            let network = network(&args.features, device)?;
            write_statistics(args, data, out, fit, &*network)
        }
        (None, None, Some(samples), Some(reference)) => {
            // Both sides are looked at before anything is loaded.
            let samples = Input::open(samples, fit)?;
            let reference = Input::open(reference, fit)?;
            let network = network(&args.features, device)?;
            compare(args, &samples, reference, &*network, start)
        }
        _ => wrong_usage!("give SAMPLES and REFERENCE, or --stats DATA and --out STATS.npz"),
    }
}

fn fit_of(args: &EvaluateArgs) -> Result<Fit> {
    match (args.image_size, args.crop) {
        (None, None) => Ok(Fit::AsIs),
        (None, Some(_)) => wrong_usage!("--crop needs --image-size"),
        (Some(side), crop) => Ok(Fit::Square {
            side,
            crop: match crop.unwrap_or(CropArg::Adm) {
                CropArg::Adm => CropRecipe::Adm,
                CropArg::Pad => CropRecipe::Pad,
            },
        }),
    }
}

fn write_statistics(
    args: &EvaluateArgs,
    data: &Path,
    out: &Path,
    fit: Fit,
    network: &dyn FeatureNetwork,
) -> Result<()> {
    let pictures = Pictures::open(data, fit)?;
    let (features, sha256) = features(data, &pictures, network, args.cache.as_deref(), args.batch_size)?;
    warn_of_rank("", features.len(), network);
    let mut statistics = statistics_of(&features)?;
    statistics.notes = Some(StatisticsNotes::new(SOFTWARE, &sha256, features.len(), network));
    statistics.write(out)?;
    say(format_args!("{}: statistics of {} pictures", out.display(), features.len()));
    Ok(())
}

fn warn_of_rank(whose: &str, count: usize, network: &dyn FeatureNetwork) -> Option<String> {
    let width = network.widths().pooled;
    let warning = if count <= width {
        format!("{whose}{count} pictures for {width} features: the covariance is singular, and FID far too large")
    } else if count < FEW {
        format!("{whose}{count} pictures are few: FID is biased upwards; compare only with as many")
    } else {
        return None;
    };
    say(format_args!("warning: {warning}"));
    Some(warning)
}

/// What the statistics say of themselves is compared with the network; where they say nothing, that is told.
fn check_statistics(path: &Path, statistics: &Statistics, network: &dyn FeatureNetwork) -> Result<Option<String>> {
    let (found, widths) = (statistics.pooled.width(), network.widths());
    if found != widths.pooled {
        let (path, name, width) = (path.display(), network.name(), widths.pooled);
        bail!(
            "{path}: its statistics are of {found} features, the network `{name}` has {width}\n  \
             help: pass the same --features as when they were made, or make them again"
        );
    }
    let Some(notes) = &statistics.notes else {
        let warning = format!(
            "reference: its statistics do not say which network they are of; FID means nothing unless that is `{}`",
            network.name()
        );
        say(format_args!("warning: {warning}"));
        return Ok(Some(warning));
    };
    notes.check(network)?;
    Ok(warn_of_rank("reference: ", notes.count, network))
}

fn compare(
    args: &EvaluateArgs,
    samples: &Input,
    reference: Input,
    network: &dyn FeatureNetwork,
    start: Instant,
) -> Result<()> {
    let metrics = metrics_of(args, &reference, network);
    let frechet = metrics.contains(&Metric::Fid) || metrics.contains(&Metric::Sfid);
    let mut warnings = Vec::new();
    if let (Some(statistics), true) = (&reference.statistics, frechet) {
        warnings.extend(check_statistics(reference.path, statistics, network)?);
    }
    let Some((sample_features, sample_hash)) = samples.features(network, args.cache.as_deref(), args.batch_size)?
    else {
        bail!("{} holds statistics, but no pictures; the samples must be pictures", samples.path.display())
    };
    // Statistics alone answer what asks for nothing else.
    let needs_pictures =
        reference.statistics.is_none() || metrics.contains(&Metric::PrecisionRecall) || metrics.contains(&Metric::Kid);
    let reference_features =
        if needs_pictures { reference.features(network, args.cache.as_deref(), args.batch_size)? } else { None };
    let seconds_features = start.elapsed().as_secs_f64();
    if frechet {
        warnings.extend(warn_of_rank("samples: ", sample_features.len(), network));
    }
    let side = Side::new(samples, &sample_hash)?;
    let (reference_set, reference_hash) = match reference_features {
        Some((features, hash)) => (Some(features), hash),
        None => (None, dit_weights::sha256_of(&[reference.path])?),
    };
    let reference_side = Side::new(&reference, &reference_hash)?;
    let against = match (reference.statistics, reference_set) {
        (Some(statistics), features) => Reference::of_statistics(statistics, features),
        (None, Some(features)) => {
            if frechet {
                warnings.extend(warn_of_rank("reference: ", features.len(), network));
            }
            Reference::of_features(features)
        }
        (None, None) => bail!("{} has neither pictures nor statistics", reference.path.display()),
    };
    // Whoever names a metric gets it or an error.
    let (measured, left_out) = match args.metrics.is_empty() {
        true => evaluate_possible(&sample_features, &against, &metrics, args.seed)?,
        false => (evaluate(&sample_features, &against, &metrics, args.seed)?, Vec::new()),
    };
    for LeftOut { metric, why } in &left_out {
        let warning = format!("{metric}: left out, as {why}");
        say(format_args!("warning: {warning}"));
        warnings.push(warning);
    }
    let record = Record {
        software: SOFTWARE,
        samples: side,
        reference: reference_side,
        features: Network {
            name: network.name().to_owned(),
            sha256: network.sha256().to_owned(),
            width: network.widths().pooled,
        },
        metrics: measured,
        left_out,
        confidence: 0.95,
        seed: args.seed,
        warnings,
        seconds_features,
        seconds_total: start.elapsed().as_secs_f64(),
        peak_rss_bytes: machine::peak_rss_bytes(),
    };
    if args.json { print_json(&record) } else { print_out(format_args!("{}", record.text())) }
}

/// What was asked for; by default everything that both sides have features for.
fn metrics_of(args: &EvaluateArgs, reference: &Input, network: &dyn FeatureNetwork) -> BTreeSet<Metric> {
    if !args.metrics.is_empty() {
        return args.metrics.iter().copied().map(metric).collect();
    }
    let spatial_known = reference.statistics.as_ref().is_none_or(|statistics| statistics.spatial.is_some());
    let has = |metric: &MetricArg| match metric {
        MetricArg::Fid => true,
        MetricArg::Sfid => network.widths().spatial.is_some() && spatial_known,
        MetricArg::Is => network.widths().logits.is_some(),
        MetricArg::Pr | MetricArg::Kid => reference.pictures.is_some(),
    };
    MetricArg::ALL.iter().filter(|metric| has(metric)).copied().map(metric).collect()
}

fn metric(typed: MetricArg) -> Metric {
    match typed {
        MetricArg::Fid => Metric::Fid,
        MetricArg::Sfid => Metric::Sfid,
        MetricArg::Is => Metric::InceptionScore,
        MetricArg::Pr => Metric::PrecisionRecall,
        MetricArg::Kid => Metric::Kid,
    }
}
