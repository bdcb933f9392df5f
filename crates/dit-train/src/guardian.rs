//! Finding where NaN or infinity came from.

use std::fmt;

use dit_model::Dit;
use dit_ops::{Observed, observe_linears};
use tch::Tensor;

use crate::{TrainError, backward::Input};

/// Where a value that is not finite was met first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NonFiniteReport {
    /// The step that was being taken: steps before it, plus one.
    pub step: u64,
    /// What was looked at first and found bad.
    pub stage: Stage,
    /// The part of the network, or of the data: `blocks.3`, `x_embedder`, `latents`, `loss`.
    pub place: String,
    /// The tensor: a parameter's name in checkpoints, `output of blocks.3.mlp.fc1`, `input of blocks.3.attn.proj` (for
    /// what comes before it), `output of blocks.3`, `record 17`.
    pub tensor: String,
}

/// Which of a step's stages gave the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The latents themselves.
    Data,
    /// A weight, before the step.
    Weights,
    /// The network's forward pass.
    Forward,
    /// The loss, of outputs that are finite: they are too large for it.
    Loss,
    /// The backward pass of a finite loss.
    Gradient,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "the data",
            Self::Weights => "a weight",
            Self::Forward => "the forward pass",
            Self::Loss => "the loss",
            Self::Gradient => "a gradient",
        })
    }
}

impl fmt::Display for NonFiniteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, stage, place, tensor } = self;
        write!(f, "step {step}: {stage} is NaN or infinite")?;
        match stage {
            Stage::Data | Stage::Weights | Stage::Forward | Stage::Gradient => {
                write!(f, ", first in {place} ({tensor})")
            }
            Stage::Loss => {
                f.write_str(", though the network's outputs are not (the loss of values as large as theirs overflows)")
            }
        }
    }
}

/// What was found: stage, place and tensor.
pub(crate) type Found = (Stage, String, String);

/// The first record whose latents are not finite; `x0` is (N, C, H, W).
pub(crate) fn in_data(x0: &Tensor, records: &[u64]) -> Result<Option<Found>, TrainError> {
    let finite = Vec::<bool>::try_from(x0.f_isfinite()?.f_flatten(1, -1)?.f_all_dim(1, false)?)?;
    let record = finite.iter().zip(records).find(|(finite, _)| !**finite).map(|(_, record)| record);
    Ok(record.map(|record| (Stage::Data, "latents".to_owned(), format!("record {record}"))))
}

/// The first weight that is not finite, in the order in which the network uses them.
pub(crate) fn in_weights(names: &[String], weights: &[Tensor]) -> Result<Option<Found>, TrainError> {
    for (name, weight) in in_forward_order(names, weights) {
        if !is_finite(weight)? {
            return Ok(Some((Stage::Weights, module_of(name), name.to_owned())));
        }
    }
    Ok(None)
}

/// The first of the network's parts whose output is not finite, and the first of its Linears that took or gave such a tensor.
pub(crate) fn in_forward(dit: &Dit, input: Input<'_>) -> Result<Option<Found>, TrainError> {
    let _no_grad = tch::no_grad_guard();
    for found in [
        look("t_embedder", || dit.timestep_embedder().forward(input.t))?.1,
        look("y_embedder", || dit.label_embedder().forward(input.labels))?.1,
    ] {
        if found.is_some() {
            return Ok(found);
        }
    }
    let (c, found) = look("conditioning", || dit.condition(input.t, input.labels))?;
    if found.is_some() {
        return Ok(found);
    }
    let (mut x, found) = look("x_embedder", || dit.embed(input.x, &c))?;
    if found.is_some() {
        return Ok(found);
    }
    for (index, block) in dit.blocks().iter().enumerate() {
        let (y, found) = look(&format!("blocks.{index}"), || block.forward(&x, &c))?;
        if found.is_some() {
            return Ok(found);
        }
        x = y;
    }
    Ok(look("final_layer", || dit.final_tokens(&x, &c))?.1)
}

/// What `part`, which was given finite tensors, makes; and if that is not finite, where it came about.
fn look(part: &str, compute: impl FnOnce() -> Tensor) -> Result<(Tensor, Option<Found>), TrainError> {
    let (result, seen) = observe_linears(compute);
    if is_finite(&result)? {
        return Ok((result, None));
    }
    let mut tensor = format!("output of {part}");
    for Observed { name, input, output } in &seen {
        // Between two Linears there are norms, attention, modulation.
        if !is_finite(input)? {
            tensor = format!("input of {name}");
            break;
        }
        if !is_finite(output)? {
            tensor = format!("output of {name}");
            break;
        }
    }
    Ok((result, Some((Stage::Forward, part.to_owned(), tensor))))
}

/// The first gradient that is not finite, in the order in which they are computed: the last layer's first.
pub(crate) fn in_gradients(names: &[String], gradients: &[Tensor]) -> Result<Option<Found>, TrainError> {
    for (name, gradient) in in_forward_order(names, gradients).into_iter().rev() {
        if !is_finite(gradient)? {
            return Ok(Some((Stage::Gradient, module_of(name), name.to_owned())));
        }
    }
    Ok(None)
}

fn is_finite(tensor: &Tensor) -> Result<bool, TrainError> {
    Ok(bool::try_from(tensor.f_isfinite()?.f_all()?)?)
}

/// `blocks.3` of `blocks.3.attn.qkv.weight`, `x_embedder` of `x_embedder.proj.bias`.
fn module_of(name: &str) -> String {
    let parts = if name.starts_with("blocks.") { 2 } else { 1 };
    name.split('.').take(parts).collect::<Vec<_>>().join(".")
}

/// Parts of a block, and of the final layer, in the order in which they are used: by what a parameter's name goes on with.
const PARTS: [&str; 12] = [
    "adaLN_modulation",
    "norm1",
    "attn.qkv",
    "attn.proj",
    "norm_cross",
    "cross_attn.q.",
    "cross_attn.kv",
    "cross_attn.proj",
    "norm2",
    "mlp.fc1",
    "mlp.fc2",
    "norm_final",
];

/// Embedders of timestep, class and picture, blocks by number, final layer; within these, parts as they are used.
fn in_forward_order<'a>(names: &'a [String], tensors: &'a [Tensor]) -> Vec<(&'a str, &'a Tensor)> {
    let part = |rest: &str| PARTS.iter().position(|part| rest.starts_with(part)).unwrap_or(PARTS.len());
    let mut pairs: Vec<_> = names.iter().map(String::as_str).zip(tensors).collect();
    pairs.sort_by_key(|(name, _)| {
        let (module, rest) = name.split_once('.').unwrap_or((name, ""));
        match module {
            "t_embedder" => (0, 0, 0),
            "y_embedder" => (1, 0, 0),
            "blocks" => {
                let (number, rest) = rest.split_once('.').unwrap_or((rest, ""));
                (3, number.parse().unwrap_or(usize::MAX), part(rest))
            }
            "final_layer" => (4, 0, part(rest)),
            _ => (2, 0, 0),
        }
    });
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_say_what_happened() {
        let check = |stage, place: &str, tensor: &str, expected: &str| {
            let report = NonFiniteReport { step: 5, stage, place: place.to_owned(), tensor: tensor.to_owned() };
            assert_eq!(report.to_string(), expected);
        };
        check(
            Stage::Forward,
            "blocks.3",
            "output of blocks.3.mlp.fc1",
            "step 5: the forward pass is NaN or infinite, first in blocks.3 (output of blocks.3.mlp.fc1)",
        );
        let overflows = "the network's outputs are not (the loss of values as large as theirs overflows)";
        check(Stage::Loss, "loss", "loss", &format!("step 5: the loss is NaN or infinite, though {overflows}"));
    }

    #[test]
    fn blocks_are_looked_at_in_the_order_of_their_numbers() {
        let names = ["blocks.0.a", "blocks.10.a", "blocks.2.b", "final_layer.linear.bias", "x_embedder.proj.bias"];
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let bad = |bad: &[usize]| -> Vec<Tensor> {
            (0..names.len()).map(|i| Tensor::from(if bad.contains(&i) { f32::NAN } else { 1.0 })).collect()
        };
        let place = |found: Option<Found>| found.map(|(_, place, _)| place);
        for (set, first, last) in [
            (&[1, 2][..], Some("blocks.2"), Some("blocks.10")),
            (&[0, 3, 4], Some("x_embedder"), Some("final_layer")),
            (&[3], Some("final_layer"), Some("final_layer")),
            (&[], None, None),
        ] {
            assert_eq!(place(in_weights(&names, &bad(set)).unwrap()).as_deref(), first);
            assert_eq!(place(in_gradients(&names, &bad(set)).unwrap()).as_deref(), last);
        }
    }

    #[test]
    fn parts_are_looked_at_as_they_are_used() {
        let uses = [
            "t_embedder.mlp.0.weight",
            "t_embedder.mlp.2.weight",
            "y_embedder.embedding_table.weight",
            "x_embedder.proj.weight",
            "blocks.0.norm1.weight",
            "blocks.0.attn.qkv.weight",
            "blocks.0.attn.proj.weight",
            "blocks.0.norm_cross.weight",
            "blocks.0.cross_attn.q.weight",
            "blocks.0.cross_attn.kv.weight",
            "blocks.0.cross_attn.proj.weight",
            "blocks.0.norm2.weight",
            "blocks.0.mlp.fc1.weight",
            "blocks.0.mlp.fc2.weight",
            "blocks.1.adaLN_modulation.1.weight",
            "blocks.1.attn.qkv.weight",
            "final_layer.adaLN_modulation.1.weight",
            "final_layer.norm_final.weight",
            "final_layer.linear.weight",
        ];
        let mut names: Vec<String> = uses.iter().map(|name| (*name).to_owned()).collect();
        names.sort();
        let tensors: Vec<Tensor> = names.iter().map(|_| Tensor::from(1.0)).collect();
        let order: Vec<&str> = in_forward_order(&names, &tensors).into_iter().map(|(name, _)| name).collect();
        assert_eq!(order, uses);
    }
}
