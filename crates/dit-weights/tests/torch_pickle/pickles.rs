//! Bare pickles, written by hand.

use std::collections::BTreeMap;

use dit_weights::{Dtype, Error, Kind, TensorSource, TorchFile};

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

/// A tensor of two bytes of storage "0", left on the stack.
const SMALL_TENSOR: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage\
    ctorch\nByteStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x18tQK\x00K\x02\x85K\x01\x85\x89NtR";

#[test]
fn dictionaries_that_contain_themselves_are_listed_once() {
    // {"w": tensor, 0: itself, 1: itself, …}, and the same one level down.
    let own = |memo: u8| -> Vec<u8> {
        let mut pickle = vec![b'}', b'q', memo, b'('];
        pickle.extend(b"X\x01\0\0\0w");
        pickle.extend(SMALL_TENSOR);
        pickle.extend((0..200u8).flat_map(|key| [b'K', key, b'h', memo]));
        pickle.push(b'u');
        pickle
    };
    let pickle = [b"\x80\x02", &own(0)[..], b"X\x03\0\0\0ema", &own(1), b"s."].concat();
    let file = TorchFile::from_parts("own.pkl", &pickle, &storages()).unwrap();
    assert_eq!(file.state_dicts().collect::<Vec<_>>(), ["", "ema"]);
}

#[test]
fn paths_to_shared_dictionaries_are_bounded() {
    // Each dictionary holds a tensor and the one before twice: 2^14 paths lead to the innermost.
    let mut pickle = b"\x80\x02".to_vec();
    pickle.extend(SMALL_TENSOR);
    pickle.extend(b"q\x0f}q\x00X\x01\0\0\0wh\x0fs");
    for memo in 0..14u8 {
        pickle.extend([b'}', b'q', memo + 1, b'(']);
        pickle.extend(b"X\x01\0\0\0wh\x0f");
        pickle.extend([b'K', 0, b'h', memo, b'K', 1, b'h', memo, b'u']);
    }
    pickle.push(b'.');
    let file = TorchFile::from_parts("shared.pkl", &pickle, &storages()).unwrap();
    let paths: Vec<_> = file.state_dicts().collect();
    assert_eq!(paths.len(), 4096);
    for path in paths {
        assert_eq!(file.state_dict(path).unwrap().infos().len(), 1, "{path}");
    }
}

#[test]
fn a_path_belongs_to_the_first_that_has_it() {
    // {"a": {"b": {"x": tensor}}, "a.b": {"y": tensor}}
    let mut pickle = b"\x80\x02}X\x01\0\0\0a}X\x01\0\0\0b}X\x01\0\0\0x".to_vec();
    pickle.extend(SMALL_TENSOR);
    pickle.extend(b"sssX\x03\0\0\0a.b}X\x01\0\0\0y");
    pickle.extend(SMALL_TENSOR);
    pickle.extend(b"ss.");
    let file = TorchFile::from_parts("dots.pkl", &pickle, &storages()).unwrap();
    assert_eq!(file.state_dicts().collect::<Vec<_>>(), ["a.b"]);
    assert!(file.state_dict("a.b").unwrap().infos().contains_key("x"));
}

#[test]
fn one_name_twice_is_refused() {
    let pickle = b"\x80\x02}(X\x01\0\0\0wNX\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage\
        ctorch\nByteStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x18tQK\x00K\x02\x85K\x01\x85\x89NtRu.";
    let file = TorchFile::from_parts("x.pkl", pickle, &storages()).unwrap();
    assert!(matches!(file.state_dict(""), Err(Error::DuplicateTensor { .. })));
}

#[test]
fn a_pickle_cut_anywhere_is_refused() {
    let tensor = one_tensor(b"ctorch\nFloatStorage\n", 6, 0, &[2, 3], &[3, 1]);
    for len in 0..tensor.len() {
        assert!(TorchFile::from_parts("cut.pkl", &tensor[..len], &storages()).is_err(), "{len}");
    }
    assert!(TorchFile::from_parts("whole.pkl", &tensor, &storages()).is_ok());
}
