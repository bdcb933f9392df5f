use tch::Tensor;

use super::{
    StepContext, StepNoise,
    history::{History, Past},
};
use crate::{Result, Solver, Step};

/// Below so many steps the last ones are taken at a lower order, as published: high orders are unstable on long steps.
const FEW_STEPS: usize = 15;

/// DPM-Solver++, multistep in data prediction: one call of the network a step, remembering one or two before it. Lu et al.
/// 2022 (DPM-Solver++), algorithm 2.
///
/// The probability flow is solved exactly but for x₀(λ), λ = ln(√ᾱ/√(1 − ᾱ)), which is taken for a polynomial through the
/// last predictions: with α = √ᾱ, σ = √(1 − ᾱ), h = λ' − λ,
/// x' = (σ'/σ) x + α' ∫₀ʰ e^(s − h) x₀(λ + s) ds. Order 1 is [`Ddim`](crate::Ddim) with η = 0.
///
/// Walk it on [`Spacing::UniformLambda`](crate::Spacing::UniformLambda) or [`Spacing::Karras`](crate::Spacing::Karras), or on
/// [`Spacing::Trailing`](crate::Spacing::Trailing). An even spacing that keeps timestep 0 ends in one step over many units of λ, on
/// which high orders overshoot: there it is worse than order 1 (`examples/solvers.rs` prints the figures).
///
/// A walk starts at order 1 and rises as predictions arrive. The final step is of order 1, which is exact there (x' = x₀), and
/// in walks of fewer than 15 steps the one before it is of order 2 at most. A learned variance is not used.
#[derive(Clone, Debug)]
pub struct DpmPlusPlus {
    order: usize,
    quadratic: f64, // the weight of the parabola's square
    history: History,
}

impl DpmPlusPlus {
    /// "2M": a line through the last two predictions. The recommended solver for 10 to 30 steps.
    pub fn second_order() -> Self {
        Self { order: 2, quadratic: 0.0, history: History::new(1) }
    }

    /// "3M" as the authors' program, k-diffusion and diffusers have it: a parabola through the last three, whose quadratic term
    /// counts half of what the integral gives. It therefore converges with order 2, at a smaller error than 2M's; take it
    /// to compare with those programs.
    pub fn third_order() -> Self {
        Self { order: 3, quadratic: 0.5, history: History::new(2) }
    }

    /// 3M with the whole quadratic term, which converges with order 3.
    pub fn third_order_exact() -> Self {
        Self { order: 3, quadratic: 1.0, history: History::new(2) }
    }
}

impl Solver for DpmPlusPlus {
    fn begin(&mut self) {
        self.history.clear();
    }

    fn is_stochastic(&self) -> bool {
        false
    }

    fn step(&mut self, at: &StepContext<'_>, x: &Tensor, _noise: StepNoise<'_>) -> Result<Tensor> {
        let step = at.step();
        let x0 = at.predict(x, step)?.x0;
        let h = step.lambda_prev() - step.lambda();
        let decay = (-h).exp_m1(); // −∫ e^(s − h) ds
        let scale = step.signal_prev();
        let first = (step.noise_prev() / step.noise()) * x - (scale * decay) * &x0;
        let next = match self.history.before(step, order_left(at, self.order) - 1) {
            [] => first,
            [one] => first - (0.5 * scale * decay) * slope(step, &x0, one, h), // the midpoint rule, as published
            [one, two, ..] => {
                let (near, far) = (slope(step, &x0, one, h), slope_between(one, two, h));
                let (r0, r1) = ((step.lambda() - one.lambda) / h, (one.lambda - two.lambda) / h);
                // Newton's interpolation in units of h: x₀(λ + uh) = x₀ + linear·u + curve·u².
                let curve = (&near - far) / (r0 + r1);
                let linear = near + r0 * &curve;
                let of_linear = decay / h + 1.0; // ∫ e^(s − h) s/h ds
                let of_square = 1.0 - 2.0 * of_linear / h; // ∫ e^(s − h) (s/h)² ds
                first + (scale * of_linear) * linear + (scale * of_square * self.quadratic) * curve
            }
        };
        self.history.push(step, x0);
        Ok(next) // (N, C, H, W)
    }
}

/// The order a step may be taken at: 1 at the final one, and in short walks no more than the steps left.
pub(super) fn order_left(at: &StepContext<'_>, order: usize) -> usize {
    let left = at.step().index().0 + 1;
    if left == 1 || at.schedule().num_steps() < FEW_STEPS { order.min(left) } else { order }
}

/// h dx₀/dλ, from the step's own prediction and the one before it.
pub(super) fn slope(step: &Step, x0: &Tensor, before: &Past, h: f64) -> Tensor {
    (x0 - &before.x0) * (h / (step.lambda() - before.lambda))
}

fn slope_between(newer: &Past, older: &Past, h: f64) -> Tensor {
    (&newer.x0 - &older.x0) * (h / (newer.lambda - older.lambda))
}
