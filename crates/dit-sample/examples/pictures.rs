//! Pictures from a checkpoint and its VAE, without the command line:
//! `cargo run --release -p dit-sample --example pictures -- weights/demo/dit-fashion.safetensors weights/demo/vae-fashion`

use std::{env, ops::ControlFlow};

use dit_image::{GRID_COLUMNS, grid, write_png};
use dit_model::Dit;
use dit_sample::{CfgChannels, Pipeline, Plan, SamplerKind, Settings, Spacing};
use dit_vae::AutoencoderKl;
use dit_weights::{Checkpoint, OpenOptions, VaeCheckpoint};
use tch::{Device, Kind};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args_os().skip(1);
    let (Some(dit), Some(vae)) = (args.next(), args.next()) else { return Err("usage: pictures DIT VAE".into()) };
    let checkpoint = Checkpoint::open(dit, &OpenOptions::default())?;
    let dit = Dit::load(&checkpoint, Device::Cpu, Kind::Float)?;
    let vae = AutoencoderKl::load(&VaeCheckpoint::open(vae)?, Device::Cpu, Kind::Float)?;
    let config = dit.config().clone();
    let pipeline = Pipeline::new(dit, Some(vae))?;

    let settings = Settings {
        sampler: SamplerKind::UniPc,
        steps: Spacing::UniformLambda(20),
        cfg_scale: 4.0,
        cfg_channels: CfgChannels::default_for(config.in_channels),
        process: Some(checkpoint.process()),
        ..Settings::default()
    };
    let plan = Plan::new(&config, settings, 0, vec![0, 1, 2, 3], 4)?;
    let mut pictures = Vec::new();
    for batch in plan.batches() {
        let latents = pipeline.sample(&plan, &batch, &plan.noise(), &mut |_| ControlFlow::Continue(()))?;
        pipeline.decode(&latents, &mut |picture| {
            pictures.push(picture);
            Ok(())
        })?;
    }
    let path = env::temp_dir().join("pictures.png");
    write_png(&path, &grid(&pictures, GRID_COLUMNS)?, &dit_image::Caption::default())?;
    println!("{}", path.display());
    Ok(())
}
