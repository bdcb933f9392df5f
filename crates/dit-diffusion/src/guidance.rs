use tch::{Kind, Tensor};

use crate::{
    Denoiser, DenoiserError, Error, Result, Timestep,
    parameterization::{check_floating, check_latents},
};

mod autoguidance;
mod classifier;
mod scale;

pub use autoguidance::Autoguidance;
pub use classifier::{ClassifierGuided, FromLogProb, LogProbGradient, from_log_prob};
pub use scale::{GuidanceScale, ScaleShape};

/// The two predictions that classifier-free guidance compares, both for the same N samples.
#[derive(Debug)]
pub struct Branches {
    /// Given the labels: what guidance moves towards.
    pub conditional: Tensor,
    /// Given none, or a negative class, or of a weaker network: what guidance moves away from.
    pub unconditional: Tensor,
}

/// Something that predicts with its labels and without them.
pub trait ConditionalDenoiser {
    /// With the labels: a single pass over N samples.
    ///
    /// # Errors
    /// Whatever the implementation fails with.
    fn conditional(&self, x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError>;

    /// Both, as one batch of 2N where the implementation can.
    ///
    /// # Errors
    /// Whatever the implementation fails with.
    fn both(&self, x: &Tensor, t: Timestep) -> Result<Branches, DenoiserError>;

    /// The gradient by which samplers move what they read from the prediction; see [`Denoiser::log_prob_gradient`].
    ///
    /// # Errors
    /// Whatever the implementation fails with.
    fn log_prob_gradient(&self, _x: &Tensor, _t: Timestep) -> Result<Option<Tensor>, DenoiserError> {
        Ok(None)
    }
}

/// A [`ConditionalDenoiser`] made of a class-conditional network, the batch's labels and the class that stands for none.
#[derive(Debug)]
pub struct ClassConditional<F> {
    forward: F,
    labels: Tensor,
    labels_and_others: Tensor,
}

impl<F> ClassConditional<F>
where
    F: Fn(&Tensor, Timestep, &Tensor) -> Result<Tensor, DenoiserError>,
{
    /// `forward(x, t, labels)` is called with N samples and labels, or with 2N of each: the samples twice, their labels, then
    /// the null class.
    ///
    /// # Shapes
    /// `labels` (N), int64.
    ///
    /// # Errors
    /// When `labels` is not (N) int64.
    pub fn new(forward: F, labels: &Tensor, null_class: i64) -> Result<Self> {
        check_labels("the labels", labels)?;
        Self::against(forward, labels, &labels.full_like(null_class))
    }

    /// Guides away from a class of each sample's own, its negative class, in place of the null class.
    ///
    /// # Shapes
    /// `labels` and `negative` (N), int64.
    ///
    /// # Errors
    /// When they are not (N) int64.
    pub fn against(forward: F, labels: &Tensor, negative: &Tensor) -> Result<Self> {
        check_labels("the labels", labels)?;
        check_labels("the negative labels", negative)?;
        if labels.size() != negative.size() {
            let expected = format!("{:?}, one for each label", labels.size());
            return Err(Error::Shape { what: "the negative labels", expected, found: negative.size() });
        }
        let labels_and_others = Tensor::cat(&[labels, negative], 0);
        Ok(Self { forward, labels: labels.shallow_clone(), labels_and_others })
    }

    fn check(&self, x: &Tensor) -> Result<i64> {
        let (samples, ..) = check_latents("the latents", x)?;
        if self.labels.size() != [samples] {
            let expected = format!("[{samples}], one for each sample");
            return Err(Error::Shape { what: "the labels", expected, found: self.labels.size() });
        }
        Ok(samples)
    }
}

impl<F> ConditionalDenoiser for ClassConditional<F>
where
    F: Fn(&Tensor, Timestep, &Tensor) -> Result<Tensor, DenoiserError>,
{
    fn conditional(&self, x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError> {
        self.check(x)?;
        (self.forward)(x, t, &self.labels)
    }

    fn both(&self, x: &Tensor, t: Timestep) -> Result<Branches, DenoiserError> {
        let samples = self.check(x)?;
        let twice = Tensor::cat(&[x, x], 0); // (2N, C, H, W)
        let output = (self.forward)(&twice, t, &self.labels_and_others)?;
        if output.size().first() != Some(&(2 * samples)) {
            let expected = format!("{} samples", 2 * samples);
            return Err(Error::Shape { what: "the network's output", expected, found: output.size() }.into());
        }
        Ok(Branches { conditional: output.narrow(0, 0, samples), unconditional: output.narrow(0, samples, samples) })
    }
}

fn check_labels(what: &'static str, labels: &Tensor) -> Result<()> {
    if labels.kind() != Kind::Int64 {
        return Err(Error::Kind { what, expected: "int64", found: labels.kind() });
    }
    if labels.dim() != 1 {
        return Err(Error::Shape { what, expected: "(N)".to_owned(), found: labels.size() });
    }
    Ok(())
}

/// Which of the C mean channels guidance moves; the variance's channels it never moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuidedChannels {
    /// The first few. The released DiTs were evaluated with three of their four; a scale of 1 + x on three acts about as
    /// 1 + ¾x on all.
    First(u32),
    /// All.
    All,
}

impl GuidedChannels {
    /// As the released models were evaluated: three of latents' four channels; all of any other number.
    pub fn default_for(latent_channels: usize) -> Self {
        if latent_channels == 4 { Self::First(3) } else { Self::All }
    }
}

/// Classifier-free guidance, ε = ε(x, ∅) + s·(ε(x, y) − ε(x, ∅)) (Ho & Salimans 2022, with their w = s − 1), as a [`Denoiser`].
///
/// Channels that are not guided, the variance's among them, come from the conditional branch. The original carries 2N samples
/// through the whole walk and throws half away; here N are carried and each pair is evaluated as one batch, which is the same
/// mathematics.
#[derive(Clone, Copy, Debug)]
pub struct ClassifierFree<D> {
    inner: D,
    scale: GuidanceScale,
    channels: GuidedChannels,
    rescale: f64,
}

impl<D: ConditionalDenoiser> ClassifierFree<D> {
    /// Guidance by `scale`: 1 is none, and takes a single pass; 0 ignores the labels in the guided channels.
    ///
    /// # Errors
    /// When the scale is NaN or infinite. (How many channels there are to guide is known once there are latents.)
    pub fn new(inner: D, scale: f64, channels: GuidedChannels) -> Result<Self> {
        Ok(Self::with_scale(inner, GuidanceScale::constant(scale)?, channels))
    }

    /// Guidance by a scale that changes with the timestep: where it is 1, a single pass is taken.
    pub fn with_scale(inner: D, scale: GuidanceScale, channels: GuidedChannels) -> Self {
        Self { inner, scale, channels, rescale: 0.0 }
    }

    /// Brings the standard deviation of each sample's guided channels, which guidance raises, back towards the conditional
    /// branch's: ε' = φ·ε·std(ε(x, y))/std(ε) + (1 − φ)·ε with φ = `share`. Lin et al. 2023, eq. 15 and 16, on the network's output.
    ///
    /// # Errors
    /// When the share is not between 0 (off) and 1.
    pub fn rescaled(self, share: f64) -> Result<Self> {
        if (0.0..=1.0).contains(&share) {
            Ok(Self { rescale: share, ..self })
        } else {
            Err(Error::GuidanceRescale { share })
        }
    }

    fn guided_channels(&self, x: &Tensor) -> Result<i64> {
        let (_, channels, ..) = check_latents("the latents", x)?;
        match self.channels {
            GuidedChannels::All => Ok(channels),
            GuidedChannels::First(guided) => match i64::from(guided) {
                guided if (1..=channels).contains(&guided) => Ok(guided),
                guided => Err(Error::GuidedChannels { guided, channels }),
            },
        }
    }
}

impl<D: ConditionalDenoiser> Denoiser for ClassifierFree<D> {
    fn predict(&self, x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError> {
        let guided = self.guided_channels(x)?;
        let scale = self.scale.at(t);
        if scale == 1.0 {
            return self.inner.conditional(x, t);
        }
        let Branches { conditional, unconditional } = self.inner.both(x, t)?;
        check_floating("the conditional branch", &conditional)?;
        check_floating("the unconditional branch", &unconditional)?;
        // The difference is small and gets multiplied: take it in the latents' precision, not in a network's bf16.
        let (conditional, unconditional) = (conditional.to_kind(x.kind()), unconditional.to_kind(x.kind()));
        let (_, outputs, ..) = check_latents("the network's output", &conditional)?;
        if conditional.size() != unconditional.size() || outputs < guided {
            let expected = format!("{:?} as the conditional, {guided} channels or more", conditional.size());
            let found = unconditional.size();
            return Err(Error::Shape { what: "the unconditional branch", expected, found }.into());
        }
        let without = unconditional.narrow(1, 0, guided);
        let with = conditional.narrow(1, 0, guided);
        let moved = &without + scale * (&with - &without);
        let moved = if self.rescale == 0.0 { moved } else { rescale(moved, &with, self.rescale) };
        let rest = conditional.narrow(1, guided, outputs - guided);
        Ok(Tensor::cat(&[moved, rest], 1)) // (N, outputs, H, W)
    }

    fn log_prob_gradient(&self, x: &Tensor, t: Timestep) -> Result<Option<Tensor>, DenoiserError> {
        self.inner.log_prob_gradient(x, t)
    }
}

/// `share` of the way to the standard deviation of `with`, sample by sample.
fn rescale(moved: Tensor, with: &Tensor, share: f64) -> Tensor {
    let std = |x: &Tensor| x.std_dim([1, 2, 3].as_slice(), false, true); // (N, 1, 1, 1)
    let (spread, wanted) = (std(&moved), std(with));
    // Where there is no spread at all there is nothing to bring back.
    let factor = (wanted / &spread).where_self(&spread.gt(0.0), &spread.ones_like());
    moved * (factor * share + (1.0 - share))
}
