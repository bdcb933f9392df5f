//! What the guardian says of a network with one bad tensor: the stage, the part and the tensor that are bad first.

use dit_config::{BlockDesign, DitConfig, Sigma};
use dit_recipe::{Sections, SigmaKind};
use tch::Tensor;

use super::support::{self, batch, trainer, visible_weight};
use crate::{Stage, trainer::Stepped};

fn config(block: BlockDesign) -> DitConfig {
    support::config(block, 3).with(|spec| spec.sigma = Sigma::Fixed).unwrap()
}

/// A step of a network whose tensors are those that `weight` gives, and what is found in it.
#[track_caller]
fn check(block: BlockDesign, weight: impl Fn(&str, &[i64]) -> Tensor, expected: (Stage, &str, &str)) {
    for (recompute, accumulate) in [(false, 1), (true, 2)] {
        let mut sections = Sections::default();
        sections.diffusion.sigma = SigmaKind::FixedSmall;
        sections.train.checkpoint_activations = recompute;
        sections.train.batch_size = 6;
        sections.train.accumulate = accumulate;
        let config = config(block);
        let mut trainer = trainer(&config, sections, &weight);
        let before: Vec<Tensor> = trainer.network.masters().iter().map(Tensor::copy).collect();
        let stepped = trainer.step(&batch(&config, 6, 0), 4).unwrap();
        let Stepped::NonFinite(report) = stepped else { panic!("{stepped:?}") };
        assert_eq!((report.stage, report.place.as_str(), report.tensor.as_str()), expected, "{block}");
        assert_eq!(report.step, 5);
        let unchanged = |(now, before): (&Tensor, &Tensor)| now.allclose(before, 0.0, 0.0, true);
        assert!(trainer.network.masters().iter().zip(&before).all(unchanged), "{report}: nothing is learned of it");
    }
}

/// All tensors as they should be, but for one that is `value` throughout.
fn one_tensor(bad: &str, value: f64) -> impl Fn(&str, &[i64]) -> Tensor {
    move |name, shape| match visible_weight(name, shape) {
        tensor if name == bad => tensor.full_like(value),
        tensor => tensor,
    }
}

/// Finite, and nothing that it meets stays so.
const LARGE: f64 = 3e38;

#[test]
fn a_finite_weight_that_overflows_is_found_by_the_part_whose_output_does() {
    for (bad, place, tensor) in [
        ("t_embedder.mlp.0.weight", "t_embedder", "output of t_embedder.mlp.0"),
        ("x_embedder.proj.weight", "x_embedder", "output of x_embedder"),
        ("blocks.0.attn.qkv.weight", "blocks.0", "output of blocks.0.attn.qkv"),
        ("blocks.1.mlp.fc1.weight", "blocks.1", "output of blocks.1.mlp.fc1"),
        ("blocks.2.attn.proj.weight", "blocks.2", "output of blocks.2.attn.proj"),
        ("final_layer.linear.weight", "final_layer", "output of final_layer.linear"),
    ] {
        for block in BlockDesign::ALL {
            check(block, one_tensor(bad, LARGE), (Stage::Forward, place, tensor));
        }
    }
}

#[test]
fn what_overflows_between_linears_is_found_where_the_next_takes_it() {
    // Finite queries and keys whose products are not.
    let weight = |name: &str, shape: &[i64]| match visible_weight(name, shape) {
        tensor if name == "blocks.1.attn.qkv.weight" => tensor * 1e25,
        tensor => tensor,
    };
    for block in BlockDesign::ALL {
        check(block, weight, (Stage::Forward, "blocks.1", "input of blocks.1.attn.proj"));
    }
}

#[test]
fn a_weight_that_is_bad_itself_is_named() {
    for (bad, place) in [
        ("y_embedder.embedding_table.weight", "y_embedder"),
        ("blocks.2.attn.proj.bias", "blocks.2"),
        ("final_layer.linear.bias", "final_layer"),
    ] {
        for value in [f64::NAN, f64::NEG_INFINITY] {
            check(BlockDesign::AdaLnZero, one_tensor(bad, value), (Stage::Weights, place, bad));
        }
    }
}

#[test]
fn a_loss_that_overflows_by_itself_is_told_from_outputs_that_do() {
    let weight = one_tensor("final_layer.linear.bias", 1e30);
    check(BlockDesign::AdaLnZero, weight, (Stage::Loss, "loss", "loss"));
}

/// The second block's gates are closed, so that what they hold back, as large as fp32 can say, reaches nothing but their gradient.
fn overflowing_gate(name: &str, shape: &[i64]) -> Tensor {
    let tensor = visible_weight(name, shape);
    match name {
        "blocks.1.adaLN_modulation.1.weight" | "blocks.1.adaLN_modulation.1.bias" => tensor.zeros_like(),
        "blocks.1.mlp.fc2.bias" => tensor.full_like(LARGE),
        // Enough of a gradient from above.
        "final_layer.linear.weight" => tensor * 1e3,
        _ => tensor,
    }
}

#[test]
fn a_gradient_that_overflows_behind_a_finite_loss_is_named() {
    let named = "blocks.1.adaLN_modulation.1.weight";
    check(BlockDesign::AdaLnZero, overflowing_gate, (Stage::Gradient, "blocks.1", named));
}
