//! The same guided step of a DiT on candle, which calls no libtorch: the Rust peer of `cargo xtask bench`.
//!
//! `dit-bench-candle --case CASE.json --precision fp32|bf16`; threads as RAYON_NUM_THREADS says. The protocol is described in
//! `bench/dit/protocol.py`.

mod model;

use std::io::{BufRead, Write};
use std::time::Instant;
use std::{collections::HashMap, env, fs};

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::VarBuilder;
use serde_json::{Value, json};

use crate::model::{Dit, Spec};

struct Guided {
    dit: Dit,
    null_class: i64,
    scale: f64,
    x: Tensor,
    t: Tensor,
    labels: Tensor,
}

impl Guided {
    fn load(case: &Value, dtype: DType) -> Result<Self> {
        let text = |key: &str| case[key].as_str().with_context(|| format!("the case lacks {key}"));
        if text("task")? != "sample" {
            bail!("candle is compared in sampling only");
        }
        let spec: Spec = serde_json::from_value(case["model"].clone())?;
        // SAFETY: the file is mapped; nobody writes to it while a measurement runs.
        let weights = unsafe { VarBuilder::from_mmaped_safetensors(&[text("weights")?], dtype, &Device::Cpu)? };
        let mut inputs: HashMap<String, Tensor> = safetensors::load(text("input")?, &Device::Cpu)?;
        let mut take = |name: &str| inputs.remove(name).with_context(|| format!("the inputs lack {name}"));
        Ok(Self {
            dit: Dit::new(&spec, &weights)?,
            null_class: case["null_class"].as_i64().context("the case lacks null_class")?,
            scale: case["guidance"].as_f64().context("the case lacks guidance")?,
            x: take("x")?,
            t: take("t")?,
            labels: take("labels")?,
        })
    }

    /// (N, 2C, H, W), the first three channels guided.
    fn step(&self) -> Result<Tensor> {
        let none = Tensor::full(self.null_class, self.labels.shape(), &Device::Cpu)?;
        let twice = |x: &Tensor| Tensor::cat(&[x, x], 0);
        let labels = Tensor::cat(&[&self.labels, &none], 0)?;
        let both = self.dit.forward(&twice(&self.x)?, &twice(&self.t)?, &labels)?.to_dtype(DType::F32)?;
        let (given, none) = match both.chunk(2, 0)?.as_slice() {
            [given, none] => (given.clone(), none.clone()),
            _ => bail!("an odd batch"),
        };
        let (with, without) = (given.narrow(1, 0, 3)?, none.narrow(1, 0, 3)?);
        let moved = (&without + ((with - &without)? * self.scale)?)?;
        Ok(Tensor::cat(&[&moved, &given.narrow(1, 3, given.dim(1)? - 3)?], 1)?)
    }
}

fn main() -> Result<()> {
    let mut given = env::args().skip(1);
    let mut options = HashMap::new();
    while let (Some(name), Some(value)) = (given.next(), given.next()) {
        options.insert(name, value);
    }
    let option = |name: &str| options.get(name).with_context(|| format!("{name} is missing"));
    let case: Value = serde_json::from_str(&fs::read_to_string(option("--case")?)?)?;
    let dtype = match option("--precision")?.as_str() {
        "fp32" => DType::F32,
        "bf16" => DType::BF16,
        other => bail!("unknown precision {other}"),
    };
    let start = Instant::now();
    let guided = Guided::load(&case, dtype)?;
    let loaded = start.elapsed().as_secs_f64();
    let mut result = guided.step()?;
    say(&json!({
        "ready": true,
        "engine": "candle 0.11",
        "seconds_load": loaded,
        "seconds_prepare": start.elapsed().as_secs_f64() - loaded,
    }))?;
    for line in std::io::stdin().lock().lines() {
        let question: Value = serde_json::from_str(&line?)?;
        say(&match question["do"].as_str() {
            Some("step") => {
                let start = Instant::now();
                result = guided.step()?;
                json!({ "seconds": start.elapsed().as_secs_f64() })
            }
            Some("output") => {
                let values: Vec<f32> = result.flatten_all()?.to_vec1()?;
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                fs::write(question["path"].as_str().context("no path")?, bytes)?;
                json!({ "values": values.len() })
            }
            Some("memory") => json!({ "peak_rss_bytes": peak_rss_bytes() }),
            other => json!({ "error": format!("unknown: {other:?}") }),
        })?;
    }
    Ok(())
}

fn say(message: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{message}")?;
    Ok(out.flush()?)
}

fn peak_rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
