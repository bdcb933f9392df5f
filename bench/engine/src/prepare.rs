//! `prepare`: the files of a case. What is already there is kept: weights of gigabytes are written once.

use std::{fs, path::Path, path::PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use dit_config::{DitConfig, VaeConfig, VaeSpec};
use dit_weights::{Metadata, ModelConfig, TchSource, write_safetensors};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::case::{Case, SampleTask, Task, TrainTask};
use crate::random;
use crate::training::write_latents;

#[derive(clap::Args)]
pub struct Args {
    /// What is computed
    #[arg(long, value_enum)]
    task: TaskName,
    /// A standard model; for decode, `sd` or `tiny`
    #[arg(long)]
    model: String,
    /// Side of the pictures in pixels
    #[arg(long)]
    image_size: usize,
    /// Pictures in a batch, or samples of a training step
    #[arg(long)]
    pictures: u32,
    /// Where weights are kept, for all cases
    #[arg(long)]
    weights: PathBuf,
    /// The case's description; its inputs go beside it
    #[arg(long)]
    case: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum TaskName {
    Sample,
    Decode,
    Train,
}

/// Seeds of their own: inputs are the same whether the weights had to be made or were there.
const WEIGHTS: i64 = 0;
const INPUTS: i64 = 1;

/// Where diffusers expects a network in its folder.
const DIFFUSERS_WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

pub fn run(args: &Args) -> Result<()> {
    let input = args.case.with_extension("input.safetensors");
    for folder in [Some(args.weights.as_path()), args.case.parent()].into_iter().flatten() {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let (weights, task, inputs) = match args.task {
        TaskName::Sample => {
            let config = dit_config(&args.model, args.image_size)?;
            let weights = dit_weights(&config, args)?;
            tch::manual_seed(INPUTS);
            let inputs = sample_inputs(&config, i64::from(args.pictures));
            let null_class = config.null_class().context("the model has no null class")? as i64;
            (weights, Task::Sample(SampleTask { model: config.into(), null_class, guidance: 4.0 }), inputs)
        }
        TaskName::Decode => {
            let config = vae_config(&args.model)?;
            let side = (args.image_size / config.downsampling()) as i64;
            let shape = [i64::from(args.pictures), config.latent_channels as i64, side, side];
            let weights = vae_weights(&config, args)?;
            tch::manual_seed(INPUTS);
            let z = Tensor::randn(shape, (Kind::Float, Device::Cpu));
            (weights, Task::Decode, vec![("z".to_owned(), z)])
        }
        TaskName::Train => {
            let config = dit_config(&args.model, args.image_size)?;
            let weights = dit_weights(&config, args)?;
            let latents = args.weights.join(format!("latents-{}-{}", args.image_size, args.pictures));
            tch::manual_seed(WEIGHTS);
            write_latents(&latents, args.image_size, args.pictures, config.num_classes)?;
            tch::manual_seed(INPUTS);
            let inputs = train_inputs(&config, i64::from(args.pictures));
            let (name, batch) = (args.model.clone(), args.pictures);
            let task = TrainTask { name, batch, latents: absolute(&latents)?, model: config.into() };
            (weights, Task::Train(task), inputs)
        }
    };
    write_safetensors(&input, &TchSource::new(inputs)?, &Default::default())?;
    let case = Case { weights: absolute(&weights)?, input: absolute(&input)?, task };
    fs::write(&args.case, serde_json::to_string_pretty(&case)?)
        .with_context(|| format!("{} cannot be written", args.case.display()))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} cannot be made absolute", path.display()))
}

fn dit_config(model: &str, image_size: usize) -> Result<DitConfig> {
    Ok(DitConfig::standard(model.parse()?, image_size)?)
}

fn dit_weights(config: &DitConfig, args: &Args) -> Result<PathBuf> {
    let path = args.weights.join(format!("{}-{}.safetensors", args.model.replace('/', "-"), args.image_size));
    if !path.exists() {
        tch::manual_seed(WEIGHTS);
        let metadata = Metadata { config: Some(ModelConfig::Dit(config.clone())), ..Metadata::default() };
        write_safetensors(&path, &TchSource::new(random::dit(config))?, &metadata.to_map())?;
    }
    Ok(path)
}

/// N latents and classes, all at one timestep, as in sampling.
fn sample_inputs(config: &DitConfig, pictures: i64) -> Vec<(String, Tensor)> {
    let (channels, latent) = (config.in_channels as i64, config.latent);
    let shape = [pictures, channels, latent.height as i64, latent.width as i64];
    let labels: Vec<i64> = (0..pictures).map(|picture| picture * 37 % config.num_classes as i64).collect();
    vec![
        ("x".to_owned(), Tensor::randn(shape, (Kind::Float, Device::Cpu))),
        ("t".to_owned(), Tensor::full([pictures], 500, (Kind::Int64, Device::Cpu))),
        ("labels".to_owned(), Tensor::from_slice(&labels)),
    ]
}

/// Samples at timesteps all over the schedule, one in ten without its label.
fn train_inputs(config: &DitConfig, samples: i64) -> Vec<(String, Tensor)> {
    let latent = config.latent;
    let shape = [samples, config.in_channels as i64, latent.height as i64, latent.width as i64];
    let normal = || Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let timesteps: Vec<i64> = (0..samples).map(|sample| sample * 613 % 1000).collect();
    let label = |sample: i64| if sample % 10 == 9 { config.num_classes as i64 } else { sample * 37 % 1000 };
    let labels: Vec<i64> = (0..samples).map(label).collect();
    vec![
        ("x0".to_owned(), normal()),
        ("noise".to_owned(), normal()),
        ("t".to_owned(), Tensor::from_slice(&timesteps)),
        ("labels".to_owned(), Tensor::from_slice(&labels)),
    ]
}

fn vae_config(model: &str) -> Result<VaeConfig> {
    let widths = match model {
        "tiny" => vec![32, 64, 64],
        _ => VaeSpec::default().block_out_channels,
    };
    let spec = VaeSpec {
        down_block_types: vec!["DownEncoderBlock2D".to_owned(); widths.len()],
        up_block_types: vec!["UpDecoderBlock2D".to_owned(); widths.len()],
        block_out_channels: widths,
        ..VaeSpec::default()
    };
    Ok(VaeConfig::new(spec)?)
}

fn vae_weights(config: &VaeConfig, args: &Args) -> Result<PathBuf> {
    let folder = args.weights.join(format!("vae-{}", args.model));
    let path = folder.join(DIFFUSERS_WEIGHTS);
    if !path.exists() {
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        tch::manual_seed(WEIGHTS);
        fs::write(folder.join("config.json"), json!(VaeSpec::from(config.clone())).to_string())?;
        let metadata = Metadata { config: Some(ModelConfig::Vae(config.clone())), ..Metadata::default() };
        write_safetensors(&path, &TchSource::new(random::vae(&config.tensors()))?, &metadata.to_map())?;
    }
    Ok(folder)
}
