//! `evaluate --stats`: pictures made a reference of.

use std::path::Path;

use anyhow::{Context, Result};
use dit_args::EvaluateArgs;
use dit_eval::{FeatureNetwork, Fit, Pictures, Statistics, StatisticsNotes, statistics_of, statistics_of_pictures};

use super::{
    SOFTWARE,
    input::{features, picture_bar},
    warn_of_rank,
};
use crate::speak::say;

/// Writes the statistics of the pictures in `data` to `out`.
pub fn write(args: &EvaluateArgs, data: &Path, out: &Path, fit: Fit, network: &dyn FeatureNetwork) -> Result<()> {
    let pictures = Pictures::open(data, fit)?;
    let (mut statistics, sha256) = if args.no_cache {
        streamed(data, &pictures, network, args.batch_size)?
    } else {
        let (features, sha256) = features(data, &pictures, network, args.cache.as_deref(), args.batch_size)?;
        (statistics_of(&features)?, sha256)
    };
    warn_of_rank("", pictures.len(), network);
    statistics.notes = Some(StatisticsNotes::new(SOFTWARE, &sha256, pictures.len(), network));
    statistics.write(out)?;
    say(format_args!("{}: statistics of {} pictures", out.display(), pictures.len()));
    Ok(())
}

/// The statistics of pictures whose features are not kept, and the pictures' hash.
fn streamed(
    data: &Path,
    pictures: &Pictures,
    network: &dyn FeatureNetwork,
    batch_size: usize,
) -> Result<(Statistics, String)> {
    let sha256 = pictures.sha256()?;
    let (bar, show) = picture_bar(data);
    let statistics = statistics_of_pictures(pictures, network, batch_size, &mut |progress| show(progress));
    bar.finish_and_clear();
    Ok((statistics.with_context(|| format!("features of {}", data.display()))?, sha256))
}
