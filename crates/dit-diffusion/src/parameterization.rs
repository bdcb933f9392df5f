use dit_config::{Predict, Process, SigmaKind};
use tch::Tensor;

use crate::{Coefficients, Error, Result};

/// What the network's first C output channels estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MeanTarget {
    /// The noise ε of x_t = √ᾱ x₀ + √(1 − ᾱ) ε (Ho et al. 2020). DiT's own.
    Epsilon,
    /// The clean x₀.
    X0,
    /// The velocity v = √ᾱ ε − √(1 − ᾱ) x₀ (Salimans & Ho 2022).
    V,
}

/// Where the variance of p(x_{t−1} | x_t) comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variance {
    /// β̃, the posterior's: the lower bound, right for data of a single point.
    FixedSmall,
    /// β: the upper bound, right for white data (Ho et al. 2020, section 3.2).
    FixedLarge,
    /// C further output channels v place ln σ² between ln β̃ (v = −1) and ln β (v = 1), unclamped. Nichol & Dhariwal 2021,
    /// eq. 15. DiT's own.
    LearnedRange,
}

impl Variance {
    fn name(self) -> &'static str {
        match self {
            Self::FixedSmall => "fixed small",
            Self::FixedLarge => "fixed large",
            Self::LearnedRange => "learned range",
        }
    }

    /// Whether the network gives channels for it, which a loss can train.
    pub fn is_learned(self) -> bool {
        match self {
            Self::FixedSmall | Self::FixedLarge => false,
            Self::LearnedRange => true,
        }
    }
}

/// What to do with estimates of x₀ that leave [−1, 1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClipX0 {
    /// Nothing: latents have no such bounds. How DiT is sampled.
    No,
    /// Clamp to [−1, 1] and make ε agree with the clamped x₀: for models of pixels.
    ToUnit,
}

/// How the raw output of a network is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parameterization {
    /// What the first C channels estimate.
    pub mean: MeanTarget,
    /// Where the variance comes from.
    pub variance: Variance,
}

/// A network's output for one noise level, in every form a sampler or loss asks for. All (N, C, H, W).
#[derive(Debug)]
pub struct Prediction {
    /// The estimate of x₀, clipped if so asked.
    pub x0: Tensor,
    /// The estimate of ε; agrees with `x0`.
    pub eps: Tensor,
    /// Mean of p(x_{t−1} | x_t).
    pub mean: Tensor,
    /// Logarithm of its variance.
    pub log_variance: Tensor,
}

impl Prediction {
    /// Moved by a classifier's gradient ∇ log p(y | x_t), already scaled: the mean by variance·∇, the score by ∇, which is ε by
    /// −√(1 − ᾱ)·∇ and x₀ by (1 − ᾱ)/√ᾱ·∇. Dhariwal & Nichol 2021, algorithms 1 and 2. What was clipped before may be moved beyond.
    ///
    /// # Shapes
    /// `gradient` (N, C, H, W).
    ///
    /// # Panics
    /// In libtorch, where shapes do not broadcast; others that do are not refused.
    pub fn guided(self, gradient: &Tensor, at: &Coefficients) -> Self {
        let Self { x0, eps, mean, log_variance } = self;
        let score = &at.noise * gradient;
        Self {
            x0: x0 + &at.sqrt_recip_minus_one * &score,
            eps: eps - score,
            mean: mean + log_variance.exp() * gradient,
            log_variance,
        }
    }
}

impl Parameterization {
    /// Noise and learned range: every released DiT.
    pub const DIT: Self = Self { mean: MeanTarget::Epsilon, variance: Variance::LearnedRange };

    /// That of a described process.
    pub fn of(process: &Process) -> Self {
        Self {
            mean: match process.predict {
                Predict::Epsilon => MeanTarget::Epsilon,
                Predict::X0 => MeanTarget::X0,
                Predict::V => MeanTarget::V,
            },
            variance: match process.sigma {
                SigmaKind::Learned => Variance::LearnedRange,
                SigmaKind::FixedSmall => Variance::FixedSmall,
                SigmaKind::FixedLarge => Variance::FixedLarge,
            },
        }
    }

    /// The channels a network must give for latents of `channels`.
    pub fn output_channels(self, channels: i64) -> i64 {
        if self.variance.is_learned() { 2 * channels } else { channels }
    }

    /// Reads `output`, which the network gave for `x_t` at the noise level of `at`.
    ///
    /// # Shapes
    /// `x_t` (N, C, H, W); `output` (N, C, H, W), or (N, 2C, H, W) with learned variance: the first C are the mean's.
    ///
    /// # Errors
    /// When the shapes are not those.
    pub fn interpret(self, output: &Tensor, x_t: &Tensor, at: &Coefficients, clip: ClipX0) -> Result<Prediction> {
        let (target, range) = self.split(output, x_t)?;
        let (x0, eps) = self.solve(&target, x_t, at);
        let (x0, eps) = match clip {
            ClipX0::No => (x0, eps),
            ClipX0::ToUnit => {
                let x0 = x0.clamp(-1.0, 1.0);
                let eps = (&at.sqrt_recip * x_t - &x0) / &at.sqrt_recip_minus_one;
                (x0, eps)
            }
        };
        let mean = at.posterior_mean(&x0, x_t);
        let log_variance = match range {
            Range::FixedSmall => x_t.zeros_like() + &at.posterior_log_variance,
            Range::FixedLarge => x_t.zeros_like() + &at.fixed_large_log_variance,
            Range::Learned(v) => {
                let share = (v + 1.0) / 2.0;
                &share * &at.log_beta + (1.0 - &share) * &at.posterior_log_variance
            }
        };
        Ok(Prediction { x0, eps, mean, log_variance })
    }

    /// What the first C channels should have been, given x₀ and ε: the target of the mean squared error.
    ///
    /// # Shapes
    /// `x0` and `noise` (N, C, H, W) → (N, C, H, W).
    ///
    /// # Panics
    /// In libtorch, where shapes do not broadcast; others that do are not refused.
    pub fn target(self, x0: &Tensor, noise: &Tensor, at: &Coefficients) -> Tensor {
        match self.mean {
            MeanTarget::Epsilon => noise.shallow_clone(),
            MeanTarget::X0 => x0.shallow_clone(),
            MeanTarget::V => &at.signal * noise - &at.noise * x0,
        }
    }

    /// The output's channels: (the mean's, the variance's).
    pub(crate) fn split(self, output: &Tensor, x_t: &Tensor) -> Result<(Tensor, Range)> {
        let (batch, channels, height, width) = check_latents("the latents", x_t)?;
        let expected = self.output_channels(channels);
        if output.size() != [batch, expected, height, width] {
            return Err(Error::OutputChannels {
                found: output.size(),
                latents: x_t.size(),
                expected,
                variance: self.variance.name(),
            });
        }
        Ok(match self.variance {
            Variance::FixedSmall => (output.shallow_clone(), Range::FixedSmall),
            Variance::FixedLarge => (output.shallow_clone(), Range::FixedLarge),
            Variance::LearnedRange => {
                (output.narrow(1, 0, channels), Range::Learned(output.narrow(1, channels, channels)))
            }
        })
    }

    /// (x₀, ε) from the mean's channels, by x_t = √ᾱ x₀ + √(1 − ᾱ) ε.
    fn solve(self, target: &Tensor, x_t: &Tensor, at: &Coefficients) -> (Tensor, Tensor) {
        match self.mean {
            MeanTarget::Epsilon => (&at.sqrt_recip * x_t - &at.sqrt_recip_minus_one * target, target.shallow_clone()),
            MeanTarget::X0 => (target.shallow_clone(), (&at.sqrt_recip * x_t - target) / &at.sqrt_recip_minus_one),
            MeanTarget::V => (&at.signal * x_t - &at.noise * target, &at.noise * x_t + &at.signal * target),
        }
    }
}

/// [`Variance`] with the channels that the learned one reads.
pub(crate) enum Range {
    FixedSmall,
    FixedLarge,
    Learned(Tensor),
}

/// The four sizes of a batch of latents that has at least one element.
pub(crate) fn check_latents(what: &'static str, x: &Tensor) -> Result<(i64, i64, i64, i64)> {
    match x.size()[..] {
        [n, c, h, w] if n > 0 && c > 0 && h > 0 && w > 0 => Ok((n, c, h, w)),
        _ => Err(Error::Shape { what, expected: "(N, C, H, W), none of them zero".to_owned(), found: x.size() }),
    }
}

/// Whether `x` holds floating-point numbers: casting others would go on with something else than was meant.
pub(crate) fn check_floating(what: &'static str, x: &Tensor) -> Result<()> {
    if x.is_floating_point() {
        return Ok(());
    }
    Err(Error::Kind { what, expected: "floating point", found: x.kind() })
}
