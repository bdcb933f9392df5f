//! Models from checkpoint files.

use dit_model::{Dit, ModelError};
use dit_weights::{Checkpoint, MemorySource, OpenOptions, TensorView, write_safetensors};
use tch::{Device, Kind};

use crate::common::{check_close, fixture, read};

fn open(path: &str) -> Checkpoint {
    let options = OpenOptions { heads: Some(4), ..Default::default() };
    Checkpoint::open(fixture(path), &options).unwrap()
}

#[test]
fn a_pickle_and_safetensors_give_the_same_model() {
    let io = read("dit-fixed-sigma/io.safetensors");
    let options = OpenOptions { heads: Some(2), num_classes: Some(7), ..Default::default() };
    for file in ["model.pt", "model.safetensors"] {
        let checkpoint = Checkpoint::open(fixture("dit-fixed-sigma").join(file), &options).unwrap();
        let dit = Dit::load(&checkpoint, Device::Cpu, Kind::Float).unwrap();
        let output = dit.try_forward(&io["x"], &io["t"], &io["y"]).unwrap();
        check_close(file, &output, &io["output"], 2e-5);
        assert!(!output.requires_grad(), "{file}: loaded for inference");
        assert_eq!(dit.config(), checkpoint.config());
    }
}

#[test]
fn a_model_is_loaded_in_the_kind_asked_for() {
    let io = read("dit-learned-sigma/io.safetensors");
    let checkpoint = open("dit-learned-sigma/model.safetensors");
    for (kind, tolerance) in [(Kind::Double, 2e-5), (Kind::BFloat16, 3e-2)] {
        let dit = Dit::load(&checkpoint, Device::Cpu, kind).unwrap();
        let output = dit.try_forward(&io["x"], &io["t"], &io["y"]).unwrap();
        assert_eq!((dit.kind(), output.kind()), (kind, kind));
        check_close(&format!("{kind:?}"), &output, &io["output"], tolerance);
    }
    let error = Dit::load(&checkpoint, Device::Cpu, Kind::Int64).unwrap_err();
    assert!(matches!(error, ModelError::Kind { kind: Kind::Int64 }), "{error}");
}

#[test]
fn weights_that_are_not_numbers_are_refused_by_name() {
    let mut source = MemorySource::copy_of(&open("dit-learned-sigma/model.safetensors")).unwrap();
    let mut values = vec![0.5; 48];
    values[7] = f32::NAN;
    source.insert("blocks.1.attn.proj.bias", TensorView::from_f32(vec![48], &values).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("diverged.safetensors");
    write_safetensors(&path, &source, &Default::default()).unwrap();
    let options = OpenOptions { heads: Some(4), ..Default::default() };
    let error = Dit::load(&Checkpoint::open(&path, &options).unwrap(), Device::Cpu, Kind::Float).unwrap_err();
    assert!(error.to_string().contains("blocks.1.attn.proj.bias"), "{error}");
}
