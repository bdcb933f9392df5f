use std::fs;
use std::path::Path;

use dit_vae::{AutoencoderKl, Error, LatentCodec, RawLatents};
use dit_weights::VaeCheckpoint;
use tch::{Device, Kind, Tensor};

use crate::support::{relative, tensors, workspace};

/// A diffusers folder with vae-small's configuration and its tensors, changed.
fn folder(change: impl Fn(String, Tensor) -> (String, Tensor)) -> tempfile::TempDir {
    let from = workspace("tests/fixtures/vae-small");
    let to = tempfile::tempdir().unwrap();
    fs::copy(from.join("config.json"), to.path().join("config.json")).unwrap();
    let weights = tensors(&from.join("diffusion_pytorch_model.safetensors"));
    let changed: Vec<(String, Tensor)> = weights.into_iter().map(|(name, tensor)| change(name, tensor)).collect();
    Tensor::write_safetensors(&changed, to.path().join("diffusion_pytorch_model.safetensors")).unwrap();
    to
}

fn load(folder: &Path, kind: Kind) -> Result<AutoencoderKl, dit_vae::Error> {
    AutoencoderKl::load(&VaeCheckpoint::open(folder).unwrap(), Device::Cpu, kind)
}

#[test]
fn the_old_names_of_the_attention_load_the_same() {
    let _no_grad = tch::no_grad_guard();
    let renamed = folder(|name, tensor| {
        let names = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
        let old = names.iter().fold(name, |name, (new, old)| name.replace(&format!(".{new}."), &format!(".{old}.")));
        (old, tensor)
    });
    let io = tensors(&workspace("tests/fixtures/vae-small/io.safetensors"));
    let codec = load(renamed.path(), Kind::Float).unwrap();
    assert!(relative(codec.encode(&io["image"]).unwrap().mean(), &io["mean"]) < 2e-5);
}

#[test]
fn half_precision_files_load_into_any_kind() {
    let _no_grad = tch::no_grad_guard();
    let io = tensors(&workspace("tests/fixtures/vae-small/io.safetensors"));
    for kind in [Kind::Half, Kind::BFloat16] {
        let half = folder(|name, tensor| (name, tensor.to_kind(kind)));
        let codec = load(half.path(), Kind::Float).unwrap();
        assert_eq!((codec.kind(), codec.device()), (Kind::Float, Device::Cpu));
        let error = relative(codec.encode(&io["image"]).unwrap().mean(), &io["mean"]);
        assert!(error > 1e-5 && error < 2e-2, "{kind:?}: {error:.1e}");
    }
}

#[test]
fn nan_weights_are_refused_by_name() {
    let damaged = folder(|name, tensor| {
        let tensor = if name == "decoder.conv_in.bias" { tensor * f64::NAN } else { tensor };
        (name, tensor)
    });
    let message = load(damaged.path(), Kind::Float).unwrap_err().to_string();
    assert!(message.contains("decoder.conv_in.bias"), "{message}");
}

#[test]
fn the_encoding_half_alone_encodes_the_same() {
    let _no_grad = tch::no_grad_guard();
    let path = workspace("tests/fixtures/vae-small");
    let io = tensors(&path.join("io.safetensors"));
    let whole = load(&path, Kind::Float).unwrap();
    let half = AutoencoderKl::load_encoder(&VaeCheckpoint::open(&path).unwrap(), Device::Cpu, Kind::Float).unwrap();
    assert_eq!(half.encode(&io["image"]).unwrap().mean(), whole.encode(&io["image"]).unwrap().mean());
    let raw = || RawLatents::new(io["mean"].shallow_clone());
    assert!(whole.decode_raw(&raw()).is_ok());
    assert!(matches!(half.decode_raw(&raw()), Err(Error::NoDecoder)));

    // The half that is not wanted is checked all the same.
    let damaged = folder(|name, tensor| {
        let tensor = if name == "decoder.conv_in.bias" { tensor * f64::NAN } else { tensor };
        (name, tensor)
    });
    let checkpoint = VaeCheckpoint::open(damaged.path()).unwrap();
    let error = AutoencoderKl::load_encoder(&checkpoint, Device::Cpu, Kind::Float).unwrap_err();
    assert!(error.to_string().contains("decoder.conv_in.bias"), "{error}");
}
