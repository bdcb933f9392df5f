//! The safetensors reader against files that are cut, corrupt, hostile or huge. The format's own crate is the judge of what
//! is a valid file.

use std::{collections::BTreeMap, io::Write};

use dit_weights::{Dtype, Error, MemorySource, SafetensorsFile, TensorSource, TensorView, write_safetensors};
use proptest::prelude::*;
use safetensors::SafeTensors;

/// A header and its values as a file.
fn file(header: &str, values: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(values);
    bytes
}

fn small_file() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]},"empty":{"dtype":"I64","shape":[0,7],"data_offsets":[22,22]}}"#;
    file(header, &(0..22).collect::<Vec<u8>>())
}

fn open(bytes: Vec<u8>) -> Result<SafetensorsFile, Error> {
    SafetensorsFile::from_bytes("x.safetensors", bytes)
}

#[test]
fn a_sound_file_is_read() {
    let file = open(small_file()).unwrap();
    assert_eq!(file.metadata(), &BTreeMap::from([("format".to_owned(), "pt".to_owned())]));
    assert_eq!(file.infos().keys().collect::<Vec<_>>(), ["a", "b", "empty"]);
    assert_eq!(file.read("b").unwrap(), TensorView::new(Dtype::BF16, vec![3], (16..22).collect::<Vec<u8>>()).unwrap());
    assert_eq!(file.read("empty").unwrap().shape(), [0, 7]);
    assert!(matches!(file.read("c"), Err(Error::NoSuchTensor { name }) if name == "c"));
}

#[test]
fn cut_anywhere_it_is_refused() {
    let whole = small_file();
    for length in 0..whole.len() {
        let error = open(whole[..length].to_vec()).expect_err("a cut file was read");
        assert!(matches!(error, Error::Safetensors { .. }), "at {length}: {error}");
        assert!(error.to_string().contains("cut short"), "at {length}: {error}");
    }
    let mut longer = whole;
    longer.push(0);
    assert!(open(longer).unwrap_err().to_string().contains("1 bytes follow the last tensor"));
}

#[track_caller]
fn check_refused(header: &str, values: usize, says: &str) {
    let bytes = file(header, &vec![0; values]);
    assert!(SafeTensors::deserialize(&bytes).is_err() || says.contains("two tensors"), "the format's crate accepts it");
    let error = open(bytes).unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn what_is_wrong_is_said_with_the_tensor() {
    let tensor = |name: &str, shape: &str, offsets: &str| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let two = |a: String, b: String| format!("{{{a},{b}}}");
    let one = |a: String| format!("{{{a}}}");
    let a = || tensor("a", "[2]", "[0,8]");
    check_refused(&two(a(), tensor("b", "[2]", "[4,12]")), 12, "\"b\" overlaps another");
    check_refused(&two(a(), tensor("b", "[2]", "[0,8]")), 8, "\"b\" overlaps another");
    check_refused(&two(a(), tensor("b", "[1]", "[12,16]")), 16, "bytes 8 to 12 of the values belong to no tensor");
    check_refused(&two(a(), a()), 8, "two tensors are named \"a\"");
    check_refused(&one(tensor("a", "[3]", "[0,8]")), 8, "\"a\", F32 of shape [3], needs 12 bytes");
    check_refused(&one(tensor("a", "[2]", "[8,0]")), 8, "belong to no tensor");
    check_refused(&one(tensor("a", "[0]", "[0,8]")), 8, "needs 0 bytes");
    check_refused(&one(tensor("a", "[18446744073709551615,2]", "[0,8]")), 8, "does not fill whole bytes in memory");
    check_refused(&one(tensor("a", "[4611686018427387904]", "[0,8]")), 8, "does not fill whole bytes in memory");
    check_refused(&one(tensor("a", "[-1]", "[0,8]")), 8, "not readable");
    check_refused(&one(tensor("a", "[2.0]", "[0,8]")), 8, "not readable");
    check_refused(&one(tensor("a", "2", "[0,8]")), 8, "not readable");
    check_refused(&one(tensor("a", "[2]", "[0,8,16]")), 8, "not readable");
    check_refused(&one(a().replace("F32", "F33")), 8, "unknown element type \"F33\"");
    check_refused(&one(a().replace("F32", "F4")).replace("[2]", "[3]"), 8, "does not fill whole bytes");
    check_refused(r#"{"__metadata__":{"a":1}}"#, 0, "not readable");
    check_refused("[]", 0, "an object of tensors");
    check_refused(&"[".repeat(10_000), 0, "not readable");
    check_refused(&format!("{{\"a\":{}", "{\"a\":".repeat(10_000)), 0, "not readable");
}

#[test]
fn a_hostile_length_of_the_header_costs_nothing() {
    for length in [u64::MAX, u64::MAX - 7, 1 << 63, 1 << 32, 100_000_001, 100_000_000, 65] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.resize(64, b' ');
        let error = open(bytes).unwrap_err().to_string();
        assert!(error.contains("header of") || error.contains("cut short: the header is"), "{length}: {error}");
    }
}

#[test]
fn element_types_that_are_not_supported_do_not_hide_the_others() {
    let header = r#"{"f8":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}}"#;
    let file = open(file(header, &[1, 2, 3, 4, 5, 6])).unwrap();
    assert_eq!(file.infos().keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(file.read("a").unwrap().data(), [5, 6]);
    assert_eq!(file.why_missing("f8").unwrap(), "its element type F8_E4M3 is not supported");
    assert_eq!(file.why_missing("g"), None);
}

#[test]
fn a_mapped_file_reads_the_same_after_its_pages_are_released() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let values: Vec<f32> = (0..60_000u16).map(f32::from).collect();
    let source = MemorySource::from_iter([("a", TensorView::from_f32(vec![60_000], &values).unwrap())]);
    write_safetensors(&path, &source, &BTreeMap::new()).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    let before = file.read("a").unwrap();
    file.release("a");
    assert_eq!(before.to_f32().unwrap(), values);
    file.release("a");
    file.release("no such tensor");
    assert_eq!(file.read("a").unwrap().to_f32().unwrap(), values);
}

#[test]
fn tensors_beyond_four_gigabytes_are_reached() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    let far = 5u64 << 30;
    let header = format!(
        r#"{{"far":{{"dtype":"U8","shape":[3],"data_offsets":[{far},{}]}},"near":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{far}]}}}}"#,
        far + 3,
        far / 4
    );
    let mut out = std::fs::File::create(&path).unwrap();
    out.write_all(&file(&header, &[])).unwrap();
    // A hole: nothing of these five gigabytes is on disk.
    out.set_len(8 + header.len() as u64 + far + 3).unwrap();
    std::io::Seek::seek(&mut out, std::io::SeekFrom::End(-3)).unwrap();
    out.write_all(&[7, 8, 9]).unwrap();
    drop(out);
    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.read("far").unwrap().data(), [7, 8, 9]);
    assert_eq!(file.read("near").unwrap().data().len() as u64, far);
}

#[test]
fn a_missing_or_empty_file_is_said_to_be_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    assert!(matches!(SafetensorsFile::open(&path), Err(Error::Io { action: "open", .. })));
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(SafetensorsFile::open(&path), Err(Error::EmptyFile { .. })));
}

/// Whether the format's own crate reads it. It keeps the last of two tensors of one name, which ours refuses.
fn judge(bytes: &[u8]) -> Option<Vec<String>> {
    let mut names: Vec<String> =
        SafeTensors::deserialize(bytes).ok()?.names().into_iter().map(|name| name.to_owned()).collect();
    names.sort();
    Some(names)
}

fn check_against_judge(bytes: Vec<u8>) {
    let expected = judge(&bytes);
    match (open(bytes), expected) {
        (Ok(file), Some(expected)) => {
            let all: Vec<String> = expected.into_iter().filter(|name| file.why_missing(name).is_none()).collect();
            assert_eq!(file.infos().keys().cloned().collect::<Vec<_>>(), all);
            for name in &all {
                assert_eq!(Some(file.read(name).unwrap().data().len()), file.infos()[name].byte_len());
            }
        }
        (Err(_), None) => {}
        (Err(error), Some(_)) => assert!(error.to_string().contains("two tensors"), "the judge accepts: {error}"),
        (Ok(_), None) => panic!("the judge refuses what was accepted"),
    }
}

/// Tensors whose extents and offsets are near to consistent.
fn header() -> impl Strategy<Value = (String, usize)> {
    let dtype = prop::sample::select(vec!["F32", "BF16", "F16", "F64", "I8", "BOOL", "F4", "F8_E5M2", "U16", "X"]);
    let extent = prop_oneof![8 => 0usize..4, 1 => Just(usize::MAX), 1 => Just(1usize << 62)];
    let tensor = (dtype, prop::collection::vec(extent, 0..4), -2i64..3, -2i64..3, "[a-c]");
    (prop::collection::vec(tensor, 0..5), -2i64..3, any::<bool>()).prop_map(|(tensors, tail, exact)| {
        let mut end = 0i64;
        let mut entries = Vec::new();
        for (i, (dtype, shape, before, after, name)) in tensors.into_iter().enumerate() {
            let bits = match dtype {
                "F4" => 4,
                "F64" => 64,
                "F32" => 32,
                "BF16" | "F16" | "U16" => 16,
                _ => 8,
            };
            let numel = shape.iter().try_fold(1usize, |n, &e| n.checked_mul(e)).unwrap_or(0).min(1 << 20);
            let length = (numel * bits / 8) as i64;
            let (before, after) = if exact { (0, 0) } else { (before, after) };
            let start = (end + before).max(0);
            let stop = (start + length + after).max(0);
            let name = if exact { format!("{name}{i}") } else { name };
            entries
                .push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{stop}]}}"#));
            end = stop;
        }
        let tail = if exact { 0 } else { tail };
        (format!("{{{}}}", entries.join(",")), (end + tail).max(0) as usize)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_headers_are_judged_as_the_formats_own_crate_does((header, values) in header()) {
        check_against_judge(file(&header, &vec![0; values]));
    }

    #[test]
    fn changed_bytes_are_judged_as_the_formats_own_crate_does(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = small_file();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        check_against_judge(bytes);
    }
}
