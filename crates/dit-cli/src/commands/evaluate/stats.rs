//! `evaluate --stats`: pictures made a reference of.

use std::path::Path;

use anyhow::Result;
use dit_args::EvaluateArgs;
use dit_eval::{FeatureNetwork, Fit, Pictures, StatisticsNotes, statistics_of};

use super::{SOFTWARE, input::features, warn_of_rank};
use crate::speak::say;

/// Writes the statistics of the pictures in `data` to `out`.
pub fn write(args: &EvaluateArgs, data: &Path, out: &Path, fit: Fit, network: &dyn FeatureNetwork) -> Result<()> {
    let pictures = Pictures::open(data, fit)?;
    let (features, sha256) = features(data, &pictures, network, args.cache.as_deref(), args.batch_size)?;
    warn_of_rank("", features.len(), network);
    let mut statistics = statistics_of(&features)?;
    statistics.notes = Some(StatisticsNotes::new(SOFTWARE, &sha256, features.len(), network));
    statistics.write(out)?;
    say(format_args!("{}: statistics of {} pictures", out.display(), features.len()));
    Ok(())
}
