//! bf16 against fp32. Decoded pictures at 45 dB are 1.4 of 255 apart in the root mean square, which no eye sees.

use dit_vae::{LatentCodec, Latents};
use tch::{Kind, Tensor};

use crate::support::{load, psnr, relative, tensors, workspace};

#[test]
fn bf16_keeps_the_pictures() {
    let _no_grad = tch::no_grad_guard();
    let folder = workspace("weights/demo/vae-fashion");
    let io = tensors(&workspace("tests/fixtures/fashion/io.safetensors"));
    let half = load(&folder, Kind::BFloat16);
    let images = half.decode(&Latents::new(io["ddim50"].shallow_clone())).unwrap();
    assert_eq!(images.kind(), Kind::Float);
    let psnr = psnr(&images, &io["ddim50_images"]);
    println!("bf16 decode: {psnr:.1} dB");
    assert!(psnr > 45.0, "{psnr:.1} dB");

    let moments = half.encode(&io["moments_in"]).unwrap();
    assert_eq!(moments.mean().kind(), Kind::Float);
    let error = relative(moments.mean(), &io["moments_mean"]);
    println!("bf16 encode: mean {error:.1e}");
    assert!(error < 0.02, "means differ by {error:.1e}");
}

#[test]
fn fp64_agrees_with_the_fp32_reference() {
    let _no_grad = tch::no_grad_guard();
    let codec = load(&workspace("tests/fixtures/vae-f8"), Kind::Double);
    let io = tensors(&workspace("tests/fixtures/vae-f8/io.safetensors"));
    let images: Tensor = codec.decode_raw(&dit_vae::RawLatents::new(io["latent"].to_kind(Kind::Double))).unwrap();
    let error = relative(&images, &io["decoded"]);
    assert!(error < 5e-6, "decoded differs by {error:.1e}");
}
