//! The network, its gradient and its file.

use dit_classifier::{About, Classifier, ClassifierSpec};
use dit_diffusion::{LogProbGradient, Timestep};
use tch::{Device, Kind, Tensor};

fn spec() -> ClassifierSpec {
    ClassifierSpec { hidden: 32, depth: 2, heads: 2, patch: 2, in_channels: 4, latent: [8, 4], num_classes: 5 }
}

/// One whose every weight is away from zero, gates and head too: through zeros no gradient comes.
fn busy(folder: &std::path::Path) -> Classifier {
    let fresh = Classifier::new(&spec(), 1, Device::Cpu).unwrap();
    let path = folder.join("busy.safetensors");
    fresh.save(&path, &about()).unwrap();
    let named = Tensor::read_safetensors(&path).unwrap();
    let moved: Vec<(String, Tensor)> = named
        .into_iter()
        .enumerate()
        .map(|(i, (name, value))| {
            let wave = Tensor::arange(value.numel() as i64, (Kind::Float, Device::Cpu)) * (1.3 + 0.1 * i as f64);
            let value = value.to_kind(Kind::Float) + wave.sin().view(value.size().as_slice()) * 0.1;
            (name, value)
        })
        .collect();
    let source = dit_weights::TchSource::new(moved).unwrap();
    let file = dit_weights::SafetensorsFile::open(&path).unwrap();
    let metadata = file.metadata().clone();
    drop(file);
    dit_weights::write_safetensors(&path, &source, &metadata).unwrap();
    Classifier::load(&path, Device::Cpu).unwrap().0
}

fn about() -> About {
    About::new(spec(), "00".repeat(32), ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec(), 7)
}

#[test]
fn a_file_brings_back_the_classifier_and_what_was_said_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let classifier = busy(folder.path());
    let path = folder.path().join("again.safetensors");
    classifier.save(&path, &about()).unwrap();
    let (again, said) = Classifier::load(&path, Device::Cpu).unwrap();
    assert_eq!(said, about());
    let x = Tensor::randn([3, 4, 8, 4], (Kind::Float, Device::Cpu));
    let t = Tensor::from_slice(&[0_i64, 400, 999]);
    let _no_grad = tch::no_grad_guard();
    let (a, b) = (classifier.forward(&x, &t), again.forward(&x, &t));
    assert_eq!(a.size(), [3, 5]);
    let off = (&a - &b).abs().max().double_value(&[]) / a.abs().max().double_value(&[]);
    assert!(off < 5e-3, "f16 moves the logits by {off}");
    assert!((&a.get(0) - &a.get(1)).abs().max().double_value(&[]) > 1e-3, "latents and timestep count");
    let later = classifier.forward(&x, &(&t + 300));
    assert!((&a - later).abs().max().double_value(&[]) > 1e-4, "the timestep alone counts");
}

#[test]
fn a_fresh_one_finds_all_classes_as_probable() {
    let classifier = Classifier::new(&spec(), 0, Device::Cpu).unwrap();
    let x = Tensor::randn([2, 4, 8, 4], (Kind::Float, Device::Cpu));
    let logits = classifier.forward(&x, &Tensor::from_slice(&[10_i64, 900]));
    assert_eq!(logits.abs().max().double_value(&[]), 0.0);
}

#[test]
fn the_gradient_is_that_of_the_log_probability_by_finite_differences() {
    let folder = tempfile::tempdir().unwrap();
    let classifier = busy(folder.path());
    let x = Tensor::randn([2, 4, 8, 4], (Kind::Float, Device::Cpu));
    let labels = Tensor::from_slice(&[4_i64, 1]);
    // As samplers call it: without gradients around.
    let gradient = tch::no_grad(|| classifier.towards(&labels).gradient(&x, Timestep(300)).unwrap());
    let direction = Tensor::randn([2, 4, 8, 4], (Kind::Float, Device::Cpu));
    let log_prob = |x: &Tensor| {
        let t = Tensor::full([2], 300, (Kind::Int64, Device::Cpu));
        let all = tch::no_grad(|| classifier.forward(x, &t).to_kind(Kind::Double).log_softmax(1, Kind::Double));
        all.gather(1, &labels.unsqueeze(1), false).squeeze_dim(1) // (2)
    };
    let step = 1e-2;
    let difference = (log_prob(&(&x + &direction * step)) - log_prob(&(&x - &direction * step))) / (2.0 * step);
    let slope = (gradient * direction).sum_dim_intlist([1, 2, 3].as_slice(), false, Kind::Double);
    for i in 0..2 {
        let (found, expected) = (slope.double_value(&[i]), difference.double_value(&[i]));
        assert!(expected.abs() > 1e-3, "sample {i} has no slope to compare");
        assert!((found - expected).abs() < 0.01 * expected.abs().max(0.05), "sample {i}: {found}, expected {expected}");
    }
}

#[track_caller]
fn check_refused(bytes: impl FnOnce(&std::path::Path), expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.safetensors");
    bytes(&path);
    let error = Classifier::load(&path, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains(expected), "'{error}' lacks '{expected}'");
}

#[test]
fn files_of_something_else_are_refused() {
    let other = |path: &std::path::Path| {
        let x = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        Tensor::write_safetensors(&[("x", x)], path).unwrap();
    };
    check_refused(other, "not a classifier of noised latents");
    check_refused(|path| std::fs::write(path, b"no").unwrap(), "file.safetensors");
    check_refused(|_| {}, "file.safetensors");
    // Said to be wider than it is.
    let wider = |path: &std::path::Path| {
        let classifier = Classifier::new(&spec(), 0, Device::Cpu).unwrap();
        let spec = ClassifierSpec { num_classes: 6, ..spec() };
        classifier.save(path, &About::new(spec, String::new(), Vec::new(), 0)).unwrap();
    };
    check_refused(wider, "head.weight");
    assert!(Classifier::new(&ClassifierSpec { heads: 5, ..spec() }, 0, Device::Cpu).is_err());
}
