//! What cannot be begun or continued, and why.

use std::{fs, path::Path};

use dit_train::{Run, StopRequest, TrainError, Unobserved};
use tch::Device;

use crate::support::{Latents, Place, Seen, recipe};

#[test]
fn one_process_a_folder() {
    let place = Place::new(Latents::Varied);
    let recipe = recipe(&["train.checkpoint_every=2"]);
    let mut first = place.start(&recipe, "run").unwrap();
    assert!(matches!(place.start(&recipe, "run"), Err(TrainError::Locked { .. })));
    // Not "no checkpoint yet, begin again": nothing is looked for in a folder that somebody is about to write to.
    assert!(matches!(place.resume(&recipe, "run"), Err(TrainError::Locked { .. })));
    first.train(&mut Unobserved, &StopRequest::new()).unwrap();
    let newest = place.run_folder("run").join("checkpoints/step-00000012");
    fs::rename(&newest, place.run_folder("aside")).unwrap();
    fs::create_dir(&newest).unwrap();
    assert!(matches!(place.resume(&recipe, "run"), Err(TrainError::Locked { .. })), "nor is anything read");
    fs::remove_dir(&newest).unwrap();
    fs::rename(place.run_folder("aside"), &newest).unwrap();
    drop(first);
    assert!(place.resume(&recipe, "run").is_ok());
    assert!(matches!(place.start(&recipe, "run"), Err(TrainError::Exists { .. })));
}

/// A run that was trained, then continued with other keys: the error's text, or none.
#[track_caller]
fn check_changed(keys: &[&str], says: Option<&str>) {
    let place = Place::new(Latents::Varied);
    place.train(&recipe(&[]), "run");
    let first = Run::check_recipe(&recipe(keys), &place.run_folder("run"));
    assert_eq!(first.err().map(|error| error.to_string().contains(says.unwrap_or_default())), says.map(|_| true));
    match (place.resume(&recipe(keys), "run"), says) {
        (Ok(_), None) => {}
        (Err(error @ TrainError::Recipe { .. }), Some(says)) => assert!(error.to_string().contains(says), "{error}"),
        (other, _) => panic!("{keys:?}: {:?}", other.map(|run| run.step())),
    }
}

#[test]
fn a_changed_recipe_is_refused_where_it_would_be_another_run() {
    check_changed(&["optim.lr=2e-3"], Some("optim.lr: 0.001 in the run, 0.002 now"));
    check_changed(&["train.seed=1"], Some("train.seed: 0 in the run, 1 now"));
    check_changed(&["model.hidden=32"], Some("model.hidden: 16 in the run, 32 now"));
    check_changed(&["ema.decays=[0.5, 0.9]"], Some("ema.decays: [0.5] in the run, [0.5, 0.9] now"));
    check_changed(&["train.steps=30", "train.keep_last=1", "train.log_every=7", "samples.every=99"], None);
}

#[test]
fn other_latents_are_refused() {
    let place = Place::new(Latents::Varied);
    place.train(&recipe(&[]), "run");
    let other = Latents::Constant.write(place.folder.path());
    let result = Run::resume(&recipe(&[]), &other, &place.run_folder("run"), Device::Cpu);
    assert!(matches!(result, Err(TrainError::Unfit { .. })), "{result:?}");
}

#[test]
fn measurements_need_something_that_measures() {
    let place = Place::new(Latents::Varied);
    let recipe = recipe(&["eval.every=4", "eval.reference=somewhere"]);
    let result = place.start(&recipe, "run").unwrap().train(&mut Unobserved, &StopRequest::new());
    assert!(matches!(result, Err(TrainError::Unfit { .. })), "{result:?}");
}

/// Continuing after a change to the newest checkpoint's folder.
#[track_caller]
fn check_damaged(change: impl FnOnce(&Path), says: &str) {
    let place = Place::new(Latents::Varied);
    place.train(&recipe(&["train.checkpoint_every=6"]), "run");
    change(&place.run_folder("run").join("checkpoints/step-00000012"));
    let error = place.resume(&recipe(&["train.checkpoint_every=6"]), "run").unwrap_err();
    assert!(matches!(error, TrainError::Damaged { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(says) && text.contains("step-00000012") && text.contains("help:"), "{text}");
    // As the help says.
    fs::remove_dir_all(place.run_folder("run").join("checkpoints/step-00000012")).unwrap();
    assert_eq!(place.resume(&recipe(&["train.checkpoint_every=6"]), "run").unwrap().step(), 6);
}

#[test]
fn damaged_checkpoints_are_refused_by_name() {
    let flip = |file: &'static str| {
        move |folder: &Path| {
            let mut bytes = fs::read(folder.join(file)).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(folder.join(file), bytes).unwrap();
        }
    };
    check_damaged(flip("model.safetensors"), "model.safetensors has changed");
    check_damaged(flip("optimizer.safetensors"), "optimizer.safetensors has changed");
    check_damaged(|folder| fs::remove_file(folder.join("ema-0.5.safetensors")).unwrap(), "ema-0.5.safetensors");
    check_damaged(|folder| fs::write(folder.join("state.json"), "{").unwrap(), "state.json");
    check_damaged(|folder| fs::remove_file(folder.join("state.json")).unwrap(), "state.json");
}

#[test]
fn a_state_of_a_later_version_is_said_to_be_one() {
    let place = Place::new(Latents::Varied);
    place.train(&recipe(&[]), "run");
    let path = place.run_folder("run").join("checkpoints/step-00000012/state.json");
    let text = fs::read_to_string(&path).unwrap();
    let newer = text.replacen("\"format\": 2", "\"format\": 3, \"more\": true", 1);
    assert_ne!(text, newer);
    fs::write(&path, newer).unwrap();
    let error = place.resume(&recipe(&[]), "run").unwrap_err();
    assert!(matches!(error, TrainError::Format { found: 3, newest: 2, .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("newer version") && said.contains("sound") && !said.contains("remove"), "{said}");
}

#[test]
fn a_state_that_says_another_number_is_seen_to() {
    let change = |from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let path = folder.join("state.json");
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
        }
    };
    // 12 batches of 8 are all 96 records.
    check_damaged(change("\"consumed\": 96", "\"consumed\": 88"), "state.json has changed");
    check_damaged(change("\"rollbacks\": 0", "\"rollbacks\": 1"), "state.json has changed");
}

/// The state of a run's newest checkpoint as the first format had it, with `more` in its recipe.
fn write_first_format(folder: &Path, more: &str) {
    let path = folder.join("checkpoints/step-00000012/state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let fields = state.as_object_mut().unwrap();
    for later in ["owed", "sha256", "machine"] {
        assert!(fields.remove(later).is_some(), "{later}");
    }
    let recipe = format!("{}{more}", fields["recipe"].as_str().unwrap());
    fields.extend([("format".to_owned(), 1.into()), ("recipe".to_owned(), recipe.into())]);
    fs::write(&path, state.to_string()).unwrap();
}

#[test]
fn the_first_format_is_continued() {
    let place = Place::new(Latents::Varied);
    place.train(&recipe(&[]), "run");
    write_first_format(&place.run_folder("run"), "");
    let longer = recipe(&["train.steps=14"]);
    place.resume(&longer, "run").unwrap().train(&mut Unobserved, &StopRequest::new()).unwrap();
    place.train(&longer, "whole");
    assert!(place.checkpoint("run", 14) == place.checkpoint("whole", 14));
}

#[test]
fn a_recipe_of_another_version_is_told_with_its_place() {
    let place = Place::new(Latents::Varied);
    place.train(&recipe(&[]), "run");
    write_first_format(&place.run_folder("run"), "[dreams]\ncolour = 3\n");
    let error = place.resume(&recipe(&[]), "run").unwrap_err();
    assert!(matches!(error, TrainError::StoredRecipe { .. }), "{error}");
    for said in ["step-00000012/state.json", "version 0.", "dreams", "help: continue with the version"] {
        assert!(error.to_string().contains(said), "no {said} in {error}");
    }
}

#[test]
fn every_refusal_says_what_helps() {
    let place = Place::new(Latents::Varied);
    place.train(&recipe(&[]), "run");
    let other = Latents::Constant.write(place.folder.path());
    let helps = |result: Result<Run, TrainError>, help: &str| {
        let text = result.unwrap_err().to_string();
        assert!(text.contains("help: ") && text.contains(help), "{text}");
    };
    helps(Run::resume(&recipe(&[]), &other, &place.run_folder("run"), Device::Cpu), "give the folder of those latents");
    helps(place.start(&recipe(&["train.precision=tf32"]), "tf32"), "fp32 and bf16");
    helps(
        place.start(&recipe(&["validation.held_out={ fraction = 1e-6 }", "validation.every=5"]), "none"),
        "hold out a larger fraction",
    );
    // What cannot be locked: a folder.
    fs::create_dir_all(place.run_folder("odd").join(".lock")).unwrap();
    helps(place.start(&recipe(&[]), "odd"), "its file system knows locks");
    let error = Run::check_new(&place.run_folder("run")).unwrap_err();
    assert!(matches!(error, TrainError::Exists { .. }), "{error}");
}

#[test]
fn nothing_is_not_continued() {
    let place = Place::new(Latents::Varied);
    assert!(matches!(place.resume(&recipe(&[]), "nowhere"), Err(TrainError::NoRun { .. })));
    assert!(!place.run_folder("nowhere").exists());
    fs::create_dir(place.run_folder("empty")).unwrap();
    assert!(matches!(place.resume(&recipe(&[]), "empty"), Err(TrainError::NoRun { .. })));
}

#[test]
fn batches_larger_than_the_data_are_refused_before_anything_is_made() {
    let place = Place::new(Latents::Varied);
    assert!(matches!(place.start(&recipe(&["train.batch_size=97"]), "run"), Err(TrainError::Data(_))));
    assert!(!place.run_folder("run").exists());
}

/// A full disk: a small file system of its own, which only root can make.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_costs_checkpoints_but_not_the_run() {
    use std::process::Command;

    let place = Place::new(Latents::Varied);
    let folder = place.run_folder("run");
    fs::create_dir(&folder).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&folder).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: a small file system can be mounted only by root");
        return;
    }
    let recipe = recipe(&["train.steps=12", "train.checkpoint_every=2", "train.keep_last=9"]);
    let stop = StopRequest::new();
    let mut seen = Seen { stop_waiting: Some(stop.clone()), ..Seen::default() };
    let result = place.start(&recipe, "run").unwrap().train(&mut seen, &stop);
    let newest = place.resume(&recipe, "run").map(|run| run.step());
    let left = fs::read_dir(folder.join("checkpoints")).unwrap().count();
    assert!(Command::new("umount").arg(&folder).status().unwrap().success());

    assert_eq!(seen.steps.len(), 12, "training went on");
    assert!(!seen.written.is_empty() && !seen.failed.is_empty(), "{seen:?}");
    assert!(seen.failed.iter().all(|(_, disk_full)| *disk_full), "{:?}", seen.failed);
    assert_eq!(newest.unwrap(), *seen.written.last().unwrap(), "the last one written is intact");
    assert_eq!(left, seen.written.len(), "no half of a checkpoint is left");
    // The last one has nothing after it to make up for it: the run waited for room until it was told not to.
    assert!(result.unwrap_err().is_disk_full());
}
