use serde::{Deserialize, Serialize};

use crate::Error;

/// Where a walk starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Start {
    /// Pure noise.
    #[default]
    Noise,
    /// A picture, noised to an intermediate level (Meng et al. 2022, SDEdit).
    Noised {
        /// Share of the steps that are walked: 1 leaves next to nothing of the picture, 0 would leave all.
        strength: f64,
    },
    /// The noise that the deterministic flow makes of a picture (DDIM inversion: Song et al. 2021, section 4.3).
    Inverted {
        /// Share of the steps that are walked, forth and back.
        strength: f64,
        /// The class that the picture is of; none stands for no label.
        class: Option<u32>,
    },
}

impl Start {
    pub(crate) fn is_noise(&self) -> bool {
        *self == Self::Noise
    }

    /// Whether a picture is needed.
    pub fn needs_picture(&self) -> bool {
        !self.is_noise()
    }

    /// How many of a schedule's `steps` are walked: at least one.
    ///
    /// # Errors
    /// [`Error::Strength`] outside 0 to 1.
    pub(crate) fn steps(&self, steps: usize) -> Result<usize, Error> {
        match *self {
            Self::Noise => Ok(steps),
            Self::Noised { strength } | Self::Inverted { strength, .. } => {
                if !(strength > 0.0 && strength <= 1.0) {
                    return Err(Error::Strength(strength));
                }
                Ok(((strength * steps as f64).round() as usize).clamp(1, steps))
            }
        }
    }
}

/// A run whose pictures lead from one thing to another; image k of n is at k/(n − 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Interpolation {
    /// From one class to another by a line between their embeddings, all from the noise of image 0.
    Classes {
        /// The first picture's class.
        from: u32,
        /// The last picture's class.
        to: u32,
        /// Pictures.
        frames: u32,
    },
    /// From the seed's noise to another seed's on a great circle (both of image 0), one class throughout.
    Seeds {
        /// The last picture's seed; the first's is the run's.
        to: u64,
        /// Pictures.
        frames: u32,
    },
}

impl Interpolation {
    /// Pictures.
    pub fn frames(&self) -> u32 {
        match *self {
            Self::Classes { frames, .. } | Self::Seeds { frames, .. } => frames,
        }
    }

    /// The same way in another number of pictures.
    #[must_use]
    pub fn with_frames(self, frames: u32) -> Self {
        match self {
            Self::Classes { from, to, .. } => Self::Classes { from, to, frames },
            Self::Seeds { to, .. } => Self::Seeds { to, frames },
        }
    }

    /// How far image `image` is on the way: 0 to 1.
    pub(crate) fn share(&self, image: u64) -> f64 {
        let last = self.frames().saturating_sub(1).max(1);
        (image as f64 / f64::from(last)).min(1.0)
    }
}
