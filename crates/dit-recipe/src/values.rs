//! The values that keys take, where a number is not enough.

use std::{fmt, num::NonZeroU64};

use dit_config::StandardModel;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One of the twelve standard models, written `"DiT-XL/2"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelName(pub StandardModel);

impl TryFrom<String> for ModelName {
    type Error = dit_config::ConfigError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.0.to_string()
    }
}

/// Makes a closed list of words.
macro_rules! words {
    ($($(#[$about:meta])* $Name:ident { $($(#[$variant_about:meta])* $Variant:ident,)* })*) => {
        $(
            $(#[$about])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
            #[serde(rename_all = "kebab-case")]
            pub enum $Name {
                $($(#[$variant_about])* $Variant,)*
            }
        )*
    };
}

words! {
    /// What is minimised.
    Loss {
        /// Squared error, plus the variational bound where the variance is learned.
        Mse,
        /// The same with the bound times steps / 1000 (Nichol & Dhariwal 2021).
        RescaledMse,
        /// The variational bound alone.
        Kl,
        /// The same times the number of steps.
        RescaledKl,
    }

    /// Arithmetic of the network. Weights, optimizer, averages and loss are fp32 in either case.
    Precision {
        /// binary32.
        Fp32,
        /// binary32, multiplied as TF32 (10 bits of mantissa, sums in binary32). CUDA only.
        Tf32,
        /// bfloat16.
        Bf16,
    }

    /// The learning rate after the warm-up.
    LrSchedule {
        /// It stays.
        Constant,
        /// It falls to 0 at the last step along half a cosine.
        Cosine,
    }

    /// Mirror images.
    Flip {
        /// Each record with probability ½.
        Random,
        /// Never.
        Never,
    }

    /// What becomes of a posterior.
    Posterior {
        /// A fresh draw each time.
        Sample,
        /// Its mean.
        Mean,
    }

    /// What a loss or gradient that is no number leads to.
    NonFinitePolicy {
        /// The run ends; the weights are those of the step before.
        Stop,
        /// The step is left out: no weight changes.
        Skip,
        /// The run goes back to the last checkpoint, and past the step.
        RollBack,
    }
}

/// How the squared error of a timestep is weighted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// All alike.
    Uniform,
    /// min(SNR, γ) on the scale of x₀ (Hang et al. 2023), with this γ.
    MinSnr(f64),
}

/// How training timesteps are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Timesteps {
    /// All alike.
    Uniform,
    /// In proportion to the root of the loss's second moment, weighted back (Nichol & Dhariwal 2021, section 3.3).
    LossSecondMoment,
    /// The logistic function of a normal variable, times the number of steps (Esser et al. 2024, section 3.1).
    LogitNormal(LogitNormal),
}

/// Parameters of [`Timesteps::LogitNormal`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogitNormal {
    /// Of the normal variable: 0 is the middle of the schedule, above it is noisier.
    pub mean: f64,
    /// Of the normal variable.
    pub std: f64,
}

/// Records that are not trained on, for the validation loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldOut {
    /// There are none.
    None,
    /// This fraction of the data, the same for every run of the same data.
    Fraction(f64),
    /// Another folder of latents.
    Folder(String),
}

/// Every so many steps, or `"never"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Every {
    /// Not at all.
    Never,
    /// After each step whose number this divides.
    Steps(NonZeroU64),
}

impl Every {
    /// Whether it is due after `step` steps.
    pub fn is_due(self, step: u64) -> bool {
        match self {
            Self::Never => false,
            Self::Steps(every) => step.is_multiple_of(every.get()),
        }
    }
}

/// A bound on the norm of all gradients together, or `"off"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ClipNorm {
    /// None.
    Off,
    /// Gradients whose norm is above this are scaled down to it.
    At(f64),
}

impl Serialize for Every {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Never => serializer.serialize_str("never"),
            Self::Steps(every) => every.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Every;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of steps from 1, or \"never\"")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Every, E> {
                let every = u64::try_from(value).ok().and_then(NonZeroU64::new);
                every.map(Every::Steps).ok_or_else(|| E::invalid_value(de::Unexpected::Signed(value), &self))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Every, E> {
                match value {
                    "never" => Ok(Every::Never),
                    _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for ClipNorm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::At(norm) => serializer.serialize_f64(*norm),
        }
    }
}

impl<'de> Deserialize<'de> for ClipNorm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ClipNorm;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a norm above 0, or \"off\"")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<ClipNorm, E> {
                Ok(ClipNorm::At(value as f64))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<ClipNorm, E> {
                Ok(ClipNorm::At(value))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<ClipNorm, E> {
                match value {
                    "off" => Ok(ClipNorm::Off),
                    _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
