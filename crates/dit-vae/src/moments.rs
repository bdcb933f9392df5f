use tch::{Device, Kind, Tensor};

use crate::{Error, RawLatents};

/// Bounds of the log-variance: beyond them its exponential would be useless in fp32.
const LOGVAR_RANGE: (f64, f64) = (-30.0, 20.0);

/// The posterior q(z | image) of an encoder, a diagonal Gaussian (Kingma & Welling 2014), before any latent scale.
///
/// Invariants: mean and log-variance are fp32, contiguous, of one shape (N, C, h, w), and the log-variance lies within \[−30, 20\]
/// (non-finite values pass; who reads images checks them).
#[derive(Debug)]
pub struct Moments {
    mean: Tensor,
    logvar: Tensor,
}

impl Moments {
    /// A posterior from its parameters, both (N, C, h, w), of any floating-point kind.
    ///
    /// # Errors
    /// [`Error::Shape`] unless both have the same four extents.
    pub fn new(mean: &Tensor, logvar: &Tensor) -> Result<Self, Error> {
        if mean.dim() != 4 {
            return Err(Error::Shape { what: "mean", actual: mean.size(), expected: "(N, C, h, w)".to_owned() });
        }
        if logvar.size() != mean.size() {
            let expected = format!("that of the mean, {:?}", mean.size());
            return Err(Error::Shape { what: "logvar", actual: logvar.size(), expected });
        }
        let (low, high) = LOGVAR_RANGE;
        Ok(Self {
            mean: mean.to_kind(Kind::Float).contiguous(),
            logvar: logvar.to_kind(Kind::Float).clamp(low, high).contiguous(),
        })
    }

    /// The mean, (N, C, h, w), fp32.
    pub fn mean(&self) -> &Tensor {
        &self.mean
    }

    /// The natural logarithm of the variance, (N, C, h, w), fp32, within \[−30, 20\].
    pub fn logvar(&self) -> &Tensor {
        &self.logvar
    }

    /// Mean and log-variance, given away.
    pub fn into_parts(self) -> (Tensor, Tensor) {
        (self.mean, self.logvar)
    }

    /// The same on another device.
    pub fn to_device(&self, device: Device) -> Self {
        Self { mean: self.mean.to_device(device), logvar: self.logvar.to_device(device) }
    }

    /// A draw: mean + exp(logvar / 2) · noise, with `noise` (N, C, h, w) from a standard normal.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the noise has the mean's shape.
    pub fn sample(&self, noise: &Tensor) -> Result<RawLatents, Error> {
        if noise.size() != self.mean.size() {
            let expected = format!("that of the moments, {:?}", self.mean.size());
            return Err(Error::Shape { what: "noise", actual: noise.size(), expected });
        }
        let noise = noise.to_device(self.mean.device()).to_kind(Kind::Float);
        Ok(RawLatents::new(&self.mean + (&self.logvar * 0.5).exp() * noise))
    }

    /// The most probable latents: the mean.
    pub fn mode(&self) -> RawLatents {
        RawLatents::new(self.mean.shallow_clone())
    }
}
