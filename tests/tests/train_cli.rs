//! `dit-cli train` as its users run it, whatever happens to it.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs,
    ops::ControlFlow,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dit_diffusion::{
    BatchNoise, ClipX0, Ddpm, LatentShape, MeanTarget, NoiseSchedule, Parameterization, Sampler, SeededNoise, Variance,
    from_fn,
};
use dit_model::Dit;
use dit_tests::{Ran, dit_cli, fail_in, read_tensor, relative_error, root, slow_tests, succeed_in, write_png};
use dit_weights::{Checkpoint, OpenOptions, SafetensorsFile, TensorSource, TorchFile, sha256_of};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// xorshift64*, Vigna 2016.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// A network that a step of takes milliseconds.
const RECIPE: &str = "
[model]
hidden = 16
depth = 2
heads = 2
patch = 4

[train]
steps = 40
batch_size = 4
checkpoint_every = 5
keep_last = 2
log_every = 5

[ema]
decays = [0.9, 0.5]

[validation]
held_out = { fraction = 0.25 }
every = 10
records = 8
";

/// A folder with `recipe.toml`, and `latents` of 32 pictures in two classes.
fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(1);
    for index in 0..32 {
        let class = folder.path().join("data").join(["cats", "dogs"][index % 2]);
        fs::create_dir_all(&class).unwrap();
        let pixels: Vec<u8> = (0..32 * 32 * 3).map(|_| random.below(256) as u8).collect();
        write_png(&class.join(format!("{index:05}.png")), 32, 32, &pixels);
    }
    let args = ["precompute-latents", "--data", "data", "--out", "latents", "--vae", VAE, "--image-size", "32"];
    succeed_in(folder.path(), &[&args[..], &["--threads", "1"]].concat());
    fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
    folder
}

const VAE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/vae-small");
const BEGIN: [&str; 9] = ["train", "--config", "recipe.toml", "--data", "latents", "--threads", "1", "--device", "cpu"];

fn begin<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&BEGIN[..], more].concat()
}

fn start(folder: &Path, args: &[&str]) -> Child {
    dit_cli().current_dir(folder).args(args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

fn lines(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("log.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The steps of one kind of event.
fn steps_of(run: &Path, event: &str) -> Vec<u64> {
    lines(run).iter().filter(|line| line["event"] == event).map(|line| line["step"].as_u64().unwrap()).collect()
}

/// Names of what is in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
fn a_run_leaves_a_folder_that_explains_itself() {
    let folder = workplace();
    let run = folder.path().join("run");
    let more = ["--out", "run", "--json", "--set", "samples.every=20", "--set", "samples.count=4", "--set"];
    let ran = succeed_in(folder.path(), &begin(&[&more[..], &["samples.steps=2"]].concat()));
    let summary: Value = serde_json::from_str(&ran.stdout).expect("stdout is JSON and nothing else");
    assert_eq!((summary["finished"].as_bool(), summary["step"].as_u64()), (Some(true), Some(40)));
    for said in ["parameters", "memory: about", "training in run", "next: ", "sample --ckpt"] {
        assert!(ran.stderr.contains(said), "no '{said}' in\n{}", ran.stderr);
    }

    assert_eq!(names(&run.join("checkpoints")), ["step-00000035", "step-00000040"]);
    let expected =
        ["ema-0.5.safetensors", "ema-0.9.safetensors", "model.safetensors", "optimizer.safetensors", "state.json"];
    assert_eq!(names(&run.join("checkpoints/step-00000040")), expected);
    assert_eq!(names(&run.join("samples")), ["step-00000020.png", "step-00000040.png"]);
    assert_eq!(steps_of(&run, "train"), (1..=8).map(|window| 5 * window).collect::<Vec<_>>());
    assert_eq!(steps_of(&run, "validation"), [10, 20, 30, 40]);
    assert_eq!(steps_of(&run, "checkpoint"), (1..=8).map(|window| 5 * window).collect::<Vec<_>>());
    for line in lines(&run).iter().filter(|line| line["event"] == "train") {
        assert!(
            line["loss"].as_f64().is_some_and(f64::is_finite) && line["by_timestep"].as_array().unwrap().len() == 10
        );
    }
    let svg = fs::read_to_string(run.join("loss.svg")).unwrap();
    assert!(svg.contains("training") && svg.contains("validation"));
    assert_eq!(names(&run.join("tensorboard")).len(), 1);

    // The recipe in the folder is whole, and it is the one that was followed.
    let recipe = fs::read_to_string(run.join("recipe.toml")).unwrap();
    let printed = succeed_in(folder.path(), &["train", "--config", "run/recipe.toml", "--print-config"]);
    assert_eq!(printed.stdout, recipe);
    assert!(recipe.contains("count = 4") && recipe.contains("lr = 0.0001"));
    let session: Value = serde_json::from_str(fs::read_to_string(run.join("sessions.jsonl")).unwrap().trim()).unwrap();
    assert!(session["command"].as_array().unwrap().iter().any(|word| word == "samples.count=4"));
    assert_eq!(session["data"]["records"], 32);
    assert_eq!(session["data"]["manifest_sha256"].as_str().unwrap().len(), 64);
    let libtorch = session["program"]["libtorch"].as_str().unwrap();
    let state: Value = serde_json::from_slice(&newest(&run)["state.json"]).unwrap();
    assert_eq!(state["machine"]["libtorch"], libtorch, "what is loaded, not what was built for");
    // The program knows its own commit, where it was built from a repository; `+` says that its sources were changed since.
    if let Some(head) = head() {
        let commit = session["program"]["git_commit"].as_str().unwrap();
        assert_eq!(commit.strip_suffix('+').unwrap_or(commit), head);
    }
}

/// The commit that the binary was built from; none without git, outside a repository, or where a commit was made since.
fn head() -> Option<String> {
    let git = |what: &[&str]| -> Option<String> {
        let output = Command::new("git").arg("-C").arg(root()).args(what).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = |path: &Path| fs::metadata(path).and_then(|about| about.modified()).ok();
    let top = fs::canonicalize(git(&["rev-parse", "--show-toplevel"])?).ok()?;
    let log = root().join(git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    let engine = Path::new(dit_cli().get_program()).with_file_name("dit-cli-engine");
    (top == fs::canonicalize(root()).ok()? && changed(&log)? < changed(&engine)?).then_some(())?;
    git(&["rev-parse", "HEAD"])
}

/// Everything in the newest checkpoint.
fn newest(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let checkpoints = run.join("checkpoints");
    let last = checkpoints.join(names(&checkpoints).pop().unwrap());
    names(&last).into_iter().map(|name| (name.clone(), fs::read(last.join(name)).unwrap())).collect()
}

#[track_caller]
fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (newest(a), newest(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in &a {
        assert!(b[name] == *bytes, "{name} differs");
    }
}

/// Waits until the run has a checkpoint of `step` or a later one; false if the process ended before.
fn wait_for(child: &mut Child, run: &Path, step: u64) -> bool {
    let started = Instant::now();
    let reached = || match fs::read_dir(run.join("checkpoints")) {
        Ok(entries) => entries.flatten().any(|entry| {
            let name = entry.file_name().into_string().unwrap();
            name.strip_prefix("step-").and_then(|step| step.parse::<u64>().ok()).is_some_and(|at| at >= step)
        }),
        Err(_) => false,
    };
    while !reached() {
        assert!(started.elapsed() < Duration::from_secs(120), "nothing happens");
        if child.try_wait().unwrap().is_some() {
            return reached();
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Grids of four pictures every ten steps.
const GRIDS: [&str; 6] = ["--set", "samples.every=10", "--set", "samples.count=4", "--set", "samples.steps=2"];

#[test]
fn killed_and_resumed_it_ends_in_the_same_bytes() {
    let folder = workplace();
    succeed_in(folder.path(), &begin(&[&["--out", "whole"][..], &GRIDS].concat()));
    let run = folder.path().join("killed");
    let mut random = Random(7);
    let mut kills = 0;
    for step in [5, 10, 20, 30, 35] {
        let resume = ["train", "--out", "killed", "--resume", "--threads", "1", "--device", "cpu"];
        let first = begin(&[&["--out", "killed"][..], &GRIDS].concat());
        let there = !names_or_none(&run.join("checkpoints")).is_empty();
        let mut child = start(folder.path(), if there { &resume } else { &first });
        wait_for(&mut child, &run, step);
        thread::sleep(Duration::from_millis(random.below(30)));
        kills += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills >= 3, "only {kills} runs were still running when they were killed");
    // One may have been killed while it wrote a grid; this one was.
    fs::write(run.join("samples/.step-00000010.png.Ab1.part"), "half").unwrap();
    succeed_in(folder.path(), &["train", "--out", "killed", "--resume", "--threads", "1", "--device", "cpu"]);
    assert_same(&folder.path().join("whole"), &run);

    // So does each grid: its noise is the same however often the process that draws it was begun anew.
    let whole = folder.path().join("whole");
    let grids = names(&whole.join("samples"));
    assert_eq!((grids.len(), names(&run.join("samples"))), (4, grids.clone()));
    for name in grids {
        let of = |run: &Path| fs::read(run.join("samples").join(&name)).unwrap();
        assert!(of(&run) == of(&whole), "{name} differs");
    }

    // The log has every window once, in its order, as the uninterrupted run has.
    assert_eq!(steps_of(&run, "train"), steps_of(&whole, "train"));
    assert_eq!(steps_of(&run, "validation"), steps_of(&whole, "validation"));
    let losses = |run: &Path| -> Vec<Value> {
        lines(run).into_iter().filter(|line| line["event"] == "train").map(|line| line["loss"].clone()).collect()
    };
    assert_eq!(losses(&run), losses(&whole));
}

/// The steps taken, as the log says.
fn logged_step(run: &Path) -> u64 {
    // Its last line may be half there.
    let text = fs::read_to_string(run.join("log.jsonl")).unwrap_or_default();
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["event"] == "train").find_map(|line| line["step"].as_u64()).unwrap_or(0)
}

/// Kills at twenty moments without a pattern, which are spread over all steps and what lies between them: a step, a checkpoint
/// half-way, a measurement, the start of the program.
#[test]
fn killed_at_twenty_moments_it_ends_in_the_same_bytes() {
    const STEPS: u64 = 200;
    const EVERY: u64 = 7;
    if !slow_tests() {
        return;
    }
    let folder = workplace();
    // Steps of some ten milliseconds, each of them in the log.
    let keys = [
        format!("train.steps={STEPS}"),
        format!("train.checkpoint_every={EVERY}"),
        "train.log_every=1".to_owned(),
        "model.hidden=64".to_owned(),
        "model.depth=6".to_owned(),
        "model.patch=2".to_owned(),
        "train.batch_size=8".to_owned(),
        "train.keep_last=1".to_owned(),
    ];
    let set: Vec<&str> = keys.iter().flat_map(|key| ["--set", key]).chain(GRIDS).collect();
    succeed_in(folder.path(), &begin(&[&["--out", "whole"][..], &set].concat()));
    let run = folder.path().join("killed");
    let first = begin(&[&["--out", "killed"][..], &set].concat());
    let resume = ["train", "--out", "killed", "--resume"];
    let mut random = Random(11);
    let mut targets: Vec<u64> = (0..20).map(|_| 1 + random.below(STEPS - 2)).collect();
    targets.sort_unstable();
    let mut reached = Vec::new();
    for (index, target) in targets.into_iter().enumerate() {
        let there = !names_or_none(&run.join("checkpoints")).is_empty();
        let mut child = start(folder.path(), if there { &resume } else { &first });
        let started = Instant::now();
        // Every fifth while it starts, or soon after.
        let starting = index % 5 == 4;
        while !starting && logged_step(&run) < target {
            assert!(child.try_wait().unwrap().is_none(), "ended before step {target}");
            assert!(started.elapsed() < Duration::from_secs(120), "nothing happens");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(random.below(if starting { 1500 } else { 30 })));
        assert!(child.try_wait().unwrap().is_none(), "ended before it was killed at step {target}");
        child.kill().unwrap();
        child.wait().unwrap();
        reached.push(logged_step(&run));
    }
    let between = reached.iter().filter(|step| **step % EVERY != 0).count();
    assert!(between >= 12, "most kills come between checkpoints: {reached:?}");
    let mut seen = reached.clone();
    seen.dedup();
    assert!(seen.len() >= 12 && reached[19] - reached[0] > STEPS / 2, "kills are spread: {reached:?}");
    succeed_in(folder.path(), &resume);
    eprintln!("killed at steps {reached:?}");

    let whole = folder.path().join("whole");
    assert_same(&whole, &run);
    assert_eq!(names(&run.join("checkpoints/step-00000200")), names(&whole.join("checkpoints/step-00000200")));
    for event in ["train", "validation"] {
        assert_eq!(steps_of(&run, event), steps_of(&whole, event));
    }
    for name in names(&whole.join("samples")) {
        let of = |run: &Path| fs::read(run.join("samples").join(&name)).unwrap();
        assert!(of(&run) == of(&whole), "{name} differs");
    }
}

#[test]
fn grids_are_of_the_same_noise_each_time() {
    let folder = workplace();
    // Weights that do not move: what differs would be the noise.
    let still = ["--set", "optim.lr=1e-30", "--set", "train.steps=20", "--set", "samples.cfg_scale=1.5"];
    succeed_in(folder.path(), &begin(&[&["--out", "run"][..], &GRIDS, &still].concat()));
    let grid = |step: &str| pixels(&folder.path().join(format!("run/samples/step-000000{step}.png")));
    assert!(grid("10") == grid("20"), "the noise differs");
    let values = grid("10");
    assert!(values.iter().any(|value| *value != values[0]), "there is something to see");
}

/// The bytes of a PNG's pixels.
fn pixels(path: &Path) -> Vec<u8> {
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

/// The tensors' files of the newest checkpoint; `state.json` has the recipe, which may differ.
fn newest_tensors(run: &Path) -> BTreeMap<String, Vec<u8>> {
    newest(run).into_iter().filter(|(name, _)| name.ends_with(".safetensors")).collect()
}

#[test]
fn fid_of_few_samples_is_measured_without_a_trace_in_the_weights() {
    let folder = workplace();
    let at = folder.path();
    let stats = ["evaluate", "--stats", "data", "--image-size", "32", "--features", "demo", "--out", "stats.npz"];
    succeed_in(at, &stats);
    let settings = ["eval.every=10", "eval.count=50", "eval.steps=2", "eval.features=demo", "eval.seed=3"];
    let set: Vec<&str> = settings.iter().flat_map(|text| ["--set", text]).collect();
    let of = |reference: &'static str| [&set[..], &["--set", reference]].concat();
    let pictures = of("eval.reference=data");
    let ran = succeed_in(at, &begin(&[&pictures[..], &["--out", "run"]].concat()));
    assert!(ran.stderr.contains("step 40: FID of 50 samples"), "{}", ran.stderr);
    assert!(ran.stderr.contains("eval.count 50 is no more than the 128 features"), "{}", ran.stderr);
    let run = at.join("run");
    let fids = |run: &Path| -> Vec<f64> {
        let lines = lines(run).into_iter().filter(|line| line["event"] == "evaluation");
        lines.map(|line| line["fid"].as_f64().unwrap()).collect()
    };
    assert_eq!(steps_of(&run, "evaluation"), [10, 20, 30, 40]);
    let measured = fids(&run);
    let line = lines(&run).into_iter().find(|line| line["event"] == "evaluation").unwrap();
    assert!(line["note"].as_str().unwrap().contains("of 50 samples only: not comparable"), "{line}");
    assert!(fs::read_to_string(run.join("fid.svg")).unwrap().contains("50 samples, demo, guidance 1"));

    // The weights are those of a run that measures nothing.
    succeed_in(at, &begin(&["--out", "plain"]));
    assert!(newest_tensors(&run) == newest_tensors(&at.join("plain")));
    // Interrupted and continued, with statistics instead of pictures: the same weights and numbers.
    let statistics = of("eval.reference=stats.npz");
    succeed_in(at, &begin(&[&statistics[..], &["--out", "parts", "--set", "train.steps=25"]].concat()));
    succeed_in(at, &["train", "--out", "parts", "--resume", "--threads", "1", "--set", "train.steps=40"]);
    assert!(newest_tensors(&run) == newest_tensors(&at.join("parts")));
    let again = fids(&at.join("parts"));
    assert_eq!(again.len(), measured.len());
    for (a, b) in measured.iter().zip(&again) {
        assert!((a - b).abs() < 1e-6 * a, "{measured:?} {again:?}");
    }
    // `sample` and `evaluate` say the same of the last checkpoint.
    let classes = ["cats,dogs"; 25].join(",");
    let sample = ["sample", "--ckpt", "run", "--class", &classes, "--sampler", "dpmpp-2m", "--steps", "lambda2"];
    let more = ["--cfg-scale", "1", "--seed", "3", "--threads", "1", "--npz", "samples.npz"];
    succeed_in(at, &[&sample[..], &more].concat());
    let args = ["evaluate", "samples.npz", "stats.npz", "--features", "demo", "--json"];
    let record: Value = serde_json::from_str(&succeed_in(at, &args).stdout).unwrap();
    let (ours, its) = (measured[3], record["metrics"]["fid"]["value"].as_f64().unwrap());
    // A level of 255 may be rounded otherwise in batches of another size.
    assert!((ours - its).abs() < 1e-3 * its, "{ours} while training, {its} after");
}

#[test]
fn a_run_that_ended_at_its_reference_is_begun_again() {
    let folder = workplace();
    let at = folder.path();
    let bad = at.join("data/dogs/00031.png");
    let good = fs::read(&bad).unwrap();
    let settings = ["eval.every=20", "eval.count=50", "eval.steps=2", "eval.features=demo", "eval.reference=data"];
    let set: Vec<&str> = settings.iter().flat_map(|text| ["--set", text]).collect();
    let args = begin(&[&set[..], &["--out", "run"]].concat());
    fs::write(&bad, &good[..good.len() / 2]).unwrap();
    fail_in(at, &args, &["eval.reference is ", "/data: ", "00031.png"]);
    let run = at.join("run");
    assert!(run.join("reference.features").is_dir() && names(&run.join("checkpoints")).is_empty());
    fail_in(at, &["train", "--out", "run", "--resume"], &["it has no checkpoint yet", "begin it without --resume"]);
    fs::write(&bad, &good).unwrap();
    succeed_in(at, &args);
    assert_eq!(steps_of(&run, "evaluation"), [20, 40]);
}

fn names_or_none(folder: &Path) -> Vec<String> {
    if folder.is_dir() { names(folder) } else { Vec::new() }
}

/// Sends a signal to our own child.
#[track_caller]
fn send(child: &Child, signal: i32) {
    // SAFETY: it has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

#[track_caller]
fn check_signals(first: i32, second: Option<i32>) {
    let folder = workplace();
    let run = folder.path().join("run");
    let mut child = start(folder.path(), &begin(&["--out", "run", "--set", "train.steps=100000"]));
    assert!(wait_for(&mut child, &run, 5), "ended before it was interrupted");
    send(&child, first);
    // It may have ended by then, which leaves the number of a process that has not been waited for.
    second.iter().for_each(|second| send(&child, *second));
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    for said in ["stopping after this step", "checkpoint: run/checkpoints/step-", "train --out run --resume"] {
        assert!(ran.stderr.contains(said), "no '{said}' in\n{}", ran.stderr);
    }
    let last = steps_of(&run, "checkpoint").pop().unwrap();
    let again = succeed_in(
        folder.path(),
        &["train", "--out", "run", "--resume", "--threads", "1", "--set", &format!("train.steps={}", last + 3)],
    );
    assert!(again.stderr.contains(&format!("from step {last}")), "{}", again.stderr);
    assert_eq!(steps_of(&run, "checkpoint").pop(), Some(last + 3));
}

/// The line of the last start of a run.
fn last_session(run: &Path) -> Value {
    let text = fs::read_to_string(run.join("sessions.jsonl")).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn the_printed_next_line_continues_exactly() {
    let folder = workplace();
    let at = folder.path();
    let run = at.join("run");
    // A number of threads that is not the machine's, so that a default would be another.
    let cores = thread::available_parallelism().unwrap().get();
    let threads = (cores + 1).to_string();
    let plain = ["train", "--config", "recipe.toml", "--data", "latents", "--device", "cpu", "--threads", &threads];
    let steps = ["--set", "train.steps=800", "--set", "train.checkpoint_every=100"];
    let steps = [&steps[..], &["--set", "validation.every=never", "--set", "validation.held_out=none"]].concat();
    let mut child = start(at, &[&plain[..], &steps, &["--out", "run"]].concat());
    assert!(wait_for(&mut child, &run, 100), "ended before it was interrupted");
    send(&child, libc::SIGTERM);
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    let line = ran.stderr.lines().find_map(|line| line.strip_prefix("next: ")).unwrap();
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    let ran = succeed_in(at, &words);
    assert!(ran.stderr.contains(&format!("continues with {threads} threads, as before")), "{}", ran.stderr);
    assert!(!ran.stderr.contains("results will differ"), "{}", ran.stderr);
    let session = last_session(&run);
    assert_eq!(session["machine"]["threads"].to_string(), threads);
    assert_eq!(session["machine"]["device"], "cpu");
    succeed_in(at, &[&plain[..], &steps, &["--out", "whole"]].concat());
    assert_same(&at.join("whole"), &run);
    // Told otherwise, it does otherwise, and says what that means.
    let more = ["--threads", "1", "--set", "train.steps=801"];
    let ran = succeed_in(at, &[&words[..], &more].concat());
    assert!(ran.stderr.contains("another number of threads: results will differ"), "{}", ran.stderr);
    assert_eq!(last_session(&run)["machine"]["threads"], 1);
}

#[test]
fn a_run_is_continued_from_any_folder() {
    let folder = workplace();
    let at = folder.path();
    std::os::unix::fs::symlink(VAE, at.join("codec")).unwrap();
    fs::copy(root().join("weights/demo/features-fashion.safetensors"), at.join("features.safetensors")).unwrap();
    fs::create_dir(at.join("elsewhere")).unwrap();
    let eval = ["eval.every=10", "eval.count=200", "eval.steps=2", "eval.reference=data"];
    let keys = [&eval[..], &["eval.features=features.safetensors", "train.steps=10"]].concat();
    let set: Vec<&str> = keys.into_iter().flat_map(|key| ["--set", key]).collect();
    succeed_in(at, &begin(&[&["--out", "run", "--vae", "codec"][..], &set, &GRIDS].concat()));
    let away = at.join("elsewhere");
    succeed_in(&away, &["train", "--out", "../run", "--resume", "--set", "train.steps=20"]);
    assert_eq!(steps_of(&at.join("run"), "evaluation"), [10, 20]);
    let vae = last_session(&at.join("run"))["vae"].as_str().unwrap().to_owned();
    assert!(Path::new(&vae).is_absolute(), "{vae}");
}

#[test]
fn a_signal_ends_a_long_measurement() {
    let folder = workplace();
    let at = folder.path();
    let run = at.join("run");
    let stats = ["evaluate", "--stats", "data", "--image-size", "32", "--features", "demo", "--out", "stats.npz"];
    succeed_in(at, &stats);
    // It would take minutes.
    let eval = ["eval.every=10", "eval.count=50000", "eval.steps=50", "eval.features=demo"];
    let set: Vec<&str> = eval.iter().flat_map(|key| ["--set", key]).collect();
    let mut child = start(at, &begin(&[&["--out", "run", "--set", "eval.reference=stats.npz"][..], &set].concat()));
    // The checkpoint is there before its step is measured.
    assert!(wait_for(&mut child, &run, 10), "ended before it was interrupted");
    send(&child, libc::SIGTERM);
    let sent = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if sent.elapsed() > Duration::from_secs(300) {
            child.kill().unwrap();
            panic!("it measures to the end");
        }
        thread::sleep(Duration::from_millis(10));
    }
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert_eq!(steps_of(&run, "evaluation"), [0; 0]);
    // Continued, it measures that step first: fewer pictures, so that it ends.
    let more = ["--set", "eval.count=200", "--set", "train.steps=10"];
    succeed_in(at, &[&["train", "--out", "run", "--resume"][..], &more].concat());
    assert_eq!(steps_of(&run, "evaluation"), [10]);
    assert_eq!(steps_of(&run, "checkpoint"), [5, 10]);
}

#[test]
fn ctrl_c_before_the_first_step_says_that_nothing_was_written() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
    fs::create_dir(folder.path().join("latents")).unwrap();
    let manifest = folder.path().join("latents/manifest.json");
    let name = CString::new(manifest.to_str().unwrap()).unwrap();
    // SAFETY: a string that ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let mut child = start(folder.path(), &begin(&["--out", "run"]));
    // It can be written to once it is read, which goes on until something comes.
    let open = || fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&manifest);
    let _writer = loop {
        match open() {
            Ok(writer) => break writer,
            Err(_) => assert!(child.try_wait().unwrap().is_none(), "ended before it was interrupted"),
        }
        thread::sleep(Duration::from_millis(1));
    };
    send(&child, libc::SIGINT);
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert!(ran.stderr.contains("stopped before a step was taken: no checkpoint was written"), "{}", ran.stderr);
    assert!(!folder.path().join("run").exists());
}

#[test]
fn ctrl_c_finishes_the_step_and_leaves_a_checkpoint() {
    check_signals(libc::SIGINT, None);
}

#[test]
fn sigterm_and_sighup_do_too() {
    check_signals(libc::SIGTERM, None);
    check_signals(libc::SIGHUP, None);
}

#[test]
fn signals_that_come_together_are_one() {
    check_signals(libc::SIGHUP, Some(libc::SIGTERM));
    check_signals(libc::SIGINT, Some(libc::SIGINT));
}

#[test]
fn a_signal_that_a_run_is_started_to_ignore_stays_ignored() {
    let folder = workplace();
    let run = folder.path().join("run");
    let binary = dit_cli().get_program().to_owned();
    // As `nohup` does.
    let mut child = Command::new("sh")
        .current_dir(folder.path())
        .args(["-c", r#"trap "" HUP; exec "$0" "$@""#])
        .arg(binary)
        .args(begin(&["--out", "run", "--set", "train.steps=100000"]))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(wait_for(&mut child, &run, 5), "ended before it was interrupted");
    send(&child, libc::SIGHUP);
    let reached = steps_of(&run, "checkpoint").pop().unwrap_or_default();
    assert!(wait_for(&mut child, &run, reached + 10), "it has ended");
    send(&child, libc::SIGTERM);
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
}

/// What a run of two steps took of memory, at most, and what was said before it began; bytes.
struct Memory {
    peak: u64,
    planned: f64,
}

fn memory_of(folder: &Path, out: &str, keys: &[&str]) -> Memory {
    let model = ["model.depth=12", "model.hidden=256", "model.patch=1", "train.steps=2"];
    let unwatched = ["validation.every=never", "validation.held_out=none"];
    let sets = model.iter().chain(&unwatched).chain(keys).flat_map(|key| ["--set", key]);
    let args: Vec<&str> = begin(&["--out", out, "--json"]).into_iter().chain(sets).collect();
    let ran = succeed_in(folder, &args);
    let summary: Value = serde_json::from_str(&ran.stdout).unwrap();
    let (_, said) = ran.stderr.split_once("memory: about ").unwrap();
    let (gibibytes, _) = said.split_once(" GiB").unwrap();
    Memory { peak: summary["peak_rss_bytes"].as_u64().unwrap(), planned: gibibytes.parse::<f64>().unwrap() * GIB }
}

const GIB: f64 = 1_073_741_824.0;

#[cfg(target_os = "linux")]
#[test]
fn recomputing_activations_takes_less_than_half_of_their_memory_and_the_plan_tells() {
    let folder = workplace();
    let large = "train.batch_size=16";
    // What does not depend on activations: a batch of one record has nearly none.
    let cases: [(&str, &[&str]); 5] = [
        ("least", &["train.checkpoint_activations=true", "train.batch_size=1"]),
        ("kept", &[large]),
        ("recomputed", &["train.checkpoint_activations=true", large]),
        ("kept in bf16", &["train.precision=bf16", large]),
        ("recomputed in bf16", &["train.precision=bf16", "train.checkpoint_activations=true", large]),
    ];
    // What a process takes before weights and activations; the plan's share for that is meant for large models.
    let process = memory_of(folder.path(), "process", &["model.depth=1", "model.hidden=16", "train.batch_size=1"]);
    let [least, kept, recomputed, ..] = cases.map(|(out, keys)| {
        let Memory { peak, planned } = memory_of(folder.path(), out, keys);
        let ratio = (planned - process.planned) / (peak as f64 - process.peak as f64);
        eprintln!(
            "{out}: {} MB, of which {} the process; the plan of the rest {ratio:.2}",
            peak >> 20,
            process.peak >> 20
        );
        // Kernels of our own keep less than the plan, which is libtorch's operators', says.
        assert!((0.8..1.5).contains(&ratio), "{out}: {peak} bytes, {planned} planned, {ratio:.2} times the rest");
        peak
    });
    let [kept, recomputed] = [kept, recomputed].map(|peak| peak.saturating_sub(least));
    eprintln!("activations kept {} MB, recomputed {} MB", kept >> 20, recomputed >> 20);
    assert!(kept > 100 << 20, "{kept} bytes are too few to tell");
    assert!(recomputed * 2 < kept, "{recomputed} bytes, {kept} where they are kept");
}

#[test]
fn what_is_wrong_is_said_and_what_to_do() {
    let folder = workplace();
    let check = |args: &[&str], expected: &[&str]| {
        fail_in(folder.path(), args, expected);
    };
    check(&["train"], &["--out <DIR>"]);
    check(&["train", "--config", "no.toml", "--data", "latents", "--out", "r"], &["cannot read the recipe no.toml"]);
    check(&["train", "--config", "recipe.toml", "--out", "r"], &["--data is missing", "precompute-latents"]);
    check(&["train", "--config", "recipe.toml", "--data", "data", "--out", "r"], &["manifest.json"]);
    check(&["train", "--config", "recipe.toml", "--data", "nowhere", "--out", "r"], &["nowhere"]);
    check(&begin(&["--out", "r", "--set", "optim.learningrate=1"]), &["unknown key optim.learningrate"]);
    check(&begin(&["--out", "r", "--set", "train.batch_size=400"]), &["records do not make a batch of 400"]);
    check(
        &begin(&["--out", "r", "--set", "model.latent=[32, 32]"]),
        &["model.latent is 32x32, the data's latents are"],
    );
    check(&begin(&["--out", "r", "--set", "model.patch=3"]), &["patch 3 does not divide the latent"]);
    check(&begin(&["--out", "r", "--resume"]), &["r holds no run", "begin it without --resume"]);
    check(&begin(&["--out", "recipe.toml"]), &["recipe.toml"]);
    for more in [&["--out", "r"][..], &["--plan"]] {
        let args = begin(&[more, &["--set", "train.precision=tf32"]].concat());
        let ran = fail_in(folder.path(), &args, &["tf32", "CUDA", "fp32 and bf16"]);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    }
    let plain = ["train", "--config", "recipe.toml", "--data", "latents", "--out", "r"];
    check(&[&plain[..], &["--device", "gpu"]].concat(), &["unknown device 'gpu'"]);
    check(&[&plain[..], &["--threads", "0"]].concat(), &["--threads 0"]);
    let eval = |more: &[&'static str]| begin(&[&["--out", "r", "--set", "eval.every=5"][..], more].concat());
    check(&eval(&[]), &["eval.every is 5", "add eval.reference"]);
    let demo = ["--set", "eval.features=demo", "--set"];
    check(&eval(&[&demo[..], &["eval.reference=nowhere"]].concat()), &["eval.reference is nowhere"]);
    check(&eval(&[&demo[..], &["eval.reference=data", "--set", "eval.cont=9"]].concat()), &["did you mean count?"]);
    check(&eval(&["--set", "eval.features=none", "--set", "eval.reference=data"]), &["eval.features"]);
    let vae = ["--set", "samples.every=5", "--vae", "vae-fashion-demo", "--out", "r"];
    check(&begin(&vae), &["not the codec that made these latents", "samples.every=never"]);
    fs::write(folder.path().join("bad.toml"), "[optim]\nlearning_rate = 1\n[trian]\nsteps = 2\n").unwrap();
    check(
        &["train", "--config", "bad.toml", "--data", "latents", "--out", "r"],
        &["bad.toml", "2 problems", "line 2: learning_rate = 1", "line 3: [trian]", "did you mean train?"],
    );
    assert!(!folder.path().join("r").join("checkpoints").exists(), "nothing was begun");

    // A folder of something else is no run's; files in it are told about.
    check(&begin(&["--out", "data"]), &["data is no run's folder: it holds cats/ and 1 more", "choose another --out"]);
    check(&begin(&["--out", "."]), &["it holds data/ and ", "choose another --out"]);
    fs::create_dir(folder.path().join("done")).unwrap();
    fs::write(folder.path().join("done/nohup.out"), "").unwrap();
    let ran = succeed_in(folder.path(), &begin(&["--out", "done", "--set", "train.steps=5"]));
    assert!(ran.stderr.contains("warning: done holds nohup.out, which is no run's"), "{}", ran.stderr);
    let ran = fail_in(folder.path(), &begin(&["--out", "done"]), &["done holds a run already", "--resume"]);
    assert!(!ran.stderr.contains("M parameters"), "it is told first\n{}", ran.stderr);
    let resume = ["train", "--out", "done", "--resume", "--threads", "1", "--set", "optim.lr=1"];
    let ran = fail_in(folder.path(), &resume, &["the recipe is not the one", "optim.lr"]);
    assert!(!ran.stderr.contains("M parameters"), "so is this\n{}", ran.stderr);
    // Before what would be wrong with the recipe itself.
    let resume = ["train", "--out", "done", "--resume", "--set", "train.steps=7", "--set", "optim.warmup_steps=7"];
    fail_in(folder.path(), &resume, &["the recipe is not the one", "optim.warmup_steps: 0 in the run, 7 now"]);
    succeed_in(folder.path(), &["train", "--out", "done", "--resume", "--threads", "1", "--set", "train.steps=7"]);
}

#[test]
fn what_a_run_costs_is_said_without_beginning_it() {
    let folder = workplace();
    let ran = succeed_in(folder.path(), &begin(&["--plan"]));
    for said in ["M parameters", "memory: about", "activations", "40 steps of 4 images", "images/s, so"] {
        assert!(ran.stderr.contains(said), "no '{said}' in\n{}", ran.stderr);
    }
    assert!(!ran.stderr.contains("model.num_classes"), "{}", ran.stderr);
    let more = succeed_in(folder.path(), &begin(&["--plan", "--set", "model.num_classes=5"]));
    assert!(more.stderr.contains("model.num_classes is 5, the data has 2 classes"), "{}", more.stderr);
    let large = ["model.hidden=8192", "model.depth=64", "model.heads=64"];
    let large: Vec<&str> = large.iter().flat_map(|text| ["--set", text]).collect();
    let args = begin(&[&["--out", "r"], &large[..]].concat());
    fail_in(folder.path(), &args, &["training needs about", "GiB", "smaller model"]);
    assert!(!folder.path().join("r").exists());
}

#[test]
fn a_run_is_sampled_inspected_and_converted() {
    let folder = workplace();
    let at = folder.path();
    succeed_in(at, &begin(&["--out", "run", "--set", "train.steps=5"]));
    let sample = |from: &str, to: &str| {
        let common = ["--class", "cats,dogs", "--steps", "2", "--threads", "1", "--out"];
        succeed_in(at, &[&["sample", "--ckpt", from], &common[..], &[to]].concat());
        fs::read(at.join(to)).unwrap()
    };
    let average = "run/checkpoints/step-00000005/ema-0.9.safetensors";
    // The run, its checkpoint and the first average are one; the codec is the one of the latents.
    let picture = sample(average, "a.png");
    assert_eq!(sample("run", "b.png"), picture);
    assert_eq!(sample("run/checkpoints/step-00000005", "c.png"), picture);
    assert_ne!(sample("run/checkpoints/step-00000005/model.safetensors", "d.png"), picture);
    // Five steps are few for an average, but not for the weights.
    let few = |from: &str| succeed_in(at, &["sample", "--ckpt", from, "--class", "0", "--steps", "2"]).stderr;
    let lags = "warning: after 5 steps the average with decay 0.9 still holds 59.0 % of the initial weights";
    let said = few("run");
    assert_eq!(said.matches(lags).count(), 1, "{said}");
    assert!(said.contains("help: sample from run/checkpoints/step-00000005/model.safetensors"), "{said}");
    let said = few("run/checkpoints/step-00000005/model.safetensors");
    assert!(!said.contains("still holds"), "{said}");
    let inspected = succeed_in(at, &["inspect", "run", "--json"]);
    let inspected: Value = serde_json::from_str(&inspected.stdout).unwrap();
    assert!(inspected.to_string().contains("cats"), "{inspected}");

    let convert = |args: &[&str]| succeed_in(at, &[&["convert"], args].concat());
    convert(&["run", "average.safetensors", "--ema"]);
    convert(&["run", "raw.safetensors", "--raw"]);
    convert(&["run", "original.pt", "--ema"]);
    convert(&["run", "hub", "--layout", "diffusers", "--ema"]);
    // Alone, a file still knows its codec, though not where it lay, and its classes.
    fs::create_dir(at.join("alone")).unwrap();
    fs::copy(at.join(average), at.join("alone/copied.safetensors")).unwrap();
    let pixels = |name: &str| pixels(&at.join(name));
    let lost = ["sample", "--ckpt", "alone/copied.safetensors", "--class", "0", "--out", "lost.png"];
    fail_in(at, &lost, &["was trained on the latents of vae-small", "help: pass --vae"]);
    let copied = fs::read(at.join("alone/copied.safetensors")).unwrap();
    let home = VAE.strip_suffix("vae-small").unwrap().as_bytes();
    assert!(!copied.windows(home.len()).any(|window| window == home), "a path of this machine is in the weights");
    for beside in ["vae-small", "alone/vae-small"] {
        fs::create_dir(at.join(beside)).unwrap();
        names(Path::new(VAE)).iter().for_each(|file| {
            fs::copy(Path::new(VAE).join(file), at.join(beside).join(file)).unwrap();
        });
    }
    sample("hub", "hub.png");
    for (from, to) in [("alone/copied.safetensors", "e.png"), ("average.safetensors", "f.png")] {
        sample(from, to);
        assert_eq!(pixels(to), pixels("a.png"), "{from}");
    }
    let inspected = succeed_in(at, &["inspect", "average.safetensors"]).stdout;
    assert!(inspected.contains("latents of") && inspected.contains("vae-small ("), "{inspected}");
    let origin = format!("ema-0.9.safetensors ({})", sha256_of(&[at.join(average)]).unwrap());
    assert!(inspected.contains(&origin), "no {origin} in {inspected}");
    // A codec of that name which is another one is not taken without a word.
    let mut other = fs::read(at.join("average.safetensors")).unwrap();
    let key = br#""dit.codec.sha256":""#;
    let place = other.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    other[place] = if other[place] == b'0' { b'1' } else { b'0' };
    fs::write(at.join("other.safetensors"), other).unwrap();
    let args = ["sample", "--ckpt", "other.safetensors", "--class", "0", "--steps", "2", "--out", "h.png"];
    fail_in(at, &args, &["vae-small is not the codec that", "help: pass --vae"]);
    succeed_in(at, &[&args[..], &["--vae", VAE]].concat());
    // Every tensor of every conversion is the average's.
    let read = |path: &str| all_tensors(&SafetensorsFile::open(at.join(path)).unwrap());
    let (ema, trained) = (read(average), read("run/checkpoints/step-00000005/model.safetensors"));
    assert!(ema != trained && ema.keys().eq(trained.keys()));
    assert_same_tensors(&read("average.safetensors"), &ema);
    assert_same_tensors(&read("raw.safetensors"), &trained);
    let pickle = TorchFile::open(at.join("original.pt")).unwrap();
    let states: Vec<&str> = pickle.state_dicts().collect();
    let [state] = states[..] else { panic!("{states:?}") };
    assert_same_tensors(&all_tensors(&pickle.state_dict(state).unwrap()), &ema);
    assert_same_tensors(&read("hub/diffusion_pytorch_model.safetensors"), &as_diffusers_has(&ema, 2));
    succeed_in(at, &["inspect", "original.pt", "--num-heads", "2"]);

    // The weights as trained do without the average.
    fs::remove_file(at.join(average)).unwrap();
    let missing =
        [average, "is missing", "help: name another checkpoint of the run, or run/checkpoints/step-00000005/model"];
    for args in [&["sample", "--ckpt", "run", "--class", "0"][..], &["convert", "run", "o.pt", "--ema"]] {
        fail_in(at, args, &missing);
    }
    convert(&["run", "again.safetensors", "--raw"]);
    assert_same_tensors(&read("again.safetensors"), &trained);
}

/// Shapes and values by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn all_tensors(source: &dyn TensorSource) -> Tensors {
    let tensor = |name: &String| {
        let view = source.read(name).unwrap();
        (view.shape().to_vec(), view.to_f32().unwrap())
    };
    source.infos().keys().map(|name| (name.clone(), tensor(name))).collect()
}

#[track_caller]
fn assert_same_tensors(found: &Tensors, expected: &Tensors) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, tensor) in expected {
        assert!(found[name] == *tensor, "{name} differs");
    }
}

/// What diffusers calls the original's tensors: it keeps no position table, each block has embedders of its own, and query, key and
/// value are apart.
fn as_diffusers_has(original: &Tensors, depth: usize) -> Tensors {
    let mut renamed = Tensors::new();
    for (name, (shape, values)) in original {
        let (module, parameter) = name.rsplit_once('.').unwrap_or((name, ""));
        let mut put = |module: String, part: Option<usize>| {
            let (shape, values) = match part {
                None => (shape.clone(), values.clone()),
                Some(part) => {
                    let rows = [&[shape[0] / 3][..], &shape[1..]].concat();
                    (rows, values.chunks_exact(values.len() / 3).nth(part).unwrap().to_vec())
                }
            };
            renamed.insert(format!("{module}.{parameter}"), (shape, values));
        };
        let of_block = |rest: &str, block: usize| format!("transformer_blocks.{block}.{rest}");
        let embedder = match module {
            "t_embedder.mlp.0" => Some("norm1.emb.timestep_embedder.linear_1"),
            "t_embedder.mlp.2" => Some("norm1.emb.timestep_embedder.linear_2"),
            "y_embedder.embedding_table" => Some("norm1.emb.class_embedder.embedding_table"),
            _ => None,
        };
        match (module, embedder, module.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'))) {
            ("pos_embed", ..) => {}
            ("x_embedder.proj", ..) => put("pos_embed.proj".to_owned(), None),
            ("final_layer.adaLN_modulation.1", ..) => put("proj_out_1".to_owned(), None),
            ("final_layer.linear", ..) => put("proj_out_2".to_owned(), None),
            (_, Some(embedder), _) => (0..depth).for_each(|block| put(of_block(embedder, block), None)),
            (_, None, Some((block, part))) => {
                let block = block.parse().unwrap();
                match part {
                    "attn.qkv" => ["to_q", "to_k", "to_v"]
                        .into_iter()
                        .enumerate()
                        .for_each(|(third, to)| put(of_block(&format!("attn1.{to}"), block), Some(third))),
                    "attn.proj" => put(of_block("attn1.to_out.0", block), None),
                    "mlp.fc1" => put(of_block("ff.net.0.proj", block), None),
                    "mlp.fc2" => put(of_block("ff.net.2", block), None),
                    "adaLN_modulation.1" => put(of_block("norm1.linear", block), None),
                    other => panic!("{other} of a block"),
                }
            }
            (other, None, None) => panic!("{other}"),
        }
    }
    renamed
}

/// Latents of both classes by DDPM in 25 steps, without guidance, from the parts of the libraries.
fn walked(checkpoint: &Path, schedule: &NoiseSchedule, parameterization: Parameterization) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    let checkpoint = Checkpoint::open(checkpoint, &OpenOptions::default()).unwrap();
    let dit = Dit::load(&checkpoint, Device::Cpu, Kind::Float).unwrap();
    let latent = dit.config().latent;
    let shape = LatentShape {
        channels: dit.config().in_channels as u32,
        height: latent.height as u32,
        width: latent.width as u32,
    };
    let source = SeededNoise::new(3);
    let noise = BatchNoise::new(&source, &[0, 1]);
    let labels = Tensor::from_slice(&[0_i64, 1]);
    let denoiser = from_fn(|x: &Tensor, t| {
        Ok(dit.forward(x, &Tensor::full([2], i64::from(t.0), (Kind::Int64, Device::Cpu)), &labels))
    });
    let steps = schedule.respaced(&"25".parse().unwrap()).unwrap();
    let sampler = Sampler { schedule: &steps, parameterization, clip: ClipX0::No };
    let start = noise.initial(shape, Device::Cpu).unwrap();
    sampler.run(&denoiser, &mut Ddpm, noise, &start, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn a_run_is_sampled_by_the_process_that_it_was_trained_on() {
    let folder = workplace();
    let at = folder.path();
    let process =
        ["diffusion.schedule=cosine", "diffusion.steps=50", "diffusion.predict=v", "diffusion.sigma=fixed-small"];
    let settings = ["train.steps=20", "optim.lr=0.01", "ema.decays=[0.5]"];
    let set: Vec<&str> = settings.iter().flat_map(|text| ["--set", text]).collect();
    succeed_in(at, &begin(&[&set[..], &["--out", "plain"]].concat()));
    let other: Vec<&str> = process.iter().flat_map(|text| ["--set", text]).collect();
    succeed_in(at, &begin(&[&set[..], &other, &["--out", "run"]].concat()));

    let common = ["--sampler", "ddpm", "--cfg-scale", "1", "--seed", "3", "--threads", "1", "--device", "cpu"];
    let common = [&common[..], &["--class", "cats,dogs"]].concat();
    let latents = |from: &str| {
        let to = "latents.safetensors";
        let args = ["sample", "--ckpt", from, "--vae", "none", "--steps", "25", "--latents", to];
        succeed_in(at, &[&args[..], &common].concat());
        read_tensor(&at.join(to), "latents")
    };
    let cosine = NoiseSchedule::cosine(50).unwrap();
    let v = Parameterization { mean: MeanTarget::V, variance: Variance::FixedSmall };
    let linear = NoiseSchedule::linear(1000).unwrap();
    let weights = at.join("run/checkpoints/step-00000020/ema-0.5.safetensors");
    let found = latents("run");
    let error = relative_error(&found, &walked(&weights, &cosine, v));
    assert!(error < 1e-5, "{error}");
    // Every part of the process counts.
    let wrong = [
        (&linear, v),
        (&cosine, Parameterization { mean: MeanTarget::Epsilon, ..v }),
        (&cosine, Parameterization { variance: Variance::FixedLarge, ..v }),
    ];
    for (schedule, parameterization) in wrong {
        let error = relative_error(&found, &walked(&weights, schedule, parameterization));
        assert!(error > 0.05, "{parameterization:?}: {error}");
    }
    let plain = at.join("plain/checkpoints/step-00000020/ema-0.5.safetensors");
    let error = relative_error(&latents("plain"), &walked(&plain, &linear, Parameterization::DIT));
    assert!(error < 1e-5, "{error}");

    // It is shown, kept by conversion, and said in the picture.
    let words = "cosine schedule of 50 steps, predicts v, sigma fixed-small";
    let shown = succeed_in(at, &["inspect", "run"]).stdout;
    assert!(shown.contains(words), "{shown}");
    for to in ["kept.safetensors", "hub"] {
        let said = succeed_in(at, &["convert", "run", to, "--ema"]).stderr;
        assert_eq!(said.contains(words), to == "hub", "{said}");
        assert_eq!(latents(to), found, "{to}");
    }
    fail_in(at, &["convert", "run", "lost.pt", "--ema"], &[words, ".safetensors"]);
    let summary = succeed_in(at, &[&["sample", "--ckpt", "run", "--json", "--out", "a.png"], &common[..]].concat());
    let summary: Value = serde_json::from_str(&summary.stdout).unwrap();
    assert_eq!(summary["settings"]["process"]["predict"], "v");
    assert_eq!(summary["steps"], 50, "all of the process's steps, as there are not 250");
    succeed_in(at, &["sample", "--from-png", "a.png", "--out", "b.png"]);
    assert_eq!(fs::read(at.join("a.png")).unwrap(), fs::read(at.join("b.png")).unwrap());

    let fail = |more: &[&str], expected: &[&str]| {
        fail_in(at, &[&["sample", "--ckpt", "run"], more, &common[..]].concat(), expected);
    };
    fail(&["--steps", "51"], &["51", "50"]);
    fail(&["--autoguidance", "plain", "--autoguidance-scale", "2"], &["another process", "predicts epsilon", words]);
    fail(&["--classifier", "none", "--classifier-scale", "2"], &["leave --classifier out"]);

    // The lowest bit of the last value.
    let average = fs::read_dir(at.join("run/checkpoints")).unwrap().map(|step| step.unwrap().path()).max().unwrap();
    let average = average.join("ema-0.5.safetensors");
    let mut bytes = fs::read(&average).unwrap();
    let last = bytes.len() - 4;
    bytes[last] ^= 1;
    fs::write(&average, bytes).unwrap();
    let refused = ["ema-0.5.safetensors is not what the training run wrote", "help:"];
    for to in [["--out", "lost.png"], ["--latents", "lost.safetensors"]] {
        fail(&to, &refused);
        assert!(!at.join(to[1]).exists());
    }
    let guided = ["sample", "--ckpt", "kept.safetensors", "--autoguidance", "run", "--autoguidance-scale", "2"];
    let to = ["--vae", "none", "--latents", "lost.safetensors"];
    fail_in(at, &[&guided[..], &to, &common[..]].concat(), &refused);
    let calibrate = ["calibrate-cache", "--ckpt", "run", "--factors", "0.1"];
    for args in [&["convert", "run", "lost.safetensors", "--ema"][..], &["inspect", "run"], &calibrate] {
        fail_in(at, args, &refused);
    }
    assert!(!at.join("lost.safetensors").exists());
    let said = succeed_in(at, &["convert", "run", "raw.safetensors", "--raw"]).stderr;
    assert!(said.contains("of the run: run/checkpoints/step-00000020/model.safetensors"), "{said}");

    // Where its state is not what was written either, neither that nor the hashes in it are believed.
    let state = average.with_file_name("state.json");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, text.replacen("\"rollbacks\": 0", "\"rollbacks\": 1", 1)).unwrap();
    let raw = state.with_file_name("model.safetensors").display().to_string();
    for from in ["run", &raw] {
        fail_in(at, &["sample", "--ckpt", from, "--class", "0"], &["is damaged: state.json has changed", "help:"]);
    }

    // Without its state, the newest is no reason to take an older one.
    fs::remove_file(state).unwrap();
    for args in [&["sample", "--ckpt", "run", "--class", "0"][..], &["convert", "run", "lost.pt"]] {
        fail_in(at, args, &["step-00000020 is damaged: state.json", "name another checkpoint"]);
    }
    fs::remove_dir_all(at.join("run/checkpoints")).unwrap();
    fail_in(at, &["inspect", "run"], &["run is a training run that has no checkpoint yet"]);
}
