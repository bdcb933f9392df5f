//! What observers write, and what becomes of it when a run goes back.

use std::{fs, path::Path, time::Duration};

use dit_config::{LatentSize, StandardModel};
use dit_recipe::{DataShape, Recipe};
use dit_train::{
    BucketLosses, EvaluationReport, Event, Losses, NonFiniteReport, Observer, Remedy, SampleLoss, Stage,
    ValidationReport, WindowReport,
    watch::{
        Bearing, DataIdentity, FidChart, JsonLog, Line, LossChart, Machine, Program, ReferenceLoss, Session,
        TensorBoard, Together, expected_loss,
    },
};

fn window(step: u64) -> WindowReport {
    let mut by_bucket = BucketLosses::new(1000);
    by_bucket.add(&SampleLoss { timestep: 5, weight: 1.0, total: 0.5, mse: Some(0.4), vb: Some(0.1) });
    let losses = Losses { total: 1.0 / step as f64, mse: Some(0.4), vb: Some(0.1) };
    WindowReport { step, steps: 10, losses, by_bucket, lr: 1e-4, grad_norm: 1.0, images_per_second: 100.0 }
}

fn see(observer: &mut dyn Observer, steps: &[u64]) {
    for &step in steps {
        observer.observe(&Event::Window(&window(step))).unwrap();
    }
}

fn start(observer: &mut dyn Observer, step: u64) {
    observer.observe(&Event::Started { step, steps: 100, owed: &[] }).unwrap();
}

fn go_back(observer: &mut dyn Observer, to: u64) {
    let (place, tensor) = ("blocks.3".to_owned(), "output of blocks.3".to_owned());
    let report = NonFiniteReport { step: to + 5, stage: Stage::Forward, place, tensor };
    observer.observe(&Event::NonFinite { report: &report, remedy: Remedy::RolledBack { to } }).unwrap();
}

/// The steps of the windows in the log.
fn logged(run: &Path) -> Vec<u64> {
    let windows = JsonLog::read(run).unwrap().into_iter().filter(|line| matches!(line, Line::Train { .. }));
    windows.map(|line| line.step()).collect()
}

#[test]
fn the_log_drops_what_comes_after_the_step_it_continues_from() {
    let run = tempfile::tempdir().unwrap();
    let mut log = JsonLog::new(run.path());
    start(&mut log, 0);
    see(&mut log, &[10, 20, 30]);
    let path = run.path().join("log.jsonl");
    // The machine lost power in the middle of a line.
    let mut text = fs::read(&path).unwrap();
    text.extend(b"{\"event\":\"train\",\"step\":40,\"lo");
    fs::write(&path, text).unwrap();

    let mut log = JsonLog::new(run.path());
    start(&mut log, 20);
    assert_eq!(logged(run.path()), [10, 20]);
    see(&mut log, &[30, 40]);
    go_back(&mut log, 30);
    see(&mut log, &[40]);
    assert_eq!(logged(run.path()), [10, 20, 30, 40]);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("went back to step 30") && text.contains("first in blocks.3"), "{text}");
    assert!(text.lines().all(|line| serde_json::from_str::<Line>(line).is_ok()), "{text}");
}

/// Of their own files; what is of other files, or another's, stays.
#[test]
fn what_a_killed_process_left_half_written_is_removed() {
    let run = tempfile::tempdir().unwrap();
    let left = [".log.jsonl.Ab1.part", ".loss.svg.Ab2.part", ".fid.svg.Ab3.part"];
    let others = ["notes.part", ".notes.txt.Ab4.part"];
    for name in left.into_iter().chain(others) {
        fs::write(run.path().join(name), "half").unwrap();
    }
    start(&mut JsonLog::new(run.path()), 0);
    start(&mut LossChart::new(run.path(), "", &[]), 0);
    start(&mut FidChart::new(run.path(), ""), 0);
    let there = |name: &&str| run.path().join(name).exists();
    assert_eq!(
        (left.iter().filter(|name| there(name)).count(), others.iter().filter(|name| there(name)).count()),
        (0, 2)
    );
}

#[test]
fn a_session_whose_line_was_torn_hides_no_later_one() {
    let run = tempfile::tempdir().unwrap();
    let session = |from_step| Session {
        started: Session::now(),
        from_step,
        program: Program { version: "1".to_owned(), git_commit: None, libtorch: None },
        command: vec!["train".to_owned()],
        working_folder: run.path().to_owned(),
        machine: Machine { cpu: None, device: "cpu".to_owned(), threads: 3, system: "here".to_owned() },
        data: DataIdentity {
            folder: run.path().to_owned(),
            records: 5,
            codec: "none".to_owned(),
            manifest_sha256: "abc".to_owned(),
        },
        vae: Some("a codec".to_owned()),
        ignore_memory: true,
    };
    session(0).append(run.path()).unwrap();
    let path = run.path().join("sessions.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    // The disk was full.
    fs::write(&path, format!("{whole}{}", &whole[..whole.len() / 2])).unwrap();
    assert_eq!(Session::last(run.path()).unwrap().from_step, 0);
    session(7).append(run.path()).unwrap();
    assert_eq!(Session::last(run.path()), Some(session(7)));
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    // What older versions wrote says less.
    let older = whole
        .replace(",\"vae\":\"a codec\",\"ignore_memory\":true", "")
        .replace("\"libtorch\":null", "\"bindings\":\"b\"");
    assert!(older.len() < whole.len() && older.contains("bindings"), "{older}");
    fs::write(&path, older).unwrap();
    assert_eq!(Session::last(run.path()).map(|session| (session.vae, session.ignore_memory)), Some((None, false)));
}

#[test]
fn a_folder_that_takes_no_file_costs_the_record_alone() {
    let run = tempfile::tempdir().unwrap();
    let gone = run.path().join("gone");
    let mut all = Together::new()
        .and(JsonLog::new(&gone))
        .and(LossChart::new(&gone, "lost", &[]))
        .and(TensorBoard::new(&run.path().join("a\0b")));
    start(&mut all, 0);
    see(&mut all, &[10, 20]);
    assert!(!gone.exists());
}

#[test]
fn the_chart_continues_from_the_log() {
    let run = tempfile::tempdir().unwrap();
    let mut both = Together::new().and(JsonLog::new(run.path())).and(LossChart::new(run.path(), "a run", &[]));
    start(&mut both, 0);
    see(&mut both, &(1..=50).collect::<Vec<_>>());
    drop(both);
    let mut chart = LossChart::new(run.path(), "a run", &[]);
    start(&mut chart, 40);
    let mut losses = BucketLosses::new(1000);
    losses.add(&SampleLoss { timestep: 5, weight: 1.0, total: 0.5, mse: Some(0.4), vb: Some(0.1) });
    let report = ValidationReport { step: 40, images: 1, raw: losses.clone(), ema: losses };
    chart.observe(&Event::Validation(&report)).unwrap();
    let svg = fs::read_to_string(run.path().join("loss.svg")).unwrap();
    assert!(svg.contains("a run") && svg.contains("validation, average"));
    // The axis ends at 40, where the run went on; the log has 50.
    assert!(svg.contains(">40</text>") && !svg.contains(">50</text>"), "{svg}");
}

fn evaluated(observer: &mut dyn Observer, step: u64, samples: usize) {
    let report = EvaluationReport {
        step,
        samples,
        features: "demo".to_owned(),
        cfg_scale: 1.5,
        fid: 1000.0 / step as f64,
        interval: [900.0 / step as f64, 1100.0 / step as f64],
        time: Duration::from_secs(2),
    };
    observer.observe(&Event::Evaluation(&report)).unwrap();
}

#[test]
fn fid_is_logged_with_what_it_is_of_and_charted_from_the_log() {
    let run = tempfile::tempdir().unwrap();
    let mut both = Together::new().and(JsonLog::new(run.path())).and(FidChart::new(run.path(), "a run"));
    start(&mut both, 0);
    assert!(!run.path().join("fid.svg").exists(), "there is nothing to draw yet");
    [100, 200, 500].into_iter().for_each(|step| evaluated(&mut both, step, 300));
    drop(both);
    let text = fs::read_to_string(run.path().join("log.jsonl")).unwrap();
    let line = text.lines().nth(2).unwrap();
    for expected in
        [r#""event":"evaluation","step":200,"samples":300"#, r#""fid":5.0"#, "of 300 samples only: not comparable"]
    {
        assert!(line.contains(expected), "no {expected} in {line}");
    }
    let mut chart = FidChart::new(run.path(), "a run");
    start(&mut chart, 400);
    evaluated(&mut chart, 400, 200);
    let svg = fs::read_to_string(run.path().join("fid.svg")).unwrap();
    for expected in
        ["300 samples, demo, guidance 1.5", "200 samples, demo, guidance 1.5", "not comparable", ">400</text>"]
    {
        assert!(svg.contains(expected), "no {expected} in\n{svg}");
    }
    assert!(!svg.contains(">500</text>"), "step 500 came after the step that the run continued from\n{svg}");
}

/// On ImageNet at 256 pixels.
const IMAGENET: DataShape = DataShape { latent: LatentSize { height: 32, width: 32 }, channels: 4, num_classes: 1000 };

fn references(name: &str, key: &str, data: DataShape) -> &'static [ReferenceLoss] {
    let keys: Vec<String> = [format!("model.name={name}")].into_iter().chain([key.to_owned()]).collect();
    let recipe = Recipe::from_toml("", &keys).unwrap();
    expected_loss(&recipe, &recipe.model_config(data).unwrap())
}

#[test]
fn published_losses_belong_to_published_models() {
    let known = |name: &str, key: &str, data: DataShape| -> Vec<(&str, Bearing)> {
        references(name, key, data).iter().map(|reference| (reference.model, reference.bearing)).collect()
    };
    assert_eq!(known("DiT-S/8", "train.steps=1000", IMAGENET), [("DiT-S/8", Bearing::Same)]);
    assert_eq!(known("DiT-XL/2", "train.precision=bf16", IMAGENET), [("DiT-XL/2", Bearing::Same)]);
    for model in StandardModel::ALL.map(|model| model.to_string()) {
        if !["DiT-S/8", "DiT-XL/2"].contains(&model.as_str()) {
            let between = [("DiT-S/8", Bearing::Above), ("DiT-XL/2", Bearing::Below)];
            assert_eq!(known(&model, "train.steps=1000", IMAGENET), between, "{model}");
        }
    }
    assert_eq!(known("DiT-XL/2", "train.steps=1000", DataShape { num_classes: 10, ..IMAGENET }), []);
    for other in [
        "model.block=adaln",
        "model.mlp_ratio=2.0",
        "diffusion.predict=v",
        "diffusion.weighting={ min-snr = 5.0 }",
        "train.batch_size=64",
        "optim.lr=1e-3",
        "data.label_dropout=0.0",
    ] {
        assert_eq!(known("DiT-S/8", other, IMAGENET), [], "{other}");
        assert_eq!(known("DiT-B/2", other, IMAGENET), [], "{other}");
    }
}

/// Labels in the chart of a run that has come to `step`.
#[track_caller]
fn check_chart(model: &str, step: u64, expected: &[&str], bands: usize) {
    let run = tempfile::tempdir().unwrap();
    let mut chart = LossChart::new(run.path(), "a run", references(model, "train.steps=400000", IMAGENET));
    start(&mut chart, 0);
    see(&mut chart, &[step]);
    let svg = fs::read_to_string(run.path().join("loss.svg")).unwrap();
    let labels: Vec<&str> = svg.lines().filter(|line| line.contains("DiT-")).collect();
    assert_eq!(labels.len(), expected.len(), "{labels:#?}");
    for (label, expected) in labels.iter().zip(expected) {
        assert!(label.contains(&format!(">{expected}</text>")), "no {expected} in {labels:#?}");
    }
    assert_eq!(svg.matches(r#"<path class="b "#).count(), bands, "{svg}");
}

#[test]
fn the_chart_has_what_was_published_as_far_as_the_run_has_come() {
    check_chart("DiT-S/8", 1_000, &[], 0);
    check_chart("DiT-S/8", 100_000, &["DiT-S/8 as published, ±5 %"], 1);
    check_chart("DiT-XL/2", 2_500, &["DiT-XL/2 as published, ±5 %"], 1);
    check_chart("DiT-XL/2", 400_000, &["DiT-XL/2 as published, ±5 %", "DiT-XL/2 late: about 0.14"], 2);
    let between = ["upper bound: DiT-S/8, ±5 %", "lower bound: DiT-XL/2, ±5 %", "DiT-XL/2 late: about 0.14"];
    check_chart("DiT-B/4", 400_000, &between, 3);
}
