/// How a network's Linears and what lies between them are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernels {
    /// By libtorch's operators, one after another: differentiable, and the same on every machine.
    #[default]
    Plain,
    /// The fastest of the weights' kind: the same mathematics, sums in another order. For weights that no longer change.
    Fused,
    /// As fused, but the large Linears in int8: weights with a step for each output, activations with a step and a zero point
    /// for each token, found when they come. For weights that no longer change.
    Int8,
}
