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
