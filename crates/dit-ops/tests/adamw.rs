//! AdamW against its definition in f64, both implementations, and across a stop in the middle.

use dit_ops::{AdamW, AdamWKernel, AdamWOptions, OpsError};
use tch::{Kind, Tensor};

const OPTIONS: AdamWOptions = AdamWOptions { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
const LR: f64 = 1e-2;

/// Parameters of several sizes, odd ones included.
fn parameters() -> Vec<Tensor> {
    [1, 3, 17, 64, 1001].iter().map(|&n| (Tensor::arange(n, (Kind::Float, tch::Device::Cpu)) - 3.0) * 0.1).collect()
}

/// Gradients of step `step`, different in sign and size.
fn gradients(step: u64) -> Vec<Tensor> {
    parameters().iter().map(|p| ((p * 3.7 + step as f64).sin() * 0.01).to_kind(Kind::Float)).collect()
}

fn values(tensors: &[Tensor]) -> Vec<f64> {
    let flat = Tensor::cat(tensors, 0).to_kind(Kind::Double);
    Vec::try_from(flat).unwrap()
}

/// Loshchilov & Hutter 2019, algorithm 2, number by number.
fn by_definition(steps: u64) -> Vec<f64> {
    let mut x = values(&parameters());
    let (mut m, mut v) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    for step in 1..=steps {
        let g = values(&gradients(step));
        for i in 0..x.len() {
            m[i] = OPTIONS.beta1 * m[i] + (1.0 - OPTIONS.beta1) * g[i];
            v[i] = OPTIONS.beta2 * v[i] + (1.0 - OPTIONS.beta2) * g[i] * g[i];
            let m_hat = m[i] / (1.0 - OPTIONS.beta1.powi(step as i32));
            let v_hat: f64 = v[i] / (1.0 - OPTIONS.beta2.powi(step as i32));
            x[i] -= LR * (m_hat / (v_hat.sqrt() + OPTIONS.eps) + OPTIONS.weight_decay * x[i]);
        }
    }
    x
}

fn run(optimizer: &mut AdamW, parameters: &mut [Tensor], steps: std::ops::RangeInclusive<u64>) {
    for step in steps {
        optimizer.step(parameters, &gradients(step), LR).unwrap();
    }
}

#[track_caller]
fn check(kernel: AdamWKernel, steps: u64) {
    let mut found = parameters();
    let mut optimizer = AdamW::new(&found, OPTIONS, kernel).unwrap();
    run(&mut optimizer, &mut found, 1..=steps);
    assert_eq!(optimizer.steps_taken(), steps);
    for (found, expected) in values(&found).iter().zip(by_definition(steps)) {
        assert!((found - expected).abs() <= 2e-6 * expected.abs().max(1.0), "{kernel:?}: {found}, expected {expected}");
    }
}

#[test]
fn both_kernels_follow_the_definition() {
    for kernel in [AdamWKernel::Fused, AdamWKernel::Plain] {
        for steps in [1, 2, 20] {
            check(kernel, steps);
        }
    }
}

/// One step of a matrix, whose parameter, or gradient, is a transposed view where asked.
fn step_of_matrix(kernel: AdamWKernel, parameter_transposed: bool, gradient_transposed: bool) -> Vec<f64> {
    let matrix = |scale: f64| Tensor::arange(12, (Kind::Float, tch::Device::Cpu)).view([3, 4]) * scale - 0.5;
    let view = |x: Tensor, transposed: bool| if transposed { x.tr().contiguous().tr() } else { x };
    let mut parameters = [view(matrix(0.1), parameter_transposed)];
    let gradients = [view(matrix(0.3).square(), gradient_transposed)];
    let mut optimizer = AdamW::new(&parameters, OPTIONS, kernel).unwrap();
    for _ in 0..2 {
        optimizer.step(&mut parameters, &gradients, LR).unwrap();
    }
    Vec::try_from(parameters[0].contiguous().view(-1).to_kind(Kind::Double)).unwrap()
}

#[test]
fn strides_do_not_matter() {
    for kernel in [AdamWKernel::Fused, AdamWKernel::Plain] {
        let expected = step_of_matrix(kernel, false, false);
        for (parameter, gradient) in [(false, true), (true, false), (true, true)] {
            let found = step_of_matrix(kernel, parameter, gradient);
            let close = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(close, "{kernel:?}, {parameter} {gradient}: {found:?}, expected {expected:?}");
        }
    }
}

#[test]
fn a_restored_optimizer_goes_on_bit_by_bit() {
    for kernel in [AdamWKernel::Fused, AdamWKernel::Plain] {
        let mut whole = parameters();
        let mut optimizer = AdamW::new(&whole, OPTIONS, kernel).unwrap();
        run(&mut optimizer, &mut whole, 1..=9);

        let mut parts = parameters();
        let mut first = AdamW::new(&parts, OPTIONS, kernel).unwrap();
        run(&mut first, &mut parts, 1..=4);
        let mut second = AdamW::new(&parts, OPTIONS, kernel).unwrap();
        let (means, squares) = first.moments();
        second.restore(first.steps_taken(), means, squares).unwrap();
        run(&mut second, &mut parts, 5..=9);
        assert_eq!(values(&parts), values(&whole), "{kernel:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut one = parameters();
    let mut optimizer = AdamW::new(&one, OPTIONS, AdamWKernel::Fused).unwrap();
    let error = optimizer.step(&mut one, &gradients(1)[1..], LR).unwrap_err();
    assert!(matches!(error, OpsError::Parameters { known: 5, parameters: 5, gradients: 4 }), "{error}");
    let (short, squares) = (&parameters()[1..], parameters());
    assert!(matches!(optimizer.restore(1, short, &squares), Err(OpsError::Parameters { .. })));
    let mut other = parameters();
    other.swap(0, 4);
    assert!(matches!(optimizer.restore(1, &other, &squares), Err(OpsError::Shape { .. })));
    assert_eq!(optimizer.steps_taken(), 0);
}
