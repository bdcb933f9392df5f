use std::{fmt, str::FromStr};

use crate::ConfigError;

/// Depth, width and heads of the paper's four sizes (Peebles & Xie 2023, table 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Size {
    S,
    B,
    L,
    XL,
}

impl Size {
    /// All four, small to large.
    pub const ALL: [Self; 4] = [Self::S, Self::B, Self::L, Self::XL];

    /// Number of blocks.
    pub fn depth(self) -> usize {
        match self {
            Self::S | Self::B => 12,
            Self::L => 24,
            Self::XL => 28,
        }
    }

    /// Token width D.
    pub fn hidden(self) -> usize {
        match self {
            Self::S => 384,
            Self::B => 768,
            Self::L => 1024,
            Self::XL => 1152,
        }
    }

    /// Attention heads.
    pub fn heads(self) -> usize {
        match self {
            Self::S => 6,
            Self::B => 12,
            Self::L | Self::XL => 16,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::S => "S",
            Self::B => "B",
            Self::L => "L",
            Self::XL => "XL",
        }
    }
}

/// One of the twelve standard models: a size and a patch side of 2, 4 or 8. Written `DiT-XL/2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StandardModel {
    /// Depth, width and heads.
    pub size: Size,
    /// Patch side.
    pub patch: usize,
}

impl StandardModel {
    /// All twelve, by size, then patch.
    pub const ALL: [Self; 12] = {
        let mut all = [Self { size: Size::S, patch: 2 }; 12];
        let mut i = 0;
        while i < 12 {
            all[i] = Self { size: Size::ALL[i / 3], patch: [2, 4, 8][i % 3] };
            i += 1;
        }
        all
    };
}

impl fmt::Display for StandardModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiT-{}/{}", self.size.name(), self.patch)
    }
}

impl FromStr for StandardModel {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::ALL.into_iter().find(|model| model.to_string().eq_ignore_ascii_case(text.trim())).ok_or_else(|| {
            ConfigError::Unknown {
                what: "model",
                given: text.to_owned(),
                expected: "DiT-S, DiT-B, DiT-L or DiT-XL, followed by /2, /4 or /8",
            }
        })
    }
}
