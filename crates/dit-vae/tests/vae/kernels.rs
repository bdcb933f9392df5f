//! Packed weights against libtorch's operators, on machines that have kernels for them; elsewhere both are the same.

use dit_config::VaeSpec;
use dit_vae::{Error, Kernels, LatentCodec, RawLatents};
use tch::{Kind, Tensor};

use crate::support::{psnr, random_with, relative, wave};

fn spec(channels: &[usize], attention: bool) -> VaeSpec {
    VaeSpec {
        block_out_channels: channels.to_vec(),
        norm_num_groups: 4,
        layers_per_block: 1,
        mid_block_add_attention: attention,
        ..VaeSpec::default()
    }
}

#[track_caller]
fn check(channels: &[usize], attention: bool, side: (i64, i64)) {
    let _no_grad = tch::no_grad_guard();
    let codec = |kind, kernels| random_with(spec(channels, attention), kind, kernels);
    let (plain, fused) = (codec(Kind::Float, Kernels::Plain), codec(Kind::Float, Kernels::Fused));
    let half = codec(Kind::BFloat16, Kernels::Fused);
    let factor = plain.downsampling() as i64;
    let images = wave(&[2, 3, side.0 * factor, side.1 * factor], 1);
    let raw = || RawLatents::new(wave(&[2, 4, side.0, side.1], 2));
    let (expected, ours) = (plain.encode(&images).unwrap(), fused.encode(&images).unwrap());
    assert!(relative(ours.mean(), expected.mean()) < 5e-6);
    assert!(relative(ours.logvar(), expected.logvar()) < 5e-6);
    assert!(relative(half.encode(&images).unwrap().mean(), expected.mean()) < 0.02);
    let expected = plain.decode_raw(&raw()).unwrap();
    assert!(relative(&fused.decode_raw(&raw()).unwrap(), &expected) < 5e-6);
    let scale = expected.abs().max();
    let rounded = psnr(&(half.decode_raw(&raw()).unwrap() / &scale), &(expected / &scale));
    assert!(rounded > 45.0, "{rounded:.1} dB");
}

#[test]
fn packed_weights_compute_the_same() {
    check(&[8], false, (9, 16));
    check(&[32, 64], true, (7, 5));
    check(&[16, 48, 20], true, (16, 33));
}

#[test]
fn gradients_are_recorded_or_refused() {
    let input = || wave(&[1, 3, 8, 8], 1).set_requires_grad(true);
    let plain = random_with(spec(&[16, 32], true), Kind::Float, Kernels::Plain);
    let images = input();
    plain.encode(&images).unwrap().mean().sum(Kind::Float).backward();
    assert!(images.grad().abs().max().double_value(&[]) > 0.0);

    let fused = random_with(spec(&[16, 32], true), Kind::Float, Kernels::Fused);
    match fused.encode(&input()) {
        Err(Error::Gradient { what }) => assert_eq!(what, "images"),
        // A machine without kernels of ours: libtorch's operators, which record.
        encoded => assert!(encoded.unwrap().mean().requires_grad()),
    }
    let _no_grad = tch::no_grad_guard();
    let encoded: Tensor = fused.encode(&input()).unwrap().into_parts().0;
    assert!(!encoded.requires_grad());
}
