//! What the pipeline does, by hand, for those who want the parts: dit-model computes, dit-diffusion walks, dit-vae decodes.
//! `cargo run --release -p dit-sample --example by_hand -- weights/demo/dit-fashion.safetensors weights/demo/vae-fashion`

use std::{env, ops::ControlFlow};

use dit_diffusion::{
    BatchNoise, ClassConditional, ClassifierFree, ClipX0, Ddim, GuidedChannels, LatentShape, NoiseSchedule,
    Parameterization, Sampler, SeededNoise, Timestep,
};
use dit_image::{Caption, GRID_COLUMNS, Picture, grid, write_png};
use dit_model::Dit;
use dit_vae::{AutoencoderKl, Decoded, Latents, decode_each};
use dit_weights::{Checkpoint, OpenOptions, VaeCheckpoint};
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args_os().skip(1);
    let (Some(dit), Some(vae)) = (args.next(), args.next()) else { return Err("usage: by_hand DIT VAE".into()) };
    let checkpoint = Checkpoint::open(dit, &OpenOptions::default())?;
    let dit = Dit::load(&checkpoint, Device::Cpu, Kind::Float)?;
    let vae = AutoencoderKl::load(&VaeCheckpoint::open(vae)?, Device::Cpu, Kind::Float)?;
    let (config, process) = (dit.config(), checkpoint.process());

    // A network is a function of noised latents, a timestep and labels.
    let labels = Tensor::from_slice(&[0_i64, 1, 2, 3]); // (N,)
    let network = |x: &Tensor, t: Timestep, labels: &Tensor| {
        let t = Tensor::full([x.size()[0]], i64::from(t.0), (Kind::Int64, x.device()));
        Ok(dit.forward(x, &t, labels)) // (2N, 2C, H, W)
    };
    let null = config.null_class().ok_or("the model was trained without a null class")?;
    let conditional = ClassConditional::new(network, &labels, null as i64)?;
    let guided = ClassifierFree::new(conditional, 4.0, GuidedChannels::default_for(config.in_channels))?;

    // A walk goes over some of the training's steps, from noise that each picture has of its own.
    let schedule = NoiseSchedule::of(&process)?.respaced(&"ddim50".parse()?)?;
    let sampler = Sampler { schedule: &schedule, parameterization: Parameterization::of(&process), clip: ClipX0::No };
    let (seeded, images) = (SeededNoise::new(1), [0, 1, 2, 3]);
    let noise = BatchNoise::new(&seeded, &images);
    let start = noise.initial(LatentShape::of(config), dit.device())?; // (N, C, H, W)
    let mut watch = |walk: dit_diffusion::Progress<'_>| {
        eprint!("\rstep {} of {}", walk.done, walk.total);
        ControlFlow::Continue(())
    };
    let latents = sampler.run(&guided, &mut Ddim::new(0.0)?, noise, &start, &mut watch)?;
    eprintln!();

    let _no_grad = tch::no_grad_guard();
    let mut pictures = Vec::new();
    let _all = decode_each::<Box<dyn std::error::Error>>(
        &vae,
        &Latents::new(latents),
        |Decoded { values, height, width }| {
            pictures.push(Picture::from_chw(values, width, height)?);
            Ok(ControlFlow::Continue(()))
        },
    )?;
    let path = env::temp_dir().join("by-hand.png");
    write_png(&path, &grid(&pictures, GRID_COLUMNS)?, &Caption::default())?;
    println!("{}", path.display());
    Ok(())
}
