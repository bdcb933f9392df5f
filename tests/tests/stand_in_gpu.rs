//! What a GPU would refuse, and how often it would be waited for: every command on a stand-in for one, whose tensors lie in the host's
//! memory and must not be mixed with the host's.

use std::{env, fs, path::Path, process::Command};

use dit_model::{Dit, GraphedDit};
use dit_tests::{Ran, dit_cli, fixture, read_tensor, relative_error, root, stand_in_gpu, write_png};
use dit_torch::Graph;
use dit_weights::{Checkpoint, OpenOptions};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// What the device was asked for.
#[derive(Debug, Clone, Copy)]
struct Counts {
    /// Launches: a replayed CUDA graph is one.
    operators: u64,
    waits: u64,
    /// CUDA graphs that were recorded, and how often any was replayed.
    captures: u64,
    replays: u64,
}

/// Runs `dit-cli` with `--device cuda`, which must succeed.
#[track_caller]
fn on_gpu(folder: &Path, args: &[&str]) -> Counts {
    let (ran, counts) = run_on_gpu(folder, args);
    assert_eq!(ran.code, Some(0), "dit-cli {args:?}\n{}", ran.stderr);
    assert!(counts.operators > 50, "it computes: {counts:?}");
    counts
}

fn run_on_gpu(folder: &Path, args: &[&str]) -> (Ran, Counts) {
    run_on_gpu_with(folder, args, &[])
}

fn run_on_gpu_with(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> (Ran, Counts) {
    let file = folder.join("counts.json");
    let mut command = dit_cli();
    command.env("LD_PRELOAD", stand_in_gpu().unwrap()).env("STAND_IN_GPU_COUNTS", &file);
    command.envs(environment.iter().copied());
    let ran = command.current_dir(folder).args(args).args(["--device", "cuda"]).output().unwrap().into();
    let counts: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let count = |name: &str| counts[name].as_u64().unwrap();
    let [operators, waits, captures, replays] = ["operators", "waits", "captures", "replays"].map(count);
    (ran, Counts { operators, waits, captures, replays })
}

const DEMO: [&str; 5] = ["sample", "--ckpt", "dit-fashion-demo", "--class", "0-3"];

#[track_caller]
fn sample(folder: &Path, more: &[&str]) -> Counts {
    on_gpu(folder, &[&DEMO[..], more].concat())
}

/// Whether this process has the stand-in. If not, the test `name` is run in one that has, where there is one.
#[track_caller]
fn has_gpu(name: &str) -> bool {
    let Some(library) = stand_in_gpu() else { return false };
    if env::var_os("ON_STAND_IN_GPU").is_some() {
        return true;
    }
    let mut again = Command::new(env::current_exe().unwrap());
    let again = again.args(["--exact", name, "--nocapture"]).env("LD_PRELOAD", library).env("ON_STAND_IN_GPU", "1");
    let output = again.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// The stand-in can fail: without this, nothing that passes here says anything.
#[test]
fn tensors_of_the_host_are_refused_among_those_of_the_device() {
    if !has_gpu("tensors_of_the_host_are_refused_among_those_of_the_device") {
        return;
    }
    let host = Tensor::from_slice(&[1.0_f32, 2.0]);
    let device = host.to_device(Device::Cuda(0));
    assert_eq!(device.device(), Device::Cuda(0));
    for mixed in [device.f_add(&host), host.f_mul(&device), Tensor::f_cat(&[&device, &host], 0)] {
        assert!(mixed.unwrap_err().to_string().contains("two devices"));
    }
    // What is brought is what was there, however it lies.
    let wide = host.unsqueeze(0).expand([3, 2], false);
    let square = Tensor::from_slice(&[1_i64, 2, 3, 4]).view([2, 2]);
    let none = Tensor::from_slice(&[0.0_f64; 0]);
    for tensor in [&wide, &wide.tr(), &square.tr(), &none, &square.gt(2), &host.to_kind(Kind::BFloat16)] {
        let brought = dit_torch::bring(tensor, Device::Cuda(0)).unwrap();
        assert_eq!((brought.device(), brought.kind()), (Device::Cuda(0), tensor.kind()));
        assert!(brought.to_device(Device::Cpu).equal(tensor), "{tensor:?}");
    }
    // Numbers go with both.
    let sum = device.f_add(&Tensor::from(1.0_f32)).unwrap();
    assert_eq!((sum.device(), Vec::<f32>::try_from(&sum).unwrap()), (Device::Cuda(0), vec![2.0, 3.0]));
    let mut view = device.view([2, 1]).tr();
    let _ = view.f_fill_(7.0).unwrap();
    assert_eq!(Vec::<f32>::try_from(&device).unwrap(), [7.0, 7.0]);
}

#[test]
fn pictures_are_those_of_the_cpu() {
    if stand_in_gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let walk = ["--sampler", "ddim", "--steps", "10", "--vae", "none", "--latents"];
    let latents = |name: &str| read_tensor(&folder.path().join(name), "latents");
    let cpu = [&DEMO[..], &walk, &["cpu", "--device", "cpu"]].concat();
    dit_tests::succeed_in(folder.path(), &cpu);
    for (precision, bound) in [("fp32", 1e-4), ("tf32", 1e-4), ("bf16", 0.1)] {
        sample(folder.path(), &[&walk[..], &[precision, "--precision", precision]].concat());
        let error = relative_error(&latents(precision), &latents("cpu"));
        assert!(error < bound, "{precision}: {error:.1e} apart");
    }
}

#[test]
fn a_walk_waits_once_in_eight_steps() {
    if stand_in_gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (sampler, every) in [("ddpm", 8), ("ddim", 8), ("unipc", 8), ("heun", 5)] {
        let counts = [16, 80].map(|steps: u64| {
            let walk = ["--sampler", sampler, "--steps", &steps.to_string(), "--batch-size", "4", "--out", "grid.png"];
            sample(folder.path(), &walk)
        });
        let [few, many] = counts.map(|counts| counts.waits);
        assert!(many - few <= 64 / every + 1, "{sampler}: {counts:?}");
        // It is asked at all, and computes: graphs, and what lies between.
        assert!(many > few && counts[1].replays > counts[0].replays + 63, "{sampler}: {counts:?}");
        assert!(counts[1].operators > counts[0].operators + 64 * 10, "{sampler}: {counts:?}");
    }
}

#[test]
fn every_way_to_sample_is_taken() {
    if stand_in_gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for sampler in ["dpmpp-2m", "dpmpp-3m", "dpmpp-2m-sde", "euler", "euler-ancestral", "heun"] {
        sample(at, &["--sampler", sampler, "--steps", "4", "--out", "grid.png"]);
    }
    let few = ["--sampler", "ddim", "--steps", "4", "--out", "grid.png"];
    let classifier = root().join("weights/demo/classifier-fashion.safetensors").display().to_string();
    for more in [
        &["--cfg-interval", "0.3,5"][..],
        &["--cfg-schedule", "cosine", "--cfg-rescale", "0.5"],
        &["--negative-class", "5"],
        &["--cfg-scale", "1", "--classifier", &classifier, "--classifier-scale", "2"],
        &["--cfg-scale", "1", "--autoguidance", "dit-fashion-demo", "--autoguidance-scale", "2"],
        &["--cache", "0.2"],
        &["--trajectory", "walks.png", "--npz", "all.npz", "--latents", "z", "--out-dir", "each"],
    ] {
        sample(at, &[&few[..], more].concat());
    }
    for more in [
        &["--init", "each/000000.png", "--strength", "0.5"][..],
        &["--init", "each/000000.png", "--invert", "--init-class", "0", "--num-samples", "1"],
    ] {
        let one = ["sample", "--ckpt", "dit-fashion-demo", "--class", "3"];
        on_gpu(at, &[&one[..], &few, more].concat());
    }
    for kind in ["classes", "seeds"] {
        let class: &[&str] = if kind == "seeds" { &["--class", "3"] } else { &[] };
        let strip = ["sample", "--ckpt", "dit-fashion-demo", "--interpolate", kind, "1,2", "--frames", "3"];
        on_gpu(at, &[&strip[..], class, &few].concat());
    }
    on_gpu(at, &["calibrate-cache", "--ckpt", "dit-fashion-demo", "--steps", "4", "--class", "1,2"]);
}

/// Latents of nine pictures in batches of four, four and one, by graphs, without them, and by the CPU.
#[test]
fn replayed_passes_give_what_others_do() {
    if stand_in_gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let latents = |name: &str| read_tensor(&folder.path().join(name), "latents");
    let pictures = ["sample", "--ckpt", "dit-fashion-demo", "--class", "0-8", "--batch-size", "4"];
    let weaker = ["--cfg-scale", "1", "--autoguidance", "dit-fashion-demo", "--autoguidance-scale", "2"];
    // Passes that a step takes, and shapes of passes: each is recorded at its second, which waits twice.
    for (walk, passes, shapes) in [
        (&["--sampler", "ddpm"][..], 1, 2),
        (&["--sampler", "ddim"], 1, 2),
        (&["--sampler", "ddim", "--cfg-scale", "1"], 1, 2),
        (&["--sampler", "ddim", "--cfg-interval", "0.3,5"], 1, 4),
        (&[&["--sampler", "ddim"], &weaker[..]].concat(), 2, 4),
    ] {
        let steps = 8;
        let args = [&pictures[..], walk, &["--steps", "8", "--vae", "none", "--latents"]].concat();
        dit_tests::succeed_in(folder.path(), &[&args[..], &["cpu", "--device", "cpu"]].concat());
        let run = |name, environment| {
            let (ran, counts) = run_on_gpu_with(folder.path(), &[&args[..], &[name]].concat(), environment);
            assert_eq!(ran.code, Some(0), "{walk:?}: {}", ran.stderr);
            assert!(!ran.stderr.contains("warning"), "{walk:?}: {}", ran.stderr);
            counts
        };
        let [graphs, eager] = [run("graphs", &[]), run("eager", &[("DIT_NO_CUDA_GRAPHS", "1")])];
        assert_eq!((eager.captures, eager.replays), (0, 0), "{walk:?}");
        assert_eq!((graphs.captures, graphs.replays), (shapes, 3 * steps * passes - shapes), "{walk:?}");
        assert_eq!(graphs.waits, eager.waits + 2 * shapes, "{walk:?}: {graphs:?} and {eager:?}");
        assert_eq!(latents("graphs"), latents("eager"), "{walk:?}");
        let error = relative_error(&latents("graphs"), &latents("cpu"));
        assert!(error < 1e-4, "{walk:?}: {error:.1e} apart");
    }
}

#[test]
fn a_replayed_step_takes_few_launches() {
    if stand_in_gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (sampler, before, after) in [("ddpm", 160, 50), ("ddim", 160, 50)] {
        let launches = |environment: &[(&str, &str)]| {
            let operators = ["16", "80"].map(|steps| {
                let walk = ["--sampler", sampler, "--steps", steps, "--vae", "none", "--latents", "z"];
                let (ran, counts) = run_on_gpu_with(folder.path(), &[&DEMO[..], &walk].concat(), environment);
                assert_eq!(ran.code, Some(0), "{}", ran.stderr);
                counts.operators
            });
            (operators[1] - operators[0]) / 64
        };
        let (graphs, eager) = (launches(&[]), launches(&[("DIT_NO_CUDA_GRAPHS", "1")]));
        assert!(eager >= before && graphs <= after, "{sampler}: {eager} launches a step, {graphs} with graphs");
    }
}

/// The comparison with what was computed before a graph is used, and a recording that does not even begin.
#[test]
fn graphs_that_are_wrong_or_not_to_be_had_are_told_of_and_not_used() {
    if stand_in_gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let latents = |name: &str| read_tensor(&folder.path().join(name), "latents");
    let args = [&DEMO[..], &["--sampler", "ddim", "--steps", "6", "--vae", "none", "--latents"]].concat();
    on_gpu(folder.path(), &[&args[..], &["right"]].concat());
    for (graphs, captures, why) in [("wrong", 1, "a replay gave something else"), ("refused", 0, "asked to refuse")] {
        let environment = [("STAND_IN_GPU_GRAPHS", graphs)];
        let (ran, counts) = run_on_gpu_with(folder.path(), &[&args[..], &[graphs]].concat(), &environment);
        assert_eq!(ran.code, Some(0), "{graphs}: {}", ran.stderr);
        let warnings: Vec<_> = ran.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert!(matches!(warnings[..], [one] if one.contains(why)), "{graphs}: {}", ran.stderr);
        assert_eq!((counts.captures, counts.replays), (captures, captures), "{graphs}");
        assert_eq!(latents(graphs), latents("right"), "{graphs}");
    }
}

#[test]
fn a_graph_computes_again_what_was_recorded() {
    if !has_gpu("a_graph_computes_again_what_was_recorded") {
        return;
    }
    let gpu = Device::Cuda(0);
    let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor).unwrap();
    let mut x = Tensor::from_slice(&[1.0_f32, 2.0]).to_device(gpu);
    let (mut written, mut number) = (x.zeros_like(), 10.0);
    let mut within = None;
    let graph = Graph::record(gpu, || {
        let sum = &x + number;
        written.copy_(&sum);
        within = Some(sum.shallow_clone());
        let mut twice = sum * 2.0;
        let _ = twice.f_add_scalar_(1.0).unwrap();
        Tensor::cat(&[&twice, &written], 0)
    })
    .unwrap();
    // Nothing was computed yet, and nothing written.
    assert_eq!(values(&written), [0.0, 0.0]);
    assert!(values(&within.unwrap()).iter().all(|value| value.is_nan()));
    assert_eq!(values(&graph.replay().unwrap()), [23.0, 25.0, 11.0, 12.0]);
    assert_eq!(values(&written), [11.0, 12.0]);
    // It reads what is in the tensors now. A number is what it was.
    number += 1.0;
    let first = graph.replay().unwrap();
    x.copy_(&Tensor::from_slice(&[0.0_f32, 100.0]));
    assert_eq!(values(&graph.replay().unwrap()), [21.0, 221.0, 10.0, 110.0]);
    assert_eq!((values(&first), number), (vec![23.0, 25.0, 11.0, 12.0], 11.0));

    // What goes wrong without harm to the recording costs that one alone.
    let other = Tensor::zeros([3], (Kind::Float, gpu));
    assert!(Graph::record(gpu, || &x + &other).unwrap_err().to_string().contains("size of tensor"));
    assert!(Graph::record(gpu, || panic!("as it should")).unwrap_err().to_string().contains("as it should"));
    let nested = Graph::record(gpu, || {
        assert!(dit_torch::is_recording() && graph.replay().is_err());
        assert!(Graph::record(gpu, || x.shallow_clone()).is_err());
        &x * 2.0
    });
    assert_eq!(values(&nested.unwrap().replay().unwrap()), [0.0, 200.0]);
    assert!(Graph::is_supported(gpu) && !dit_torch::is_recording());

    // What cannot be recorded: there are no more graphs, and all else goes on.
    let waited_for = Graph::record(gpu, || &x * x.double_value(&[1])).unwrap_err().to_string();
    assert!(waited_for.contains("not permitted when stream is capturing"), "{waited_for}");
    assert!(!waited_for.contains("unwrap") && !waited_for.contains("frame #"), "{waited_for}");
    assert!(!Graph::is_supported(gpu) && Graph::record(gpu, || &x * 2.0).is_err());
    assert_eq!(values(&(&x * x.double_value(&[1]))), [0.0, 10_000.0]);
    assert_eq!(values(&graph.replay().unwrap()), [21.0, 221.0, 10.0, 110.0]);
}

/// More shapes than are kept, in any order; what is not finite; another arithmetic.
#[test]
fn a_graphed_model_is_the_model() {
    if !has_gpu("a_graphed_model_is_the_model") {
        return;
    }
    let gpu = Device::Cuda(0);
    let path = root().join("weights/demo/dit-fashion.safetensors");
    let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
    for kind in [Kind::Float, Kind::BFloat16] {
        let graphed = GraphedDit::new(Dit::load(&checkpoint, gpu, kind).unwrap());
        let config = graphed.dit().config();
        let (channels, side) = (config.in_channels as i64, config.latent.height as i64);
        let check = |samples: i64, step: i64, factor: f64| {
            let x = (Tensor::arange(samples * channels * side * side, (Kind::Float, gpu)) * (0.1 + step as f64)).sin();
            let x = x.view([samples, channels, side, side]) * factor;
            let labels = (Tensor::arange(samples, (Kind::Int64, gpu)) + step).remainder(10);
            let t = Tensor::full([samples], 7 * step, (Kind::Int64, gpu));
            let expected = graphed.dit().forward(&x, &t, &labels);
            let found = graphed.forward(&x, 7 * step, &labels).unwrap();
            assert!(found.allclose(&expected, 0.0, 0.0, true), "{kind:?}, {samples} samples, step {step}");
        };
        let _no_grad = tch::no_grad_guard();
        check(1, 0, f64::NAN);
        check(1, 0, f64::NAN);
        assert_eq!(graphed.graphs(), 0);
        for step in 0..3 {
            (1..=6).for_each(|samples| (0..3).for_each(|again| check(samples, step + again, 1.0)));
        }
        for step in 0..24 {
            check(step * step % 7 + 1, step, 1.0);
        }
        check(2, 3, f64::NAN);
        check(2, 3, 1.0);
        for allowed in [true, false] {
            dit_ops::allow_tf32(allowed).unwrap();
            (0..3).for_each(|step| check(2, step, 1.0));
        }
        assert!(Graph::is_supported(gpu));
        assert_eq!(graphed.graphs(), 4, "as many as are kept");
    }
}

/// A step whose result is not finite is told as on the CPU, though it is heard of later.
#[test]
fn what_is_not_finite_is_told_as_on_the_cpu() {
    if stand_in_gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let demo = root().join("weights/demo/dit-fashion.safetensors");
    let mut bytes = fs::read(&demo).unwrap();
    // A variance whose logarithm nothing can be raised to.
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let index: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let weight = &index["final_layer.linear.weight"];
    assert_eq!(weight["dtype"], "F16");
    let at = |end: usize| 8 + header + weight["data_offsets"][end].as_u64().unwrap() as usize;
    for value in bytes[at(0)..at(1)].chunks_exact_mut(2) {
        value[1] = value[1] & 0x80 | 0x78; // ± 32,768 and more
    }
    fs::write(folder.path().join("wild.safetensors"), bytes).unwrap();
    let vae = root().join("weights/demo/vae-fashion").display().to_string();
    let args = ["sample", "--ckpt", "wild.safetensors", "--vae", &vae, "--class", "1,2", "--sampler", "ddpm"];
    let args = [&args[..], &["--steps", "40", "--out-dir", "each"]].concat();
    let why = |ran: Ran| {
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        let line = ran.stderr.lines().find(|line| line.starts_with("error: ")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{}", ran.stderr))
    };
    let cpu = why(dit_tests::run_in(folder.path(), &[&args[..], &["--device", "cpu"]].concat()));
    assert!(cpu.contains("NaN or infinity") && cpu.contains("at step "), "{cpu}");
    assert_eq!(why(run_on_gpu(folder.path(), &args).0), cpu);
}

const RECIPE: &str = "
[model]
hidden = 16
depth = 2
heads = 2
patch = 4

[train]
steps = 8
batch_size = 8
checkpoint_every = 4
log_every = 1

[ema]
decays = [0.9, 0.5]

[validation]
held_out = { fraction = 0.25 }
every = 1000
records = 8
";

/// A folder with `recipe.toml`, and `latents` of 32 pictures in two classes, which the device encoded.
fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..32_u32 {
        let class = folder.path().join("data").join(["cats", "dogs"][index as usize % 2]);
        fs::create_dir_all(&class).unwrap();
        let pixels: Vec<u8> = (0..32 * 32 * 3_u32).map(|at| ((at * (index + 3)) >> 3) as u8).collect();
        write_png(&class.join(format!("{index:05}.png")), 32, 32, &pixels);
    }
    let vae = fixture("vae-small").display().to_string();
    let args = ["precompute-latents", "--data", "data", "--out", "latents", "--vae", &vae, "--image-size", "32"];
    on_gpu(folder.path(), &args);
    fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
    folder
}

const BEGIN: [&str; 5] = ["train", "--config", "recipe.toml", "--data", "latents"];

fn with_keys<'a>(out: &'a str, keys: &[&'a str]) -> Vec<&'a str> {
    let set = keys.iter().flat_map(|key| ["--set", key]);
    [&BEGIN[..], &["--out", out]].concat().into_iter().chain(set).collect()
}

#[test]
fn every_way_to_train_is_taken() {
    if stand_in_gpu().is_none() {
        return;
    }
    let folder = workplace();
    let at = folder.path();
    for (number, keys) in [
        &["model.block=in-context"][..],
        &["model.block=cross-attention", "train.precision=bf16"],
        &["model.block=adaln", "train.precision=tf32"],
        &["train.accumulate=2", "train.precision=bf16", "train.checkpoint_activations=true"],
        &["train.accumulate=4", "optim.clip_grad_norm=0.01"],
        &["diffusion.weighting={ min-snr = 5.0 }", "diffusion.predict=v", "diffusion.sigma=fixed-small"],
        &["diffusion.timesteps=loss-second-moment"],
        &["validation.every=4", "samples.every=4", "samples.count=4", "samples.steps=2"],
    ]
    .into_iter()
    .enumerate()
    {
        on_gpu(at, &with_keys(&number.to_string(), keys));
    }
    // Goes on, and is sampled from and measured.
    let longer = ["train", "--out", "0", "--resume", "--set", "train.steps=12"];
    on_gpu(at, &longer);
    on_gpu(at, &["sample", "--ckpt", "0", "--class", "0", "--steps", "3", "--num-samples", "2", "--out", "x.png"]);
    on_gpu(
        at,
        &["train-classifier", "--data", "latents", "--out", "c.safetensors", "--steps", "3", "--batch-size", "4"],
    );
    on_gpu(at, &["evaluate", "data", "data", "--features", "demo", "--image-size", "32", "--metrics", "fid"]);
}

#[test]
fn training_is_that_of_the_cpu() {
    if stand_in_gpu().is_none() {
        return;
    }
    let folder = workplace();
    let losses = |run: &str| -> Vec<f64> {
        let text = fs::read_to_string(folder.path().join(run).join("log.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let losses: Vec<f64> =
            lines.filter(|line| line["event"] == "train").filter_map(|line| line["loss"].as_f64()).collect();
        assert_eq!(losses.len(), 8, "{text}");
        losses
    };
    on_gpu(folder.path(), &with_keys("gpu", &["train.accumulate=2"]));
    dit_tests::succeed_in(
        folder.path(),
        &[&with_keys("cpu", &["train.accumulate=2"])[..], &["--device", "cpu"]].concat(),
    );
    for (gpu, cpu) in losses("gpu").into_iter().zip(losses("cpu")) {
        assert!((gpu / cpu - 1.0).abs() < 1e-4, "{gpu} and {cpu}");
    }
}

#[test]
fn a_training_step_waits_at_its_end_alone() {
    if stand_in_gpu().is_none() {
        return;
    }
    let folder = workplace();
    for (accumulate, precision) in [(1, "fp32"), (1, "bf16"), (4, "bf16")] {
        let keys = |steps: u64| [format!("train.steps={steps}"), format!("train.accumulate={accumulate}")];
        let counts = [8, 24].map(|steps| {
            let (keys, run) = (keys(steps), format!("{precision}-{accumulate}-{steps}"));
            let precision = format!("train.precision={precision}");
            let keys = [&keys[0][..], &keys[1], &precision, "train.checkpoint_every=1000", "train.log_every=1000"];
            on_gpu(folder.path(), &with_keys(&run, &keys))
        });
        let [few, many] = counts.map(|counts| counts.waits);
        // The losses of each part, and the norm of gradients: all of it is computed when the first is asked for.
        assert!((few + 16..=few + 16 * (accumulate + 1)).contains(&many), "{accumulate} parts: {counts:?}");
    }
}
