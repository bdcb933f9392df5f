//! Operators over lists against the same of each tensor.

use dit_torch::lists::{AdamWStep, adamw, add, copy, lerp, norm, scale};
use tch::{Device, Kind, Tensor};

const STEP: AdamWStep = AdamWStep { lr: 0.1, beta1: 0.9, beta2: 0.99, weight_decay: 0.1, eps: 1e-8 };

/// Of several shapes, one without values, one without dimensions.
fn some(offset: f64) -> Vec<Tensor> {
    [&[3, 5][..], &[7], &[0], &[], &[2, 1, 33]]
        .iter()
        .map(|size| {
            let count: i64 = size.iter().product();
            (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.37 + offset).sin().view(*size)
        })
        .collect()
}

fn copies(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::copy).collect()
}

#[track_caller]
fn check(found: &[Tensor], expected: &[Tensor]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((found.kind(), found.size()), (expected.kind(), expected.size()));
        assert!(found.equal(expected), "{found:?} {expected:?}");
    }
}

#[test]
fn lists_are_moved_towards_others() {
    let (mut targets, ends) = (some(0.0), some(1.0));
    let mut expected = copies(&targets);
    expected.iter_mut().zip(&ends).for_each(|(target, end)| drop(target.lerp_(end, 0.001)));
    lerp(&mut targets, &ends, 0.001).unwrap();
    check(&targets, &expected);
}

#[test]
fn lists_are_added_to_others() {
    let (mut targets, others) = (some(0.0), some(1.0));
    let expected: Vec<Tensor> = targets.iter().zip(&others).map(|(target, other)| target + other).collect();
    add(&mut targets, &others).unwrap();
    check(&targets, &expected);
}

#[test]
fn a_list_is_scaled() {
    let mut targets = some(0.5);
    let expected: Vec<Tensor> = targets.iter().map(|target| target * 0.3).collect();
    scale(&mut targets, 0.3).unwrap();
    check(&targets, &expected);
}

#[test]
fn a_copy_keeps_its_kind() {
    for (from, to) in [(Kind::Float, Kind::BFloat16), (Kind::BFloat16, Kind::Float), (Kind::Float, Kind::Float)] {
        let sources: Vec<Tensor> = some(0.2).iter().map(|source| source.to_kind(from)).collect();
        let mut targets: Vec<Tensor> = some(0.0).iter().map(|target| target.to_kind(to)).collect();
        let expected: Vec<Tensor> = sources.iter().map(|source| source.to_kind(to)).collect();
        copy(&mut targets, &sources).unwrap();
        check(&targets, &expected);
    }
}

#[test]
fn weights_that_ask_for_gradients_are_changed_without_a_record() {
    let mut targets: Vec<Tensor> = some(0.0).into_iter().map(|target| target.set_requires_grad(true)).collect();
    copy(&mut targets, &some(1.0)).unwrap();
    assert!(targets.iter().all(|target| target.is_leaf() && target.requires_grad()));
    assert!(!norm(&targets).unwrap().requires_grad());
}

#[test]
fn the_norm_is_that_of_all_values() {
    let tensors = some(0.4);
    let flat: Vec<Tensor> = tensors.iter().map(|tensor| tensor.to_kind(Kind::Double).reshape([-1])).collect();
    let expected = Tensor::cat(&flat, 0).norm().double_value(&[]);
    let found = norm(&tensors).unwrap();
    assert_eq!((found.kind(), found.dim()), (Kind::Double, 0));
    assert!((found.double_value(&[]) / expected - 1.0).abs() < 1e-6);
    let nan = [Tensor::from_slice(&[1.0_f32, f32::NAN])];
    assert!(norm(&nan).unwrap().double_value(&[]).is_nan());
}

#[test]
fn what_does_not_go_together_is_an_error_and_changes_nothing() {
    let (mut targets, before) = (some(0.0), some(0.0));
    assert!(copy(&mut targets, &some(1.0)[1..]).unwrap_err().to_string().contains("5 and 4"));
    assert!(lerp(&mut targets, &some(1.0)[1..], 0.5).is_err());
    assert!(norm(&[]).is_err());
    let mut mixed = vec![Tensor::from(1.0_f32), Tensor::from(1.0_f64)];
    assert!(copy(&mut mixed, &some(0.0)[..2]).is_err() && lerp(&mut some(0.0)[..2], &mixed, 0.5).is_err());
    let number = Tensor::from(1.0_f32);
    let step = |gradients: &[Tensor]| {
        let mut parameters = [Tensor::zeros([2, 3], (Kind::Float, Device::Cpu))];
        let (mut means, mut squares) = (copies(&parameters), copies(&parameters));
        adamw(&mut parameters, gradients, [&mut means, &mut squares], &number, STEP)
    };
    let ones = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
    step(&[ones.copy()]).unwrap();
    for other in [ones.to_kind(Kind::Double), ones.reshape([3, 2]), ones.reshape([3, 2]).tr()] {
        assert!(step(&[other]).is_err());
    }
    assert!(step(&[]).is_err());
    check(&targets, &before);
}

#[test]
fn nothing_is_done_to_nothing() {
    lerp(&mut [], &[], 0.5).unwrap();
    copy(&mut [], &[]).unwrap();
    scale(&mut [], 0.5).unwrap();
    adamw(&mut [], &[], [&mut [], &mut []], &Tensor::from(1.0_f32), STEP).unwrap();
}
