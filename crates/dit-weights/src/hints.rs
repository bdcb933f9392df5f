//! What tensors cannot tell about a DiT, from whoever knows it.

use dit_config::{LatentSize, Numerics, StandardModel};

use crate::Error;

/// Values that shapes leave open. Each may come from a user's option, a training checkpoint's arguments or a `config.json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hints {
    /// The standard model, which fixes depth, width, heads and patch.
    pub model: Option<StandardModel>,
    /// Attention heads.
    pub heads: Option<usize>,
    /// Classes, the null class not counted.
    pub num_classes: Option<usize>,
    /// Latent height and width.
    pub latent: Option<LatentSize>,
    /// Whose arithmetic the forward pass follows; the original's unless said.
    pub numerics: Option<Numerics>,
}

impl Hints {
    /// These hints, which come from `first`, completed by `others`, which come from `second`.
    ///
    /// # Errors
    /// [`Error::Conflict`] where both say something, and not the same.
    pub(crate) fn or(self, first: &'static str, others: Self, second: &'static str) -> Result<Self, Error> {
        Ok(Self {
            model: agree("model", (first, self.model), (second, others.model))?,
            heads: agree("attention heads", (first, self.heads), (second, others.heads))?,
            num_classes: agree("classes", (first, self.num_classes), (second, others.num_classes))?,
            latent: agree("latent", (first, self.latent), (second, others.latent))?,
            numerics: self.numerics.or(others.numerics),
        })
    }
}

/// The value that both give, or the one that one gives.
pub(crate) fn agree<T: PartialEq + ToString>(
    what: &'static str,
    (first, a): (&'static str, Option<T>),
    (second, b): (&'static str, Option<T>),
) -> Result<Option<T>, Error> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => Err(Error::Conflict {
            what,
            first,
            first_value: a.to_string(),
            second,
            second_value: b.to_string(),
            help: "leave the option out where the checkpoint already says it",
        }),
        (a, b) => Ok(a.or(b)),
    }
}
