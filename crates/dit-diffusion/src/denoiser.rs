use tch::Tensor;

use crate::{DenoiserError, Result, Timestep};

/// Anything that estimates noise: a model, a guided model, a cached model, a test's canned output.
///
/// A denoiser belongs to one batch: it knows its samples' labels. It is fallible, because a network may meet errors of its own
/// (a wrong batch size, a device that is full); samplers report them with the step they came from.
pub trait Denoiser {
    /// The raw output for `x` at timestep `t`, still to be read by a [`Parameterization`](crate::Parameterization).
    ///
    /// # Shapes
    /// `x` (N, C, H, W) → (N, C, H, W), or (N, 2C, H, W) with learned variance. Any floating kind, on `x`'s device.
    ///
    /// # Errors
    /// Whatever the implementation fails with.
    fn predict(&self, x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError>;

    /// The gradient by which samplers move what they read from the prediction, already scaled; none without
    /// [`ClassifierGuided`](crate::ClassifierGuided). A denoiser that wraps another hands on the inner one's.
    ///
    /// # Shapes
    /// `x` (N, C, H, W) → (N, C, H, W).
    ///
    /// # Errors
    /// Whatever the implementation fails with.
    fn log_prob_gradient(&self, _x: &Tensor, _t: Timestep) -> Result<Option<Tensor>, DenoiserError> {
        Ok(None)
    }
}

impl<D: Denoiser + ?Sized> Denoiser for &D {
    fn predict(&self, x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError> {
        (**self).predict(x, t)
    }

    fn log_prob_gradient(&self, x: &Tensor, t: Timestep) -> Result<Option<Tensor>, DenoiserError> {
        (**self).log_prob_gradient(x, t)
    }
}

impl<D: Denoiser + ?Sized> Denoiser for Box<D> {
    fn predict(&self, x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError> {
        (**self).predict(x, t)
    }

    fn log_prob_gradient(&self, x: &Tensor, t: Timestep) -> Result<Option<Tensor>, DenoiserError> {
        (**self).log_prob_gradient(x, t)
    }
}

/// A [`Denoiser`] made of a closure; see [`from_fn`].
#[derive(Clone, Copy, Debug)]
pub struct FromFn<F>(F);

/// A [`Denoiser`] that calls `f(x, t)`.
pub fn from_fn<F>(f: F) -> FromFn<F>
where
    F: Fn(&Tensor, Timestep) -> Result<Tensor, DenoiserError>,
{
    FromFn(f)
}

impl<F> Denoiser for FromFn<F>
where
    F: Fn(&Tensor, Timestep) -> Result<Tensor, DenoiserError>,
{
    fn predict(&self, x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError> {
        (self.0)(x, t)
    }
}
