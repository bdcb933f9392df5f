//! `dit-cli calibrate-cache`.

use std::{ops::ControlFlow, time::Instant};

use anyhow::{Context, Result};
use dit_args::CalibrateCacheArgs;
use dit_catalog::Kind;
use dit_classes::ClassNames;
use dit_diffusion::SeededNoise;
use dit_model::Dit;
use dit_sample::{CfgChannels, Pipeline, Plan, SamplerKind, Settings, batch_size_that_fits};
use dit_weights::{Checkpoint, OpenOptions};
use serde::Serialize;
use tch::{Kind as Element, Tensor};

use crate::{
    machine,
    open::Library,
    run_folder,
    speak::{print_json, say},
    usage::wrong_usage,
};

/// One row of the table.
#[derive(Serialize)]
struct Row {
    factor: f64,
    /// Share of the passes whose blocks, but for the first, were taken from an earlier step.
    reused: f64,
    seconds: f64,
    /// The uncached time over this one.
    speed_up: f64,
    /// ‖latents − uncached‖ / ‖uncached‖.
    drift: f64,
    /// Of the latents, their peak four standard deviations of the uncached ones; none where they are equal.
    psnr: Option<f64>,
}

pub fn run(args: &CalibrateCacheArgs) -> Result<()> {
    let factors = factors(&args.factors)?;
    let device = machine::open_device(args.machine.device.as_deref().unwrap_or("auto"))?;
    machine::set_threads(args.machine.threads)?;
    let library = Library::discover()?;
    let at = match &args.ckpt {
        Some(text) => library.locate(text, Kind::Dit).context("--ckpt")?,
        None => library.default_checkpoint()?,
    };
    let options: OpenOptions = at.options.clone();
    let checkpoint = Checkpoint::open(&at.path, &options)?;
    run_folder::start_check(&checkpoint)?;
    let config = checkpoint.config();
    let names = ClassNames::of_checkpoint(checkpoint.class_names(), config.num_classes)?;
    let classes = match &args.class {
        Some(list) => names.parse_list(list)?,
        None => (0..names.len().min(8)).collect(),
    };
    let base = Settings {
        sampler: SamplerKind::Ddim { eta: 0.0 },
        steps: args.steps.parse()?,
        cfg_scale: if config.null_class().is_some() { args.cfg_scale } else { 1.0 },
        cfg_channels: CfgChannels::default_for(config.in_channels),
        seed: args.seed,
        process: Some(checkpoint.process()),
        ..Settings::default()
    };
    let memory = machine::memory_for_batches(device);
    let batch_size = batch_size_that_fits(config, base.precision, base.cfg_scale != 1.0, device, memory);
    let pipeline = Pipeline::new(Dit::load(&checkpoint, device, Element::Float)?, None)?;
    run_folder::check(&checkpoint)?;
    let sample = |factor: f64| -> Result<(Tensor, f64, f64)> {
        let settings = Settings { cache: factor, ..base.clone() };
        let plan = Plan::new(config, settings, 0, classes.clone(), batch_size)?;
        let (before, noise) = (pipeline.cache_report(), SeededNoise::new(args.seed));
        let start = Instant::now();
        let mut latents = Vec::new();
        for batch in plan.batches() {
            latents.push(pipeline.sample(&plan, &batch, &noise, &mut |_| ControlFlow::Continue(()))?.into_tensor());
        }
        let seconds = start.elapsed().as_secs_f64();
        let after = pipeline.cache_report();
        let (computed, reused) = (after.computed - before.computed, after.reused - before.reused);
        Ok((Tensor::cat(&latents, 0), seconds, reused as f64 / (computed + reused).max(1) as f64))
    };
    say(format_args!("{}: {} pictures, ddim {}, guidance {}", at.name, classes.len(), base.steps, base.cfg_scale));
    let _warm_up = sample(0.0)?;
    let (exact, uncached, _) = sample(0.0)?;
    let mut rows = Vec::with_capacity(factors.len());
    for factor in factors {
        let (latents, seconds, reused) = sample(factor)?;
        let (drift, psnr) = compare(&latents, &exact);
        rows.push(Row { factor, reused, seconds, speed_up: uncached / seconds, drift, psnr });
    }
    say(format_args!("uncached: {uncached:.2} s"));
    say(format_args!(
        "{:>8} {:>8} {:>9} {:>9} {:>8} {:>9}",
        "factor", "reused", "seconds", "speed-up", "drift", "PSNR"
    ));
    for Row { factor, reused, seconds, speed_up, drift, psnr } in &rows {
        let psnr = psnr.map_or("equal".to_owned(), |psnr| format!("{psnr:.1} dB"));
        say(format_args!(
            "{factor:>8} {:>6.0} % {seconds:>9.2} {speed_up:>8.2}x {drift:>8.4} {psnr:>9}",
            100.0 * reused
        ));
    }
    if args.json {
        print_json(&rows)?;
    }
    Ok(())
}

fn factors(text: &str) -> Result<Vec<f64>> {
    let factor = |part: &str| match part.trim().parse::<f64>() {
        Ok(factor) if factor >= 0.0 && factor.is_finite() => Ok(factor),
        _ => wrong_usage!("--factors {text}: {part} is no factor; expected numbers such as 0.05,0.1,0.2"),
    };
    text.split(',').map(factor).collect()
}

/// Relative distance, and PSNR.
fn compare(latents: &Tensor, exact: &Tensor) -> (f64, Option<f64>) {
    let (latents, exact) = (latents.to_kind(Element::Double), exact.to_kind(Element::Double));
    let error = (&latents - &exact).square().mean(Element::Double).double_value(&[]);
    let power = exact.square().mean(Element::Double).double_value(&[]);
    let peak = 4.0 * exact.std(true).double_value(&[]);
    ((error / power).sqrt(), (error > 0.0).then(|| 10.0 * (peak * peak / error).log10()))
}
