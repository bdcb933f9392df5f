//! Whole sampling loops on the trained demo model against independent implementations.

use std::ops::ControlFlow;

use dit_diffusion::ReplayedNoise;
use dit_model::Dit;
use dit_sample::{CfgChannels, Pipeline, Plan, Precision, SamplerKind, Settings};
use dit_tests::{fixture, read_tensor, relative_error, root, succeed_in};
use dit_vae::{AutoencoderKl, LatentCodec, Latents};
use dit_weights::{Checkpoint, OpenOptions, VaeCheckpoint};
use tch::{Device, Kind, Tensor};

fn demo() -> Pipeline {
    let weights = root().join("weights/demo");
    let checkpoint = Checkpoint::open(weights.join("dit-fashion.safetensors"), &OpenOptions::default()).unwrap();
    let vae = VaeCheckpoint::open(weights.join("vae-fashion")).unwrap();
    let dit = Dit::load(&checkpoint, Device::Cpu, Kind::Float).unwrap();
    Pipeline::new(dit, Some(AutoencoderKl::load(&vae, Device::Cpu, Kind::Float).unwrap())).unwrap()
}

fn settings(sampler: SamplerKind, steps: &str) -> Settings {
    Settings {
        sampler,
        steps: steps.to_owned(),
        cfg_scale: 3.0,
        cfg_channels: CfgChannels::Three,
        seed: 0,
        precision: Precision::Fp32,
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

#[track_caller]
fn check_loop(pipeline: &Pipeline, sampler: SamplerKind, steps: &str, name: &str) {
    let latents = walk(pipeline, sampler, steps, 10);
    // The same weights (f16 in the repository), computed in f64 by make_fashion_loops.py.
    let same_weights = relative_error(&latents, &read_tensor(&fixture("fashion/loops-f16.safetensors"), name));
    assert!(same_weights < 1e-4, "{name}: {same_weights:e} from the mathematics");
    // The published implementation on the weights before they were rounded to f16, which moves the latents by 6e-4.
    let published = relative_error(&latents, &read_tensor(&fixture("fashion/io.safetensors"), name));
    assert!(published < 1e-3, "{name}: {published:e} from the published implementation");
    // Batches change the kernels' rounding, and nothing else.
    let in_batches = relative_error(&walk(pipeline, sampler, steps, 3), &latents);
    assert!(in_batches < 2e-5, "{name}: {in_batches:e} between batches of 3 and 10");
}

#[test]
fn ddim_and_ddpm_loops_match_the_published_implementation() {
    let pipeline = demo();
    check_loop(&pipeline, SamplerKind::Ddim { eta: 0.0 }, "ddim50", "ddim50");
    check_loop(&pipeline, SamplerKind::Ddpm, "50", "ddpm50");
}

#[test]
fn decoded_pictures_are_within_one_level() {
    let io = fixture("fashion/io.safetensors");
    let vae = VaeCheckpoint::open(root().join("weights/demo/vae-fashion")).unwrap();
    let vae = AutoencoderKl::load(&vae, Device::Cpu, Kind::Float).unwrap();
    for name in ["ddim50", "ddpm50"] {
        let decoded = vae.decode(&Latents::new(read_tensor(&io, name))).unwrap();
        let expected = read_tensor(&io, &format!("{name}_images"));
        let levels = ((decoded - expected).abs().max() * 127.5).double_value(&[]);
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
