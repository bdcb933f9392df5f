use std::mem::MaybeUninit;

use dit_torch::differentiable;
use tch::{Kind, Tensor};

use super::tokens::{Tokens, with_kinds};
use crate::{
    element::{Bf16, Element, allocate, is_readable, values},
    parallel::Destination,
    simd::multiversion,
};

/// x + gate·y, computed in fp32, of the kind of `x`, which may be fp32 where the others are bf16.
///
/// # Shapes
/// `x` and `y` (N, T, D); `gate` (N, 1, D) → (N, T, D).
pub(crate) fn add_gated(x: &Tensor, gate: &Tensor, y: &Tensor) -> Option<Tensor> {
    let tokens = Tokens::of(x, &[gate])?;
    if y.size() != x.size() || !is_readable(y) || y.kind() != gate.kind() {
        return None;
    }
    with_kinds!(x.kind(), y.kind(), of_kinds(tokens, x, gate, y))
}

fn of_kinds<X: Element, E: Element>(tokens: Tokens, x: &Tensor, gate: &Tensor, y: &Tensor) -> Tensor {
    let width = tokens.width;
    let (kept_gate, kept_y) = (gate.detach().contiguous(), y.detach().contiguous());
    let (output, start) = allocate::<X>(&x.size());
    {
        let x = x.detach().contiguous();
        let (x, gate, y) = (values::<X>(&x), values::<E>(&kept_gate), values::<E>(&kept_y));
        let destination = Destination::new(start);
        tokens.for_each(&|row, sample| {
            let own = row * width..(row + 1) * width;
            // SAFETY: each row is one task's own; the tensor outlives the tasks.
            let place = unsafe { destination.slice(own.start, width) };
            forward(&x[own.clone()], &gate[sample * width..][..width], &y[own], place);
        });
    }
    let backward = move |gradient: Tensor, _: &[bool]| {
        let contiguous = gradient.contiguous();
        let (of_y, start) = allocate::<E>(&gradient.size());
        let destination = Destination::new(start);
        let (values_of, gate, y) = (values::<X>(&contiguous), values::<E>(&kept_gate), values::<E>(&kept_y));
        let sums = tokens.sums(width, &|row, sample, sums| {
            let own = row * width..(row + 1) * width;
            // SAFETY: each row is one task's own; the tensor outlives the tasks.
            let place = unsafe { destination.slice(own.start, width) };
            pull_back(&values_of[own.clone()], &gate[sample * width..][..width], &y[own], sums, place);
        });
        vec![Some(gradient), Some(tokens.per_sample(&sums, E::KIND)), Some(of_y)]
    };
    differentiable("AddGated", &[x, gate, y], output, backward)
}

multiversion! {
    fn forward<X: Element, E: Element>(token: &[X], gate: &[E], branch: &[E], result: &mut [MaybeUninit<X>]) {
        for (((result, value), gate), branch) in result.iter_mut().zip(token).zip(gate).zip(branch) {
            result.write(X::from_f32(value.to_f32() + gate.to_f32() * branch.to_f32()));
        }
    }
}

multiversion! {
    /// The gradient of the branch; adds that of the gate to `sums`.
    fn pull_back<X: Element, E: Element>(
        gradient: &[X],
        gate: &[E],
        branch: &[E],
        sums: &mut [f32],
        result: &mut [MaybeUninit<E>],
    ) {
        let all = result.iter_mut().zip(gradient).zip(gate).zip(branch).zip(sums);
        for ((((result, gradient), gate), branch), sum) in all {
            let gradient = gradient.to_f32();
            *sum += gradient * branch.to_f32();
            result.write(E::from_f32(gradient * gate.to_f32()));
        }
    }
}
