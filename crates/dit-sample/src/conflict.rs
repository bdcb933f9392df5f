use dit_config::{Process, Sigma};

use crate::SamplerKind;

/// Settings that do not go together, are out of range, or would do nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// Two scales, of classifier-free guidance and of autoguidance.
    #[error("autoguidance takes the place of classifier-free guidance")]
    AutoguidanceBesideCfg,
    /// Autoguidance, and a negative class.
    #[error("autoguidance guides away from a checkpoint, not from a class")]
    AutoguidanceBesideNegativeClass,
    /// Autoguidance that does nothing.
    #[error("autoguidance has no effect at a scale of 1")]
    IdleAutoguidance,
    /// An end of the interval of guidance that is NaN or infinite. A recipe is JSON, which has neither.
    #[error("an interval of guidance has two finite ends; noise levels go from 0.01 to 157")]
    EndlessInterval,
    /// Something that changes guidance, where there is none.
    #[error("{0} has no effect at a guidance scale of 1")]
    Unguided(GuidedBy),
    /// Three guided channels of latents that have fewer.
    #[error("guidance of three channels: the model has {latent_channels} latent channels")]
    TooFewChannels {
        /// How many it has.
        latent_channels: usize,
    },
    /// A process whose output the network does not have; a checkpoint's own goes with it.
    #[error("the process is {process}, but the network {}; the checkpoint's own goes with it", match sigma {
        Sigma::Learned => "learns its variance",
        Sigma::Fixed => "has no outputs for a variance",
    })]
    Process {
        /// The process.
        process: Process,
        /// What the network puts out.
        sigma: Sigma,
    },
    /// A classifier, and a process that noises in another way than the original's.
    #[error("classifiers know latents noised as the original noises them, the checkpoint {0}")]
    NoisedOtherwise(Process),
    /// A factor of the cache that is none.
    #[error("a cache factor of {0}: expected 0, which is off, or one such as 0.1")]
    CacheFactor(f64),
    /// Inversion, and a sampler that adds noise.
    #[error("inversion has no use before {0}, which adds noise")]
    InversionBeforeNoise(SamplerKind),
    /// Inversion without a class, of a model that knows no null class.
    #[error("this model has no null class to invert with")]
    InversionWithoutClass,
    /// An interpolation of one picture, or none.
    #[error("an interpolation of {0} pictures leads nowhere")]
    TooFewFrames(u32),
    /// Pictures after the last of an interpolation.
    #[error("pictures {first} to {last} of an interpolation of {frames}, which are counted from 0")]
    BeyondInterpolation {
        /// The first that is asked for.
        first: u64,
        /// The last.
        last: u64,
        /// Pictures of the interpolation, counted from 0.
        frames: u32,
    },
    /// An interpolation between seeds, and a sampler that adds noise.
    #[error("{0} adds noise at every step, so pictures do not change smoothly from seed to seed")]
    SeedsUnderNoise(SamplerKind),
    /// An interpolation that would start from a picture.
    #[error("an interpolation leads between pictures from noise, not from a picture")]
    InterpolationFromPicture,
}

/// What changes guidance beside its scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuidedBy {
    /// [`Guidance::interval`](crate::Guidance::interval).
    Interval,
    /// [`Guidance::schedule`](crate::Guidance::schedule).
    Schedule,
    /// [`Guidance::rescale`](crate::Guidance::rescale).
    Rescale,
    /// [`Guidance::negative_class`](crate::Guidance::negative_class).
    NegativeClass,
}

impl std::fmt::Display for GuidedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Interval => "an interval",
            Self::Schedule => "a schedule of the scale",
            Self::Rescale => "rescaling",
            Self::NegativeClass => "a negative class",
        })
    }
}
