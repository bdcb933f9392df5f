//! The protocol's side of an engine.

use std::{
    fs,
    io::{BufRead, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::{Engine, rate};

/// What the harness asks.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Question {
    Step,
    Output { path: PathBuf },
    Rate,
    Memory,
}

/// Loads, warms up, says so, and answers until stdin ends.
pub fn run(device: Device, load: impl FnOnce() -> Result<Box<dyn Engine>>) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    let start = Instant::now();
    let mut engine = load()?;
    let loaded = start.elapsed().as_secs_f64();
    let mut first = None;
    for _ in 0..2 {
        engine.step()?;
        rate::synchronize(device);
        first = first.or(Some(start.elapsed().as_secs_f64() - loaded));
    }
    say(&json!({
        "ready": true,
        "engine": concat!("dit-rs ", env!("CARGO_PKG_VERSION")),
        "seconds_load": loaded,
        "seconds_prepare": start.elapsed().as_secs_f64() - loaded,
        "seconds_first_step": first,
        "flop": engine.flop(),
    }))?;
    for line in std::io::stdin().lock().lines() {
        let question = serde_json::from_str(&line?).context("a question that is none")?;
        say(&answer(question, engine.as_mut(), device)?)?;
    }
    Ok(())
}

fn answer(question: Question, engine: &mut dyn Engine, device: Device) -> Result<Value> {
    Ok(match question {
        Question::Step => {
            let start = Instant::now();
            let loss = engine.step()?;
            rate::synchronize(device);
            let seconds = start.elapsed().as_secs_f64();
            match loss {
                Some(loss) => json!({ "seconds": seconds, "loss": loss }),
                None => json!({ "seconds": seconds }),
            }
        }
        Question::Output { path } => write_values(&path, &engine.output()?)?,
        Question::Rate => rate_of(device),
        Question::Memory => json!({ "peak_rss_bytes": peak_rss_bytes() }),
    })
}

/// One answer.
pub fn say(message: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{message}")?;
    Ok(out.flush()?)
}

/// A result as fp32, row-major.
pub fn values(result: Option<&Tensor>) -> Result<Vec<f32>> {
    let result = result.context("no step has been taken")?;
    let flat = result.to_device(Device::Cpu).to_kind(Kind::Float).contiguous().view(-1);
    Ok(Vec::try_from(&flat)?)
}

/// The most memory that this process has had resident, where the system tells.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The yardsticks, as the harness wants them.
pub fn rate_of(device: Device) -> Value {
    json!({ "fp32": rate::linear(device, Kind::Float), "bf16": rate::linear(device, Kind::BFloat16) })
}

/// A result as a file, and the answer to its question.
pub fn write_values(path: &Path, values: &[f32]) -> Result<Value> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(path, bytes).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(json!({ "values": values.len() }))
}
