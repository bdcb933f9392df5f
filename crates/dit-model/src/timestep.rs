use dit_config::{DitConfig, Numerics};
use dit_ops::{Kernels, Linear};
use tch::{Device, Kind, Tensor};

use crate::init::{Distribution, Scope};

/// Number of frequencies; each gives a cosine and a sine.
const FREQUENCIES: i64 = 128;

/// Sinusoidal features of the timestep, then two Linears.
#[derive(Debug)]
pub struct TimestepEmbedder {
    /// (1, 128), fp32.
    frequencies: Tensor,
    first: Linear,
    second: Linear,
}

impl TimestepEmbedder {
    pub(crate) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let mlp = scope.sub("mlp");
        let d = config.hidden;
        let weights = Distribution::Normal { std: 0.02 };
        Self {
            frequencies: scope.constant("frequencies", &frequencies(config.numerics)),
            first: mlp.sub(0).sensitive_linear(2 * FREQUENCIES as usize, d, weights),
            second: mlp.sub(2).sensitive_linear(d, d, weights),
        }
    }

    pub(crate) fn optimize(&mut self, kernels: Kernels) {
        self.first.optimize(kernels);
        self.second.optimize(kernels);
    }

    /// [`Linear::loses_gradients`].
    pub(crate) fn loses_gradients(&self) -> bool {
        self.first.loses_gradients() || self.second.loses_gradients()
    }

    /// Of the weights and of the output.
    pub(crate) fn kind(&self) -> Kind {
        self.first.kind()
    }

    /// cos(t·ω), then sin(t·ω). Always fp32: bf16 cannot tell timestep 998 from 1000.
    ///
    /// # Shapes
    /// `t` (N,), integers or floats, timesteps of the training schedule, fractions allowed → (N, 256).
    pub fn features(&self, t: &Tensor) -> Tensor {
        let angles = t.to_kind(Kind::Float).unsqueeze(1) * self.frequencies.to_device(t.device()); // (N, 128)
        Tensor::cat(&[angles.cos(), angles.sin()], 1) // (N, 256)
    }

    /// The features cast to the weights' kind, embedded.
    ///
    /// # Shapes
    /// `t` (N,) → (N, D).
    pub fn forward(&self, t: &Tensor) -> Tensor {
        let features = self.features(t).to_kind(self.kind()); // (N, 256)
        self.second.forward(&self.first.forward(&features).silu()) // (N, D)
    }
}

/// ωᵢ = exp(−ln(10000)·i / divisor), i = 0..128, in fp32 operation by operation as the released weights were trained:
/// at timestep 999 the last bit of ω is visible in the features.
fn frequencies(numerics: Numerics) -> Tensor {
    let divisor = match numerics {
        Numerics::Original => FREQUENCIES,
        Numerics::Diffusers => FREQUENCIES - 1,
    };
    let i = Tensor::arange(FREQUENCIES, (Kind::Float, Device::Cpu));
    (i * -10_000_f64.ln() / divisor as f64).exp().unsqueeze(0)
}
