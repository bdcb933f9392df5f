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

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    /// (1, 1, 1, 1), f64.
    fn scalar(value: f64) -> Tensor {
        Tensor::full([1, 1, 1, 1], value, (Kind::Double, Device::Cpu))
    }

    #[test]
    fn kl_of_gaussians_is_the_textbook_s() {
        let bits = |m1, v1: f64, m2, v2: f64| {
            gaussian_kl(&scalar(m1), &scalar(v1.ln()), &scalar(m2), &scalar(v2.ln())).double_value(&[0])
        };
        for ((m1, v1, m2, v2), nats) in [
            ((0.3, 2.0, 0.3, 2.0), 0.0),
            ((0.0, 1.0, 1.0, 1.0), 0.5),
            ((0.0, 4.0, 0.0, 1.0), 0.5 * (3.0 - 4_f64.ln())),
            ((2.0, 1.0, 0.0, 4.0), 0.5 * (4_f64.ln() - 0.75 + 1.0)),
        ] {
            let found = bits(m1, v1, m2, v2);
            assert!((found - nats / LN_2).abs() < 1e-14, "KL(N({m1}, {v1}) ‖ N({m2}, {v2})) is {found} bits");
        }
    }

    #[test]
    fn the_probabilities_of_all_levels_sum_to_one() {
        let levels: Vec<f64> = (0..256).map(|level| f64::from(level) * 2.0 / 255.0 - 1.0).collect();
        let levels = Tensor::from_slice(&levels).view([256, 1, 1, 1]);
        for (mean, std) in [(0.0_f64, 0.1_f64), (0.9, 0.3), (-1.2, 0.02), (0.3, 1.0)] {
            let nll = decoder_nll(&levels, &scalar(mean), &scalar(2.0 * std.ln()));
            let total = (nll * -LN_2).exp().sum(Kind::Double).double_value(&[]);
            assert!((total - 1.0).abs() < 1e-9, "mean {mean}, std {std}: {total}");
        }
    }
}
