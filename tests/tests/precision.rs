//! What cheaper arithmetic costs: whole walks on the trained demo model beside fp32's.

use std::ops::ControlFlow;

use dit_diffusion::ReplayedNoise;
use dit_model::{Dit, Kernels};
use dit_sample::{Pipeline, Plan, Precision, SamplerKind, Settings};
use dit_tests::{fixture, read_tensor, relative_error, root};
use dit_weights::{Checkpoint, OpenOptions};
use tch::{Device, Kind, Tensor};

/// Latents of ten classes after DDIM-50, guidance 3.
fn walk(precision: Precision, kernels: Kernels) -> Tensor {
    let options = OpenOptions { heads: Some(6), ..OpenOptions::default() };
    let checkpoint = Checkpoint::open(root().join("weights/demo/dit-fashion.safetensors"), &options).unwrap();
    let dit = Dit::load_with(&checkpoint, Device::Cpu, precision.kind(), kernels).unwrap();
    let pipeline = Pipeline::new(dit, None).unwrap();
    let settings = Settings {
        sampler: SamplerKind::Ddim { eta: 0.0 },
        steps: "ddim50".parse().unwrap(),
        cfg_scale: 3.0,
        precision,
        ..Settings::default()
    };
    let noise = ReplayedNoise::new(&read_tensor(&fixture("fashion/io.safetensors"), "z")).unwrap();
    let plan = Plan::new(pipeline.dit().config(), settings, 0, (0..10).collect(), 10).unwrap();
    let batch = plan.batches().next().unwrap();
    pipeline.sample(&plan, &batch, &noise, &mut |_| ControlFlow::Continue(())).unwrap().into_tensor()
}

/// Peak signal-to-noise ratio in decibels; the peak is the span of the expected values.
fn psnr(found: &Tensor, expected: &Tensor) -> f64 {
    let span = (expected.max() - expected.min()).double_value(&[]);
    let noise = (found - expected).square().mean(Kind::Double).double_value(&[]);
    10.0 * (span * span / noise).log10()
}

#[test]
fn walks_stay_close_to_fp32() {
    let exact = walk(Precision::Fp32, Kernels::Plain);
    let fused = relative_error(&walk(Precision::Fp32, Kernels::Fused), &exact);
    assert!(fused < 1e-4, "fp32 fused: {fused:e}");
    for (precision, kernels, least) in [
        (Precision::Bf16, Kernels::Plain, 40.0),
        (Precision::Bf16, Kernels::Fused, 40.0),
        (Precision::Int8, Kernels::Int8, 30.0),
    ] {
        let found = psnr(&walk(precision, kernels), &exact);
        eprintln!("{} {kernels:?}: {found:.1} dB", precision.name());
        assert!(found >= least, "{} {kernels:?}: {found:.1} dB", precision.name());
    }
}
