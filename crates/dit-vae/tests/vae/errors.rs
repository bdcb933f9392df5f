use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use dit_config::{VaeConfig, VaeSpec};
use dit_vae::{AutoencoderKl, Error, Kernels, LatentCodec, Moments, RawLatents, Sliced, Tiled, Tiling};
use tch::{Device, Kind, Tensor};

use crate::support::{random, random_weights};

fn spec() -> VaeSpec {
    VaeSpec { block_out_channels: vec![8, 8, 8], norm_num_groups: 4, layers_per_block: 1, ..VaeSpec::default() }
}

fn zeros(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::zeros(shape, (kind, Device::Cpu))
}

/// Every codec over the same network refuses alike, in these words.
#[track_caller]
fn check(call: impl Fn(&dyn LatentCodec) -> Option<Error>, expected: &str) {
    let codec = random(spec());
    let sliced = Sliced::new(&codec, NonZeroUsize::MIN);
    let tiled = Tiled::new(&codec, Tiling::new(2, 1).unwrap());
    let codecs: [(&str, &dyn LatentCodec); 3] = [("plain", &codec), ("sliced", &sliced), ("tiled", &tiled)];
    for (name, codec) in codecs {
        let message = call(codec).unwrap_or_else(|| panic!("{name}: accepted")).to_string();
        assert!(message.contains(expected), "{name}: {message}");
    }
}

#[track_caller]
fn check_images(shape: &[i64], kind: Kind, expected: &str) {
    check(|codec| codec.encode(&zeros(shape, kind)).err(), expected);
}

#[track_caller]
fn check_latents(shape: &[i64], kind: Kind, expected: &str) {
    check(|codec| codec.decode_raw(&RawLatents::new(zeros(shape, kind))).err(), expected);
}

#[test]
fn images_that_do_not_fit_are_refused() {
    check_images(&[1, 4, 8, 8], Kind::Float, "images is [1, 4, 8, 8], expected (N, 3, height, width)");
    check_images(&[3, 8, 8], Kind::Float, "images is [3, 8, 8]");
    check_images(&[], Kind::Float, "images is []");
    check_images(&[0, 3, 8, 8], Kind::Float, "none of them 0");
    check_images(&[1, 3, 8, 0], Kind::Float, "none of them 0");
    check_images(&[1, 3, 30, 8], Kind::Float, "30×8 pixels, and a side must be a multiple of 4");
    check_images(&[1, 3, 8, 30], Kind::Float, "crop or pad them to 8×28, or 8×32");
    check_images(&[1, 3, 2, 2], Kind::Float, "multiple of 4");
    check_images(&[1, 3, 8, 8], Kind::Uint8, "images is Uint8, expected floating point");
    check_images(&[1, 3, 64, 64], Kind::Uint8, "images is Uint8, expected floating point");
}

#[test]
fn latents_that_do_not_fit_are_refused() {
    check_latents(&[1, 3, 8, 8], Kind::Float, ", expected (N, 4, height, width)");
    check_latents(&[4, 8, 8], Kind::Float, "latents is [4, 8, 8]");
    check_latents(&[1, 3, 2, 2], Kind::Float, "latents is [1, 3, 2, 2], expected (N, 4, height, width)");
    check_latents(&[2, 4, 0, 8], Kind::Float, "none of them 0");
    check_latents(&[0, 4, 8, 8], Kind::Float, "none of them 0");
    check_latents(&[1, 4, 8, 8], Kind::Int64, "latents is Int64");
}

#[track_caller]
fn check_moments(mean: &[i64], logvar: &[i64], noise: &[i64], expected: &str) {
    let moments = Moments::new(&zeros(mean, Kind::Float), &zeros(logvar, Kind::Float));
    let message = moments.and_then(|moments| moments.sample(&zeros(noise, Kind::Float))).unwrap_err().to_string();
    assert!(message.contains(expected), "{message}");
}

#[test]
fn moments_of_different_shapes_are_refused() {
    check_moments(&[1, 4, 2], &[1, 4, 2], &[1, 4, 2], "mean is [1, 4, 2], expected (N, C, h, w)");
    check_moments(&[1, 4, 2, 2], &[1, 1, 2, 2], &[1, 4, 2, 2], "logvar is [1, 1, 2, 2]");
    check_moments(&[2, 4, 2, 2], &[2, 4, 2, 2], &[1, 4, 2, 2], "noise is [1, 4, 2, 2]");
}

#[track_caller]
fn check_weights(change: impl Fn(&mut BTreeMap<String, Tensor>), kind: Kind, expected: &[&str]) {
    let config = VaeConfig::new(spec()).unwrap();
    let mut weights = random_weights(&config);
    change(&mut weights);
    let message =
        AutoencoderKl::from_tensors(config, weights, Device::Cpu, kind, Kernels::Fused).unwrap_err().to_string();
    for part in expected {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn weights_are_strict_both_ways_and_all_problems_are_told() {
    let change = |weights: &mut BTreeMap<String, Tensor>| {
        weights.remove("encoder.conv_in.bias");
        weights.insert("decoder.conv_in.bias".to_owned(), zeros(&[1], Kind::Float)); // would broadcast
        weights.insert("loss.logvar".to_owned(), zeros(&[], Kind::Float));
    };
    let expected = [
        "missing: encoder.conv_in.bias [8]",
        "shape: decoder.conv_in.bias is [1], expected [8]",
        "unexpected: loss.logvar []",
    ];
    check_weights(change, Kind::Float, &expected);
    let integers = |weights: &mut BTreeMap<String, Tensor>| {
        weights.insert("quant_conv.bias".to_owned(), zeros(&[8], Kind::Int64));
    };
    check_weights(integers, Kind::Float, &["quant_conv.bias is Int64, expected floating point"]);
    check_weights(|_| {}, Kind::Int, &["the autoencoder's precision is Int, expected Float, BFloat16, Half or Double"]);
}
