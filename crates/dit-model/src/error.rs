use tch::{Kind, TchError};

/// What can go wrong at this crate's boundary.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The arguments of a forward pass do not fit the model; every misfit is listed.
    #[error("input does not fit {model}: {}", .problems.join("; "))]
    Input {
        /// The model, as its configuration prints.
        model: String,
        /// Each misfit: what is given and what is expected.
        problems: Vec<String>,
    },
    /// The checkpoint cannot be loaded.
    #[error(transparent)]
    Checkpoint(#[from] dit_weights::Error),
    /// Weights cannot have this element type.
    #[error("a model of kind {kind:?} cannot be computed; expected Float, BFloat16, Half (on a GPU) or Double")]
    Kind {
        /// The kind asked for.
        kind: Kind,
    },
    /// Packed weights know no gradients.
    #[error(
        "a gradient is wanted of weights that are packed, which give none\n  help: train with plain or differentiable kernels; else hold \
         tch::no_grad_guard(), or freeze the variable store before Dit::optimize"
    )]
    Gradient,
    /// libtorch refused an operation, for lack of memory for example.
    #[error("libtorch refused an operation")]
    Torch(#[from] TchError),
}
