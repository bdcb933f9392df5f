//! Strict loading into libtorch models.

use dit_weights::{
    CastSource, Checkpoint, Dtype, Error, MemorySource, NonFinite, SafetensorsFile, TchSource, TensorSource,
    TensorView, load_into, to_tensor, write_safetensors,
};
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::common::{fixed_sigma_options, fixture};

/// A store with a variable of `kind` for each tensor of `source`.
fn store_for(source: &dyn TensorSource, kind: Kind) -> VarStore {
    let vs = VarStore::new(Device::Cpu);
    for (name, info) in source.infos() {
        let size: Vec<i64> = info.shape.iter().map(|&extent| extent as i64).collect();
        let (module, parameter) = name.rsplit_once('.').unwrap_or(("", name));
        let path = module.split('.').filter(|part| !part.is_empty()).fold(vs.root(), |path, part| path / part);
        let _ = path.add(parameter, Tensor::full(size, -7.0, (kind, Device::Cpu)), true);
    }
    vs
}

fn values(vs: &VarStore, name: &str) -> Vec<f32> {
    Vec::try_from(vs.variables()[name].to_kind(Kind::Float).flatten(0, -1)).unwrap()
}

#[test]
fn every_element_type_loads_into_every_other() {
    let checkpoint = Checkpoint::open(fixture("dit-fixed-sigma/model.pt"), &fixed_sigma_options()).unwrap();
    for from in [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F64] {
        let source = CastSource::new(&checkpoint, from);
        for (to, kind) in [(Dtype::F32, Kind::Float), (Dtype::BF16, Kind::BFloat16), (Dtype::F16, Kind::Half)] {
            let mut vs = store_for(&source, kind);
            load_into(&mut vs, &source, NonFinite::Reject).unwrap();
            let expected = CastSource::new(&source, to);
            for name in source.infos().keys() {
                assert_eq!(vs.variables()[name].kind(), kind, "{name}");
                assert!(vs.variables()[name].requires_grad(), "{name}");
                assert_eq!(values(&vs, name), expected.read(name).unwrap().to_f32().unwrap(), "{name}: {from} to {to}");
            }
        }
    }
}

#[test]
fn nothing_is_loaded_unless_everything_fits() {
    let good = MemorySource::from_iter([
        ("m.a", TensorView::from_f32(vec![2, 3], &[1.0; 6]).unwrap()),
        ("m.b", TensorView::from_f32(vec![3], &[2.0; 3]).unwrap()),
    ]);
    let mut vs = store_for(&good, Kind::Float);
    let untouched = |vs: &VarStore| values(vs, "m.a") == [-7.0; 6] && values(vs, "m.b") == [-7.0; 3];
    let changed = |change: &dyn Fn(&mut MemorySource)| {
        let mut source = good.clone();
        change(&mut source);
        source
    };
    let tensor = |shape: &[usize]| {
        let numel = shape.iter().product();
        TensorView::from_f32(shape.to_vec(), &vec![3.0; numel]).unwrap()
    };
    for (what, source) in [
        ("missing", changed(&|s| drop(s.remove("m.b").unwrap()))),
        ("unexpected", changed(&|s| drop(s.insert("m.c", tensor(&[1]))))),
        // Shapes that copying would broadcast.
        ("shape", changed(&|s| drop(s.insert("m.b", tensor(&[1]))))),
        ("shape", changed(&|s| drop(s.insert("m.b", tensor(&[]))))),
        ("shape", changed(&|s| drop(s.insert("m.a", tensor(&[3]))))),
        ("shape", changed(&|s| drop(s.insert("m.a", tensor(&[1, 2, 3]))))),
    ] {
        let error = load_into(&mut vs, &source, NonFinite::Reject).unwrap_err();
        assert!(matches!(error, Error::Mismatch(_)) && error.to_string().contains(what), "{what}: {error}");
        assert!(untouched(&vs), "{what}");
    }
    let integers = changed(&|s| drop(s.insert("m.b", TensorView::new(Dtype::I32, vec![3], vec![0; 12]).unwrap())));
    let error = load_into(&mut vs, &integers, NonFinite::Reject).unwrap_err();
    assert!(matches!(&error, Error::Torch { name, .. } if name == "m.b"), "{error}");
    assert!(untouched(&vs));

    let nan =
        changed(&|s| drop(s.insert("m.b", TensorView::from_f32(vec![3], &[f32::NAN, 1.0, f32::INFINITY]).unwrap())));
    let error = load_into(&mut vs, &nan, NonFinite::Reject).unwrap_err();
    assert!(matches!(&error, Error::NonFinite { tensors } if tensors[..] == [("m.b".to_owned(), 2)]), "{error}");
    assert!(untouched(&vs));
    load_into(&mut vs, &nan, NonFinite::Keep).unwrap();
    assert!(values(&vs, "m.b")[0].is_nan());
    load_into(&mut vs, &good, NonFinite::Reject).unwrap();
    assert_eq!(values(&vs, "m.a"), [1.0; 6]);
}

#[test]
fn values_that_are_not_aligned_in_the_file_load_too() {
    // A header of odd length puts every element at an odd address.
    let header = r#"{"w":{"dtype":"F64","shape":[3],"data_offsets":[0,24]}}"#;
    for padding in 0..8 {
        let header = format!("{header}{}", " ".repeat(padding));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend([1.5f64, -2.5, 1e300].iter().flat_map(|v| v.to_le_bytes()));
        let file = SafetensorsFile::from_bytes("x", bytes).unwrap();
        let tensor = to_tensor(&file, "w").unwrap();
        assert_eq!(Vec::<f64>::try_from(tensor).unwrap(), [1.5, -2.5, 1e300], "padding {padding}");
    }
}

#[test]
fn a_model_is_written_and_loaded_again() {
    let vs = VarStore::new(Device::Cpu);
    for (name, kind) in [("a", Kind::Float), ("b", Kind::BFloat16), ("c", Kind::Int64), ("d", Kind::Bool)] {
        // Not contiguous: a transposed view.
        let tensor = Tensor::arange(6, (Kind::Float, Device::Cpu)).reshape([2, 3]).tr().to_kind(kind);
        let _ = vs.root().add(name, tensor, false);
    }
    let _ = vs.root().add("empty", Tensor::zeros([0, 2], (Kind::Float, Device::Cpu)), false);
    let _ = vs.root().add("scalar", Tensor::from(2.5f32), false);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    write_safetensors(&path, &TchSource::of_var_store(&vs).unwrap(), &Default::default()).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.read("a").unwrap().to_f32().unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    for (name, variable) in vs.variables() {
        let read = to_tensor(&file, &name).unwrap();
        assert_eq!((read.kind(), read.size()), (variable.kind(), variable.size()), "{name}");
        assert!(read.equal(&variable), "{name}");
    }
    let complex = Tensor::zeros([1], (Kind::ComplexFloat, Device::Cpu));
    assert!(matches!(TchSource::new([("z".to_owned(), complex)]), Err(Error::Torch { .. })));
}
