use dit_diffusion::{GuidanceScale, GuidedChannels, NoiseSchedule, ScaleShape};
use serde::{Deserialize, Serialize};

use crate::{Conflict, Error, GuidedBy};

/// Which latent channels guidance moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CfgChannels {
    /// The first three, as the released models were evaluated; the fourth stays as predicted.
    #[serde(rename = "3")]
    Three,
    /// All.
    #[serde(rename = "all")]
    All,
}

impl CfgChannels {
    /// What the checkpoint's kind was evaluated with: three channels of four-channel latents, else all.
    pub fn default_for(latent_channels: usize) -> Self {
        match GuidedChannels::default_for(latent_channels) {
            GuidedChannels::First(_) => Self::Three,
            GuidedChannels::All => Self::All,
        }
    }

    pub(crate) fn guided(self) -> GuidedChannels {
        match self {
            Self::Three => GuidedChannels::First(3),
            Self::All => GuidedChannels::All,
        }
    }

    /// The scale on all four channels that acts about as `scale` does on three: 1 + ¾x for 1 + x.
    pub fn four_for_three(scale: f64) -> f64 {
        1.0 + 0.75 * (scale - 1.0)
    }

    /// The scale on three channels that acts about as `scale` does on all four.
    pub fn three_for_four(scale: f64) -> f64 {
        1.0 + (scale - 1.0) / 0.75
    }
}

/// How the guidance scale changes from noise to data; see [`ScaleShape`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CfgSchedule {
    /// The same everywhere.
    #[default]
    Constant,
    /// None at first, twice as much at the end.
    Linear,
    /// The same ends, with more of the walk near them.
    Cosine,
}

impl CfgSchedule {
    fn shape(self) -> ScaleShape {
        match self {
            Self::Constant => ScaleShape::Constant,
            Self::Linear => ScaleShape::Linear,
            Self::Cosine => ScaleShape::Cosine,
        }
    }
}

/// What guides beside the plain scale; nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guidance {
    /// Noise levels σ, low and high, within which there is guidance; outside, a single pass is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// How the scale changes on the way.
    #[serde(skip_serializing_if = "is_default")]
    pub schedule: CfgSchedule,
    /// Share of the way back to the conditional prediction's standard deviation, 0 to 1.
    #[serde(skip_serializing_if = "is_default")]
    pub rescale: f64,
    /// The class that is guided away from, in place of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_class: Option<u32>,
    /// Scale of guidance away from a weaker checkpoint, in place of the unlabelled prediction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoguidance_scale: Option<f64>,
    /// Scale of a classifier's gradient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier_scale: Option<f64>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Guidance {
    pub(crate) fn is_default(&self) -> bool {
        is_default(self)
    }

    /// The scale over a walk, of classifier-free guidance by `cfg_scale` or of autoguidance.
    ///
    /// # Errors
    /// [`Error::Conflict`] for options that exclude one another or do nothing; [`Error::Diffusion`] for values out of range.
    pub(crate) fn scale(&self, cfg_scale: f64, schedule: &NoiseSchedule) -> Result<GuidanceScale, Error> {
        let refused = |conflict| Err(Error::Conflict(conflict));
        if self.autoguidance_scale.is_some() && cfg_scale != 1.0 {
            return refused(Conflict::AutoguidanceBesideCfg);
        }
        if self.autoguidance_scale.is_some() && self.negative_class.is_some() {
            return refused(Conflict::AutoguidanceBesideNegativeClass);
        }
        if self.autoguidance_scale == Some(1.0) {
            return refused(Conflict::IdleAutoguidance);
        }
        if self.interval.is_some_and(|ends| ends.iter().any(|end| !end.is_finite())) {
            return refused(Conflict::EndlessInterval);
        }
        let scale = self.autoguidance_scale.unwrap_or(cfg_scale);
        if scale == 1.0 {
            let idle = [
                (self.interval.is_some(), GuidedBy::Interval),
                (self.schedule != CfgSchedule::Constant, GuidedBy::Schedule),
                (self.rescale != 0.0, GuidedBy::Rescale),
                (self.negative_class.is_some(), GuidedBy::NegativeClass),
            ];
            if let Some((_, by)) = idle.into_iter().find(|(given, _)| *given) {
                return refused(Conflict::Unguided(by));
            }
        }
        let mut over_walk = GuidanceScale::constant(scale)?.shaped(self.schedule.shape(), schedule);
        if let Some([low, high]) = self.interval {
            over_walk = over_walk.within(schedule, low, high)?;
        }
        Ok(over_walk)
    }
}
