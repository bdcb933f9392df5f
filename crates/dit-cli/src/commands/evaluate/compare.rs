//! Both sides' features, and the metrics of them.

use std::{collections::BTreeSet, path::Path, time::Instant};

use anyhow::{Result, bail};
use dit_args::{EvaluateArgs, MetricArg};
use dit_eval::{Error, FeatureNetwork, LeftOut, Metric, Reference, Sides, Statistics, evaluate, evaluate_possible};

use super::{
    SOFTWARE,
    input::{Input, features},
    reconstruction::Reconstruction,
    record::{Network, Record, Side},
    warn_of_rank,
};
use crate::{
    machine,
    speak::{print_json, print_out, say},
};

/// What sees the pictures.
pub struct Networks<'a> {
    pub plain: &'a dyn FeatureNetwork,
    /// What sees the samples, where they go through a codec first.
    pub through: Option<Reconstruction<'a>>,
}

/// Measures `samples` against `reference`, and prints it.
pub fn run(args: &EvaluateArgs, samples: &Input, reference: Input, networks: &Networks, start: Instant) -> Result<()> {
    let (network, through) = (networks.plain, networks.through.as_ref());
    let of_samples = through.map_or(network, |through| through as &dyn FeatureNetwork);
    let Some(sample_pictures) = &samples.pictures else {
        bail!("{} holds statistics, but no pictures; the samples must be pictures", samples.path.display())
    };
    // Everything that can be known to fail does so before minutes of computing.
    of_samples.check_size(sample_pictures.height(), sample_pictures.width())?;
    let metrics = metrics_of(args, &reference, network);
    let frechet = metrics.contains(&Metric::Fid) || metrics.contains(&Metric::Sfid);
    let mut warnings = Vec::new();
    if let (Some(statistics), true) = (&reference.statistics, frechet) {
        warnings.extend(check_statistics(reference.path, statistics, network)?);
    }
    let (pictures, statistics) = (reference.pictures.as_ref(), reference.statistics.as_ref());
    check_metrics(args, &metrics, &Sides::new(network.widths(), sample_pictures, pictures, statistics))?;
    // Statistics alone answer what asks for nothing else, and the Inception score is of the samples alone.
    let needs_pictures = (frechet && statistics.is_none())
        || metrics.contains(&Metric::PrecisionRecall)
        || metrics.contains(&Metric::Kid);
    if let (Some(pictures), true) = (pictures, needs_pictures) {
        network.check_size(pictures.height(), pictures.width())?;
    }
    let (cache, batch_size) = (args.cache.as_deref(), args.batch_size);
    let (sample_features, sample_hash) = features(samples.path, sample_pictures, of_samples, cache, batch_size)?;
    let reference_features = match pictures.filter(|_| needs_pictures) {
        Some(pictures) => Some(features(reference.path, pictures, network, cache, batch_size)?),
        None => None,
    };
    let seconds_features = start.elapsed().as_secs_f64();
    if frechet {
        warnings.extend(warn_of_rank("samples: ", sample_features.len(), network));
    }
    let side = Side::new(samples, &sample_hash)?;
    let (reference_set, reference_hash) = match (reference_features, pictures) {
        (Some((features, hash)), _) => (Some(features), hash),
        (None, Some(pictures)) if statistics.is_none() => (None, pictures.sha256()?),
        (None, _) => (None, dit_weights::sha256_of(&[reference.path])?),
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
        (None, None) => Reference::none(),
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
        reconstructed_by: through.map(|through| through.codec.clone()),
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

/// Of metrics that are named, all must be possible; of all that there are, one.
fn check_metrics(args: &EvaluateArgs, metrics: &BTreeSet<Metric>, sides: &Sides) -> Result<()> {
    let checked: Vec<Result<(), Error>> = metrics.iter().map(|&metric| sides.check(metric)).collect();
    if args.metrics.is_empty() && checked.iter().any(Result::is_ok) {
        return Ok(());
    }
    Ok(checked.into_iter().collect::<Result<(), Error>>()?)
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
