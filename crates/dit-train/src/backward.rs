//! The gradient of a loss through the network, keeping all activations or only those between blocks.

use dit_model::Dit;
use tch::Tensor;

use crate::TrainError;

/// The network's three arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    /// (N, C, H, W).
    pub x: &'a Tensor,
    /// (N,).
    pub t: &'a Tensor,
    /// (N,).
    pub labels: &'a Tensor,
}

/// What is kept from the forward for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activations {
    /// All.
    Kept,
    /// The sequence between blocks; each block is computed once more when its turn comes (Chen et al. 2016).
    Recomputed,
}

/// Adds the gradient of `loss`, a scalar function of the network's output, to those of the parameters.
pub(crate) fn backward(
    dit: &Dit,
    input: Input<'_>,
    activations: Activations,
    loss: &mut dyn FnMut(&Tensor) -> Result<Tensor, TrainError>,
) -> Result<(), TrainError> {
    match activations {
        Activations::Kept => {
            let output = dit.forward(input.x, input.t, input.labels);
            Ok(loss(&output)?.f_backward()?)
        }
        Activations::Recomputed => recomputing(dit, input, loss),
    }
}

fn recomputing(
    dit: &Dit,
    input: Input<'_>,
    loss: &mut dyn FnMut(&Tensor) -> Result<Tensor, TrainError>,
) -> Result<(), TrainError> {
    let c = dit.condition(input.t, input.labels); // (N, D), or (N, 2, D)
    let embedded = dit.embed(input.x, &c); // (N, T, D)

    // Forward: of each block only what enters it.
    let mut entering = vec![embedded.detach()];
    {
        let _no_grad = tch::no_grad_guard();
        let c = c.detach();
        for block in dit.blocks() {
            let last = entering.last().map_or_else(|| embedded.detach(), |x| block.forward(x, &c));
            entering.push(last); // (N, T, D)
        }
    }

    // The conditioning's gradient gathers here from every block.
    let c_leaf = c.detach().set_requires_grad(true);
    let leaf = |x: Tensor| x.set_requires_grad(true);
    let Some(x) = entering.pop().map(leaf) else { return Ok(()) };
    let output = dit.unpatchify(&dit.final_tokens(&x, &c_leaf)); // (N, C_out, H, W)
    loss(&output)?.f_backward()?;
    let mut gradient = x.grad(); // (N, T, D)
    drop((x, output));

    for block in dit.blocks().iter().rev() {
        let Some(x) = entering.pop().map(leaf) else { break };
        dit_torch::backward(&[(&block.forward(&x, &c_leaf), &gradient)])?;
        gradient = x.grad();
    }

    let of_condition = c_leaf.grad();
    let mut outputs = vec![(&embedded, &gradient)];
    // An in-context model's only use of the conditioning may be within the sequence.
    if of_condition.defined() {
        outputs.push((&c, &of_condition));
    }
    Ok(dit_torch::backward(&outputs)?)
}
