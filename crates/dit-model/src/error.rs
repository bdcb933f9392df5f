use tch::TchError;

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
    /// libtorch refused an operation, for lack of memory for example.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}
