//! Recomputed activations give the gradients of kept ones, in every block design.

use dit_config::{BlockDesign, DitConfig, DitSpec, LatentSize, Numerics, Sigma};
use dit_recipe::{Precision, Sections};
use tch::{Kind, Tensor};

use super::support::{batch, trainer, visible_weight};
use crate::trainer::Stepped;

fn config(block: BlockDesign, depth: usize) -> DitConfig {
    DitConfig::new(DitSpec {
        block,
        hidden: 24,
        depth,
        heads: 3,
        patch: 2,
        mlp_ratio: 4.0,
        in_channels: 4,
        latent: LatentSize { height: 4, width: 6 },
        num_classes: 3,
        label_dropout: 0.1,
        sigma: Sigma::Learned,
        numerics: Numerics::Original,
    })
    .unwrap()
}

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

#[test]
fn in_bf16_they_differ_by_its_rounding_of_the_conditioning_s_sum() {
    for block in BlockDesign::ALL {
        check(&config(block, 3), Precision::Bf16, 0.03);
    }
}
