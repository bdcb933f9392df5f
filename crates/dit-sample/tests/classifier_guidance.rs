//! Classifier guidance on the demo model: the stronger, the more pictures a classifier that had no part in it recognises as the class
//! that was asked for.

use std::{ops::ControlFlow, path::Path};

use dit_classifier::Classifier;
use dit_diffusion::SeededNoise;
use dit_eval::DemoFeatures;
use dit_model::Dit;
use dit_sample::{Guidance, Pipeline, Plan, SamplerKind, Settings};
use dit_vae::AutoencoderKl;
use dit_weights::{Checkpoint, OpenOptions, VaeCheckpoint};
use tch::{Device, Kind, Tensor};

struct Demo {
    pipeline: Pipeline,
    /// Of pictures: it has seen neither latents nor noise.
    judge: DemoFeatures,
}

impl Demo {
    fn open() -> Self {
        let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/demo");
        let dit = Checkpoint::open(weights.join("dit-fashion.safetensors"), &OpenOptions::default()).unwrap();
        let vae = VaeCheckpoint::open(weights.join("vae-fashion")).unwrap();
        let (classifier, _) = Classifier::load(&weights.join("classifier-fashion.safetensors"), Device::Cpu).unwrap();
        let dit = Dit::load(&dit, Device::Cpu, Kind::Float).unwrap();
        let vae = AutoencoderKl::load(&vae, Device::Cpu, Kind::Float).unwrap();
        let pipeline = Pipeline::new(dit, Some(vae)).unwrap().with_classifier(classifier).unwrap();
        let judge = DemoFeatures::load(&weights.join("features-fashion.safetensors"), Device::Cpu).unwrap();
        Self { pipeline, judge }
    }

    /// How many of the pictures are recognised as what they should be.
    fn right(&self, walk: &Walk, scale: f64) -> i64 {
        let &Walk { sampler, steps, each } = walk;
        let classes: Vec<u32> = (0..10).flat_map(|class| vec![class; each]).collect();
        let guidance = Guidance { classifier_scale: Some(scale), ..Guidance::default() };
        let settings =
            Settings { sampler, steps: steps.parse().unwrap(), cfg_scale: 1.0, guidance, ..Settings::default() };
        let plan = Plan::new(self.pipeline.dit().config(), settings, 0, classes, 50).unwrap();
        let mut right = 0;
        for batch in plan.batches() {
            let noise = SeededNoise::new(0);
            let latents = self.pipeline.sample(&plan, &batch, &noise, &mut |_| ControlFlow::Continue(())).unwrap();
            let mut pictures = Vec::new();
            let mut keep = |picture| {
                pictures.push(picture);
                Ok(())
            };
            self.pipeline.decode(&latents, &mut keep).unwrap();
            let bytes: Vec<u8> = pictures.iter().flat_map(|picture| picture.rgb().to_vec()).collect();
            let shape = [pictures.len() as i64, 32, 32, 3];
            let pixels = Tensor::from_slice(&bytes).view(shape).permute([0, 3, 1, 2]).to_kind(Kind::Float); // (N, 3, H, W)
            let _no_grad = tch::no_grad_guard();
            let features = self.judge.features(&(pixels / 127.5 - 1.0)).unwrap();
            let found = self.judge.logits(&features).unwrap().argmax(1, false);
            let labels: Vec<i64> = batch.classes.iter().map(|&class| i64::from(class)).collect();
            right += found.eq_tensor(&Tensor::from_slice(&labels)).sum(Kind::Int64).int64_value(&[]);
        }
        right
    }
}

/// How pictures are drawn, and how many of each of the ten classes.
struct Walk {
    sampler: SamplerKind,
    steps: &'static str,
    each: usize,
}

/// The same noise at every scale: what is compared is what guidance does, not luck.
#[track_caller]
fn check(demo: &Demo, walk: &Walk, scales: &[f64]) {
    let all = 10 * walk.each as i64;
    let right: Vec<i64> = scales.iter().map(|&scale| demo.right(walk, scale)).collect();
    let found = format!("{} {}: of {all} right at scales {scales:?}: {right:?}", walk.sampler, walk.steps);
    assert!(right.is_sorted(), "not monotonic: {found}");
    // Half of what was wrong without guidance is right with the strongest.
    let [first, .., last] = right[..] else { panic!("two scales or more") };
    assert!(first < all && 2 * (all - last) <= all - first, "{found}");
}

#[test]
fn guidance_brings_what_an_independent_classifier_recognises() {
    let walk = Walk { sampler: SamplerKind::DpmPlusPlus2M, steps: "lambda10", each: 5 };
    check(&Demo::open(), &walk, &[0.0, 4.0]);
}

#[test]
fn an_independent_classifier_recognises_more_the_stronger_the_guidance() {
    if std::env::var_os("DIT_SLOW_TESTS").is_none_or(|value| value.is_empty() || value == "0") {
        eprintln!("SKIPPED: draws 1,600 pictures, which takes minutes; set DIT_SLOW_TESTS=1 to run it");
        return;
    }
    let demo = Demo::open();
    for (sampler, steps) in [(SamplerKind::DpmPlusPlus2M, "lambda20"), (SamplerKind::Ddpm, "50")] {
        check(&demo, &Walk { sampler, steps, each: 20 }, &[0.0, 1.0, 2.0, 4.0]);
    }
}
