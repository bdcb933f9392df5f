use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use dit_args::InspectArgs;
use dit_classifier::Classifier;
use dit_config::{DitSpec, Process, VaeSpec};
use dit_eval::DemoFeatures;
use dit_sample::{Precision, bytes_per_picture};
use dit_weights::{Checkpoint, Error, Metadata, Network, OpenOptions, TensorSource, VaeCheckpoint, find_non_finite};
use serde::Serialize;

use crate::{
    advice,
    open::{Library, told},
    run_folder,
    speak::{print_json, print_out},
};

/// What `--json` prints, and the text lays out.
#[derive(Serialize)]
struct Report {
    kind: &'static str,
    model: String,
    layout: String,
    files: Vec<String>,
    sha256: String,
    tensors: usize,
    dtypes: Vec<String>,
    parameters: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    macs: Option<u64>,
    config: serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// Whose latents a transformer was trained on.
    codec: Option<String>,
    problems: Vec<String>,
}

/// Bytes needed to sample.
#[derive(Serialize)]
struct Memory {
    weights_fp32: u64,
    weights_bf16: u64,
    /// For one picture with guidance: an upper estimate.
    activations_fp32_per_picture: u64,
    activations_bf16_per_picture: u64,
}

pub fn run(args: &InspectArgs) -> Result<()> {
    if dit_data::shard::Manifest::is_in(Path::new(&args.ckpt)) {
        return super::latents::inspect(Path::new(&args.ckpt), args.json);
    }
    let located = Library::discover()?.locate_any(&args.ckpt)?;
    let options = told(located.options, args.opened_as.model.as_deref(), args.opened_as.num_heads)?;
    let report = match Network::open(&located.path, &options) {
        Ok(Network::Dit(checkpoint)) => {
            let mut report = report_dit(&checkpoint)?;
            report.problems.extend(run_folder::check(&checkpoint).err().map(|error| format!("{error}")));
            report
        }
        Ok(Network::Vae(checkpoint)) => report_vae(&checkpoint)?,
        Err(error @ Error::HeadsUnknown { .. }) => without_heads(&located.path, options, &error)?,
        Err(error) => {
            refuse_other_networks(&located.path)?;
            return Err(error.into());
        }
    };
    if args.json {
        print_json(&report)?;
    } else {
        print_out(format_args!("{}", text(&report)))?;
    }
    match &report.problems[..] {
        [] => Ok(()),
        problems => bail!("{}", problems.join("\n")),
    }
}

/// A file of this toolkit that is no checkpoint of a transformer or a codec says what it is.
fn refuse_other_networks(path: &Path) -> Result<()> {
    let refuse = |what: &str, taken_by: &str| {
        bail!(
            "{} is {what}; inspect tells of transformers, codecs and latents\n  help: {taken_by} takes it",
            path.display()
        )
    };
    if Classifier::is_in(path) {
        return refuse("a classifier of noised latents", "sample --classifier");
    }
    // One that cannot be read has been refused with the reason.
    if DemoFeatures::is_in(path).unwrap_or(false) {
        return refuse("a feature network", "evaluate --features");
    }
    Ok(())
}

/// The report of a checkpoint that does not say its heads: no tensor's shape depends on them.
fn without_heads(path: &Path, options: OpenOptions, error: &Error) -> Result<Report> {
    let checkpoint = Checkpoint::open(path, &OpenOptions { heads: Some(1), ..options })?;
    let mut report = report_dit(&checkpoint)?;
    report.model = report.model.replace("heads 1", "heads ?");
    report.config["heads"] = serde_json::Value::Null;
    let help = advice::of(error).map_or(String::new(), |help| format!("\n  help: {help}"));
    report.problems.push(format!("{error}{help}"));
    Ok(report)
}

fn report_dit(checkpoint: &Checkpoint) -> Result<Report> {
    let config = checkpoint.config();
    let memory = Memory {
        weights_fp32: config.parameters() * 4,
        weights_bf16: config.parameters() * 2,
        activations_fp32_per_picture: bytes_per_picture(config, Precision::Fp32, true),
        activations_bf16_per_picture: bytes_per_picture(config, Precision::Bf16, true),
    };
    Ok(Report {
        kind: "DiT",
        model: config.to_string(),
        layout: checkpoint.source_layout().to_string(),
        files: as_text(checkpoint.files()),
        sha256: checkpoint.sha256()?.to_owned(),
        parameters: config.parameters(),
        macs: Some(config.macs()),
        config: serde_json::to_value(DitSpec::from(config.clone()))?,
        process: Some(checkpoint.process()),
        memory: Some(memory),
        classes: checkpoint.class_names().map(<[String]>::to_vec),
        ..common(checkpoint, checkpoint.metadata())?
    })
}

fn report_vae(vae: &VaeCheckpoint) -> Result<Report> {
    Ok(Report {
        kind: "VAE",
        model: "AutoencoderKL".to_owned(),
        layout: vae.source_layout().to_string(),
        files: as_text(vae.files()),
        sha256: vae.sha256()?.to_owned(),
        parameters: vae.config().parameters(),
        config: serde_json::to_value(VaeSpec::from(vae.config().clone()))?,
        ..common(vae, vae.metadata())?
    })
}

/// (JSON is text.)
fn as_text(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|file| file.display().to_string()).collect()
}

/// What is read the same way of every network; the rest is filled in by the caller.
fn common(source: &dyn TensorSource, metadata: &Metadata) -> Result<Report> {
    let mut dtypes: Vec<String> = source.infos().values().map(|info| info.dtype.to_string()).collect();
    dtypes.sort();
    dtypes.dedup();
    let non_finite = find_non_finite(source)?;
    Ok(Report {
        kind: "",
        model: String::new(),
        layout: String::new(),
        files: Vec::new(),
        sha256: String::new(),
        tensors: source.infos().len(),
        dtypes,
        parameters: 0,
        macs: None,
        config: serde_json::Value::Null,
        process: None,
        memory: None,
        classes: None,
        weights: metadata.weights.map(|kind| kind.to_string()),
        step: metadata.step,
        origin: metadata.origin.as_ref().map(|origin| format!("{} ({})", origin.name, origin.sha256)),
        codec: metadata.codec.as_ref().map(|codec| format!("{} ({})", codec.name, codec.sha256)),
        problems: non_finite
            .into_iter()
            .map(|(name, count)| format!("{name}: {count} values are NaN or infinite"))
            .collect(),
    })
}

fn text(report: &Report) -> String {
    let mut text = format!("{} {}\n", report.kind, report.model);
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<13}{value}\n"));
    for file in &report.files {
        line("file", file.clone());
    }
    line("sha256", report.sha256.clone());
    line("layout", report.layout.clone());
    line("tensors", format!("{} ({})", report.tensors, report.dtypes.join(", ")));
    line("parameters", thousands(report.parameters));
    if let Some(macs) = report.macs {
        line("MACs", format!("{:.2} G for one picture, without guidance and VAE", macs as f64 / 1e9));
    }
    if let Some(memory) = &report.memory {
        line(
            "memory",
            format!("weights {} fp32, {} bf16", mebibytes(memory.weights_fp32), mebibytes(memory.weights_bf16)),
        );
        line(
            "",
            format!(
                "and up to {} fp32, {} bf16 a guided picture",
                mebibytes(memory.activations_fp32_per_picture),
                mebibytes(memory.activations_bf16_per_picture)
            ),
        );
    }
    if let Some(object) = report.config.as_object() {
        for (key, value) in object {
            line(if object.keys().next() == Some(key) { "config" } else { "" }, format!("{key} = {value}"));
        }
    }
    if let Some(process) = &report.process {
        line("process", process.to_string());
    }
    if let Some(weights) = &report.weights {
        line("weights", weights.clone());
    }
    if let Some(step) = report.step {
        line("step", thousands(step));
    }
    if let Some(origin) = &report.origin {
        line("made from", origin.clone());
    }
    if let Some(codec) = &report.codec {
        line("latents of", codec.clone());
    }
    if let Some(classes) = &report.classes {
        let shown: Vec<&str> = classes.iter().take(12).map(String::as_str).collect();
        let more =
            if classes.len() > shown.len() { format!(", … ({} in all)", classes.len()) } else { String::new() };
        line("classes", format!("{}{more}", shown.join(", ")));
    }
    for problem in &report.problems {
        line("PROBLEM", problem.clone());
    }
    if report.problems.is_empty() {
        line("problems", "none".to_owned());
    }
    text
}

fn mebibytes(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if mebibytes < 10.0 { format!("{mebibytes:.1} MiB") } else { format!("{mebibytes:.0} MiB") }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}
