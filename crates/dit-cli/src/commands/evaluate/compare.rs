//! Both sides' features, and the metrics of them.

use std::{collections::BTreeSet, path::Path, time::Instant};

use anyhow::{Result, bail};
use dit_args::{EvaluateArgs, MetricArg};
use dit_eval::{
    Error, Extraction, FeatureNetwork, KidOptions, LeftOut, Metric, Pictures, PrecisionRecall, Reference, Sides,
    Statistics, evaluate,
};

use super::{
    SOFTWARE,
    input::{Input, Prepared},
    reconstruction::Reconstruction,
    record::{Network, Record, Side},
    warn, warn_of_rank,
};
use crate::{
    machine,
    speak::{print_json, print_out},
};

/// What sees the pictures.
pub struct Networks<'a> {
    pub plain: &'a dyn FeatureNetwork,
    /// What sees the samples, where they go through a codec first.
    pub through: Option<Reconstruction<'a>>,
}

impl Networks<'_> {
    fn of_samples(&self) -> &dyn FeatureNetwork {
        self.through.as_ref().map_or(self.plain, |through| through as &dyn FeatureNetwork)
    }
}

/// Measures `samples` against `reference`, and prints it.
pub fn run(args: &EvaluateArgs, samples: &Input, reference: Input, networks: &Networks, start: Instant) -> Result<()> {
    let Some(sample_pictures) = &samples.pictures else {
        bail!("{} holds statistics, but no pictures; the samples must be pictures", samples.path.display())
    };
    // Everything that can be known to fail does so before hours of computing.
    let Decided { metrics, left_out, warnings } = decide(args, sample_pictures, &reference, networks)?;
    let (network, cache) = (networks.plain, args.cache.as_deref());
    let pictures = reference.pictures.as_ref();
    let of_reference = pictures.filter(|_| needs_pictures(&metrics, &reference));
    let of_reference = of_reference.map(|pictures| Prepared::new(reference.path, pictures, network, cache));
    let of_reference = of_reference.transpose()?;
    let samples_prepared = Prepared::new(samples.path, sample_pictures, networks.of_samples(), cache)?;
    let both = [Some(&samples_prepared), of_reference.as_ref()];
    Extraction::ensure_room(
        &both.map(|side| side.map(|side| &side.extraction)).into_iter().flatten().collect::<Vec<_>>(),
    )?;
    let reference_hash = match (&of_reference, pictures) {
        (Some(prepared), _) => prepared.sha256.clone(),
        (None, Some(pictures)) if reference.statistics.is_none() => pictures.sha256()?,
        (None, _) => dit_weights::sha256_of(&[reference.path])?,
    };
    let sides = (Side::new(samples, &samples_prepared.sha256)?, Side::new(&reference, &reference_hash)?);

    let (sample_features, _) = samples_prepared.run(args.batch_size)?;
    let reference_features = of_reference.map(|prepared| prepared.run(args.batch_size)).transpose()?;
    let seconds_features = start.elapsed().as_secs_f64();
    let against = match (reference.statistics, reference_features.map(|(features, _)| features)) {
        (Some(statistics), features) => Reference::of_statistics(statistics, features),
        (None, Some(features)) => Reference::of_features(features),
        (None, None) => Reference::none(),
    };
    let measured = evaluate(&sample_features, &against, &metrics, args.seed)?;
    let record = Record {
        software: SOFTWARE,
        samples: sides.0,
        reconstructed_by: networks.through.as_ref().map(|through| through.codec.clone()),
        reference: sides.1,
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

/// What is measured, and what is to be said of it.
struct Decided {
    metrics: BTreeSet<Metric>,
    left_out: Vec<LeftOut>,
    warnings: Vec<String>,
}

/// Of what was asked for, what can be measured.
fn decide(args: &EvaluateArgs, samples: &Pictures, reference: &Input, networks: &Networks) -> Result<Decided> {
    let network = networks.plain;
    networks.of_samples().check_size(samples.height(), samples.width())?;
    let asked = metrics_of(args, reference, network);
    let (pictures, statistics) = (reference.pictures.as_ref(), reference.statistics.as_ref());
    let mut warnings = Vec::new();
    if let Some(statistics) = statistics.filter(|_| is_frechet(&asked)) {
        warnings.extend(check_statistics(reference.path, statistics, network)?);
    }
    if let Some(pictures) = pictures.filter(|_| needs_pictures(&asked, reference)) {
        network.check_size(pictures.height(), pictures.width())?;
    }
    let sides = Sides::new(network.widths(), samples, pictures, statistics);
    let (metrics, left_out) = possible(args, asked, &sides)?;
    warnings.extend(left_out.iter().map(|LeftOut { metric, why }| {
        let text = format!("{metric}: left out, as {why}");
        // What is printed for people says so itself.
        if args.json { warn(text) } else { text }
    }));
    warnings.extend(cut(&metrics, samples.len()));
    if is_frechet(&metrics) {
        warnings.extend(warn_of_rank("samples: ", samples.len(), network));
        let reference_count = pictures.filter(|_| statistics.is_none()).map(Pictures::len);
        warnings.extend(reference_count.and_then(|count| warn_of_rank("reference: ", count, network)));
    }
    Ok(Decided { metrics, left_out, warnings })
}

fn is_frechet(metrics: &BTreeSet<Metric>) -> bool {
    metrics.contains(&Metric::Fid) || metrics.contains(&Metric::Sfid)
}

/// Whether the features of the reference's pictures are needed: statistics alone answer what asks for nothing else, and the
/// Inception score is of the samples alone.
fn needs_pictures(metrics: &BTreeSet<Metric>, reference: &Input) -> bool {
    (is_frechet(metrics) && reference.statistics.is_none())
        || metrics.contains(&Metric::PrecisionRecall)
        || metrics.contains(&Metric::Kid)
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
        return Ok(Some(warn(format!(
            "reference: its statistics do not say which network they are of; FID means nothing unless that is `{}`",
            network.name()
        ))));
    };
    notes.check(network)?;
    Ok(warn_of_rank("reference: ", notes.count, network))
}

/// Of metrics that are named, all must be possible; of all that there are, one.
fn possible(
    args: &EvaluateArgs,
    asked: BTreeSet<Metric>,
    sides: &Sides,
) -> Result<(BTreeSet<Metric>, Vec<LeftOut>), Error> {
    if args.metrics.is_empty() {
        return sides.possible(&asked);
    }
    asked.iter().try_for_each(|&metric| sides.check(metric))?;
    Ok((asked, Vec::new()))
}

/// Says which metrics are of fewer samples than there are.
fn cut(metrics: &BTreeSet<Metric>, samples: usize) -> Vec<String> {
    let most = [(Metric::PrecisionRecall, PrecisionRecall::MOST_SAMPLES), (Metric::Kid, KidOptions::MOST)];
    let cut = most.into_iter().filter(|(metric, most)| metrics.contains(metric) && samples > *most);
    cut.map(|(metric, most)| {
        warn(format!(
            "{}: of {most} of the {samples} samples, chosen by the seed, as more take too long",
            metric.name()
        ))
    })
    .collect()
}

/// What was asked for; by default everything that the network has features for.
fn metrics_of(args: &EvaluateArgs, reference: &Input, network: &dyn FeatureNetwork) -> BTreeSet<Metric> {
    if !args.metrics.is_empty() {
        return args.metrics.iter().copied().map(metric).collect();
    }
    let spatial_known = reference.statistics.as_ref().is_none_or(|statistics| statistics.spatial.is_some());
    let has = |metric: &MetricArg| match metric {
        MetricArg::Fid => true,
        MetricArg::Sfid => network.widths().spatial.is_some() && spatial_known,
        MetricArg::Is => network.widths().logits.is_some(),
        MetricArg::Pr | MetricArg::Kid => true,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_fewer_samples_than_there_are_say_so() {
        let all = BTreeSet::from([Metric::Fid, Metric::PrecisionRecall, Metric::Kid]);
        assert_eq!(cut(&all, 50_000), Vec::<String>::new());
        let found = cut(&all, 50_001);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("precision and recall: of 50000 of the 50001 samples"), "{found:?}");
        assert_eq!(cut(&BTreeSet::from([Metric::Fid]), 1_281_167), Vec::<String>::new());
    }
}
