//! The layouts in which checkpoints exist, and the way from each to the original's names and shapes.

mod dit;
mod export;
mod mapped;
mod names;
mod position;
mod vae;

use std::fmt;

pub(crate) use dit::{canonical_dit, detect};
pub(crate) use export::{export_dit, inexpressible};
pub(crate) use mapped::MappedSource;
pub(crate) use names::{Names, split_index};
pub(crate) use position::position;
pub use position::position_table;
pub(crate) use vae::{canonical_vae, is_vae};

/// How a checkpoint names and cuts its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// The original's state dict: `blocks.0.attn.qkv.weight`.
    Original,
    /// diffusers' present one: `transformer_blocks.0.attn1.to_q.weight`; the only one of a VAE.
    Diffusers,
    /// A VAE as diffusers wrote it before 2023: `attentions.0.query`, perhaps as 1×1 convolutions.
    DiffusersOld,
}

impl Layout {
    /// The name on the command line and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Diffusers => "diffusers",
            Self::DiffusersOld => "diffusers-old",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
