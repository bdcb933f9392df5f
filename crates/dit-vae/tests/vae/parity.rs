//! Against diffusers' AutoencoderKL under PyTorch in fp32, one thread. Two orders of summation of a few thousand fp32
//! terms differ by some 1e-6; 2e-5 leaves room for deep networks and other kernels, and none for a wrong formula.

use std::path::Path;

use dit_vae::{Kernels, LatentCodec, LatentScale, Latents, RawLatents};
use tch::Kind;

use crate::support::{load, load_with, relative, tensors, workspace};

const TOLERANCE: f64 = 2e-5;

#[track_caller]
fn check(folder: &Path) {
    for kernels in [Kernels::Plain, Kernels::Fused] {
        check_kernels(folder, kernels);
    }
}

#[track_caller]
fn check_kernels(folder: &Path, kernels: Kernels) {
    let _no_grad = tch::no_grad_guard();
    let codec = load_with(folder, Kind::Float, kernels);
    let io = tensors(&folder.join("io.safetensors"));
    let moments = codec.encode(&io["image"]).unwrap();
    let raw = RawLatents::new(io["latent"].shallow_clone());
    let decoded = codec.decode_raw(&raw).unwrap();
    for (name, ours) in [("mean", moments.mean()), ("logvar", moments.logvar()), ("decoded", &decoded)] {
        let error = relative(ours, &io[name]);
        println!("{} {kernels:?} {name}: {error:.1e}", folder.display());
        assert!(error < TOLERANCE, "{}: {kernels:?} {name} differs by {error:.1e}", folder.display());
    }
    // The same latents as the diffusion model sees them, scaled by hand.
    let (scale, shift) = (codec.config().scaling_factor, codec.config().shift_factor.unwrap_or(0.0));
    let scaled = codec.latents(&raw);
    assert!(relative(scaled.tensor(), &((&io["latent"] - shift) * scale)) < 1e-7);
    assert!(relative(&codec.decode(&scaled).unwrap(), &io["decoded"]) < TOLERANCE);
}

#[test]
fn three_levels() {
    check(&workspace("tests/fixtures/vae-small"));
}

#[test]
fn four_levels() {
    check(&workspace("tests/fixtures/vae-f8"));
}

#[test]
fn no_attention_in_the_middle() {
    check(&workspace("tests/fixtures/vae-cases/no-attention"));
}

#[test]
fn no_quantisation_convolutions_and_shifted_latents() {
    check(&workspace("tests/fixtures/vae-cases/no-quant-shifted"));
}

#[test]
fn three_resnets_a_level_and_grey_images() {
    check(&workspace("tests/fixtures/vae-cases/layers-3-grey"));
}

#[test]
fn a_single_level() {
    check(&workspace("tests/fixtures/vae-cases/one-level"));
}

#[test]
fn log_variances_are_clamped_at_both_ends() {
    check(&workspace("tests/fixtures/vae-cases/clamped"));
}

#[test]
fn quiet_activations_in_which_the_eps_of_every_norm_shows() {
    check(&workspace("tests/fixtures/vae-cases/quiet"));
}

#[test]
fn a_case_made_by_hand() {
    let Some(case) = std::env::var_os("DIT_VAE_CASE") else {
        eprintln!("SKIPPED: 336 MB; run tests/fixtures/make_vae_cases.py FOLDER and set DIT_VAE_CASE=FOLDER");
        return;
    };
    check(Path::new(&case));
}

#[test]
fn trained_moments() {
    let _no_grad = tch::no_grad_guard();
    let codec = load(&workspace("weights/demo/vae-fashion"), Kind::Float);
    let io = tensors(&workspace("tests/fixtures/fashion/io.safetensors"));
    let moments = codec.encode(&io["moments_in"]).unwrap();
    for (name, ours) in [("moments_mean", moments.mean()), ("moments_logvar", moments.logvar())] {
        let error = relative(ours, &io[name]);
        println!("fashion {name}: {error:.1e}");
        assert!(error < TOLERANCE, "{name} differs by {error:.1e}");
    }
}

#[test]
fn trained_pictures() {
    let _no_grad = tch::no_grad_guard();
    let codec = load(&workspace("weights/demo/vae-fashion"), Kind::Float);
    let io = tensors(&workspace("tests/fixtures/fashion/io.safetensors"));
    for name in ["ddim50", "ddpm50"] {
        let images = codec.decode(&Latents::new(io[name].shallow_clone())).unwrap();
        let expected = &io[&format!("{name}_images")];
        let error = relative(&images, expected);
        assert!(error < TOLERANCE, "{name} differs by {error:.1e}");
        let bytes = |x: &tch::Tensor| (x * 127.5 + 128.0).clamp(0.0, 255.0).to_kind(Kind::Uint8).to_kind(Kind::Int);
        let steps = (bytes(&images) - bytes(expected)).abs().max().int64_value(&[]);
        println!("fashion {name}: {error:.1e}, {steps} of 255");
        assert!(steps <= 1, "{name} differs by {steps} of 255");
    }
}

#[test]
fn the_scale_is_the_configurations() {
    let codec = load(&workspace("weights/demo/vae-fashion"), Kind::Float);
    let scale = LatentScale::of(codec.config());
    assert_eq!((scale.scale(), scale.shift()), (1.1727304458618164, 0.0));
}
