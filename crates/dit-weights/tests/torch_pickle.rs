//! Reading what `torch.save` writes: every kind of file in `tests/fixtures/torch` (its README tells how they were made),
//! files of other kinds, and files that someone tampered with.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dit_weights::{Dtype, Error, Kind, TensorSource, TensorView, TorchFile, Value, torch_save};
use proptest::prelude::*;
use safetensors::SafeTensors;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn torch_fixture(name: &str) -> PathBuf {
    fixtures().join("torch").join(name)
}

#[track_caller]
fn open(name: &str) -> TorchFile {
    TorchFile::open(&torch_fixture(name)).unwrap()
}

/// Name to element type, shape and bytes.
type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

/// The tensors whose names start with `prefix`, by an independent reader.
fn read_safetensors(path: &Path, prefix: &str) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .filter_map(|(name, view)| Some((name.strip_prefix(prefix)?, view)))
        .map(|(name, view)| {
            let dtype = view.dtype().to_string().to_lowercase();
            (name.to_owned(), (dtype, view.shape().to_vec(), view.data().to_vec()))
        })
        .collect()
}

fn read_all(source: &dyn TensorSource) -> Tensors {
    let read = |name: &String| {
        let view = source.read(name).unwrap();
        assert_eq!(view.info(), source.infos()[name], "{name}");
        (view.dtype().name().to_owned(), view.shape().to_vec(), view.data().to_vec())
    };
    source.infos().keys().map(|name| (name.clone(), read(name))).collect()
}

/// The state dict at `path` holds what Python says it holds, no more and no less.
#[track_caller]
fn check(file: &str, path: &str) {
    let expected = read_safetensors(&torch_fixture("expected.safetensors"), &format!("{file} {path} "));
    assert!(!expected.is_empty(), "no expectation for {file} {path}");
    let found = read_all(&open(file).state_dict(path).unwrap());
    for (name, expected) in &expected {
        assert_eq!(found.get(name), Some(expected), "{file} {path} {name}");
    }
    assert_eq!(found.len(), expected.len(), "{file} {path}");
}

#[test]
fn plain_dictionaries_of_every_protocol_and_dtype() {
    for protocol in 2..=5 {
        check(&format!("protocol-{protocol}.pt"), "");
    }
}

#[test]
fn views_are_laid_out_row_major() {
    check("views.pt", "");
}

#[test]
fn state_dicts_of_modules_keep_their_names() {
    check("module.pt", "");
    check("data-parallel.pt", "");
    let dict = open("data-parallel.pt").state_dict("").unwrap();
    assert!(dict.infos().keys().all(|name| name.starts_with("module.")));
}

#[test]
fn parameters_are_their_tensors() {
    check("parameters.pt", "");
}

#[test]
fn archives_repacked_by_other_tools() {
    check("repacked.pt", "");
    check("no-checksums.pt", "");
}

#[test]
fn training_checkpoints_hold_several() {
    for protocol in [2, 5] {
        let name = format!("training-protocol-{protocol}.pt");
        for path in ["model", "ema", "opt.state.0"] {
            check(&name, path);
        }
        let file = open(&name);
        let places: Vec<_> = file.state_dicts().collect();
        let steps = ["opt.state.0", "opt.state.1", "opt.state.2", "opt.state.3", "opt.state.4"];
        assert_eq!(places[..2], ["model", "ema"]);
        assert_eq!(places[2..], steps);
        let error = file.state_dict("").unwrap_err().to_string();
        assert!(error.contains(r#""model", "ema""#), "{error}");
    }
}

#[test]
fn one_dictionary_under_two_names() {
    check("shared-dict.pt", "model");
    check("shared-dict.pt", "ema");
}

#[test]
fn checkpoints_in_the_originals_layout() {
    for folder in ["dit-fixed-sigma", "dit-learned-sigma"] {
        let folder = fixtures().join(folder);
        let expected = read_safetensors(&folder.join("model.safetensors"), "");
        let file = TorchFile::open(&folder.join("model.pt")).unwrap();
        assert_eq!(read_all(&file.state_dict("").unwrap()), expected);
    }
}

#[test]
fn contiguous_tensors_are_not_copied() {
    let dict = open("protocol-2.pt").state_dict("").unwrap();
    for name in dict.infos().keys() {
        let data = dict.read(name).unwrap().into_data();
        assert!(matches!(data, Cow::Borrowed(_)), "{name}");
    }
}

#[test]
fn released_tensors_read_the_same_again() {
    let dict = open("protocol-2.pt").state_dict("").unwrap();
    let before = read_all(&dict);
    let kept = dict.read("float32").unwrap();
    for name in dict.infos().keys() {
        dict.release(name);
    }
    assert_eq!(kept.data(), before["float32"].2);
    assert_eq!(read_all(&dict), before);
}

#[test]
fn options_are_readable() {
    for protocol in [2, 5] {
        let file = open(&format!("training-protocol-{protocol}.pt"));
        assert_eq!(file.root().get("step").and_then(Value::as_i64), Some(7));
        let args = file.root().get("args").unwrap();
        assert_eq!(args.kind(), Kind::Opaque("argparse.Namespace"));
        let option = |name: &str| args.get(name).unwrap();
        assert_eq!(option("model").as_str(), Some("DiT-S/8"));
        assert_eq!(option("image_size").as_i64(), Some(256));
        assert_eq!(option("image_size").as_f64(), Some(256.0));
        assert_eq!(option("ema_decay").as_f64(), Some(0.9999));
        assert_eq!(option("compile").as_bool(), Some(false));
        assert_eq!(option("resume").kind(), Kind::None);
        assert_eq!(option("global_seed").as_i64(), Some(1 << 40));
        assert_eq!(option("huge").kind(), Kind::BigInt(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
        let betas: Vec<_> = option("betas").items().filter_map(Value::as_f64).collect();
        assert_eq!(betas, [0.9, -0.999]);
        let mut labels: Vec<_> = option("labels").items().filter_map(Value::as_str).collect();
        labels.sort_unstable();
        assert_eq!((option("labels").kind(), labels), (Kind::Set, vec!["cat", "dog"]));
        // A value that contains itself.
        assert_eq!(option("self").get("self").unwrap().get("model").unwrap().as_str(), Some("DiT-S/8"));
        let groups = file.root().get("opt").unwrap().get("param_groups").unwrap();
        let rate = groups.items().next().unwrap().get("lr");
        assert_eq!(rate.and_then(Value::as_f64), Some(1e-4));
    }
}

#[test]
fn a_modules_metadata_is_no_entry() {
    let file = open("module.pt");
    assert!(file.root().get("_metadata").is_none());
    let metadata = file.root().state().unwrap().get("_metadata").unwrap();
    assert_eq!(metadata.get("1").unwrap().get("version").and_then(Value::as_i64), Some(2));
}

#[test]
fn tensors_of_unknown_kinds_are_named_when_needed() {
    check("unusual.pt", "");
    let dict = open("unusual.pt").state_dict("").unwrap();
    for (name, maker) in [
        ("complex", "torch.ComplexFloatStorage"),
        ("float8", "torch.float8_e4m3fn"),
        ("uint16", "torch.uint16"),
        ("quantised", "torch._utils._rebuild_qtensor"),
        ("sparse", "torch._utils._rebuild_sparse_tensor"),
        ("meta", "torch._utils._rebuild_meta_tensor_no_storage"),
        ("numpy", "numpy._core.multiarray._reconstruct"),
        ("number", "numpy._core.multiarray.scalar"),
    ] {
        match dict.read(name) {
            Err(Error::Opaque { name: n, global }) => assert_eq!((&*n, &*global), (name, maker)),
            other => panic!("{name}: {other:?}"),
        }
        assert!(dict.why_missing(name).unwrap().contains(maker), "{name}");
    }
    assert!(matches!(dict.read("nothing"), Err(Error::NoSuchTensor { .. })));
    assert_eq!(dict.why_missing("nothing"), None);
}

#[track_caller]
fn check_no_state_dict(file: &str, path: &str, expected: &[&str]) {
    let error = open(file).state_dict(path).unwrap_err().to_string();
    for part in expected {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn files_without_a_state_dict_say_what_they_have() {
    check_no_state_dict("whole-module.pt", "", &["torch.nn.modules.container.Sequential", "model.state_dict()"]);
    check_no_state_dict("single-tensor.pt", "", &["single tensor", "f32 [2, 3]"]);
    check_no_state_dict("no-tensors.pt", "", &["no tensors by name"]);
    check_no_state_dict("protocol-2.pt", "ema", &[r#"no state dict at "ema""#, r#"some at """#]);
    check_no_state_dict("training-protocol-2.pt", "args", &["argparse.Namespace", "\"args\""]);
}

#[test]
fn nothing_is_executed() {
    let trace = Path::new("executed-by-a-pickle");
    assert!(!trace.exists(), "left over from an earlier run: delete it");
    for protocol in 2..=5 {
        let dict = open(&format!("hostile-protocol-{protocol}.pt")).state_dict("").unwrap();
        assert_eq!(dict.read("bias").unwrap().to_f32().unwrap(), [0.5, 1.0]);
        let error = dict.read("weight").unwrap_err().to_string();
        assert!(error.contains("`posix.system`") && error.contains("nothing of it was executed"), "{error}");
    }
    let file = open("hostile-root.pt");
    assert_eq!(file.root().kind(), Kind::Opaque("posix.system"));
    let argument = file.root().arguments().unwrap().items().next().unwrap();
    assert_eq!(argument.as_str(), Some("touch executed-by-a-pickle"));
    check_no_state_dict("hostile-root.pt", "", &["posix.system", "nothing is executed"]);
    assert!(!trace.exists(), "the pickle was executed");
}

#[track_caller]
fn check_refused(bytes: &[u8], expected: &str) {
    let error = TorchFile::from_bytes("x.pt", bytes.to_vec()).unwrap_err().to_string();
    assert!(error.starts_with("x.pt") && error.contains(expected), "{expected:?} is not in: {error}");
}

#[test]
fn other_files_are_told_apart() {
    let fixture = |name| std::fs::read(torch_fixture(name)).unwrap();
    check_refused(b"", "is empty");
    check_refused(b"\n <!DOCTYPE html><html>", "is a web page");
    check_refused(b"\xef\xbb\xbf<html>", "is a web page");
    check_refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull");
    check_refused(&fixture("before-1.6.pt"), "before 1.6");
    check_refused(&fixture("plain.pkl"), "plain Python pickle");
    check_refused(&fixture("torchscript.pt"), "TorchScript");
    check_refused(&fixture("arrays.npz"), "without a data.pkl");
    check_refused(&fixture("compressed.pt"), "is compressed (method 8)");
    check_refused(&fixture("big-endian.pt"), "little-endian");
    check_refused(b"\x10\0\0\0\0\0\0\0{\"a\":1}", "safetensors");
    check_refused(b"GGUF", "neither a zip archive nor a pickle");
    check_refused(&fixture("protocol-2.pt")[..3000], "cut short");
}

#[test]
fn files_that_cannot_be_opened() {
    for path in [fixtures().join("missing.pt"), fixtures()] {
        let error = TorchFile::open(&path).unwrap_err();
        assert!(matches!(error, Error::Io { action: "open", .. }), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pt");
    std::fs::write(&empty, b"").unwrap();
    assert!(matches!(TorchFile::open(&empty), Err(Error::EmptyFile { .. })));
}

/// The fixture `name` with the bytes `from`, first found after the first `after`, replaced by as many others.
#[track_caller]
fn patched(name: &str, after: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = std::fs::read(torch_fixture(name)).unwrap();
    let find = |bytes: &[u8], needle: &[u8]| bytes.windows(needle.len()).position(|w| w == needle).unwrap();
    let start = find(&bytes, after);
    let at = start + find(&bytes[start..], from);
    assert_eq!(from.len(), to.len());
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn tampered_archives_are_refused() {
    let check = |after: &[u8], from: &[u8], to: &[u8], expected| {
        check_refused(&patched("repacked.pt", after, from, to), expected);
    };
    // A header of the directory: PK 1 2, two versions of two bytes, flags.
    check(b"PK\x01\x02", b"\x14\x00\x00\x00", b"\x14\x00\x01\x00", "is encrypted");
    // A name that the entry itself does not have.
    check(b"PK\x01\x02", b"data/1", b"data/0", "not where the directory says");
    // The end record: PK 5 6, disks, two counts of two bytes, size, offset.
    check(b"PK\x05\x06", b"\x00\x00\x00\x00\x14\x00\x14", b"\x00\x00\x00\x00\x14\x00\x13", "longer than it says");
    check(b"PK\x05\x06", b"\x00\x00\x00\x00\x14\x00\x14", b"\x00\x00\x00\x00\x14\x00\x15", "is corrupt");
    check(b"data.pkl", b"X\x01\0\0\x000", b"X\x01\0\0\x00Z", r#"storage "Z" is not in the archive"#);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = std::fs::read(torch_fixture("training-protocol-2.pt")).unwrap();
    for len in 0..bytes.len() {
        let cut = TorchFile::from_bytes("cut.pt", bytes[..len].to_vec());
        assert!(cut.is_err(), "the first {len} of {} bytes were accepted", bytes.len());
    }
}

#[test]
fn a_pickle_cut_anywhere_is_refused() {
    let tensor = one_tensor(b"ctorch\nFloatStorage\n", 6, 0, &[2, 3], &[3, 1]);
    for len in 0..tensor.len() {
        assert!(TorchFile::from_parts("cut.pkl", &tensor[..len], &storages()).is_err(), "{len}");
    }
    assert!(TorchFile::from_parts("whole.pkl", &tensor, &storages()).is_ok());
}

/// Reads everything that can be read: nothing may panic, and what is read is what was described.
fn exercise(bytes: Vec<u8>) {
    let Ok(file) = TorchFile::from_bytes("x.pt", bytes) else { return };
    for path in file.state_dicts() {
        let Ok(dict) = file.state_dict(path) else { continue };
        for (name, info) in dict.infos() {
            assert_eq!(dict.read(name).unwrap().info(), *info);
        }
    }
}

#[test]
fn every_single_flipped_bit() {
    for name in ["protocol-2.pt", "views.pt"] {
        let bytes = std::fs::read(torch_fixture(name)).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            exercise(flipped);
        }
    }
}

proptest! {
    #[test]
    fn several_changed_bytes(
        name in prop::sample::select(vec!["protocol-4.pt", "training-protocol-5.pt", "parameters.pt", "unusual.pt"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..16),
        removed in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = std::fs::read(torch_fixture(name)).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(at) = removed {
            bytes.remove(at.index(bytes.len()));
        }
        exercise(bytes);
    }
}

// Bare pickles, written by hand.

/// Storage "0" of 24 bytes.
fn storages() -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([("0".to_owned(), (0..24).collect())])
}

fn integers(values: &[i64]) -> Vec<u8> {
    let mut pickle = b"(".to_vec();
    for value in values {
        pickle.extend(b"\x8a\x08");
        pickle.extend(value.to_le_bytes());
    }
    pickle.push(b't');
    pickle
}

/// `{"w": _rebuild_tensor_v2(storage "0" of `class` and `numel`, offset, shape, strides, False, None)}`.
fn one_tensor(class: &[u8], numel: u8, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage".to_vec();
    pickle.extend(class);
    pickle.extend(b"X\x01\0\0\x000X\x03\0\0\0cpuK");
    pickle.extend([numel, b't', b'Q', 0x8a, 8]);
    pickle.extend(offset.to_le_bytes());
    pickle.extend(integers(shape));
    pickle.extend(integers(strides));
    pickle.extend(b"\x89NtRs.");
    pickle
}

#[track_caller]
fn check_pickle_refused(pickle: &[u8], expected: &str) {
    match TorchFile::from_parts("x.pkl", pickle, &storages()) {
        Err(Error::Pickle { problem, .. }) => assert!(problem.contains(expected), "{expected:?} is not in: {problem}"),
        other => panic!("{expected}: {other:?}"),
    }
}

#[test]
fn tensors_outside_their_storage_are_refused() {
    let check = |numel, offset, shape: &[i64], strides: &[i64], expected| {
        check_pickle_refused(&one_tensor(b"ctorch\nFloatStorage\n", numel, offset, shape, strides), expected);
    };
    check(6, 0, &[7], &[1], "does not lie within its storage");
    check(6, 1, &[6], &[1], "does not lie within its storage");
    check(6, 0, &[2, 3], &[4, 1], "does not lie within its storage");
    check(6, i64::MAX, &[1], &[1], "does not lie within its storage");
    check(6, 0, &[2], &[i64::MAX], "does not lie within its storage");
    check(6, 0, &[i64::MAX, i64::MAX], &[0, 0], "too large");
    check(6, 0, &[1 << 30, 1 << 30], &[0, 0], "expands its storage");
    check(6, 0, &[-1], &[1], "out of range");
    check(6, 0, &[2], &[-1], "out of range");
    check(6, -1, &[2], &[1], "out of range");
    check(6, 0, &[2, 3], &[1], "2 extents but 1 strides");
    check(6, 0, &[1; 65], &[1; 65], "at most 64");
    check(5, 0, &[1], &[1], "should have 5 elements");
    check(7, 0, &[1], &[1], "should have 7 elements");
    check_pickle_refused(&one_tensor(b"ctorch\nUntypedStorage\n", 24, 0, &[1], &[1]), "untyped storage");
    check_pickle_refused(&one_tensor(b"X\x01\0\0\0f", 6, 0, &[1], &[1]), "no class or no key");
}

#[test]
fn storages_of_every_class() {
    for (class, numel, dtype) in [
        ("torch\nDoubleStorage", 3, Dtype::F64),
        ("torch\nFloatStorage", 6, Dtype::F32),
        ("torch.cuda\nFloatStorage", 6, Dtype::F32),
        ("torch\nHalfStorage", 12, Dtype::F16),
        ("torch\nBFloat16Storage", 12, Dtype::BF16),
        ("torch\nLongStorage", 3, Dtype::I64),
        ("torch\nIntStorage", 6, Dtype::I32),
        ("torch\nShortStorage", 12, Dtype::I16),
        ("torch\nCharStorage", 24, Dtype::I8),
        ("torch\nByteStorage", 24, Dtype::U8),
        ("torch\nBoolStorage", 24, Dtype::Bool),
    ] {
        let pickle = one_tensor(format!("c{class}\n").as_bytes(), numel, 1, &[2], &[1]);
        let dict = TorchFile::from_parts("x.pkl", &pickle, &storages()).unwrap().state_dict("").unwrap();
        let view = dict.read("w").unwrap();
        let size = dtype.size() as u8;
        assert_eq!(view.dtype(), dtype);
        assert_eq!(view.data(), (size..3 * size).collect::<Vec<u8>>(), "{class}");
    }
}

#[test]
fn untyped_storages_take_the_tensors_dtype() {
    // {"w": _rebuild_tensor_v3(untyped storage, 2, (2,), (3,), False, None, torch.int16)}
    let mut pickle = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v3\n((X\x07\0\0\0storage".to_vec();
    pickle.extend(b"ctorch.storage\nUntypedStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x18tQK\x02K\x02\x85K\x03\x85\x89N");
    pickle.extend(b"ctorch\nint16\ntRs.");
    let dict = TorchFile::from_parts("x.pkl", &pickle, &storages()).unwrap().state_dict("").unwrap();
    let view = dict.read("w").unwrap();
    assert_eq!((view.dtype(), view.shape(), view.data()), (Dtype::I16, &[2][..], &[4, 5, 10, 11][..]));
}

#[test]
fn malformed_pickles_are_refused() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "cut short"),
        (b"N.", "does not start with its protocol"),
        (b"\x80\x01N.", "protocol 1"),
        (b"\x80\x06N.", "protocol 6"),
        (b"\x80\x02.", "nothing on the stack"),
        (b"\x80\x02N(.", "nothing on the stack"),
        (b"\x80\x02t.", "no mark"),
        (b"\x80\x02h\x07.", "memo entry 7"),
        (b"\x80\x02I1\n.", "instruction 0x49"),
        (b"\x80\x02\x97.", "instruction 0x97"),
        (b"\x80\x02\x82\x01.", "instruction 0x82"),
        (b"\x80\x02(Nd.", "key has no value"),
        (b"\x80\x02}NNu.", "no mark"),
        (b"\x80\x02NNa.", "neither list nor set"),
        (b"\x80\x02]NNs.", "not a dictionary"),
        (b"\x80\x02K\x01Nb.", "plain value"),
        (b"\x80\x02NN\x93.", "name is not a string"),
        (b"\x80\x02X\x01\0\0\0\xff.", "not UTF-8"),
        (b"\x80\x02c\xff\n\n.", "not UTF-8"),
        (b"\x80\x02cos", "cut short"),
        (b"\x80\x02X\xff\xff\xff\xff.", "cut short"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "cut short"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.", "cut short"),
        (b"\x80\x04\x95\x09\0\0\0\0\0\0\0N.", "cut short"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "cut short"),
        (b"\x80\x02ccollections\nOrderedDict\nNR.", "not a tuple"),
        (b"\x80\x02ccollections\nOrderedDict\n]Na\x85R.", "not pairs"),
        (b"\x80\x02ctorch\nSize\n)R.", "not given a tuple"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "lacks its storage"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n)R.", "lacks its storage"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NNNNtR.", "storage is not a storage"),
        (b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.", "lacks its tensor"),
        (
            b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nN)NtR.",
            "not rebuilt from a tensor",
        ),
    ];
    for (pickle, expected) in cases {
        check_pickle_refused(pickle, expected);
    }
}

/// `expected` is how [`Kind`] prints.
#[track_caller]
fn check_value(pickle: &[u8], expected: &str) {
    let file = TorchFile::from_parts("x.pkl", pickle, &storages()).unwrap();
    assert_eq!(format!("{:?}", file.root()), expected);
}

#[test]
fn instructions_build_what_python_builds() {
    check_value(b"\x80\x02N(0.", "None");
    check_value(b"\x80\x02NK\x01(NN1.", "Int(1)");
    check_value(b"\x80\x02K\x07K\x080.", "Int(7)");
    check_value(b"\x80\x02K\x0720.", "Int(7)");
    check_value(b"\x80\x02\x88.", "Bool(true)");
    check_value(b"\x80\x02\x89.", "Bool(false)");
    check_value(b"\x80\x02J\xfe\xff\xff\xff.", "Int(-2)");
    check_value(b"\x80\x02M\x01\x02.", "Int(513)");
    check_value(b"\x80\x02\x8a\x00.", "Int(0)");
    check_value(b"\x80\x02\x8a\x01\xff.", "Int(-1)");
    check_value(b"\x80\x02\x8a\x02\xff\x00.", "Int(255)");
    check_value(b"\x80\x02\x8b\x02\0\0\0\x00\x80.", "Int(-32768)");
    check_value(b"\x80\x02\x8a\x09\x01\0\0\0\0\0\0\0\0.", "Int(1)");
    check_value(b"\x80\x02\x8a\x09\xfe\xff\xff\xff\xff\xff\xff\xff\xff.", "Int(-2)");
    check_value(b"\x80\x02\x8a\x09\0\0\0\0\0\0\0\x80\0.", "BigInt([0, 0, 0, 0, 0, 0, 0, 128, 0])");
    check_value(b"\x80\x02\x8a\x09\0\0\0\0\0\0\0\x7f\xff.", "BigInt([0, 0, 0, 0, 0, 0, 0, 127, 255])");
    check_value(b"\x80\x02G\xbf\xf8\0\0\0\0\0\0.", "Float(-1.5)");
    check_value(b"\x80\x02U\x02ab.", r#"Str("ab")"#);
    check_value(b"\x80\x02T\x02\0\0\0ab.", r#"Str("ab")"#);
    check_value(b"\x80\x04\x8c\x02\xc3\xbc.", r#"Str("ü")"#);
    check_value(b"\x80\x04\x8d\x01\0\0\0\0\0\0\0a.", r#"Str("a")"#);
    check_value(b"\x80\x03C\x01a.", "Bytes([97])");
    check_value(b"\x80\x03B\x01\0\0\0a.", "Bytes([97])");
    check_value(b"\x80\x04\x8e\x01\0\0\0\0\0\0\0a.", "Bytes([97])");
    check_value(b"\x80\x05\x96\x01\0\0\0\0\0\0\0a.", "Bytes([97])");
    check_value(b"\x80\x02(NNl.", "List");
    check_value(b"\x80\x02(NNd.", "Dict");
    check_value(b"\x80\x04\x8f(N\x90.", "Set");
    check_value(b"\x80\x04(N\x91.", "Set");
    check_value(b"\x80\x02c__builtin__\nset\n]Na\x85R.", "Set");
    check_value(b"\x80\x02ccollections\nOrderedDict\n]NN\x86a\x85R.", "Dict");
    check_value(b"\x80\x02ccollections\ndefaultdict\nc__builtin__\nlist\n\x85R.", "Dict");
    check_value(b"\x80\x02ctorch\nSize\nK\x01\x85\x85R.", "Tuple");
    check_value(b"\x80\x02ctorch\nfloat32\n.", r#"Global("torch.float32")"#);
    check_value(b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r#"Global("os.system")"#);
    check_value(b"\x80\x02ctypes\nSimpleNamespace\n)\x81}b.", r#"Opaque("types.SimpleNamespace")"#);
    check_value(b"\x80\x04ca\nb\n)}\x92.", r#"Opaque("a.b")"#);
    check_value(b"\x80\x02ca\nb\n)R)R(NNu(NNe.", r#"Opaque("a.b")"#);
    check_value(b"\x80\x02NQ.", r#"Opaque("an object without a class")"#);
}

#[test]
fn bombs_are_refused() {
    let repeated = |start: &[u8], piece: &[u8], times: usize| [start, &piece.repeat(times), b"."].concat();
    let limit = "more values than any checkpoint has";
    // Values and memo entries without end, from few bytes each.
    check_pickle_refused(&repeated(b"\x80\x02", b"N", 5_000_000), limit);
    check_pickle_refused(&repeated(b"\x80\x04N", b"\x94", 5_000_000), limit);
    // A list of a thousand pairs, copied over and over.
    let list = [b"\x80\x02]q\x00(", &b"K\x01K\x02\x86".repeat(1000)[..], b"e"].concat();
    check_pickle_refused(&repeated(&list, b"ccollections\nOrderedDict\nh\x00\x85R", 10_000), limit);
    check_pickle_refused(&repeated(&list, b"cbuiltins\nset\nh\x00\x85R", 10_000), limit);
    // Long names, containers that never end, a pickle without end.
    let name = [b"\x80\x02c", &b"a".repeat(300)[..], b"\nb\n."].concat();
    check_pickle_refused(&name, "longer than");
    check_pickle_refused(&repeated(b"\x80\x02", b"(", 10_000), "open containers");
    check_pickle_refused(&vec![0; (16 << 20) + 1], "too many for a description");
}

#[test]
fn deep_values_do_not_overflow_the_stack() {
    const DEPTH: usize = 500_000;
    let check = |start: &[u8], open: &[u8], close: &[u8]| {
        let pickle = [b"\x80\x02", start, &open.repeat(DEPTH), &close.repeat(DEPTH), b"."].concat();
        let file = TorchFile::from_parts("deep.pkl", &pickle, &storages()).unwrap();
        assert_eq!(file.state_dicts().count(), 0);
        let text = format!("{:?}", file.root());
        assert!(text.len() < 100, "{text}");
    };
    check(b"N", b"", b"\x85");
    check(b"]", b"]", b"a");
    check(b"}", b"K\x01}", b"s");
    check(b"cos\nsystem\n", b"", b")R");
    check(b"ca\nb\n)R", b"ca\nb\n)R", b"b");
}

#[test]
fn shared_values_are_not_walked_without_end() {
    // Each list holds the one before twice: 2^60 paths lead to the innermost.
    let mut pickle = b"\x80\x02]q\x00".to_vec();
    for i in 0..60u8 {
        pickle.extend([b']', b'h', i, b'a', b'h', i, b'a', b'q', i + 1]);
    }
    pickle.push(b'.');
    let file = TorchFile::from_parts("shared.pkl", &pickle, &storages()).unwrap();
    assert_eq!(file.state_dicts().count(), 0);
    // A list that holds itself.
    let file = TorchFile::from_parts("own.pkl", b"\x80\x02]q\x00h\x00a.", &storages()).unwrap();
    assert_eq!(file.root().items().next().unwrap().kind(), Kind::List);
    assert_eq!(file.state_dicts().count(), 0);
}

#[test]
fn one_name_twice_is_refused() {
    let pickle = b"\x80\x02}(X\x01\0\0\0wNX\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage\
        ctorch\nByteStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x18tQK\x00K\x02\x85K\x01\x85\x89NtRu.";
    let file = TorchFile::from_parts("x.pkl", pickle, &storages()).unwrap();
    assert!(matches!(file.state_dict(""), Err(Error::DuplicateTensor { .. })));
}

// Writing.

#[test]
fn what_is_written_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.pt");
    for name in ["protocol-2.pt", "views.pt"] {
        let source = open(name).state_dict("").unwrap();
        torch_save::write_state_dict(&path, source.infos().keys().map(|n| Ok((n.clone(), source.read(n)?)))).unwrap();
        let copy = TorchFile::open(&path).unwrap();
        assert_eq!(read_all(&copy.state_dict("").unwrap()), read_all(&source));
    }
    // Extents that need more than 32 bits.
    let wide = TensorView::new(Dtype::F32, vec![0, 1 << 40], vec![]).unwrap();
    torch_save::write_state_dict(&path, [Ok(("wide".to_owned(), wide.clone()))]).unwrap();
    assert_eq!(TorchFile::open(&path).unwrap().state_dict("").unwrap().read("wide").unwrap(), wide);
    torch_save::write_state_dict(&path, []).unwrap();
    assert_eq!(TorchFile::open(&path).unwrap().root().kind(), Kind::Dict);
}

#[test]
fn a_write_that_fails_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.pt");
    std::fs::write(&path, b"before").unwrap();
    let source = open("module.pt").state_dict("").unwrap();
    let first = || Ok(("w".to_owned(), source.read("0.weight")?));
    let twice = torch_save::write_state_dict(&path, [first(), first()]);
    assert!(matches!(twice, Err(Error::DuplicateTensor { .. })));
    let failing = torch_save::write_state_dict(&path, [first(), Err(Error::NoSuchTensor { name: "x".into() })]);
    assert!(matches!(failing, Err(Error::NoSuchTensor { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"before");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files are left");
    let nowhere = torch_save::write_state_dict(&folder.path().join("no/such/folder.pt"), [first()]);
    assert!(matches!(nowhere, Err(Error::Io { .. })));
}
