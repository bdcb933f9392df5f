//! The three targets and three variances say the same of the same truth.

use dit_diffusion::*;
use tch::{Kind, Tensor};

use crate::fixtures::close;

/// x₀ and ε in f64, (3, 2, 4, 4).
fn truth() -> (Tensor, Tensor) {
    let source = SeededNoise::new(11);
    let shape = LatentShape { channels: 2, height: 4, width: 4 };
    let draw = |number| source.draw(&[0, 1, 2], Draw::Step(number), shape).unwrap().to_kind(Kind::Double);
    (draw(0), draw(1))
}

fn schedule() -> SampleSchedule {
    NoiseSchedule::linear(1000).unwrap().respaced(&"50".parse().unwrap()).unwrap()
}

#[test]
fn every_target_recovers_x0_and_eps() {
    let (x0, eps) = truth();
    for step in schedule().steps() {
        let at = Coefficients::from(step);
        let x_t = at.q_sample(&x0, &eps);
        for mean in [MeanTarget::Epsilon, MeanTarget::X0, MeanTarget::V] {
            let parameterization = Parameterization { mean, variance: Variance::FixedSmall };
            let output = parameterization.target(&x0, &eps, &at);
            let p = parameterization.interpret(&output, &x_t, &at, ClipX0::No).unwrap();
            let what = format!("{mean:?} at {}", step.index());
            close(&format!("{what}: x0"), &p.x0, &x0, 1e-11);
            close(&format!("{what}: eps"), &p.eps, &eps, 1e-11);
            close(&format!("{what}: mean"), &p.mean, &at.posterior_mean(&x0, &x_t), 1e-11);
        }
        // v² + x_t² = ε² + x₀²: (x_t, v) is (x₀, ε) turned by an angle.
        let v = Parameterization { mean: MeanTarget::V, variance: Variance::FixedSmall }.target(&x0, &eps, &at);
        close("norms", &(v.square() + x_t.square()), &(x0.square() + eps.square()), 1e-12);
    }
}

#[test]
fn clipping_keeps_x0_and_eps_in_agreement() {
    let (x0, eps) = truth();
    let wide = &x0 * 3.0;
    for step in schedule().steps() {
        let at = Coefficients::from(step);
        let x_t = at.q_sample(&wide, &eps);
        for mean in [MeanTarget::Epsilon, MeanTarget::X0, MeanTarget::V] {
            let parameterization = Parameterization { mean, variance: Variance::FixedSmall };
            let output = parameterization.target(&wide, &eps, &at);
            let p = parameterization.interpret(&output, &x_t, &at, ClipX0::ToUnit).unwrap();
            close("x0", &p.x0, &wide.clamp(-1.0, 1.0), 1e-11);
            close("x_t", &at.q_sample(&p.x0, &p.eps), &x_t, 1e-11);
        }
    }
}

#[test]
fn variances_lie_in_the_learned_range() {
    let (x0, eps) = truth();
    let log_variance = |variance, v: f64, step: &Step| {
        let at = Coefficients::from(step);
        let x_t = at.q_sample(&x0, &eps);
        let parameterization = Parameterization { mean: MeanTarget::Epsilon, variance };
        let output =
            if variance.is_learned() { Tensor::cat(&[&eps, &eps.full_like(v)], 1) } else { eps.shallow_clone() };
        let p = parameterization.interpret(&output, &x_t, &at, ClipX0::No).unwrap();
        assert_eq!(p.log_variance.size(), x_t.size());
        p.log_variance.double_value(&[0, 0, 0, 0])
    };
    for step in schedule().steps() {
        let [low, high] = [step.posterior_variance().ln().max(step.posterior_log_variance()), step.beta().ln()];
        for (variance, v, expected) in [
            (Variance::FixedSmall, 0.0, low),
            (Variance::FixedLarge, 0.0, if step.is_final() { low } else { high }),
            (Variance::LearnedRange, -1.0, low),
            (Variance::LearnedRange, 1.0, high),
            (Variance::LearnedRange, 0.0, (low + high) / 2.0),
            (Variance::LearnedRange, 3.0, 2.0 * high - low), // unclamped
        ] {
            let found = log_variance(variance, v, step);
            assert!(
                (found - expected).abs() < 1e-12,
                "{variance:?} at v = {v}, step {}: {found}, {expected}",
                step.index()
            );
        }
    }
}

#[test]
fn per_sample_coefficients_are_those_of_each_step() {
    let (x0, eps) = truth();
    let schedule = schedule();
    let indices = [StepIndex(49), StepIndex(0), StepIndex(7)];
    let tables = StepTables::new(&schedule, (Kind::Double, tch::Device::Cpu));
    let batched = tables.at(&indices).unwrap().q_sample(&x0, &eps);
    for (row, index) in indices.into_iter().enumerate() {
        let one = Coefficients::from(schedule.step(index).unwrap());
        let row = |x: &Tensor| x.narrow(0, row as i64, 1);
        close("row", &row(&batched), &one.q_sample(&row(&x0), &row(&eps)), 1e-15);
    }
}
