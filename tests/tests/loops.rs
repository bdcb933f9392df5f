//! Whole sampling loops on the trained demo model against independent implementations.

use std::{env, ops::ControlFlow, path::Path};

use dit_diffusion::ReplayedNoise;
use dit_model::Dit;
use dit_sample::{CfgChannels, Pipeline, Plan, SamplerKind, Settings};
use dit_tests::{fixture, read_tensor, relative_error, root, succeed_in};
use dit_vae::{AutoencoderKl, LatentCodec, Latents};
use dit_weights::{Checkpoint, OpenOptions, VaeCheckpoint};
use tch::{Device, Kind, Tensor};

/// The demo's VAE and the DiT in `checkpoint`.
fn pipeline(checkpoint: &Path) -> Pipeline {
    let options = OpenOptions { heads: Some(6), ..OpenOptions::default() };
    let checkpoint = Checkpoint::open(checkpoint, &options).unwrap();
    let vae = VaeCheckpoint::open(root().join("weights/demo/vae-fashion")).unwrap();
    let dit = Dit::load(&checkpoint, Device::Cpu, Kind::Float).unwrap();
    Pipeline::new(dit, Some(AutoencoderKl::load(&vae, Device::Cpu, Kind::Float).unwrap())).unwrap()
}

fn settings(sampler: SamplerKind, steps: &str) -> Settings {
    Settings {
        sampler,
        steps: steps.parse().unwrap(),
        cfg_scale: 3.0,
        cfg_channels: CfgChannels::Three,
        ..Settings::default()
    }
}

/// The recorded noise of the reference, through a walk of ten images in batches of `batch_size`.
fn walk(pipeline: &Pipeline, sampler: SamplerKind, steps: &str, batch_size: usize) -> Tensor {
    let io = fixture("fashion/io.safetensors");
    let noise = ReplayedNoise::new(&read_tensor(&io, "z")).unwrap();
    let noise = noise.with_steps(&read_tensor(&io, "ddpm50_noises")).unwrap();
    let config = pipeline.dit().config();
    let plan = Plan::new(config, settings(sampler, steps), 0, (0..10).collect(), batch_size).unwrap();
    let batches: Vec<Tensor> = plan
        .batches()
        .map(|batch| {
            let latents = pipeline.sample(&plan, &batch, &noise, &mut |_| ControlFlow::Continue(()));
            latents.unwrap().into_tensor()
        })
        .collect();
    Tensor::cat(&batches, 0)
}

const LOOPS: [(SamplerKind, &str, &str); 2] =
    [(SamplerKind::Ddim { eta: 0.0 }, "ddim50", "ddim50"), (SamplerKind::Ddpm, "50", "ddpm50")];

/// Largest difference of two pictures in [−1, 1], in levels of 255.
fn levels(a: &Tensor, b: &Tensor) -> f64 {
    ((a - b).abs().max() * 127.5).double_value(&[])
}

fn decoded(pipeline: &Pipeline, latents: Tensor) -> Tensor {
    let mut pictures = Vec::new();
    pipeline
        .decode(&Latents::new(latents), &mut |picture| {
            let pixels = Tensor::from_slice(picture.rgb()).reshape([32, 32, 3]).permute([2, 0, 1]);
            pictures.push(pixels.to_kind(Kind::Float) / 127.5 - 1.0);
            Ok(())
        })
        .unwrap();
    Tensor::stack(&pictures, 0)
}

/// The committed weights against the mathematics in f64 on the same weights (make_fashion_loops.py).
#[test]
fn walks_match_the_mathematics() {
    let pipeline = pipeline(&root().join("weights/demo/dit-fashion.safetensors"));
    for (sampler, steps, name) in LOOPS {
        let latents = walk(&pipeline, sampler, steps, 10);
        let error = relative_error(&latents, &read_tensor(&fixture("fashion/loops-f16.safetensors"), name));
        assert!(error < 1e-4, "{name}: {error:e} from the mathematics");
        // Batches change the kernels' rounding, and nothing else.
        let in_batches = relative_error(&walk(&pipeline, sampler, steps, 3), &latents);
        assert!(in_batches < 2e-5, "{name}: {in_batches:e} between batches of 3 and 10");
    }
}

/// The weights that the published implementation was trained to, and sampled with for the recording, are too large for the
/// repository: `DIT_FASHION_F32` names their state dict.
#[test]
fn walks_match_the_published_implementation() {
    let Some(checkpoint) = env::var_os("DIT_FASHION_F32") else {
        eprintln!(
            "SKIPPED: set DIT_FASHION_F32 to the f32 state dict that tests/fixtures/fashion/io was recorded with"
        );
        return;
    };
    let pipeline = pipeline(Path::new(&checkpoint));
    for (sampler, steps, name) in LOOPS {
        let latents = walk(&pipeline, sampler, steps, 10);
        let error = relative_error(&latents, &read_tensor(&fixture("fashion/io.safetensors"), name));
        assert!(error < 1e-4, "{name}: {error:e} from the published implementation");
        let images = read_tensor(&fixture("fashion/io.safetensors"), &format!("{name}_images"));
        let levels = levels(&decoded(&pipeline, latents), &images.clamp(-1.0, 1.0));
        assert!(levels <= 1.01, "{name}: {levels} levels"); // quantisation alone cuts up to one level off
    }
}

#[test]
fn decoded_pictures_are_within_one_level() {
    let io = fixture("fashion/io.safetensors");
    let vae = VaeCheckpoint::open(root().join("weights/demo/vae-fashion")).unwrap();
    let vae = AutoencoderKl::load(&vae, Device::Cpu, Kind::Float).unwrap();
    for (_, _, name) in LOOPS {
        let decoded = vae.decode(&Latents::new(read_tensor(&io, name))).unwrap();
        let levels = levels(&decoded, &read_tensor(&io, &format!("{name}_images")));
        assert!(levels < 1.0, "{name}: {levels} levels");
    }
}

#[test]
fn the_binary_replays_recorded_noise() {
    let folder = tempfile::tempdir().unwrap();
    let io = fixture("fashion/io.safetensors");
    // The reference names its recording otherwise.
    let noise = folder.path().join("noise.safetensors");
    Tensor::write_safetensors(&[("z", read_tensor(&io, "z")), ("steps", read_tensor(&io, "ddpm50_noises"))], &noise)
        .unwrap();
    for (sampler, steps, name) in [("ddpm", "50", "ddpm50"), ("ddim", "ddim50", "ddim50")] {
        let flags =
            ["--ckpt", "dit-fashion-demo", "--class", "0-9", "--cfg-scale", "3", "--noise", "noise.safetensors"];
        let more = ["--sampler", sampler, "--steps", steps, "--latents", "latents.safetensors", "--vae", "none"];
        succeed_in(folder.path(), &[&["sample"], &flags[..], &more[..]].concat());
        let latents = read_tensor(&folder.path().join("latents.safetensors"), "latents");
        let error = relative_error(&latents, &read_tensor(&fixture("fashion/loops-f16.safetensors"), name));
        assert!(error < 1e-4, "{name}: {error:e}");
    }
}
