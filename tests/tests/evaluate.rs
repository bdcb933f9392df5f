//! `dit-cli evaluate` and `train-features` as their users run them.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Duration,
};

use dit_image::{NpzWriter, Picture};
use dit_tests::{dit_cli, fail_in, root, succeed_in, write_png};
use serde_json::Value;

const SIDE: u32 = 32;

/// Simple shapes in noise: `seed` and `level` make one set differ from another.
fn picture(index: u64, level: u64) -> Vec<u8> {
    let mut state = (index + 1) * 0x9E37_79B9 + level;
    (0..SIDE * SIDE)
        .flat_map(|place| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let (row, column) = (u64::from(place / SIDE), u64::from(place % SIDE));
            let inside = (row + index % 5).abs_diff(16) < 9 && column.abs_diff(16) < 4 + index % 7;
            [(if inside { 200 } else { 0 } + state % (level + 1)).min(255) as u8; 3]
        })
        .collect()
}

fn npz(folder: &Path, name: &str, count: u64, level: u64) -> String {
    let mut writer = NpzWriter::create(folder.join(name), count, SIDE, SIDE).unwrap();
    for index in 0..count {
        writer.push(&Picture::from_rgb(picture(index, level), SIDE, SIDE).unwrap()).unwrap();
    }
    writer.finish().unwrap();
    name.to_owned()
}

/// The same pictures as [`npz`], as files.
fn pngs(folder: &Path, name: &str, count: u64, level: u64) -> PathBuf {
    let out = folder.join(name);
    fs::create_dir_all(&out).unwrap();
    (0..count).for_each(|index| write_png(&out.join(format!("{index:06}.png")), SIDE, SIDE, &picture(index, level)));
    out
}

/// The arrays of an npz by their files' names.
fn arrays(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = zip::ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let count = archive.len();
    let read = |index| {
        let mut member = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).unwrap();
        (member.name().unwrap().into_owned(), bytes)
    };
    (0..count).map(read).collect()
}

/// An npz of these arrays; deflated as `numpy.savez_compressed` has it, or stored.
fn pack(path: &Path, arrays: &[(String, Vec<u8>)], method: zip::CompressionMethod) {
    let mut archive = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for (name, bytes) in arrays {
        archive.start_file(name, zip::write::SimpleFileOptions::default().compression_method(method)).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

/// Whether any features lie in `folder` or below.
fn has_features(folder: &Path) -> bool {
    folder.read_dir().is_ok_and(|mut entries| {
        entries.any(|entry| {
            let path = entry.unwrap().path();
            path.extension().is_some_and(|ending| ending == "safetensors") || has_features(&path)
        })
    })
}

fn evaluate(folder: &Path, more: &[&str]) -> Value {
    let ran = succeed_in(folder, &[&["evaluate", "--features", "demo", "--json"], more].concat());
    serde_json::from_str(&ran.stdout).unwrap()
}

fn value(record: &Value, metric: &str) -> f64 {
    record["metrics"][metric]["value"].as_f64().unwrap_or_else(|| panic!("no {metric} in {record}"))
}

#[test]
fn a_set_against_itself_and_another() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (npz(folder.path(), "a.npz", 150, 30), npz(folder.path(), "b.npz", 140, 120));
    let same = evaluate(folder.path(), &[&a, &a]);
    assert!(value(&same, "fid") < 1e-6, "{same}");
    assert_eq!((value(&same, "precision"), value(&same, "recall")), (1.0, 1.0));
    let other = evaluate(folder.path(), &[&a, &b]);
    assert!(value(&other, "fid") > 1.0);
    assert!(value(&other, "kid") > value(&same, "kid"));
    for metric in ["fid", "inception_score", "precision", "recall", "kid"] {
        let estimate = &other["metrics"][metric];
        let number = |key: &str| estimate[key].as_f64().unwrap();
        assert!(number("low") <= number("value") && number("value") <= number("high"), "{metric}: {estimate}");
    }
    assert_eq!(other["samples"]["count"], 150);
    assert_eq!(other["reference"]["count"], 140);
    assert_eq!(other["features"]["name"], "demo");
    assert_eq!(other["samples"]["label_policy"], "unknown");
    assert_eq!(other["warnings"].as_array().unwrap().len(), 2, "{other}");
    // Nothing but times and memory differs when it is run again.
    let mut again = evaluate(folder.path(), &[&a, &b]);
    for key in ["seconds_features", "seconds_total", "peak_rss_bytes"] {
        again[key] = other[key].clone();
    }
    assert_eq!(again, other);
}

#[test]
fn every_form_of_the_same_pictures_gives_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let (a, reference) = (npz(folder.path(), "a.npz", 40, 30), npz(folder.path(), "b.npz", 45, 90));
    pngs(folder.path(), "flat", 40, 30);
    pngs(folder.path(), "classes/one", 40, 30);
    let expected = evaluate(folder.path(), &[&a, &reference]);
    for form in ["flat", "classes"] {
        let found = evaluate(folder.path(), &[form, &reference]);
        assert_eq!(found["metrics"], expected["metrics"], "{form}");
    }
    let found = evaluate(folder.path(), &["classes", &reference]);
    assert_eq!(found["samples"]["label_policy"], "balanced: 1 classes of 40");
}

#[test]
fn idx_files_and_deflated_archives_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    // 40 grey pictures of 28 pixels, of ten classes.
    let grey = |index: u64| -> Vec<u8> {
        let pixels = picture(index, 30);
        (2..30)
            .flat_map(|row| (2..30).map(move |column| (row, column)))
            .map(|(r, c)| pixels[(r * 32 + c) * 3])
            .collect()
    };
    let header = |extents: &[u32]| -> Vec<u8> {
        let head = [0, 0, 8, extents.len() as u8];
        head.into_iter().chain(extents.iter().flat_map(|extent| extent.to_be_bytes())).collect()
    };
    let images: Vec<u8> = header(&[40, 28, 28]).into_iter().chain((0..40).flat_map(grey)).collect();
    let labels: Vec<u8> = header(&[40]).into_iter().chain((0..40).map(|index| index % 10)).collect();
    fs::write(here.join("train-images-idx3-ubyte"), images).unwrap();
    fs::write(here.join("train-labels-idx1-ubyte"), labels).unwrap();
    // The same with black around, in an archive.
    let mut writer = NpzWriter::create(here.join("padded.npz"), 40, SIDE, SIDE).unwrap();
    for index in 0..40 {
        let mut padded = vec![0; (SIDE * SIDE * 3) as usize];
        for (at, level) in grey(index).into_iter().enumerate() {
            padded[((at / 28 + 2) * 32 + at % 28 + 2) * 3..][..3].fill(level);
        }
        writer.push(&Picture::from_rgb(padded, SIDE, SIDE).unwrap()).unwrap();
    }
    writer.finish().unwrap();
    pack(&here.join("deflated.npz"), &arrays(&here.join("padded.npz")), zip::CompressionMethod::Deflated);
    let deflated = fs::metadata(here.join("deflated.npz")).unwrap().len();
    assert!(deflated < fs::metadata(here.join("padded.npz")).unwrap().len() * 9 / 10);

    let reference = npz(here, "b.npz", 45, 90);
    let expected = evaluate(here, &["padded.npz", &reference]);
    assert!(value(&expected, "fid") > 0.1, "{expected}");
    let idx = evaluate(here, &["train-images-idx3-ubyte", &reference, "--image-size", "32", "--crop", "pad"]);
    assert_eq!((&idx["metrics"], &idx["samples"]["count"]), (&expected["metrics"], &Value::from(40)));
    assert_eq!(idx["samples"]["label_policy"], "balanced: 10 classes of 4");
    let deflated = evaluate(here, &["deflated.npz", &reference, "--batch-size", "7"]);
    assert_eq!(deflated["samples"]["sha256"], expected["samples"]["sha256"]);
    assert!((value(&deflated, "fid") - value(&expected, "fid")).abs() < 1e-5 * value(&expected, "fid"), "{deflated}");
    // The other way round too: as the reference.
    assert!(value(&evaluate(here, &["padded.npz", "deflated.npz"]), "fid") < 1e-6);
}

/// As the references of ImageNet are.
#[test]
fn one_archive_may_hold_statistics_and_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let (a, b, shown) = (npz(here, "a.npz", 60, 30), npz(here, "b.npz", 150, 120), npz(here, "shown.npz", 70, 60));
    succeed_in(here, &["evaluate", "--features", "demo", "--stats", &b, "--out", "statistics.npz"]);
    let mut both = arrays(&here.join("statistics.npz"));
    both.retain(|(name, _)| name != "notes.npy");
    assert_eq!(both.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["mu.npy", "sigma.npy"]);
    both.extend(arrays(&here.join(&shown)));
    pack(&here.join("both.npz"), &both, zip::CompressionMethod::Stored);
    let found = evaluate(here, &[&a, "both.npz"]);
    let (by_statistics, by_pictures) = (evaluate(here, &[&a, "statistics.npz"]), evaluate(here, &[&a, &shown]));
    assert_eq!(found["metrics"]["fid"], by_statistics["metrics"]["fid"]);
    assert_ne!(found["metrics"]["fid"], by_pictures["metrics"]["fid"]);
    for metric in ["precision", "recall", "kid"] {
        assert_eq!(found["metrics"][metric], by_pictures["metrics"][metric]);
    }
    let reference = &found["reference"];
    assert_eq!((&reference["count"], &reference["statistics"]), (&70.into(), &true.into()));
    assert!(found["warnings"].to_string().contains("do not say which network"), "{found}");
}

#[test]
fn features_beside_classes_are_no_class() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let reference = npz(here, "b.npz", 45, 90);
    let reference = here.join(reference).display().to_string();
    for (class, level) in [("one", 30), ("two", 60)] {
        pngs(here, &format!("classes/{class}"), 20, level);
    }
    let before = evaluate(here, &["classes", &reference, "--metrics", "fid"]);
    evaluate(here, &["classes/one", &reference, "--metrics", "fid"]);
    assert!(has_features(&here.join("classes/one.features")));
    let fresh =
        |args: &[&str], from: &Path| evaluate(from, &[args, &["--metrics", "fid", "--cache", "../new"]].concat());
    assert_eq!(fresh(&["../classes", &reference], &here.join("classes"))["metrics"], before["metrics"]);
    // Named from within, they are kept beside all the same.
    fs::remove_dir_all(here.join("classes.features")).unwrap();
    for name in [".", "one/.."] {
        let found = evaluate(&here.join("classes"), &[name, &reference, "--metrics", "fid"]);
        assert_eq!(found["metrics"], before["metrics"], "{name}");
        assert_eq!(found["samples"]["sha256"], before["samples"]["sha256"], "{name}");
    }
    assert!(has_features(&here.join("classes.features")));
    let mut left: Vec<_> =
        fs::read_dir(here.join("classes")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["one", "one.features", "two"]);
}

#[test]
fn labels_beside_the_pictures_say_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let a = npz(folder.path(), "a.npz", 8, 30);
    for (labels, expected) in [
        (Some([0, 1, 2, 3, 0, 1, 2, 3]), "balanced: 4 classes of 2"),
        (Some([5, 5, 5, 5, 5, 1, 1, 9]), "as they come: 3 classes of 1 to 5"),
        (None, "unknown"),
    ] {
        let path = folder.path().join("labelled.npz");
        let mut writer = match labels {
            Some(labels) => NpzWriter::create_labelled(&path, labels.to_vec(), SIDE, SIDE).unwrap(),
            None => NpzWriter::create(&path, 8, SIDE, SIDE).unwrap(),
        };
        for index in 0..8 {
            writer.push(&Picture::from_rgb(picture(index, 30), SIDE, SIDE).unwrap()).unwrap();
        }
        writer.finish().unwrap();
        // An archive is taken as it is: what brings others to one size makes no other set of it.
        let plain = evaluate(folder.path(), &["labelled.npz", &a, "--metrics", "fid"]);
        let fitted =
            evaluate(folder.path(), &["labelled.npz", &a, "--metrics", "fid", "--image-size", "32", "--crop", "pad"]);
        for record in [&plain, &fitted] {
            assert_eq!(record["samples"]["label_policy"], expected);
            assert_eq!(record["samples"]["sha256"], plain["reference"]["sha256"], "the labels are not in the hash");
        }
    }
}

#[test]
fn few_pictures_cost_the_metrics_that_need_more() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let a = npz(here, "a.npz", 40, 30);
    for (count, measured, left_out) in [
        (1, "inception_score", vec!["FID", "precision and recall", "KID"]),
        (3, "fid inception_score", vec!["precision and recall", "KID"]),
        (19, "fid inception_score precision recall", vec!["KID"]),
        (20, "fid inception_score kid precision recall", vec![]),
    ] {
        let few = npz(here, &format!("{count}.npz"), count, 60);
        let record = evaluate(here, &[&a, &few]);
        let metrics = record["metrics"].as_object().unwrap();
        let mut names: Vec<_> = metrics.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names.join(" "), measured);
        let whys = record["left_out"].as_array().cloned().unwrap_or_default();
        assert_eq!(whys.iter().map(|left| left["metric"].as_str().unwrap()).collect::<Vec<_>>(), left_out);
        assert!(whys.iter().all(|left| left["why"].as_str().unwrap().contains("too few")), "{record}");
        let warnings = record["warnings"].to_string();
        assert!(left_out.iter().all(|metric| warnings.contains(&format!("{metric}: left out"))), "{warnings}");
    }
    // Of statistics alone too; and what is printed says so once.
    succeed_in(here, &["evaluate", "--features", "demo", "--stats", &a, "--out", "s.npz"]);
    let record = evaluate(here, &["20.npz", "s.npz"]);
    let metrics: Vec<_> = record["left_out"].as_array().unwrap().iter().map(|left| &left["metric"]).collect();
    assert_eq!(metrics, ["precision and recall", "KID"]);
    let ran = succeed_in(here, &["evaluate", "--features", "demo", "20.npz", "s.npz"]);
    let said = "KID: left out, as the reference has statistics, but no pictures";
    assert_eq!((ran.stdout + &ran.stderr).matches(said).count(), 1);
    // A metric that is named, as it is printed too, is measured, or the command fails.
    let named = ["evaluate", "--features", "demo", &a, "19.npz", "--metrics"];
    fail_in(here, &[&named[..], &["fid,kid"]].concat(), &["KID: 19 ", "too few; at least 20", "leave the metric out"]);
    succeed_in(here, &[&named[..], &["fid,pr"]].concat());
    succeed_in(here, &[&named[..], &["FID,inception_score,precision,recall"]].concat());
}

#[test]
fn what_cannot_be_had_is_told_before_anything_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let (a, few) = (npz(here, "a.npz", 40, 30), npz(here, "few.npz", 19, 60));
    fs::create_dir(here.join("small")).unwrap();
    write_png(&here.join("small/1.png"), 16, 16, &[7; 16 * 16 * 3]);
    for (args, expected) in [
        (vec![&*a, &few, "--metrics", "fid,kid"], "KID: 19 reference samples"),
        (vec![&a, &a, "--metrics", "fid,sfid"], "sFID needs spatial features"),
        (vec![&a, "small"], "16 x 16"),
    ] {
        fail_in(here, &[&["evaluate", "--features", "demo"][..], &args].concat(), &[expected]);
        assert!(!here.join("a.npz.features").exists(), "{args:?} computed features");
    }
    // What is wrong with the reference is told before the samples' features are computed, and labels on either side.
    let b = npz(here, "b.npz", 40, 60);
    fs::write(here.join("b.npz.features"), "in the way").unwrap();
    let mut bytes = fs::read(here.join(&b)).unwrap();
    bytes[20_000] ^= 4;
    fs::write(here.join("changed.npz"), bytes).unwrap();
    let mut labelled = arrays(&here.join(&b));
    let mut writer = NpzWriter::create_labelled(here.join("three.npz"), vec![0, 1, 2], SIDE, SIDE).unwrap();
    (0..3).for_each(|index| writer.push(&Picture::from_rgb(picture(index, 30), SIDE, SIDE).unwrap()).unwrap());
    writer.finish().unwrap();
    labelled.extend(arrays(&here.join("three.npz")).into_iter().filter(|(name, _)| name == "arr_1.npy"));
    pack(&here.join("labelled.npz"), &labelled, zip::CompressionMethod::Stored);
    for (args, expected) in [
        ([&*a, &b], "cannot keep features in b.npz.features"),
        ([&a, "changed.npz"], "checksum"),
        ([&a, "labelled.npz"], "arr_1 has 3 labels for 40 pictures"),
        (["labelled.npz", &a], "arr_1 has 3 labels for 40 pictures"),
    ] {
        fail_in(here, &[&["evaluate", "--features", "demo"][..], &args].concat(), &[expected]);
        assert!(!has_features(here), "{args:?} computed features");
    }
    // The Inception score is of the samples alone; the record still says what they were to be compared with.
    let record = evaluate(here, &[&a, &few, "--metrics", "is"]);
    assert!(value(&record, "inception_score") >= 1.0);
    assert!(here.join("a.npz.features").exists() && !here.join("few.npz.features").exists());
    let with_features = evaluate(here, &[&a, &few, "--metrics", "fid"]);
    assert_eq!(record["reference"], with_features["reference"]);
}

#[test]
fn statistics_are_made_and_compared_with() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (npz(folder.path(), "a.npz", 150, 30), npz(folder.path(), "b.npz", 140, 120));
    let args = ["evaluate", "--features", "demo", "--stats", &b, "--out", "stats.npz"];
    succeed_in(folder.path(), &args);
    // Without a cache, and through a file of another name: the same statistics.
    fs::rename(folder.path().join("b.npz.features"), folder.path().join("kept")).unwrap();
    succeed_in(folder.path(), &[&args[..6], &["streamed", "--no-cache"]].concat());
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("streamed") == read("stats.npz") && !folder.path().join("b.npz.features").exists());
    let direct = evaluate(folder.path(), &[&a, &b, "--metrics", "fid"]);
    assert_eq!(value(&evaluate(folder.path(), &[&a, "streamed"]), "fid"), value(&direct, "fid"));
    let through = evaluate(folder.path(), &[&a, "stats.npz"]);
    assert!((value(&direct, "fid") - value(&through, "fid")).abs() < 1e-9 * value(&direct, "fid"));
    assert!(through["metrics"].get("kid").is_none() && through["metrics"].get("precision").is_none());
    fail_in(
        folder.path(),
        &["evaluate", &a, "stats.npz", "--features", "demo", "--metrics", "kid"],
        &["KID needs the reference's pictures", "help:"],
    );
    fail_in(folder.path(), &["evaluate", "stats.npz", &a, "--features", "demo"], &["the samples must be pictures"]);
    // Statistics do not hide that the pictures beside them are none.
    let mut spoiled = fs::read(folder.path().join("stats.npz")).unwrap();
    for at in 0..spoiled.len() - 9 {
        if &spoiled[at..at + 9] == b"notes.npy" {
            spoiled[at..at + 9].copy_from_slice(b"arr_0.npy");
        }
    }
    fs::write(folder.path().join("spoiled.npz"), spoiled).unwrap();
    let args = ["evaluate", &a, "spoiled.npz", "--features", "demo", "--metrics", "fid"];
    fail_in(folder.path(), &args, &["spoiled.npz: arr_0 is", "not uint8 (N, H, W, 3)"]);
    // What the file says of itself is in the record.
    assert_eq!(through["reference"]["count"], 140);
    assert_eq!(through["reference"]["statistics_of"], direct["reference"]["sha256"]);
    // Both sides are few, and two metrics need pictures of both.
    assert_eq!(through["warnings"].as_array().unwrap().len(), 4, "{through}");
}

#[test]
fn statistics_of_another_network_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let a = npz(here, "a.npz", 40, 30);
    succeed_in(here, &["evaluate", "--features", "demo", "--stats", &a, "--out", "stats.npz"]);
    // The same network, by its name; other weights.
    let weights = fs::read(root().join("weights/demo/features-fashion.safetensors")).unwrap();
    let mut other = weights.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(here.join("other.safetensors"), other).unwrap();
    fail_in(
        here,
        &["evaluate", &a, "stats.npz", "--features", "other.safetensors"],
        &["the reference's statistics are of `demo`", "sha256", "help: pass the same --features"],
    );
    // The demo's pictures are prepared in one way.
    for (features, expected) in [
        ("inception-pytorch-fid:other.safetensors", "it is no Inception"),
        ("inception-pytorch-fid:missing.pth", "missing.pth"),
    ] {
        fail_in(here, &["evaluate", &a, &a, "--features", features], &[expected]);
    }
    // A damaged file of the demo's is told as that, not as an Inception without its tensors.
    fs::write(here.join("short.safetensors"), &weights[..weights.len() - 100]).unwrap();
    let ran = fail_in(here, &["evaluate", &a, &a, "--features", "short.safetensors"], &["short.safetensors"]);
    assert!(!ran.stderr.contains("Conv2d"), "{}", ran.stderr);
}

#[test]
fn a_codec_is_measured_by_its_reconstructions() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let a = npz(here, "a.npz", 40, 30);
    let plain = evaluate(here, &[&a, &a, "--metrics", "fid"]);
    let through = evaluate(here, &[&a, &a, "--metrics", "fid", "--reconstruct", "vae-fashion-demo"]);
    // The features of pictures and of their reconstructions lie beside each other; only the samples are reconstructed.
    assert!(value(&plain, "fid") < 1e-6 && value(&through, "fid") > 0.1, "{plain} {through}");
    assert_eq!(through["reconstructed_by"]["name"], "vae-fashion-demo");
    assert_eq!((&through["features"], &through["samples"]), (&plain["features"], &plain["samples"]));
    assert!(plain.get("reconstructed_by").is_none());
    assert_eq!(evaluate(here, &[&a, &a, "--metrics", "fid"])["metrics"], plain["metrics"]);
    for (args, expected) in [
        (vec![&*a, &a, "--reconstruct", "no-such-vae"], "no-such-vae"),
        (vec!["--stats", &a, "--out", "s.npz", "--reconstruct", "vae-fashion-demo"], "--reconstruct"),
    ] {
        fail_in(here, &[&["evaluate", "--features", "demo"][..], &args].concat(), &[expected]);
    }
}

#[test]
fn inputs_are_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let a = npz(here, "a.npz", 40, 30);
    pngs(here, "flat", 40, 30);
    let before = fs::read(here.join(&a)).unwrap();
    std::os::unix::fs::symlink(&a, here.join("link.npz")).unwrap();
    for (data, out) in
        [("a.npz", "a.npz"), ("a.npz", "./flat/../a.npz"), ("link.npz", "a.npz"), ("flat", "flat/stats.npz")]
    {
        let args = ["evaluate", "--features", "demo", "--stats", data, "--out", out];
        fail_in(here, &args, &["it is the input", "choose another place"]);
    }
    assert_eq!(fs::read(here.join(&a)).unwrap(), before);
    fs::copy(root().join("configs/features.toml"), here.join("recipe.toml")).unwrap();
    for (data, out) in [("flat", "flat/f.safetensors"), ("a.npz", "recipe.toml")] {
        let args = ["train-features", "--data", data, "--test", data, "--config", "recipe.toml", "--out", out];
        fail_in(here, &args, &["it is the input"]);
    }
}

#[test]
fn no_picture_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let a = npz(here, "a.npz", 40, 30);
    let mixed = pngs(here, "mixed", 20, 30);
    pngs(here, "mixed/class", 20, 60);
    fail_in(
        here,
        &["evaluate", "mixed", &a, "--features", "demo"],
        &["such as 000000.png, and class/000000.png", "either could be meant"],
    );
    // A tar without labels, whole, then cut short within a picture.
    fs::remove_dir_all(mixed.join("class")).unwrap();
    let mut tar = Vec::new();
    for index in 0..20 {
        let name = format!("{index:06}.png");
        let data = fs::read(mixed.join(&name)).unwrap();
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        header[156] = b'0';
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend(header);
        tar.extend(data);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    let cut = tar.len() - 100;
    tar.extend([0; 1024]);
    fs::write(here.join("samples.tar"), &tar).unwrap();
    let of = |form: &str| evaluate(here, &[form, &a, "--metrics", "fid,kid"]);
    assert_eq!(of("samples.tar")["metrics"], of("mixed")["metrics"]);
    fs::write(here.join("cut.tar"), &tar[..cut]).unwrap();
    fail_in(here, &["evaluate", "cut.tar", &a, "--features", "demo"], &["cut.tar", "ends within a member"]);
}

#[test]
fn changed_bytes_of_an_archive_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let a = npz(folder.path(), "a.npz", 40, 30);
    let mut bytes = fs::read(folder.path().join(&a)).unwrap();
    bytes[20_000] ^= 4;
    fs::write(folder.path().join("b.npz"), bytes).unwrap();
    fail_in(folder.path(), &["evaluate", "b.npz", &a, "--features", "demo"], &["b.npz", "arr_0", "checksum", "help:"]);
}

#[test]
fn records_say_what_intervals_cover_and_warn_of_what_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let a = npz(folder.path(), "a.npz", 40, 30);
    let record = evaluate(folder.path(), &[&a, &a, "--metrics", "pr,is,kid"]);
    for (metric, method, covers) in [
        ("precision", "wilson", "the draw of the samples"),
        ("recall", "block-jackknife", "the draw of the samples, and so of their neighbourhoods"),
        ("inception_score", "block-jackknife", "the draw of the samples"),
        ("kid", "block-jackknife", "the draw of the samples; not that of the subsets"),
    ] {
        assert_eq!(
            (&record["metrics"][metric]["method"], &record["metrics"][metric]["covers"]),
            (&method.into(), &covers.into())
        );
    }
    // Few pictures are a warning of FID.
    assert_eq!(record["warnings"].as_array().unwrap().len(), 0, "{record}");
}

#[test]
fn an_interrupted_run_continues() {
    let folder = tempfile::tempdir().unwrap();
    // Two chunks of features.
    let (a, b) = (npz(folder.path(), "a.npz", 1100, 30), npz(folder.path(), "b.npz", 60, 90));
    let expected = evaluate(folder.path(), &[&a, &b, "--metrics", "fid"]);
    // The folder of one network's features.
    let only = |name: &str| {
        let entries = fs::read_dir(folder.path().join(name)).unwrap().map(|entry| entry.unwrap().path());
        let folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
        let [folder] = &folders[..] else { panic!("{folders:?}") };
        folder.clone()
    };
    let cache = only("a.npz.features");
    let chunk = |index: u32| cache.join(format!("{index:06}.safetensors"));
    let written = |index: u32| fs::metadata(chunk(index)).unwrap().ino();
    // Killed before the second chunk: the first is read, not written again. Then with the first one damaged.
    let first = written(0);
    fs::remove_file(chunk(1)).unwrap();
    let found = evaluate(folder.path(), &[&a, &b, "--metrics", "fid"]);
    assert_eq!((&found["metrics"], written(0)), (&expected["metrics"], first));
    let second = written(1);
    fs::write(chunk(0), b"half").unwrap();
    let found = evaluate(folder.path(), &[&a, &b, "--metrics", "fid"]);
    assert_eq!((&found["metrics"], written(1)), (&expected["metrics"], second));
    // What the files hold is what is measured.
    let other = npz(folder.path(), "other.npz", 1100, 90);
    evaluate(folder.path(), &[&other, &b, "--metrics", "fid"]);
    fs::copy(only("other.npz.features").join("000000.safetensors"), chunk(0)).unwrap();
    assert_ne!(evaluate(folder.path(), &[&a, &b, "--metrics", "fid"])["metrics"], expected["metrics"]);
    // Other pictures under the same name do not get these features.
    npz(folder.path(), "a.npz", 1100, 60);
    assert_ne!(evaluate(folder.path(), &[&a, &b, "--metrics", "fid"])["metrics"], expected["metrics"]);
}

#[test]
fn what_cannot_be_compared_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let a = npz(here, "a.npz", 40, 30);
    npz(here, "one.npz", 1, 30);
    let mixed = pngs(here, "mixed", 3, 30);
    write_png(&mixed.join("000002.png"), 16, 16, &[7; 16 * 16 * 3]);
    fs::create_dir(here.join("small")).unwrap();
    write_png(&here.join("small/1.png"), 16, 16, &[7; 16 * 16 * 3]);
    fs::write(here.join("text.npz"), "no archive").unwrap();
    fs::write(here.join("damaged.png"), "x").unwrap();
    for (args, expected) in [
        (vec!["missing.npz", &a], vec!["missing.npz"]),
        (vec![&a, "text.npz"], vec!["text.npz", "zip"]),
        (vec!["small", &a], vec!["16 x 16", "32 x 32", "--image-size"]),
        (vec!["mixed", &a], vec!["000002.png is 16 x 16", "--image-size"]),
        (vec!["one.npz", &a, "--metrics", "fid"], vec!["1 samples are too few"]),
        (vec![&a, &a, "--metrics", "sfid"], vec!["sFID needs spatial features"]),
        (vec![&a, &a, "--crop", "pad"], vec!["--crop needs --image-size"]),
        (vec![&a, &a, "--image-size", "64"], vec!["not 64 x 64"]),
        (vec![&a, &a, "--batch-size", "0"], vec!["--batch-size", "expected 1 to 1024"]),
        (vec!["--stats", &a, "--out", "s.npz", "--seed", "1"], vec!["--seed", "cannot be used with"]),
        (vec![&a, &a, "--no-cache"], vec!["--stats"]),
        (vec!["--stats", &a, "--out", "s.npz", "--no-cache", "--cache", "c"], vec!["cannot be used with"]),
        (vec![&a, &a, "--cache", "text.npz"], vec!["cannot keep features in text.npz", "pass --cache DIR"]),
        (vec![&a], vec!["REFERENCE"]),
        (vec![], vec!["SAMPLES"]),
    ] {
        fail_in(here, &[&["evaluate", "--features", "demo"][..], &args].concat(), &expected);
    }
    // The weights that are not there.
    let weights = here.join("weights");
    fs::create_dir(&weights).unwrap();
    let output =
        dit_cli().env("DIT_WEIGHTS_DIR", &weights).current_dir(here).args(["evaluate", &a, &a]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("cargo xtask fetch-weights inception-fid"), "{message}");
    assert!(message.contains("help: or pass --features demo"), "{message}");
}

#[test]
fn features_are_trained_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = fs::read_to_string(root().join("configs/features.toml")).unwrap();
    let quick = recipe.replace("epochs = 12", "epochs = 2").replace("batch_size = 128", "batch_size = 8");
    assert_ne!(quick, recipe);
    fs::write(folder.path().join("quick.toml"), quick).unwrap();
    // Two classes that differ plainly.
    for (class, level) in [("dark", 5), ("noisy", 200)] {
        for split in ["train", "test"] {
            pngs(folder.path(), &format!("{split}/{class}"), 40, level);
        }
    }
    let args =
        ["--data", "train", "--test", "test", "--config", "quick.toml", "--out", "f.safetensors", "--threads", "1"];
    let ran = succeed_in(folder.path(), &[&["train-features"][..], &args].concat());
    assert!(ran.stderr.contains("100.00 % of the test set right"), "{}", ran.stderr);
    let a = npz(folder.path(), "a.npz", 30, 30);
    let ran = succeed_in(folder.path(), &["evaluate", &a, &a, "--features", "f.safetensors", "--metrics", "fid"]);
    assert!(ran.stdout.contains("FID") && ran.stdout.contains("demo (128 wide"), "{}", ran.stdout);

    // Asked to stop, and continued: the same file.
    let longer = recipe.replace("epochs = 12", "epochs = 60").replace("batch_size = 128", "batch_size = 8");
    fs::write(folder.path().join("longer.toml"), longer).unwrap();
    let args = |out| {
        let data = ["train-features", "--data", "train", "--test", "test", "--config", "longer.toml"];
        [&data[..], &["--threads", "1", "--out", out]].concat()
    };
    succeed_in(folder.path(), &args("whole"));
    let state = folder.path().join("cut.training");
    let mut child = dit_cli().current_dir(folder.path()).args(args("cut")).stderr(Stdio::null()).spawn().unwrap();
    while !state.exists() && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: kill(2) with the id of a child that was not waited for yet.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(state.exists() && !folder.path().join("cut").exists());
    let ran = succeed_in(folder.path(), &args("cut"));
    assert!(ran.stderr.contains("continues cut.training at step "), "{}", ran.stderr);
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("cut") == read("whole") && !state.exists());
}
