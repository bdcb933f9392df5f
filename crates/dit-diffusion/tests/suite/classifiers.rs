//! Classifier guidance: its algebra, and that it, classifier-free guidance and both together sample the tilted distribution,
//! which is known here.

use std::ops::ControlFlow;

use dit_diffusion::*;
use tch::{Device, Kind, Tensor};

use crate::fixtures::close;

const FIXED: Parameterization = Parameterization { mean: MeanTarget::Epsilon, variance: Variance::FixedSmall };
/// The mean's shift, variance·∇, is the score's in the limit of short steps; with the small variance it falls behind at low noise,
/// by 3 % even in 1000 steps.
const LARGE: Parameterization = Parameterization { variance: Variance::FixedLarge, ..FIXED };
/// The first channel: N(0.2, 0.3²) without a label, N(0.6, 0.3²) with it.
const MEANS: [f64; 2] = [0.2, 0.6];
/// The second channel, whatever the label: an even mixture of N(−1.2, 0.3²) and N(1.2, 0.3²).
const MODES: [f64; 2] = [-1.2, 1.2];
const VARIANCE: f64 = 0.09;
const NULL: i64 = 0;
const IMAGES: u64 = 100; // of 64 points each

/// √ᾱ, and the variance of x_t around a component's √ᾱ·mean.
fn level(t: Timestep) -> (f64, f64) {
    let alpha_bar = NoiseSchedule::linear(1000).unwrap().alpha_bar(t).unwrap();
    (alpha_bar.sqrt(), alpha_bar * VARIANCE + 1.0 - alpha_bar)
}

/// −½ (x − √ᾱ·mean)²/variance.
fn log_density(x: &Tensor, mean: f64, t: Timestep) -> Tensor {
    let (signal, variance) = level(t);
    (x - signal * mean).square() * (-0.5 / variance)
}

/// log p(second mode | x_t), from the second channel, summed over its points: (N).
fn second_mode(x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError> {
    let x = x.narrow(1, 1, 1);
    let log_odds = log_density(&x, MODES[1], t) - log_density(&x, MODES[0], t);
    Ok(log_odds.log_sigmoid().sum_dim_intlist([1, 2, 3].as_slice(), false, None))
}

/// log p(label | x_t) up to a constant, from the first channel: (N).
fn labelled(x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError> {
    let x = x.narrow(1, 0, 1);
    let ratio = log_density(&x, MEANS[1], t) - log_density(&x, MEANS[0], t);
    Ok(ratio.sum_dim_intlist([1, 2, 3].as_slice(), false, None))
}

/// E[ε | x_t, label].
fn network(x: &Tensor, t: Timestep, labels: &Tensor) -> Result<Tensor, DenoiserError> {
    let (signal, variance) = level(t);
    let means = Tensor::from_slice(&MEANS).to_kind(x.kind()).index_select(0, labels).view([-1, 1, 1, 1]);
    let by_label = x.narrow(1, 0, 1) - means * signal;
    let second = x.narrow(1, 1, 1);
    let of_second = (log_density(&second, MODES[1], t) - log_density(&second, MODES[0], t)).sigmoid();
    let mode = of_second * (MODES[1] - MODES[0]) + MODES[0];
    let by_mode = second - mode * signal;
    let noise = (1.0 - signal * signal).sqrt();
    Ok(Tensor::cat(&[by_label, by_mode], 1) * (noise / variance)) // (N, 2, H, W)
}

/// How strongly the label is followed without a classifier, and by one; and the second mode's classifier.
struct Scales {
    free: f64,
    label: f64,
    mode: f64,
}

/// Walks, and checks mean and variance of the first channel, and of the second where a mode was chosen.
#[track_caller]
fn check(scales: Scales, mut solver: Box<dyn Solver>, spacing: &str) {
    let training = NoiseSchedule::linear(1000).unwrap();
    let schedule = training.respaced(&spacing.parse().unwrap()).unwrap();
    let images: Vec<u64> = (0..IMAGES).collect();
    let source = SeededNoise::new(3);
    let noise = BatchNoise::new(&source, &images);
    let start = noise.initial(LatentShape { channels: 2, height: 8, width: 8 }, Device::Cpu).unwrap();
    let labels = Tensor::ones([IMAGES as i64], (Kind::Int64, Device::Cpu));
    let pair = ClassConditional::new(network, &labels, NULL).unwrap();
    let free = ClassifierFree::new(pair, scales.free, GuidedChannels::First(1)).unwrap();
    let by_label = ClassifierGuided::new(free, from_log_prob(labelled), scales.label).unwrap();
    let guided = ClassifierGuided::new(by_label, from_log_prob(second_mode), scales.mode).unwrap();
    let sampler = Sampler { schedule: &schedule, parameterization: LARGE, clip: ClipX0::No };
    let x = sampler.run(&guided, &mut *solver, noise, &start, &mut |_| ControlFlow::Continue(())).unwrap();
    // p(x)·p(label | x)^s of equal Gaussians is the same Gaussian, moved by s times the distance of their means.
    let mean = MEANS[0] + (scales.free + scales.label) * (MEANS[1] - MEANS[0]);
    let what = format!("{spacing}: free {}, label {}, mode {}", scales.free, scales.label, scales.mode);
    moments(&format!("{what}: first channel"), &x.narrow(1, 0, 1), mean, VARIANCE);
    if scales.mode == 1.0 {
        moments(&format!("{what}: second channel"), &x.narrow(1, 1, 1), MODES[1], VARIANCE);
    } else {
        let variance = VARIANCE + MODES[1] * MODES[1];
        moments(&format!("{what}: second channel"), &x.narrow(1, 1, 1), 0.0, variance);
    }
}

/// Within five standard errors, and 1.5 % of a standard deviation (3 % of a variance) for steps that are not infinitely short.
#[track_caller]
fn moments(what: &str, x: &Tensor, mean: f64, variance: f64) {
    let n = x.numel() as f64;
    let found = x.mean(Kind::Double).double_value(&[]);
    let found_variance = (x - found).square().mean(Kind::Double).double_value(&[]);
    let (allowed, allowed_variance) = (5.0 / n.sqrt() + 0.015, 5.0 * (2.0 / n).sqrt() + 0.03);
    let off =
        [(found - mean).abs() / variance.sqrt() / allowed, (found_variance / variance - 1.0).abs() / allowed_variance];
    assert!(
        off.iter().all(|&share| share < 1.0),
        "{what}: mean {found:.4}, variance {found_variance:.4}; expected {mean}, {variance}"
    );
}

#[test]
fn guidance_samples_the_tilted_distribution() {
    for (free, label, mode) in [
        (0.0, 0.0, 0.0), // none at all
        (2.5, 0.0, 0.0),
        (0.0, 0.5, 0.0),
        (0.0, 3.0, 0.0),
        (0.0, 0.0, 1.0),
        (2.0, 1.5, 1.0), // all together
    ] {
        let scales = || Scales { free, label, mode };
        check(scales(), Box::new(Ddim::deterministic()), "trailing100");
        check(scales(), Box::new(DpmPlusPlus::second_order()), "lambda40");
        check(scales(), Box::new(Ddpm), "300");
    }
}

#[test]
fn ddpm_moves_its_mean_and_other_solvers_their_score() {
    let schedule = NoiseSchedule::linear(1000).unwrap().respaced(&"20".parse().unwrap()).unwrap();
    let source = SeededNoise::new(0);
    let noise = BatchNoise::new(&source, &[0, 1]);
    let shape = LatentShape { channels: 2, height: 2, width: 2 };
    let x = noise.initial(shape, Device::Cpu).unwrap().to_kind(Kind::Double);
    let learned = from_fn(|x, _| Ok(Tensor::cat(&[x.tanh(), x.sin()], 1)));
    let sampler = Sampler { schedule: &schedule, parameterization: Parameterization::DIT, clip: ClipX0::No };
    for index in [0, 7, 19] {
        let step = schedule.step(StepIndex(index)).unwrap();
        let take = |denoiser: &dyn Denoiser, mut solver: Box<dyn Solver>| {
            sampler.step(denoiser, &mut *solver, noise, StepIndex(index), &x).unwrap()
        };
        let gradient = x.cos();
        let share = (x.sin() + 1.0) / 2.0;
        let variance = (&share * step.log_beta() + (share.ones_like() - &share) * step.posterior_log_variance()).exp();
        // sin is an antiderivative of cos.
        let classifier = from_log_prob(|x: &Tensor, _| Ok(x.sin().sum_dim_intlist([1, 2, 3].as_slice(), false, None)));
        let guided = ClassifierGuided::new(&learned, &classifier, 3.0).unwrap();
        let moved = take(&guided, Box::new(Ddpm)) - take(&learned, Box::new(Ddpm));
        close("mean", &moved, &(3.0 * &variance * &gradient), 1e-9);

        let shifted = from_fn(|x, t| {
            let output = learned.predict(x, t)?;
            let eps = output.narrow(1, 0, 2) - (3.0 * step.noise()) * x.cos();
            Ok(Tensor::cat(&[eps, output.narrow(1, 2, 2)], 1))
        });
        for (name, solver) in [
            ("ddim", (|| Box::new(Ddim::deterministic()) as Box<dyn Solver>) as fn() -> Box<dyn Solver>),
            ("ddim reverse", || Box::new(DdimReverse)),
            ("dpm++ sde", || Box::new(SdeDpmPlusPlus::new())),
            ("euler ancestral", || Box::new(EulerAncestral)),
        ] {
            close(name, &take(&guided, solver()), &take(&shifted, solver()), 1e-12);
        }
        // Twice the scale, and two classifiers of one each, are the same; scale 0 is none, and asks nobody.
        let once = || ClassifierGuided::new(&learned, &classifier, 1.0).unwrap();
        let twice = ClassifierGuided::new(once(), &classifier, 1.0).unwrap();
        let double = ClassifierGuided::new(&learned, &classifier, 2.0).unwrap();
        close("sum", &take(&twice, Box::new(Ddpm)), &take(&double, Box::new(Ddpm)), 1e-12);
        let silent = from_log_prob(|_: &Tensor, _| Err("asked".into()));
        let none = ClassifierGuided::new(Box::new(once()) as Box<dyn Denoiser>, &silent, 0.0).unwrap();
        close("boxed, scale 0", &take(&none, Box::new(Ddpm)), &take(&once(), Box::new(Ddpm)), 0.0);
    }
}

#[test]
fn wrappers_hand_on_the_gradient_within() {
    let denoiser = from_fn(|x, _| Ok(x.shallow_clone()));
    let x = Tensor::from_slice(&[0.1_f32, -0.4, 0.7, 2.0]).view([1, 1, 2, 2]);
    let classifier = || from_log_prob(|x: &Tensor, _| Ok(x.sin().sum_dim_intlist([1, 2, 3].as_slice(), false, None)));
    let strong = || ClassifierGuided::new(&denoiser, classifier(), 2.0).unwrap();
    let weak = ClassifierGuided::new(&denoiser, classifier(), 50.0).unwrap();
    let expected = 2.0 * x.cos();
    let check = |what: &str, denoiser: &dyn Denoiser| {
        let gradient = denoiser.log_prob_gradient(&x, Timestep(3)).unwrap();
        close(what, &gradient.unwrap_or_else(|| panic!("{what}: lost")), &expected, 1e-6);
    };
    check("a reference", &&strong());
    check("a box", &Box::new(strong()));
    let auto = ClassifierFree::new(Autoguidance::new(strong(), weak), 3.0, GuidedChannels::All).unwrap();
    check("autoguidance, of the strong network alone", &auto);
}

/// A gradient that is no network's.
struct Canned(Tensor);

impl LogProbGradient for Canned {
    fn gradient(&self, _: &Tensor, _: Timestep) -> Result<Tensor, DenoiserError> {
        Ok(self.0.shallow_clone())
    }
}

#[test]
fn classifiers_that_do_not_fit() {
    let schedule = NoiseSchedule::linear(1000).unwrap().respaced(&"5".parse().unwrap()).unwrap();
    let sampler = Sampler { schedule: &schedule, parameterization: FIXED, clip: ClipX0::No };
    let source = SeededNoise::new(0);
    let noise = BatchNoise::new(&source, &[4]);
    let start = noise.initial(LatentShape { channels: 2, height: 2, width: 2 }, Device::Cpu).unwrap();
    let denoiser = from_fn(|x, _| Ok(x.shallow_clone()));
    let walk = |classifier: &dyn LogProbGradient| {
        let guided = ClassifierGuided::new(&denoiser, classifier, 1.0).unwrap();
        let error = sampler.run(&guided, &mut Ddpm, noise, &start, &mut |_| ControlFlow::Continue(())).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error}: {source}")
    };
    let scalar = from_log_prob(|x: &Tensor, _| Ok(x.sum(None)));
    let constant = from_log_prob(|x: &Tensor, _| Ok(x.detach().sum_dim_intlist([1, 2, 3].as_slice(), false, None)));
    let weight = Tensor::from(2.0_f32).set_requires_grad(true);
    let of_weights =
        from_log_prob(|x: &Tensor, _| Ok(x.detach().sum_dim_intlist([1, 2, 3].as_slice(), false, None) * &weight));
    for (classifier, says) in [
        (
            &Canned(start.narrow(1, 0, 1)) as &dyn LogProbGradient,
            "the shape of the classifier's gradient is [1, 1, 2, 2]",
        ),
        (
            &Canned(start.full_like(f64::NAN)),
            "NaN or infinity in the classifier's gradient at step 4 (timestep 999), in images [4]",
        ),
        (&scalar, "the shape of the log-probability is [], expected (N)"),
        (&constant, "the denoiser failed at step 4 (timestep 999): the log-probability does not depend on the latents"),
        (&of_weights, "the denoiser failed at step 4"),
    ] {
        let message = walk(classifier);
        assert!(message.contains(says), "`{message}` does not say `{says}`");
    }
    for scale in [f64::NAN, f64::INFINITY] {
        let error = ClassifierGuided::new(&denoiser, &scalar, scale).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("the classifier's scale is"), "{error}");
    }
}
