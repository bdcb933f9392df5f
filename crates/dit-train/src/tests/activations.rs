//! Gradients do not depend on how memory is saved: activations computed again, batches in parts.

use dit_config::{BlockDesign, DitConfig};
use dit_recipe::{Precision, Sections};
use tch::{Kind, Tensor};

use super::support::{batch, config, trainer, visible_weight};
use crate::{
    feed::{RawBatch, StepData},
    trainer::{Stepped, Trainer},
};

/// The gradients of one batch.
fn gradients(config: &DitConfig, precision: Precision, recompute: bool, accumulate: usize) -> Vec<(String, Tensor)> {
    let mut sections = Sections::default();
    sections.train.precision = precision;
    sections.train.checkpoint_activations = recompute;
    sections.train.batch_size = 6;
    sections.train.accumulate = accumulate;
    let mut trainer = trainer(config, sections, visible_weight);
    let stepped = trainer.step(&batch(config, 6, 0), 0).unwrap();
    assert!(matches!(stepped, Stepped::Taken { .. }));
    let names = trainer.network.names().iter().cloned();
    names.zip(trainer.network.computing().iter().map(|parameter| parameter.grad().to_kind(Kind::Double))).collect()
}

#[track_caller]
fn check(config: &DitConfig, precision: Precision, tolerance: f64) {
    let kept = gradients(config, precision, false, 1);
    let recomputed = gradients(config, precision, true, 1);
    for ((name, kept), (_, recomputed)) in kept.iter().zip(&recomputed) {
        let error = (kept - recomputed).abs().max().double_value(&[]) / kept.abs().max().double_value(&[]).max(1e-3);
        assert!(error <= tolerance, "{} {precision:?}, {name}: {error:.1e}", config.block);
    }
    assert!(kept.iter().all(|(_, gradient)| gradient.abs().max().double_value(&[]) > 0.0));
}

#[test]
fn recomputed_gradients_are_the_same() {
    for block in BlockDesign::ALL {
        for depth in [1, 3] {
            check(&config(block, depth), Precision::Fp32, 1e-6);
        }
    }
}

/// The `index`-th of `parts` equal parts of a batch.
fn part(data: &StepData, index: usize, parts: usize) -> StepData {
    let RawBatch { latents, noise, shape, labels, records } = &data.batch;
    let [n, c, h, w] = *shape;
    let (size, per_sample) = (n / parts, c * h * w);
    let (samples, values) =
        (index * size..(index + 1) * size, index * size * per_sample..(index + 1) * size * per_sample);
    let batch = RawBatch {
        latents: latents[values.clone()].to_vec(),
        noise: noise[values].to_vec(),
        shape: [size, c, h, w],
        labels: labels[samples.clone()].to_vec(),
        records: records[samples.clone()].to_vec(),
    };
    StepData { batch, lots: data.lots[samples].to_vec(), after: data.after }
}

#[test]
fn gradients_of_parts_in_bf16_are_summed_in_fp32() {
    let config = config(BlockDesign::AdaLnZero, 2);
    let data = batch(&config, 16, 0);
    let trainer_of = |batch_size: usize, accumulate: usize| -> Trainer {
        let mut sections = Sections::default();
        sections.train.precision = Precision::Bf16;
        (sections.train.batch_size, sections.train.accumulate) = (batch_size, accumulate);
        trainer(&config, sections, visible_weight)
    };
    // The reference: each part's gradient from a step of its own, added in float64. An eighth is exact in bf16.
    const PARTS: usize = 8;
    let mut expected: Vec<Tensor> = Vec::new();
    for index in 0..PARTS {
        let mut trainer = trainer_of(2, 1);
        assert!(matches!(trainer.step(&part(&data, index, PARTS), 0).unwrap(), Stepped::Taken { .. }));
        let of_part = trainer.network.computing().iter().map(|one| one.grad().to_kind(Kind::Double) / PARTS as f64);
        expected = match expected.is_empty() {
            true => of_part.collect(),
            false => expected.iter().zip(of_part).map(|(sum, one)| sum + one).collect(),
        };
    }
    let mut whole = trainer_of(16, PARTS);
    assert!(matches!(whole.step(&data, 0).unwrap(), Stepped::Taken { .. }));
    // The first moment is a tenth of the first gradient.
    let mut beyond_bf16 = 0.0;
    for ((name, moment), expected) in whole.network.names().iter().zip(whole.optimizer.moments().0).zip(&expected) {
        let found = moment.to_kind(Kind::Double) / (1.0 - 0.9);
        let largest = expected.abs().max().double_value(&[]);
        let error = (&found - expected).abs().max().double_value(&[]);
        assert!(error <= 1e-6 * largest, "{name}: {error:.1e} of {largest:.1e}");
        let rounded = expected.to_kind(Kind::BFloat16).to_kind(Kind::Double);
        beyond_bf16 += (rounded - expected).abs().max().double_value(&[]) / largest;
    }
    assert!(beyond_bf16 > 1e-3, "sums that bf16 could hold would prove nothing: {beyond_bf16:.1e}");
}

#[test]
fn in_bf16_they_differ_by_its_rounding_of_the_conditioning_s_sum() {
    for block in BlockDesign::ALL {
        check(&config(block, 3), Precision::Bf16, 0.03);
    }
}
