use tch::Tensor;

use crate::{Denoiser, DenoiserError, Error, Result, Timestep, parameterization::check_floating};

/// A classifier of noisy latents, as classifier guidance needs it: the gradient of what it says.
pub trait LogProbGradient {
    /// ∇ₓ log p(y | x_t), where y is what each sample is guided to.
    ///
    /// Samplers run without gradients: an implementation that differentiates enables them for itself, as [`from_log_prob`]
    /// does.
    ///
    /// # Shapes
    /// `x` (N, C, H, W) → (N, C, H, W).
    ///
    /// # Errors
    /// Whatever the implementation fails with.
    fn gradient(&self, x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError>;
}

impl<G: LogProbGradient + ?Sized> LogProbGradient for &G {
    fn gradient(&self, x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError> {
        (**self).gradient(x, t)
    }
}

impl<G: LogProbGradient + ?Sized> LogProbGradient for Box<G> {
    fn gradient(&self, x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError> {
        (**self).gradient(x, t)
    }
}

/// A [`LogProbGradient`] made of a closure; see [`from_log_prob`].
#[derive(Clone, Copy, Debug)]
pub struct FromLogProb<F>(F);

/// A [`LogProbGradient`] that differentiates `log_prob(x, t)`, which gives log p(y | x_t) of each sample: (N).
///
/// ```
/// use dit_diffusion::{LogProbGradient, Timestep, from_log_prob};
/// use tch::{Device, Kind, Tensor};
///
/// let labels = Tensor::from_slice(&[1_i64, 0]);
/// let classifier = from_log_prob(move |x, _t| {
///     let logits = x.flatten(1, -1).narrow(1, 0, 2); // a real one is a network
///     let log_probs = logits.log_softmax(1, None);
///     Ok(log_probs.gather(1, &labels.unsqueeze(1), false).squeeze_dim(1)) // (N)
/// });
/// let x = Tensor::zeros([2, 4, 8, 8], (Kind::Float, Device::Cpu));
/// assert_eq!(classifier.gradient(&x, Timestep(0)).unwrap().size(), x.size());
/// ```
pub fn from_log_prob<F>(log_prob: F) -> FromLogProb<F>
where
    F: Fn(&Tensor, Timestep) -> Result<Tensor, DenoiserError>,
{
    FromLogProb(log_prob)
}

const UNRELATED: &str = "the log-probability does not depend on the latents, so it has no gradient; compute it from the tensor \
                         that is given, without detaching it";

impl<F> LogProbGradient for FromLogProb<F>
where
    F: Fn(&Tensor, Timestep) -> Result<Tensor, DenoiserError>,
{
    fn gradient(&self, x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError> {
        let x = x.detach().set_requires_grad(true);
        tch::with_grad(|| {
            let log_prob = (self.0)(&x, t)?;
            if log_prob.size().as_slice() != x.size().get(..1).unwrap_or_default() {
                let expected = "(N), one number for each sample".to_owned();
                return Err(Error::Shape { what: "the log-probability", expected, found: log_prob.size() }.into());
            }
            if !log_prob.requires_grad() {
                return Err(UNRELATED.into()); // torch would follow a null pointer
            }
            // Samples do not see each other, so the gradient of the sum is each one's own.
            let gradients = Tensor::f_run_backward(&[log_prob.sum(None)], &[&x], false, false)?;
            gradients.into_iter().find(Tensor::defined).ok_or_else(|| UNRELATED.into())
        })
    }
}

/// Classifier guidance (Dhariwal & Nichol 2021): a [`Denoiser`] that also hands samplers s·∇ₓ log p(y | x_t).
///
/// [`Ddpm`](crate::Ddpm) moves its mean by variance·s·∇ (their algorithm 1); all other solvers move ε by −√(1 − ᾱ)·s·∇ and x₀ along
/// with it (their algorithm 2). Both sample p(x)·p(y | x)^s where the classifier's noisy p(y | x_t)^s is exact, as it is for s = 1.
///
/// It wraps any denoiser, one guided by [`ClassifierFree`](crate::ClassifierFree) or by another classifier too: the gradients add up.
/// Inside [`Autoguidance`](crate::Autoguidance) that of the strong network counts, and is not multiplied by the guidance around it.
#[derive(Clone, Copy, Debug)]
pub struct ClassifierGuided<D, G> {
    inner: D,
    classifier: G,
    scale: f64,
}

impl<D: Denoiser, G: LogProbGradient> ClassifierGuided<D, G> {
    /// Guidance by `scale`: 0 is none, and does not ask the classifier.
    ///
    /// # Errors
    /// When the scale is NaN or infinite.
    pub fn new(inner: D, classifier: G, scale: f64) -> Result<Self> {
        if scale.is_finite() { Ok(Self { inner, classifier, scale }) } else { Err(Error::ClassifierScale { scale }) }
    }
}

impl<D: Denoiser, G: LogProbGradient> Denoiser for ClassifierGuided<D, G> {
    fn predict(&self, x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError> {
        self.inner.predict(x, t)
    }

    fn log_prob_gradient(&self, x: &Tensor, t: Timestep) -> Result<Option<Tensor>, DenoiserError> {
        let inner = self.inner.log_prob_gradient(x, t)?;
        if self.scale == 0.0 {
            return Ok(inner);
        }
        let own = self.classifier.gradient(x, t)?;
        check_floating("the classifier's gradient", &own)?;
        let own = self.scale * own.to_kind(x.kind());
        Ok(Some(match inner {
            Some(inner) if inner.size() == own.size() => inner + own,
            Some(inner) => {
                let expected = format!("{:?}, as another classifier's", inner.size());
                return Err(Error::Shape { what: "the classifier's gradient", expected, found: own.size() }.into());
            }
            None => own,
        }))
    }
}
