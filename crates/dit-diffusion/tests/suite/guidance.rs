//! Classifier-free guidance: the formula, the channels, and how often the network is asked.

use std::cell::RefCell;

use dit_diffusion::*;
use tch::{Kind, Tensor};

use crate::fixtures::close;

const NULL: i64 = 10;

/// x (2, 4, 2, 2), an output that depends on sample and label, and a record of the batches asked for.
fn network(calls: &RefCell<Vec<Vec<i64>>>) -> impl Fn(&Tensor, Timestep, &Tensor) -> Result<Tensor, DenoiserError> {
    |x, t, labels| {
        calls.borrow_mut().push(Vec::try_from(labels)?);
        Ok(expected_output(x, t, labels))
    }
}

fn expected_output(x: &Tensor, t: Timestep, labels: &Tensor) -> Tensor {
    let label = (labels.to_kind(Kind::Float) + 1.0).view([-1, 1, 1, 1]);
    let eps = x * &label + f64::from(t.0);
    Tensor::cat(&[&eps, &(x - label)], 1) // (N, 8, H, W)
}

fn latents() -> Tensor {
    SeededNoise::new(0).draw(&[0, 1], Draw::Initial, LatentShape { channels: 4, height: 2, width: 2 }).unwrap()
}

#[track_caller]
fn check(scale: f64, channels: GuidedChannels, guided: i64) {
    let (x, t, labels) = (latents(), Timestep(500), Tensor::from_slice(&[3_i64, 7]));
    let calls = RefCell::new(Vec::new());
    let pair = ClassConditional::new(network(&calls), &labels, NULL).unwrap();
    let output = ClassifierFree::new(pair, scale, channels).unwrap().predict(&x, t).unwrap();

    let conditional = expected_output(&x, t, &labels);
    let unconditional = expected_output(&x, t, &labels.full_like(NULL));
    let moved = &unconditional + scale * (&conditional - &unconditional);
    close("guided channels", &output.narrow(1, 0, guided), &moved.narrow(1, 0, guided), 1e-6);
    close("the rest", &output.narrow(1, guided, 8 - guided), &conditional.narrow(1, guided, 8 - guided), 0.0);
    let expected_calls = if scale == 1.0 { vec![vec![3, 7]] } else { vec![vec![3, 7, NULL, NULL]] };
    assert_eq!(calls.into_inner(), expected_calls, "one call; a pass of N at scale 1, else of 2N");
}

#[test]
fn guidance_moves_the_guided_channels_only() {
    for scale in [4.0, 1.5, 1.0, 0.0, -1.0] {
        check(scale, GuidedChannels::First(3), 3);
        check(scale, GuidedChannels::First(1), 1);
        check(scale, GuidedChannels::All, 4);
    }
}

#[test]
fn a_guided_denoiser_samples_like_any_other() {
    let labels = Tensor::from_slice(&[3_i64, 7]);
    let calls = RefCell::new(Vec::new());
    let pair = ClassConditional::new(network(&calls), &labels, NULL).unwrap();
    let guided = ClassifierFree::new(pair, 2.0, GuidedChannels::First(3)).unwrap();
    let schedule = NoiseSchedule::linear(1000).unwrap().respaced(&"5".parse().unwrap()).unwrap();
    let sampler = Sampler { schedule: &schedule, parameterization: Parameterization::DIT, clip: ClipX0::ToUnit };
    let source = SeededNoise::new(0);
    let noise = BatchNoise::new(&source, &[0, 1]);
    let latents =
        sampler.run(&guided, &mut Ddpm, noise, &latents(), &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert_eq!(latents.size(), [2, 4, 2, 2]);
    assert_eq!(calls.borrow().len(), 5);
}

#[test]
fn half_precision_branches_are_compared_in_the_latents_precision() {
    let labels = Tensor::from_slice(&[3_i64, 7]);
    let forward = |x: &Tensor, t: Timestep, y: &Tensor| Ok(expected_output(x, t, y).to_kind(Kind::BFloat16));
    let pair = ClassConditional::new(forward, &labels, NULL).unwrap();
    let output = ClassifierFree::new(pair, 4.0, GuidedChannels::All).unwrap().predict(&latents(), Timestep(1)).unwrap();
    let branch = |y: &Tensor| expected_output(&latents(), Timestep(1), y).to_kind(Kind::BFloat16).to_kind(Kind::Float);
    let (with, without) = (branch(&labels), branch(&labels.full_like(NULL)));
    let moved = &without + 4.0_f64 * (with - &without);
    close("guided", &output.narrow(1, 0, 4), &moved.narrow(1, 0, 4), 1e-7);
}

#[test]
fn misuse_is_refused() {
    #[track_caller]
    fn refuses(result: Result<Tensor, DenoiserError>, says: &str) {
        let message = result.expect_err("refused").to_string();
        assert!(message.contains(says), "{message}");
    }
    let calls = RefCell::new(Vec::new());
    let labels = Tensor::from_slice(&[3_i64, 7]);
    let pair = |labels: &Tensor| ClassConditional::new(network(&calls), labels, NULL).unwrap();
    for scale in [f64::NAN, f64::INFINITY] {
        let error = ClassifierFree::new(pair(&labels), scale, GuidedChannels::All).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("must be a finite number"), "{error}");
    }
    for count in [0, 5] {
        let guided = ClassifierFree::new(pair(&labels), 2.0, GuidedChannels::First(count)).unwrap();
        refuses(guided.predict(&latents(), Timestep(0)), "a latent with 4; guide 1 to 4, or all");
    }
    let three = ClassifierFree::new(pair(&Tensor::from_slice(&[1_i64, 2, 3])), 2.0, GuidedChannels::All).unwrap();
    refuses(three.predict(&latents(), Timestep(0)), "expected [2], one for each sample");
    let kind = ClassConditional::new(network(&calls), &Tensor::from_slice(&[1.0_f32]), NULL).map(|_| ()).unwrap_err();
    assert!(kind.to_string().contains("expected int64"), "{kind}");
    let rank = ClassConditional::new(network(&calls), &Tensor::from(3_i64), NULL).map(|_| ()).unwrap_err();
    assert!(rank.to_string().contains("expected (N)"), "{rank}");
    let halves =
        ClassConditional::new(|x: &Tensor, _: Timestep, _: &Tensor| Ok(x.narrow(0, 0, 2)), &labels, NULL).unwrap();
    refuses(
        ClassifierFree::new(halves, 2.0, GuidedChannels::All).unwrap().predict(&latents(), Timestep(0)),
        "expected 4 samples",
    );
    assert!(calls.borrow().is_empty(), "refused before the network was asked");
}

fn sigma(t: u32) -> f64 {
    (1.0 / NoiseSchedule::linear(1000).unwrap().alpha_bar(Timestep(t)).unwrap() - 1.0).sqrt()
}

#[test]
fn scales_follow_their_shape_and_interval() {
    let schedule = NoiseSchedule::linear(1000).unwrap();
    let five = || GuidanceScale::constant(5.0).unwrap();
    let within = five().within(&schedule, sigma(200), sigma(700)).unwrap();
    for (what, scale, expected) in [
        ("constant", five(), [5.0, 5.0, 5.0]),
        ("linear", five().shaped(ScaleShape::Linear, &schedule), [9.0, 5.0, 1.0]),
        ("cosine", five().shaped(ScaleShape::Cosine, &schedule), [9.0, 5.0, 1.0]),
        ("interval", within, [1.0, 5.0, 1.0]),
        ("linear in an interval", within.shaped(ScaleShape::Linear, &schedule), [1.0, 5.0, 1.0]),
    ] {
        for (t, expected) in [0, 500, 999].into_iter().zip(expected) {
            // The middle of 0…999 is 499.5.
            assert!((scale.at(Timestep(t)) - expected).abs() < 0.01, "{what}: {} at {t}", scale.at(Timestep(t)));
        }
    }
    for shape in [ScaleShape::Constant, ScaleShape::Linear, ScaleShape::Cosine] {
        let scale = five().shaped(shape, &schedule);
        let mean = (0..1000).map(|t| scale.at(Timestep(t))).sum::<f64>() / 1000.0;
        assert!((mean - 5.0).abs() < 1e-9, "{shape:?}: {mean} on average");
    }
    let quarter = five().shaped(ScaleShape::Cosine, &schedule).at(Timestep(250));
    assert!((quarter - (5.0 + 4.0 * (250.0 / 999.0 * std::f64::consts::PI).cos())).abs() < 1e-12, "{quarter}");
    assert_eq!([199, 200, 700, 701].map(|t| within.at(Timestep(t))), [1.0, 5.0, 5.0, 1.0], "both ends are inside");
    for (low, high) in [(5.0, 0.3), (200.0, 300.0), (0.0, 0.001), (f64::NAN, 1.0), (1.0, f64::NAN)] {
        let error = five().within(&schedule, low, high).unwrap_err().to_string();
        assert!(error.contains("covers no timestep: the schedule's σ goes from 0.0100 to 157.4"), "{error}");
    }
    assert_eq!(five().within(&schedule, 0.0, f64::INFINITY).unwrap().at(Timestep(999)), 5.0);
}

#[test]
fn outside_the_interval_a_single_pass_is_taken() {
    let labels = Tensor::from_slice(&[3_i64, 7]);
    let calls = RefCell::new(Vec::new());
    let training = NoiseSchedule::linear(1000).unwrap();
    let scale = GuidanceScale::constant(4.0).unwrap().within(&training, sigma(300), sigma(600)).unwrap();
    let pair = ClassConditional::new(network(&calls), &labels, NULL).unwrap();
    let guided = ClassifierFree::with_scale(pair, scale, GuidedChannels::All);
    for t in (0..1000).step_by(100) {
        let (output, whole) = (guided.predict(&latents(), Timestep(t)).unwrap(), {
            let pair = ClassConditional::new(network(&calls), &labels, NULL).unwrap();
            ClassifierFree::new(pair, 4.0, GuidedChannels::All).unwrap().predict(&latents(), Timestep(t)).unwrap()
        });
        let inside = (300..=600).contains(&t);
        let expected = if inside { whole } else { expected_output(&latents(), Timestep(t), &labels) };
        close(&format!("timestep {t}"), &output, &expected, 0.0);
        let batch = calls.borrow().get(calls.borrow().len() - 2).map(Vec::len);
        assert_eq!(batch, Some(if inside { 4 } else { 2 }), "timestep {t}");
    }
}

#[test]
fn rescaling_restores_the_conditional_spread() {
    let labels = Tensor::from_slice(&[3_i64, 7]);
    let calls = RefCell::new(Vec::new());
    let predict = |share: f64, channels| {
        let pair = ClassConditional::new(network(&calls), &labels, NULL).unwrap();
        let guided = ClassifierFree::new(pair, 4.0, channels).unwrap().rescaled(share).unwrap();
        guided.predict(&latents(), Timestep(2)).unwrap()
    };
    let conditional = expected_output(&latents(), Timestep(2), &labels);
    let [none, half, full] = [0.0, 0.5, 1.0].map(|share| predict(share, GuidedChannels::First(3)));
    let spread = |x: &Tensor| x.narrow(1, 0, 3).std_dim([1, 2, 3].as_slice(), true, false);
    close("spread", &spread(&full), &spread(&conditional), 1e-6);
    assert!(crate::fixtures::relative(&spread(&none), &spread(&conditional)) > 0.1, "it had changed");
    close("half of the way", &half, &((&none + &full) / 2.0), 1e-6);
    close("the rest", &full.narrow(1, 3, 5), &conditional.narrow(1, 3, 5), 0.0);
    // No spread, nothing to restore.
    let flat = || {
        let ones = |x: &Tensor, _: Timestep, _: &Tensor| Ok(x.ones_like());
        ClassifierFree::new(ClassConditional::new(ones, &labels, NULL).unwrap(), 4.0, GuidedChannels::All).unwrap()
    };
    let output = flat().rescaled(1.0).unwrap().predict(&latents(), Timestep(2)).unwrap();
    close("flat", &output, &latents().ones_like(), 0.0);
    for share in [-0.1, 1.1, f64::NAN] {
        let error = flat().rescaled(share).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("between 0 (not at all) and 1"), "{error}");
    }
}

#[test]
fn a_negative_class_takes_the_null_class_s_place() {
    let (labels, negative) = (Tensor::from_slice(&[3_i64, 7]), Tensor::from_slice(&[2_i64, 0]));
    let calls = RefCell::new(Vec::new());
    let pair = ClassConditional::against(network(&calls), &labels, &negative).unwrap();
    let guided = ClassifierFree::new(pair, 3.0, GuidedChannels::All).unwrap();
    let output = guided.predict(&latents(), Timestep(1)).unwrap();
    let branch = |y: &Tensor| expected_output(&latents(), Timestep(1), y).narrow(1, 0, 4);
    let expected = branch(&negative) + 3.0_f64 * (branch(&labels) - branch(&negative));
    close("guided", &output.narrow(1, 0, 4), &expected, 1e-6);
    assert_eq!(*calls.borrow(), [[3, 7, 2, 0]]);
    let calls = RefCell::new(Vec::new());
    for (wrong, says) in [
        (Tensor::from_slice(&[1_i64]), "expected [2], one for each label"),
        (Tensor::from_slice(&[1.0_f32, 2.0]), "the kind of the negative labels is Float, expected int64"),
    ] {
        let error = ClassConditional::against(network(&calls), &labels, &wrong).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn autoguidance_moves_away_from_the_weaker_network() {
    let strong = from_fn(|x, _| Ok(Tensor::cat(&[x * 2.0, x * 0.0 + 5.0], 1)));
    let weak = from_fn(|x, _| Ok(Tensor::cat(&[x * 1.5, x * 0.0 + 9.0], 1)));
    let guided = |scale| ClassifierFree::new(Autoguidance::new(&strong, &weak), scale, GuidedChannels::All).unwrap();
    for scale in [1.0, 2.0, 3.5] {
        let output = guided(scale).predict(&latents(), Timestep(0)).unwrap();
        close("mean", &output.narrow(1, 0, 4), &(latents() * (1.5 + 0.5 * scale)), 1e-6);
        close("variance", &output.narrow(1, 4, 4), &(latents() * 0.0 + 5.0), 0.0);
    }
}
