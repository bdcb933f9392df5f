//! `dit-cli train-classifier`: killed and continued it ends in the same bytes, and what it makes guides.

use std::{fs, path::Path, process::Stdio, thread, time::Duration};

use dit_image::{Caption, Picture, write_png};
use dit_tests::{dit_cli, fail_in, succeed_in};

/// Latents of sixty pictures in ten classes, told apart by their grey.
fn latents(folder: &Path) {
    for class in 0..10_u8 {
        let dir = folder.join(format!("pictures/{class}"));
        fs::create_dir_all(&dir).unwrap();
        for number in 0..6_u8 {
            let rgb = vec![class * 25 + number; 32 * 32 * 3];
            let picture = Picture::from_rgb(rgb, 32, 32).unwrap();
            write_png(dir.join(format!("{number}.png")), &picture, &Caption::default()).unwrap();
        }
    }
    let args = ["precompute-latents", "--data", "pictures", "--out", "latents", "--image-size", "32"];
    succeed_in(folder, &[&args[..], &["--vae", "vae-fashion-demo", "--threads", "1"]].concat());
}

fn train<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let run = ["train-classifier", "--data", "latents", "--out", out, "--steps", "60", "--batch-size", "20"];
    let small = ["--hidden", "32", "--depth", "1", "--heads", "2", "--save-every", "7", "--threads", "1"];
    [&run[..], &small, more].concat()
}

#[test]
fn a_killed_training_ends_in_the_bytes_of_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    latents(folder.path());
    let json = succeed_in(folder.path(), &train("whole", &["--validation", "latents", "--json"])).stdout;
    let summary: serde_json::Value = serde_json::from_str(&json).unwrap();
    let clean = summary["validation"][0]["accuracy"].as_f64().unwrap();
    assert!(clean > 0.2, "ten classes told apart by their grey, {clean} right at low noise");
    assert!(!folder.path().join("whole.training").exists(), "the state goes when the training is done");

    let args = train("cut", &[]);
    let mut child = dit_cli().current_dir(folder.path()).args(&args).stderr(Stdio::null()).spawn().unwrap();
    while !folder.path().join("cut.training").exists() && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(folder.path().join("cut.training").exists() && !folder.path().join("cut").exists());
    let other = ["train-classifier", "--data", "latents", "--out", "cut", "--steps", "50"];
    fail_in(folder.path(), &other, &["another run", "steps: 60 there, 50 asked for", "geometry", "begin anew"]);
    let ran = succeed_in(folder.path(), &args);
    assert!(ran.stderr.contains("continues cut.training"), "{}", ran.stderr);
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("cut") == read("whole"));

    let sample = ["sample", "--ckpt", "dit-fashion-demo", "--steps", "2", "--class", "3", "--classifier", "cut"];
    succeed_in(folder.path(), &[&sample[..], &["--out", "x.png"]].concat());
}

#[test]
fn a_step_that_fails_loses_none_of_those_before() {
    let folder = tempfile::tempdir().unwrap();
    latents(folder.path());
    // The first step is taken, and makes weights that no second one can be taken with; no state is due by then.
    let args: Vec<_> =
        train("c", &["--lr", "1e30"]).into_iter().map(|arg| if arg == "7" { "50" } else { arg }).collect();
    fail_in(folder.path(), &args, &["the state of step 1 is in c.training", "the learning rate is too high"]);
    fail_in(folder.path(), &args, &["continues c.training at step 1", "the learning rate is too high"]);
}

#[test]
fn two_processes_do_not_train_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    latents(folder.path());
    let here = |name: &str| folder.path().join(name);
    let args: Vec<_> = train("c", &[]).into_iter().map(|arg| if arg == "60" { "1000000" } else { arg }).collect();
    let mut child = dit_cli().current_dir(folder.path()).args(&args).stderr(Stdio::null()).spawn().unwrap();
    while !here("c.training").exists() && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    fail_in(folder.path(), &args, &["another process is training c", "choose another --out"]);
    // Another file is another matter, though it lies beside the first.
    succeed_in(folder.path(), &train("d", &[]));
    assert!(here("d").exists() && !here("d.lock").exists());
    assert!(child.try_wait().unwrap().is_none(), "the first goes on");
    // The lock of a process that was killed holds nobody up.
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(here("c.lock").exists());
    fail_in(folder.path(), &train("c", &[]), &["another run", "steps: 1000000 there, 60 asked for"]);
    fs::remove_file(here("c.training")).unwrap();
    succeed_in(folder.path(), &train("c", &[]));
    assert!(here("c").exists() && !here("c.lock").exists());
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    latents(folder.path());
    let fail = |more: &[&str], expected: &[&str]| {
        let args = ["train-classifier", "--data", "latents", "--out", "c"];
        drop(fail_in(folder.path(), &[&args[..], more].concat(), expected));
    };
    fail(&["--steps", "0"], &["--steps 0"]);
    fail(&["--lr", "-1", "--weight-decay", "nan"], &["--lr -1", "--weight-decay NaN"]);
    fail(&["--heads", "5"], &["5 heads do not divide"]);
    fail(&["--patch", "3"], &["patch 3"]);
    fail(&["--batch-size", "100"], &["60 records", "smaller batches"]);
    fail(&["--save-every", "0"], &["--save-every 0"]);
    fail(&["--validation", "pictures"], &["pictures"]);
    fail_in(folder.path(), &["train-classifier", "--data", "none", "--out", "c"], &["none"]);
    fail_in(folder.path(), &["train-classifier", "--data", "latents", "--out", "no/c"], &["no"]);
    fail_in(
        folder.path(),
        &["train-classifier", "--data", "latents", "--out", "latents/c"],
        &["it is the input latents"],
    );
    assert!(!folder.path().join("c").exists());
}
