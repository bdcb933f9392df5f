//! What a run will cost: the plan, said before it begins.

use std::time::{Duration, Instant};

use anyhow::Result;
use dit_config::{DitConfig, VaeConfig};
use dit_ops::{Cpu, Kernels, Linear, Tf32Scope};
use dit_recipe::{Plan, Precision, Recipe};
use dit_train::watch::{Bearing, TOLERANCE, expected_loss};
use tch::{Device, Kind, Tensor};

use super::screen::duration;
use crate::{machine, speak::say};

/// How often the device's speed is measured; the fastest counts, as others compute at times.
const MEASUREMENTS: u32 = 5;

/// How long each takes.
const MEASURE: Duration = Duration::from_millis(100);

/// What the cost depends on, beside the recipe.
pub struct Costs<'a> {
    pub config: &'a DitConfig,
    /// The latents' codec, which makes pictures where the recipe asks for some.
    pub codec: &'a VaeConfig,
    /// How many there are to learn from.
    pub records: u64,
    /// Classes that the data knows.
    pub classes: usize,
    pub device: Device,
    /// Whether a run that does not fit is only warned of.
    pub ignore_memory: bool,
}

/// Says what `recipe` costs, and makes sure that it fits.
pub fn say_plan(recipe: &Recipe, costs: &Costs<'_>) -> Result<()> {
    let &Costs { config, codec, records, classes, device, ignore_memory } = costs;
    let mut plan = Plan::new(recipe, config).with_codec(recipe, codec, config);
    plan = match device {
        Device::Cpu => plan.with_held_out(recipe, config, records),
        // A GPU's memory holds a batch of them at a time.
        _ => plan.on_gpu(),
    };
    let available = machine::free_memory(device);
    let memory = &plan.memory;
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    say(format_args!(
        "{config}: {:.1} M parameters, {:.2} G multiply-accumulates an image",
        plan.parameters as f64 / 1e6,
        plan.forward_macs as f64 / 1e9
    ));
    if config.num_classes > classes {
        say(format_args!(
            "note: model.num_classes is {}, the data has {classes} classes: the others are never trained, and the checkpoints have no \
             class names",
            config.num_classes
        ));
    }
    let turned = if recipe.train.checkpoint_activations { "kept" } else { "recomputed" };
    say(format_args!(
        "memory: about {:.2} GiB{}: weights {:.2}, gradients {:.2}, moments {:.2}, averages {:.2}, watching {:.2}, activations {:.2} (if {turned} {:.2})",
        gib(memory.total()),
        available.map_or(String::new(), |bytes| format!(" of {:.1} free", gib(bytes))),
        gib(memory.weights),
        gib(memory.gradients),
        gib(memory.moments),
        gib(memory.averages),
        gib(memory.watching),
        gib(memory.activations),
        gib(plan.memory_otherwise.activations),
    ));
    if let Some(available) = available {
        match plan.check(recipe, config, available) {
            Err(error) if ignore_memory => say(format_args!("warning: {error}")),
            fits => fits?,
        }
    }
    let cpu = Cpu::detect();
    if recipe.train.precision == Precision::Bf16 && device == Device::Cpu && !cpu.bf16 {
        say(format_args!(
            "{}",
            match cpu.has_bf16_kernels() {
                true =>
                    "note: this CPU multiplies bf16 no faster than fp32: training in it takes less memory, but no less time",
                false =>
                    "warning: this CPU has no fast instructions for bf16, in which training is slower than in fp32\n  help: --set train.precision=fp32",
            }
        ));
    }
    let speed = plan.images_per_second(linear_speed(recipe, config, device)?);
    let epochs = plan.images as f64 / records.max(1) as f64;
    say(format_args!(
        "{} steps of {} images, {epochs:.1} times the data; about {speed:.1} images/s, so {}, if all of a step went as fast as one Linear \
         that was timed just now: small models reach three quarters to a tenth of that, and other work on this machine makes it wrong \
         either way",
        recipe.train.steps,
        recipe.train.batch_size,
        duration(plan.images as f64 / speed.max(1e-9)),
    ));
    for reference in expected_loss(recipe, config) {
        let bearing = match reference.bearing {
            Bearing::Same => "expected loss",
            Bearing::Above => "a loss below that of a smaller model is expected",
            Bearing::Below => "a loss above that of a larger model is expected",
        };
        let percent = 100.0 * TOLERANCE;
        say(format_args!("{bearing}, by the original's recipe on ImageNet, within {percent:.0} % or so: {reference}"));
    }
    Ok(())
}

/// Multiply-accumulates per second of an MLP's Linear, forward, in the arithmetic of the run.
fn linear_speed(recipe: &Recipe, config: &DitConfig, device: Device) -> Result<f64> {
    let _no_grad = tch::no_grad_guard();
    let _tf32 = (recipe.train.precision == Precision::Tf32).then(Tf32Scope::new).transpose()?;
    let kind = match recipe.train.precision {
        Precision::Fp32 | Precision::Tf32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    };
    let micro_batch = recipe.train.batch_size / recipe.train.accumulate.max(1);
    let rows = (micro_batch * config.tokens()).clamp(1, 4096) as i64;
    let (width, hidden) = (config.hidden as i64, config.mlp_hidden() as i64);
    let x = Tensor::ones([rows, width], (kind, device)); // (rows, D)
    let mut linear = Linear::new(Tensor::ones([hidden, width], (kind, device)), None);
    linear.optimize(Kernels::Differentiable);
    let wait = || {
        if let Device::Cuda(number) = device {
            tch::Cuda::synchronize(number as i64)
        }
    };
    let once = || linear.forward(&x); // (rows, rD)
    let _warm = once();
    wait();
    let per_second = || {
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < MEASURE {
            let _product = once();
            count += 1;
            if count % 16 == 0 {
                wait();
            }
        }
        wait();
        f64::from(count) / start.elapsed().as_secs_f64()
    };
    let fastest = (0..MEASUREMENTS).map(|_| per_second()).fold(0.0, f64::max);
    Ok(fastest * (rows * width * hidden) as f64)
}
