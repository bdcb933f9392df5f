use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ConfigError;

/// The four ways in which a block takes the conditioning (Peebles & Xie 2023, section 3.2 and figure 3).
///
/// Only adaLN-Zero was published as code; the other three are reconstructions that reproduce the paper's
/// parameter counts and multiply-accumulates (see `docs/numerics.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockDesign {
    /// Timestep and label enter as two extra tokens, removed after the last block.
    InContext,
    /// A multi-head cross-attention over the sequence \[t, y\] follows the self-attention.
    CrossAttention,
    /// Shift and scale of each LayerNorm are regressed from t + y.
    #[serde(rename = "adaln")]
    AdaLn,
    /// adaLN with gates on each branch, all zero at the start: every block begins as the identity.
    #[serde(rename = "adaln-zero")]
    AdaLnZero,
}

impl BlockDesign {
    /// All four, in the order of the paper's table 4.
    pub const ALL: [Self; 4] = [Self::InContext, Self::CrossAttention, Self::AdaLn, Self::AdaLnZero];

    /// The name used on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::InContext => "in-context",
            Self::CrossAttention => "cross-attention",
            Self::AdaLn => "adaln",
            Self::AdaLnZero => "adaln-zero",
        }
    }

    /// How many chunks of width D a block regresses from the conditioning: 0, 4 (two shifts and scales) or
    /// 6 (and two gates).
    pub fn modulation_chunks(self) -> usize {
        match self {
            Self::InContext | Self::CrossAttention => 0,
            Self::AdaLn => 4,
            Self::AdaLnZero => 6,
        }
    }

    /// Whether the LayerNorms carry a learned weight and bias: those that nothing modulates do.
    pub fn has_affine_norms(self) -> bool {
        self.modulation_chunks() == 0
    }
}

impl fmt::Display for BlockDesign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BlockDesign {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::ALL.into_iter().find(|design| design.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
            ConfigError::Unknown {
                what: "block design",
                given: text.to_owned(),
                expected: "in-context, cross-attention, adaln or adaln-zero",
            }
        })
    }
}
