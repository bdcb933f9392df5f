use tch::Tensor;

use super::{StepContext, StepNoise, history::History};
use crate::{Result, Solver, StepIndex};

/// UniPC with B₂(h) = e^h − 1 ("bh2"), multistep in data prediction: UniP predicts, and UniC corrects the state it came from as
/// soon as the network has seen it, at no further call. Zhao et al. 2023, algorithms 1 and 2 in the form of their appendix
/// for data prediction.
///
/// A walk starts at order 1 and rises as predictions arrive; no step has a higher order than there are steps left, so the final
/// one is of order 1, which is exact there (x' = x₀). With the corrector, order p converges with order p + 1. A learned
/// variance is not used.
#[derive(Clone, Debug)]
pub struct UniPc {
    order: usize,
    history: History,
    last: Option<Last>,
}

/// The step before, which the corrector takes again.
#[derive(Debug)]
struct Last {
    index: StepIndex,
    noise: f64,
    order: usize,
    x: Tensor,
}

impl Clone for Last {
    fn clone(&self) -> Self {
        Self { index: self.index, noise: self.noise, order: self.order, x: self.x.shallow_clone() }
    }
}

impl UniPc {
    /// Order 2: the published choice for guided sampling.
    pub fn second_order() -> Self {
        Self::of_order(2)
    }

    /// Order 3: the published choice without guidance.
    pub fn third_order() -> Self {
        Self::of_order(3)
    }

    fn of_order(order: usize) -> Self {
        Self { order, history: History::new(order), last: None }
    }
}

impl Solver for UniPc {
    fn begin(&mut self) {
        self.history.clear();
        self.last = None;
    }

    fn is_stochastic(&self) -> bool {
        false
    }

    fn step(&mut self, at: &StepContext<'_>, x: &Tensor, _noise: StepNoise<'_>) -> Result<Tensor> {
        let step = at.step();
        let x0 = at.predict(x, step)?.x0;
        let past = self.history.before(step, self.order);
        let x = match (&self.last, past) {
            (Some(last), [base, older @ ..]) if last.index.0 == step.index().0 + 1 => {
                let h = step.lambda() - base.lambda;
                let mut nodes: Vec<Node> = older
                    .iter()
                    .take(last.order - 1)
                    .map(|node| Node::new((node.lambda - base.lambda) / h, &node.x0, &base.x0))
                    .collect();
                nodes.push(Node::new(1.0, &x0, &base.x0));
                let jump = Jump { signal: step.signal(), noise_ratio: step.noise() / last.noise, h };
                jump.take(&last.x, &base.x0, &nodes)
            }
            _ => x.shallow_clone(),
        };
        let h = step.lambda_prev() - step.lambda();
        let order = self.order.min(past.len() + 1).min(step.index().0 + 1);
        let nodes: Vec<Node> = past
            .iter()
            .take(order - 1)
            .map(|node| Node::new((node.lambda - step.lambda()) / h, &node.x0, &x0))
            .collect();
        let jump = Jump { signal: step.signal_prev(), noise_ratio: step.noise_prev() / step.noise(), h };
        let next = jump.take(&x, &x0, &nodes);
        self.history.push(step, x0);
        self.last = Some(Last { index: step.index(), noise: step.noise(), order, x });
        Ok(next) // (N, C, H, W)
    }
}

/// A prediction at λ + r·h, as its divided difference to the one at λ.
struct Node {
    r: f64,
    difference: Tensor,
}

impl Node {
    fn new(r: f64, x0: &Tensor, base: &Tensor) -> Self {
        Self { r, difference: (x0 - base) / r }
    }
}

/// From one noise level to another, h further in λ.
struct Jump {
    signal: f64,
    noise_ratio: f64,
    h: f64,
}

impl Jump {
    /// x' = (σ'/σ) x + α' (1 − e^(−h)) (x₀ + Σ ρᵢ Dᵢ).
    fn take(&self, x: &Tensor, base: &Tensor, nodes: &[Node]) -> Tensor {
        let weight = -(-self.h).exp_m1(); // 1 − e^(−h), which is B₂ up to its sign
        let ratios: Vec<f64> = nodes.iter().map(|node| node.r).collect();
        let toward = nodes
            .iter()
            .zip(weights(&ratios, self.h))
            .fold(base.shallow_clone(), |sum, (node, rho)| sum + rho * &node.difference);
        self.noise_ratio * x + (self.signal * weight) * toward
    }
}

/// ρ with Σⱼ rⱼ^(i−1) ρⱼ = bᵢ for i = 1…n, where bᵢ = i! φᵢ₊₁(−h)·(−h)/(e^(−h) − 1) and φ are the exponential integrators' functions.
/// A single weight is ½, its limit for short steps, as published.
fn weights(ratios: &[f64], h: f64) -> Vec<f64> {
    if ratios.len() <= 1 {
        return vec![0.5; ratios.len()];
    }
    let whole = (-h).exp_m1();
    let (mut phi, mut factorial) = (whole / -h - 1.0, 1.0);
    let mut b = Vec::with_capacity(ratios.len());
    for i in 1..=ratios.len() {
        b.push(phi * factorial / whole);
        factorial *= (i + 1) as f64;
        phi = phi / -h - 1.0 / factorial;
    }
    solve_vandermonde(ratios, b)
}

/// Solves Σⱼ rⱼ^i zⱼ = bᵢ for distinct rⱼ. Björck & Pereyra 1970; Golub & Van Loan, algorithm 4.6.2.
fn solve_vandermonde(r: &[f64], mut b: Vec<f64>) -> Vec<f64> {
    let n = r.len();
    for (k, node) in r.iter().enumerate() {
        for i in (k + 1..n).rev() {
            b[i] -= node * b[i - 1];
        }
    }
    for k in (0..n.saturating_sub(1)).rev() {
        for i in k + 1..n {
            b[i] /= r[i] - r[i - k - 1];
        }
        for i in k..n - 1 {
            b[i] -= b[i + 1];
        }
    }
    b
}

#[cfg(test)]
mod tests {
    use super::solve_vandermonde;

    #[test]
    fn vandermonde_systems_are_solved() {
        for r in [vec![1.0], vec![-0.8, 1.0], vec![-1.1, -2.3, 1.0], vec![0.5, -1.0, 2.0, 3.5]] {
            let b: Vec<f64> = (0..r.len()).map(|i| 0.3 + 0.7 * i as f64).collect();
            let z = solve_vandermonde(&r, b.clone());
            for (i, expected) in b.iter().enumerate() {
                let found: f64 = r.iter().zip(&z).map(|(r, z)| r.powi(i as i32) * z).sum();
                assert!((found - expected).abs() < 1e-12, "row {i} of {r:?}: {found}, expected {expected}");
            }
        }
    }
}
