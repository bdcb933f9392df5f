use std::num::NonZeroUsize;

use dit_config::VaeSpec;
use dit_vae::{AutoencoderKl, LatentCodec, Latents, Moments, RawLatents, Sliced};
use tch::{Device, Kind, Tensor};

use crate::support::{random, relative, wave};

/// Kernels may choose another order of summation for another batch size.
const ROUNDING: f64 = 2e-6;

fn small() -> AutoencoderKl {
    random(VaeSpec { block_out_channels: vec![8, 16], norm_num_groups: 4, layers_per_block: 1, ..VaeSpec::default() })
}

#[test]
fn an_image_is_the_same_alone_and_in_a_batch() {
    let _no_grad = tch::no_grad_guard();
    let codec = small();
    let (images, raw) = (wave(&[5, 3, 24, 16], 1), wave(&[5, 4, 12, 8], 2));
    let mean = codec.encode(&images).unwrap().into_parts().0;
    let decoded = codec.decode_raw(&RawLatents::new(raw.shallow_clone())).unwrap();
    for i in 0..5 {
        let alone = codec.encode(&images.narrow(0, i, 1)).unwrap();
        assert!(relative(alone.mean(), &mean.narrow(0, i, 1)) < ROUNDING);
        let alone = codec.decode_raw(&RawLatents::new(raw.narrow(0, i, 1))).unwrap();
        assert!(relative(&alone, &decoded.narrow(0, i, 1)) < ROUNDING);
    }
}

#[test]
fn slices_of_any_size_give_the_whole_batch() {
    let _no_grad = tch::no_grad_guard();
    let codec = small();
    let (images, latents) = (wave(&[5, 3, 24, 16], 1), Latents::new(wave(&[5, 4, 12, 8], 2)));
    let whole = codec.encode(&images).unwrap();
    let decoded = codec.decode(&latents).unwrap();
    for size in [1, 2, 5, 9] {
        let sliced = Sliced::new(&codec, NonZeroUsize::new(size).unwrap());
        let moments = sliced.encode(&images).unwrap();
        assert!(relative(moments.mean(), whole.mean()) < ROUNDING, "slices of {size}");
        assert!(relative(moments.logvar(), whole.logvar()) < ROUNDING, "slices of {size}");
        assert!(relative(&sliced.decode(&latents).unwrap(), &decoded) < ROUNDING, "slices of {size}");
    }
}

#[test]
fn memory_layout_of_the_input_does_not_matter() {
    let _no_grad = tch::no_grad_guard();
    let codec = small();
    let images = wave(&[2, 3, 24, 16], 1);
    let channels_last = images.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    let (a, b) = (codec.encode(&images).unwrap(), codec.encode(&channels_last).unwrap());
    assert!(relative(a.mean(), b.mean()) == 0.0);
    assert!(a.mean().is_contiguous() && codec.decode_raw(&a.mode()).unwrap().is_contiguous());
}

#[test]
fn latents_return_from_their_scale() {
    let shifted = VaeSpec { scaling_factor: 0.3611, shift_factor: Some(0.1159), ..VaeSpec::default() };
    let scale = dit_vae::LatentScale::of(&dit_config::VaeConfig::new(shifted).unwrap());
    let raw = RawLatents::new(wave(&[2, 4, 3, 5], 3));
    assert!(relative(scale.remove(&scale.apply(&raw)).tensor(), raw.tensor()) < 1e-6);
}

#[test]
fn a_sample_is_the_mean_plus_noise_times_the_standard_deviation() {
    let full = |value: f64| Tensor::full([1, 1, 1, 2], value, (Kind::Float, Device::Cpu));
    for (mean, logvar, noise, expected) in [
        (0.5, 0.0, 2.0, 2.5),
        (0.5, 4f64.ln(), -1.0, -1.5),
        (0.5, 0.25f64.ln(), 0.0, 0.5),
        (0.0, 100.0, 1.0, 10f64.exp()), // clamped at 20, halved
        (0.0, -100.0, 1.0, (-15f64).exp()),
    ] {
        let moments = Moments::new(&full(mean), &full(logvar)).unwrap();
        let drawn = moments.sample(&full(noise)).unwrap().tensor().double_value(&[0, 0, 0, 1]);
        assert!((drawn - expected).abs() <= 1e-6 * expected.abs().max(1e-3), "{drawn}, expected {expected}");
        assert_eq!(moments.mode().tensor().double_value(&[0, 0, 0, 0]), mean);
    }
}
