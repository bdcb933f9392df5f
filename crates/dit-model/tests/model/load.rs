//! Models from checkpoint files.

use dit_model::{Dit, Initialization, Kernels, ModelError};
use dit_weights::{
    CastSource, Checkpoint, Dtype, Error, MemorySource, NonFinite, OpenOptions, TensorView, load_into,
    write_safetensors,
};
use tch::{Device, Kind, nn};

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
    // A Linear's bias, weights of Linears that are packed and of one that 8 bits would harm, and what is no Linear.
    let damaged = [
        ("blocks.0.attn.qkv.weight", 3),
        ("blocks.1.attn.proj.bias", 1),
        ("final_layer.linear.weight", 2),
        ("x_embedder.proj.weight", 4),
    ];
    for (name, count) in damaged {
        let tensor = source.remove(name).unwrap();
        let mut values = tensor.to_f32().unwrap();
        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN];
        let last = values.len() - 1;
        for (i, bad) in bad.into_iter().take(count).enumerate() {
            values[last * i / 3] = bad;
        }
        source.insert(name, TensorView::from_f32(tensor.shape().to_vec(), &values).unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("diverged.safetensors");
    write_safetensors(&path, &source, &Default::default()).unwrap();
    let options = OpenOptions { heads: Some(4), ..Default::default() };
    let checkpoint = Checkpoint::open(&path, &options).unwrap();
    let expected = damaged.map(|(name, count)| (name.to_owned(), count));
    for kind in [Kind::Float, Kind::BFloat16, Kind::Double] {
        for kernels in [Kernels::Plain, Kernels::Fused, Kernels::Int8] {
            match Dit::load_with(&checkpoint, Device::Cpu, kind, kernels).unwrap_err() {
                ModelError::Checkpoint(Error::NonFinite { tensors }) => assert_eq!(tensors, expected),
                error => panic!("{kind:?}, {kernels:?}: {error}"),
            }
        }
    }
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    if tch::Cuda::is_available() {
        eprintln!("SKIPPED: there is a GPU");
        return;
    }
    let checkpoint = open("dit-learned-sigma/model.safetensors");
    for kernels in [Kernels::Plain, Kernels::Fused] {
        match Dit::load_with(&checkpoint, Device::Cuda(0), Kind::Float, kernels) {
            Err(ModelError::Checkpoint(Error::Torch { .. })) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// What packing rounds and orders is the same whether a weight comes from the file or from a tensor, and whatever element type the
/// file has.
#[test]
fn a_model_loaded_packed_is_the_model_packed_after_loading() {
    let io = read("dit-learned-sigma/io.safetensors");
    let original = open("dit-learned-sigma/model.safetensors");
    let folder = tempfile::tempdir().unwrap();
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F64] {
        let path = folder.path().join("model.safetensors");
        write_safetensors(&path, &CastSource::new(&original, dtype), &Default::default()).unwrap();
        let options = OpenOptions { heads: Some(4), ..Default::default() };
        let checkpoint = Checkpoint::open(&path, &options).unwrap();
        for kind in [Kind::Float, Kind::BFloat16] {
            for kernels in [Kernels::Plain, Kernels::Fused, Kernels::Int8] {
                let mut store = nn::VarStore::new(Device::Cpu);
                store.set_kind(kind);
                let mut expected = Dit::new(&store.root(), checkpoint.config(), Initialization::Empty);
                load_into(&mut store, &checkpoint, NonFinite::Reject).unwrap();
                store.freeze();
                expected.optimize(kernels);
                let loaded = Dit::load_with(&checkpoint, Device::Cpu, kind, kernels).unwrap();
                // What 8 bits would harm is known to be that of a loaded model too.
                let mut later = Dit::load_with(&checkpoint, Device::Cpu, kind, Kernels::Plain).unwrap();
                later.optimize(kernels);
                let outputs = [loaded, later, expected].map(|dit| dit.forward(&io["x"], &io["t"], &io["y"]));
                let [loaded, later, expected] = outputs;
                assert!(loaded.equal(&expected), "{dtype}, {kind:?}, {kernels:?}");
                assert!(later.equal(&expected), "{dtype}, {kind:?}, {kernels:?} after loading");
            }
        }
    }
}
