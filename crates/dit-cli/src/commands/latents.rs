//! What a folder of latents is.

use std::path::Path;

use anyhow::Result;
use dit_data::shard::Manifest;
use serde::Serialize;

use crate::speak::{counted, print_json, print_out};

#[derive(Serialize)]
struct Report<'a> {
    kind: &'static str,
    finished: bool,
    shards_done: usize,
    shards_total: usize,
    bytes: u64,
    scale: f64,
    shift: f64,
    #[serde(flatten)]
    manifest: &'a Manifest,
}

pub fn inspect(folder: &Path, json: bool) -> Result<()> {
    let manifest = Manifest::read(folder)?;
    let config = &manifest.settings.vae.config;
    let report = Report {
        kind: "latents",
        finished: manifest.summary.is_some(),
        shards_done: manifest.shards.len(),
        shards_total: manifest.settings.shard_count(),
        bytes: manifest.shards.iter().map(|shard| shard.bytes).sum(),
        scale: config.scaling_factor,
        shift: config.shift_factor.unwrap_or(0.0),
        manifest: &manifest,
    };
    if json {
        print_json(&report)?;
    } else {
        print_out(format_args!("{}", text(folder, &report)))?;
    }
    Ok(())
}

fn text(folder: &Path, report: &Report) -> String {
    let settings = &report.manifest.settings;
    let mut text = format!("latents {}\n", folder.display());
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<13}{value}\n"));
    let state = if report.finished { "finished" } else { "NOT finished: run the same command to continue" };
    line("state", format!("{} of {} shards, {state}", report.shards_done, report.shards_total));
    if let Ok(layout) = settings.layout() {
        let shape: Vec<String> = layout.shape(0).iter().skip(1).map(usize::to_string).collect();
        line("moments", format!("({}) {} a record: mean, log-variance", shape.join(", "), word(&settings.store)));
    }
    line(
        "pictures",
        format!("{} px, crop {}, flips {}", settings.image_size, word(&settings.crop), word(&settings.flips)),
    );
    line("VAE", format!("{} ({})", settings.vae.name, settings.vae.sha256));
    line("scale", format!("{}, shift {}; latents are stored raw", report.scale, report.shift));
    let encoding = &settings.encoding;
    line(
        "encoded on",
        format!(
            "{}, {}, {}, batches of {}",
            encoding.device,
            word(&encoding.precision),
            counted(encoding.threads, "thread"),
            encoding.batch_size
        ),
    );
    line("source", format!("{} records ({})", settings.source.records, settings.source.fingerprint));
    line("bytes", format!("{}", report.bytes));
    if let Some(summary) = &report.manifest.summary {
        line("records", format!("{}, {} skipped", summary.records, summary.skipped));
        let counts = &summary.class_counts;
        let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
        line(
            "classes",
            match least == most {
                true => format!("{}, of {most} records each", counts.len()),
                false => format!("{}, of {least} to {most} records", counts.len()),
            },
        );
        let numbers = |values: &[f64]| values.iter().map(|value| format!("{value:.4}")).collect::<Vec<_>>().join(", ");
        line("mean", format!("{} (raw, per channel)", numbers(&summary.mean)));
        line("std", numbers(&summary.std));
    }
    text
}

/// A setting as the manifest and the command line spell it.
fn word(setting: &impl Serialize) -> String {
    let value = serde_json::to_value(setting).unwrap_or_default();
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
