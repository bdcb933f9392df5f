use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Sigma;

/// The form of the noise schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseScheduleKind {
    /// Betas from 1e-4 to 0.02 (Ho et al. 2020).
    Linear,
    /// ᾱ follows a squared cosine (Nichol & Dhariwal 2021).
    Cosine,
}

/// What the network estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Predict {
    /// The noise.
    Epsilon,
    /// The clean latent.
    X0,
    /// The velocity √ᾱ ε − √(1 − ᾱ) x₀ (Salimans & Ho 2022).
    V,
}

/// Where the reverse process' variance comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SigmaKind {
    /// The network interpolates between the two bounds (Nichol & Dhariwal 2021, eq. 15).
    Learned,
    /// The posterior's.
    FixedSmall,
    /// Beta.
    FixedLarge,
}

/// The diffusion process that a network was trained on: nothing in its weights tells, and read as another it makes noise.
///
/// Serialized, it is what a checkpoint's metadata says. The numbers behind the words are `dit-diffusion`'s, which also says which
/// numbers of steps a schedule can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// The noise schedule.
    pub schedule: NoiseScheduleKind,
    /// Its steps, T.
    pub steps: usize,
    /// What the network estimates.
    pub predict: Predict,
    /// The variance.
    pub sigma: SigmaKind,
}

impl Process {
    /// The original's, which a checkpoint that says nothing is taken to be of: a linear schedule of 1000 steps, noise, and the
    /// variance that the network learned, else beta.
    pub fn original(sigma: Sigma) -> Self {
        let sigma = match sigma {
            Sigma::Learned => SigmaKind::Learned,
            Sigma::Fixed => SigmaKind::FixedLarge,
        };
        Self { schedule: NoiseScheduleKind::Linear, steps: 1000, predict: Predict::Epsilon, sigma }
    }

    /// Whether a reader who takes the original's process for granted is right.
    pub fn is_original(&self) -> bool {
        *self == Self::original(self.output())
    }

    /// What the network must give for it.
    pub fn output(&self) -> Sigma {
        match self.sigma {
            SigmaKind::Learned => Sigma::Learned,
            SigmaKind::FixedSmall | SigmaKind::FixedLarge => Sigma::Fixed,
        }
    }

    /// Whether latents are noised as by `other`, whatever the networks make of them.
    pub fn noises_as(&self, other: &Self) -> bool {
        (self.schedule, self.steps) == (other.schedule, other.steps)
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schedule = match self.schedule {
            NoiseScheduleKind::Linear => "linear",
            NoiseScheduleKind::Cosine => "cosine",
        };
        let predict = match self.predict {
            Predict::Epsilon => "epsilon",
            Predict::X0 => "x0",
            Predict::V => "v",
        };
        let sigma = match self.sigma {
            SigmaKind::Learned => "learned",
            SigmaKind::FixedSmall => "fixed-small",
            SigmaKind::FixedLarge => "fixed-large",
        };
        write!(f, "{schedule} schedule of {} steps, predicts {predict}, sigma {sigma}", self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_originals_process_goes_without_saying() {
        for sigma in [Sigma::Learned, Sigma::Fixed] {
            let original = Process::original(sigma);
            assert!(original.is_original() && original.output() == sigma);
            let others = [
                Process { schedule: NoiseScheduleKind::Cosine, ..original },
                Process { steps: 999, ..original },
                Process { predict: Predict::X0, ..original },
                Process { predict: Predict::V, ..original },
                Process { sigma: SigmaKind::FixedSmall, ..original },
            ];
            for other in others {
                assert!(!other.is_original(), "{other}");
                assert_ne!(other.to_string(), original.to_string());
                let json = serde_json::to_string(&other).unwrap();
                assert_eq!(serde_json::from_str::<Process>(&json).unwrap(), other);
            }
        }
    }
}
