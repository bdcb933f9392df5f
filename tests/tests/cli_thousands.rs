//! Large runs: they resume where they stopped, and nothing depends on how they were cut.

use std::{
    collections::BTreeMap, fs, os::unix::process::ExitStatusExt, path::Path, process::Stdio, thread, time::Duration,
};

use dit_tests::{dit_cli, root, succeed_in};

const RUN: [&str; 15] = [
    "sample",
    "--ckpt",
    "dit-fashion-demo",
    "--sampler",
    "ddim",
    "--steps",
    "4",
    "--class",
    "all",
    "--num-samples",
    "4",
    "--batch-size",
    "3",
    "--out-dir",
    "each",
];

fn pictures(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder.join("each")).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}

#[test]
fn a_killed_run_continues_and_ends_as_one_that_was_not() {
    let whole = tempfile::tempdir().unwrap();
    succeed_in(whole.path(), &[&RUN[..], &["--npz", "all.npz"]].concat());
    let expected = pictures(whole.path());
    assert_eq!(expected.len(), 40);

    let killed = tempfile::tempdir().unwrap();
    let mut signals = 0;
    for stop_at in ["000004.png", "000019.png"] {
        let mut child = dit_cli()
            .current_dir(killed.path())
            .args([&RUN[..], &["--npz", "all.npz"]].concat())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !killed.path().join("each").join(stop_at).exists() && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap(); // SIGKILL
        signals += usize::from(child.wait().unwrap().signal().is_some());
    }
    assert!(signals > 0, "every run ended before it was killed");
    let ran = succeed_in(killed.path(), &[&RUN[..], &["--npz", "all.npz"]].concat());
    assert!(ran.stderr.contains("pictures were there already"), "{}", ran.stderr);
    let left: BTreeMap<_, _> = pictures(killed.path()).into_iter().filter(|(name, _)| name.ends_with(".png")).collect();
    assert!(left == expected, "every picture is as without the kills");
    let npz = |folder: &Path| fs::read(folder.join("all.npz")).unwrap();
    assert!(npz(killed.path()) == npz(whole.path()));

    let hidden = |folder: &Path| {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with('.')).collect::<Vec<_>>()
    };
    assert_eq!(hidden(killed.path()), [""; 0], "what the killed runs left is gone");
    assert_eq!(hidden(&killed.path().join("each")), [""; 0]);

    // Complete: nothing is computed. Of another recipe: all is.
    let ran = succeed_in(killed.path(), &RUN);
    assert!(ran.stderr.contains("40 of 40 pictures were there already"), "{}", ran.stderr);
    let damaged = killed.path().join("each/000010.png");
    fs::write(&damaged, &expected["000010.png"][..200]).unwrap();
    let ran = succeed_in(killed.path(), &RUN);
    assert!(ran.stderr.contains("37 of 40 pictures were there already"), "a batch is made again: {}", ran.stderr);
    assert!(fs::read(&damaged).unwrap() == expected["000010.png"]);
    let ran = succeed_in(killed.path(), &[&RUN[..], &["--cfg-scale", "2"]].concat());
    assert!(!ran.stderr.contains("there already"), "{}", ran.stderr);
    assert!(pictures(killed.path())["000000.png"] != expected["000000.png"]);
}

#[test]
fn random_labels_are_seeded_and_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let run = |seed: &str, dir: &str| {
        let args = ["sample", "--ckpt", "dit-fashion-demo", "--sampler", "ddim", "--steps", "1", "--class", "all"];
        let more = ["--num-samples", "2", "--labels", "random", "--seed", seed, "--out-dir", dir];
        let summary = succeed_in(folder.path(), &[&args[..], &more, &["--json"]].concat()).stdout;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&summary).unwrap()["labels"], "random");
        let texts =
            (0..20).map(|k| dit_image::read_recipe(folder.path().join(dir).join(format!("{k:06}.png"))).unwrap());
        texts.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap()).collect::<Vec<_>>()
    };
    let (a, again, b) = (run("1", "a"), run("1", "again"), run("2", "b"));
    assert!(a.iter().all(|recipe| recipe["labels"] == "random"));
    let classes = |recipes: &[serde_json::Value]| recipes.iter().map(|r| r["classes"].to_string()).collect::<String>();
    assert_eq!(classes(&a), classes(&again));
    assert_ne!(classes(&a), classes(&b));
}

#[test]
fn pictures_of_another_run_are_told_about() {
    let folder = tempfile::tempdir().unwrap();
    let run = |class: &str, count: &str| {
        let sampler = ["sample", "--ckpt", "dit-fashion-demo", "--sampler", "ddim", "--steps", "2"];
        let pictures = ["--class", class, "--num-samples", count, "--out-dir", "each"];
        succeed_in(folder.path(), &[&sampler[..], &pictures[..]].concat()).stderr
    };
    let told = |stderr: &str| (stderr.contains("made otherwise"), stderr.contains("and stay"));
    assert_eq!(told(&run("0", "4")), (false, false));
    let another = run("1", "2");
    assert!(another.contains("2 pictures were made otherwise, and will be replaced"), "{another}");
    assert!(another.contains("2 pictures have numbers that this run has not, and stay"), "{another}");
    assert_eq!(told(&run("1", "2")), (false, true));
}

#[test]
fn no_output_replaces_the_weaker_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let weaker = folder.path().join("weaker.safetensors");
    fs::copy(root().join("weights/demo/dit-fashion.safetensors"), &weaker).unwrap();
    let before = fs::metadata(&weaker).unwrap().len();
    let flags = ["sample", "--ckpt", "dit-fashion-demo", "--steps", "2", "--cfg-scale", "1"];
    let out = ["--autoguidance", "weaker.safetensors", "--latents", "weaker.safetensors"];
    let refused = dit_cli().current_dir(folder.path()).args([&flags[..], &out[..]].concat()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(fs::metadata(&weaker).unwrap().len(), before);
}
