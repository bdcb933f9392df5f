//! Files that PyTorch wrote.

use std::borrow::Cow;
use std::path::Path;

use dit_weights::{Error, Kind, TensorSource, TorchFile, Value};

use crate::{fixtures, open, read_all, read_safetensors, torch_fixture};

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
fn files_from_before_the_zip_format() {
    let [old, new] = ["before-1.6.pt", "protocol-2.pt"].map(|name| read_all(&open(name).state_dict("").unwrap()));
    assert!(!old.is_empty());
    assert_eq!(old, new);
}

#[test]
fn files_from_before_the_zip_format_are_bounded_by_their_bytes() {
    let whole = std::fs::read(torch_fixture("before-1.6.pt")).unwrap();
    for length in 0..whole.len() {
        assert!(TorchFile::from_bytes("cut.pt", whole[..length].to_vec()).is_err(), "{length} of {}", whole.len());
    }
    for at in 0..whole.len() {
        let mut tampered = whole.clone();
        tampered[at] ^= 0x81;
        // Whatever it says: it does not panic, and reads nothing from outside.
        if let Ok(file) = TorchFile::from_bytes("tampered.pt", tampered)
            && let Ok(dict) = file.state_dict("")
        {
            dict.infos().keys().for_each(|name| drop(dict.read(name)));
        }
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
fn a_checkpoint_in_the_originals_layout() {
    let folder = fixtures().join("dit-fixed-sigma");
    let expected = read_safetensors(&folder.join("model.safetensors"), "");
    let file = TorchFile::open(folder.join("model.pt")).unwrap();
    assert_eq!(read_all(&file.state_dict("").unwrap()), expected);
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
