use dit_vae::{LatentCodec, Latents, Tiled, Tiling};
use tch::{Device, Kind, Tensor};

use crate::support::{load, psnr, relative, tensors, workspace};

/// The trained latents joined to one large, varied picture of 40×16 latent pixels.
fn mosaic() -> Tensor {
    let latents = tensors(&workspace("tests/fixtures/fashion/io.safetensors")).remove("ddim50").unwrap(); // (10, 4, 8, 8)
    latents.reshape([5, 2, 4, 8, 8]).permute([2, 0, 3, 1, 4]).reshape([1, 4, 40, 16])
}

/// A smooth latent: slow waves, as in the sky of a photograph.
fn smooth() -> Tensor {
    let axis = |n: i64, waves: f64| {
        (Tensor::arange(n, (Kind::Float, Device::Cpu)) * (waves * std::f64::consts::TAU / n as f64)).sin()
    };
    let planes = [1.0, 2.0, 0.5, 1.5].map(|waves| axis(40, waves).unsqueeze(1) * axis(48, 2.0 - waves).unsqueeze(0));
    Tensor::stack(&planes, 0).unsqueeze(0) // (1, 4, 40, 48)
}

/// Decoded in tiles, the picture has at least `decibels` against the whole one.
#[track_caller]
fn check(latents: Tensor, tiling: Tiling, decibels: f64) {
    let _no_grad = tch::no_grad_guard();
    let codec = load(&workspace("weights/demo/vae-fashion"), Kind::Float);
    let latents = Latents::new(latents);
    let whole = codec.decode(&latents).unwrap();
    let tiled = Tiled::new(&codec, tiling).decode(&latents).unwrap();
    let psnr = psnr(&tiled, &whole);
    println!("{:?} in {tiling:?}: {psnr:.1} dB", latents.tensor().size());
    assert!(psnr > decibels, "{psnr:.1} dB");
}

#[test]
fn tiles_resemble_the_whole_picture() {
    // Not exact, for group statistics and attention are a tile's own; a wrong place or weight would give under 12 dB.
    check(mosaic(), Tiling::new(16, 4).unwrap(), 20.0);
    check(mosaic(), Tiling::new(16, 8).unwrap(), 20.0);
    check(smooth(), Tiling::new(24, 6).unwrap(), 20.0);
    check(smooth(), Tiling::new(32, 8).unwrap(), 20.0);
}

#[test]
fn what_fits_one_tile_is_exact() {
    check(mosaic(), Tiling::default(), f64::MAX);
    check(mosaic(), Tiling::new(40, 0).unwrap(), f64::MAX);
}

#[test]
fn encoding_in_tiles_resembles_the_whole() {
    let _no_grad = tch::no_grad_guard();
    let codec = load(&workspace("weights/demo/vae-fashion"), Kind::Float);
    let images = codec.decode(&Latents::new(mosaic())).unwrap().clamp(-1.0, 1.0); // (1, 3, 160, 64)
    let whole = codec.encode(&images).unwrap();
    let tiled = Tiled::new(&codec, Tiling::new(16, 4).unwrap()).encode(&images).unwrap();
    let (mean, logvar) = (relative(tiled.mean(), whole.mean()), relative(tiled.logvar(), whole.logvar()));
    println!("encoded in tiles: mean {mean:.3}, logvar {logvar:.3}");
    assert!(mean < 0.2 && logvar < 0.1, "mean {mean:.3}, logvar {logvar:.3}");
}

#[test]
fn tiles_of_a_local_codec_are_exact() {
    // Without a network, tiling must be the identity: every pixel lands where it was, with shares that sum to one.
    let image = crate::support::wave(&[2, 3, 52, 36], 9);
    let tiled = Tiled::new(Local, Tiling::new(5, 2).unwrap());
    let moments = tiled.encode(&image).unwrap();
    let whole = Local.encode(&image).unwrap();
    assert!(relative(moments.mean(), whole.mean()) < 1e-6 && relative(moments.logvar(), whole.logvar()) < 1e-6);
    let (a, b) = (tiled.decode_raw(&whole.mode()).unwrap(), Local.decode_raw(&whole.mode()).unwrap());
    assert_eq!(a.size(), [2, 3, 52, 36]);
    assert!(relative(&a, &b) < 1e-6);
}

/// A codec whose every latent pixel depends on its own 4×4 image pixels alone.
struct Local;

impl LatentCodec for Local {
    fn downsampling(&self) -> usize {
        4
    }

    fn latent_channels(&self) -> usize {
        3
    }

    fn scale(&self) -> dit_vae::LatentScale {
        dit_vae::LatentScale::of(&dit_config::VaeConfig::new(dit_config::VaeSpec::default()).unwrap())
    }

    fn encode(&self, images: &Tensor) -> Result<dit_vae::Moments, dit_vae::Error> {
        let mean = images.avg_pool2d([4, 4], [4, 4], [0, 0], false, true, None);
        dit_vae::Moments::new(&mean, &(&mean * 2.0))
    }

    fn decode_raw(&self, raw: &dit_vae::RawLatents) -> Result<Tensor, dit_vae::Error> {
        Ok(raw.tensor().repeat_interleave_self_int(4, 2, None).repeat_interleave_self_int(4, 3, None))
    }
}
