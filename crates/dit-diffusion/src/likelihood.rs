//! The two terms of the variational bound, each averaged over the elements of a sample, in bits. Ho et al. 2020, section 3.

use std::f64::consts::{LN_2, PI};

use tch::Tensor;

/// KL(N(m₁, e^l₁) ‖ N(m₂, e^l₂)).
///
/// # Shapes
/// Each (N, C, H, W) → (N).
pub(crate) fn gaussian_kl(mean1: &Tensor, log_var1: &Tensor, mean2: &Tensor, log_var2: &Tensor) -> Tensor {
    let log_ratio = log_var1 - log_var2;
    let shift = (mean1 - mean2).square() * log_var2.neg().exp();
    let kl = (log_ratio.exp() - 1.0 - &log_ratio + shift) / 2.0;
    per_sample(&kl) / LN_2
}

/// −ln P(x₀) of a Gaussian whose mass is gathered into 256 levels over [−1, 1]; the outermost two reach to infinity.
/// Ho et al. 2020, eq. 13. Latents are not pixels, but this is the term DiT was trained with.
///
/// # Shapes
/// Each (N, C, H, W) → (N).
pub(crate) fn decoder_nll(x0: &Tensor, mean: &Tensor, log_variance: &Tensor) -> Tensor {
    const HALF_BIN: f64 = 1.0 / 255.0;
    const EDGE: f64 = 0.999;
    const FLOOR: f64 = 1e-12;
    let centered = x0 - mean;
    let inverse_std = (log_variance * -0.5).exp();
    let below_upper = normal_cdf(&(&inverse_std * (&centered + HALF_BIN)));
    let below_lower = normal_cdf(&(&inverse_std * (&centered - HALF_BIN)));
    let lowest = below_upper.clamp_min(FLOOR).log();
    let highest = (1.0_f64 - &below_lower).clamp_min(FLOOR).log();
    let between = (below_upper - below_lower).clamp_min(FLOOR).log();
    let log_probability = lowest.where_self(&x0.lt(-EDGE), &highest.where_self(&x0.gt(EDGE), &between));
    -per_sample(&log_probability) / LN_2
}

/// The tanh approximation of the standard normal's distribution function; the exact one would not match the original.
fn normal_cdf(x: &Tensor) -> Tensor {
    let odd = x + x.pow_tensor_scalar(3) * 0.044715;
    ((odd * (2.0 / PI).sqrt()).tanh() + 1.0) / 2.0
}

/// The mean over all but the first axis.
pub(crate) fn per_sample(x: &Tensor) -> Tensor {
    x.flatten(1, -1).mean_dim(1, false, None)
}
