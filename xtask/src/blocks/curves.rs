//! What a run's log says.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A run's validation losses.
pub struct Curve {
    /// Step, and the loss of the averaged weights on held-out records.
    pub validation: Vec<(u64, f64)>,
}

impl Curve {
    /// Reads `log.jsonl` of the run.
    pub fn read(run: &Path) -> Result<Self> {
        let path = run.join("log.jsonl");
        let text = fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}: run `cargo xtask blocks` without --report-only", path.display())
        })?;
        let mut validation = Vec::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))?;
            if line["event"] == "validation" {
                let (step, loss) = (line["step"].as_u64(), line["ema"]["loss"].as_f64());
                validation.extend(step.zip(loss));
            }
        }
        ensure!(!validation.is_empty(), "{} has no validation loss", path.display());
        Ok(Self { validation })
    }

    /// The last loss.
    pub fn last(&self) -> f64 {
        self.validation.last().map_or(f64::NAN, |(_, loss)| *loss)
    }

    /// The step of the last loss.
    pub fn steps(&self) -> u64 {
        self.validation.last().map_or(0, |(step, _)| *step)
    }
}
