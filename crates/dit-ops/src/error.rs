use tch::TchError;

/// What can go wrong in an operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpsError {
    /// libtorch refused an operator that is called by name.
    #[error("libtorch refused the operator {operator}; its reason is on the standard error output")]
    Operator {
        /// Its name.
        operator: String,
    },
    /// An optimizer was given other parameters than it was made for.
    #[error("the optimizer knows {known} parameters, and was given {parameters} tensors and {gradients} beside them")]
    Parameters {
        /// How many it was made for.
        known: usize,
        /// How many were given.
        parameters: usize,
        /// How many gradients, or second moments.
        gradients: usize,
    },
    /// A tensor has another shape than the operator needs.
    #[error("{what} has the shape {found:?}, expected {expected:?}")]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// The shape needed.
        expected: Vec<i64>,
        /// The shape given.
        found: Vec<i64>,
    },
    /// libtorch has no switch for TF32 where it was looked for.
    #[error(
        "this libtorch does not export its switch for TF32, so that fp32 on CUDA is not certain to be fp32; use libtorch 2.11.0"
    )]
    Tf32,
    /// This CPU lacks the instructions.
    #[error("this CPU has no kernels for {what}; use libtorch's own")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
    /// libtorch refused an operation.
    #[error("libtorch refused an operation")]
    Torch(#[from] TchError),
}
