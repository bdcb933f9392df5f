use std::mem::MaybeUninit;

use tch::{Kind, Tensor};

use crate::{
    element::{Bf16, Element, allocate, is_readable, needs_gradient, values},
    parallel::{self, Destination},
    simd::multiversion,
};

/// Tokens that a task takes at once.
const ROWS_OF_A_TASK: usize = 16;

/// LayerNorm(x)·(1 + scale) + shift in one pass: adaptive layer normalisation, computed in fp32, rounded once.
///
/// libtorch's operators where a gradient is wanted, or on another device or kind.
///
/// # Shapes
/// `x` (N, T, D); `shift` and `scale` (N, 1, D), one for each sample → (N, T, D).
pub fn layer_norm_modulate(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Tensor {
    match (fused_kind(&[x, shift, scale]), per_sample(x, &[shift, scale])) {
        (Some(Kind::Float), true) => fused_norm::<f32>(x, shift, scale, eps),
        (Some(Kind::BFloat16), true) => fused_norm::<Bf16>(x, shift, scale, eps),
        _ => plain_layer_norm_modulate(x, shift, scale, eps),
    }
}

/// [`layer_norm_modulate`] by libtorch's operators, which round after each.
///
/// # Shapes
/// As [`layer_norm_modulate`].
pub fn plain_layer_norm_modulate(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Tensor {
    let width = x.size().last().copied().unwrap_or(1);
    let cudnn = true;
    let normal = x.layer_norm([width], None::<Tensor>, None::<Tensor>, eps, cudnn);
    shift.addcmul(&normal, &(scale + 1.0))
}

/// x + gate·y in one pass: a residual branch, computed in fp32, rounded once.
///
/// libtorch's operators where a gradient is wanted, or on another device or kind.
///
/// # Shapes
/// `x` and `y` (N, T, D); `gate` (N, 1, D), one for each sample → (N, T, D).
pub fn add_gated(x: &Tensor, gate: &Tensor, y: &Tensor) -> Tensor {
    match (fused_kind(&[x, gate, y]), per_sample(x, &[gate]) && y.size() == x.size()) {
        (Some(Kind::Float), true) => fused_gate::<f32>(x, gate, y),
        (Some(Kind::BFloat16), true) => fused_gate::<Bf16>(x, gate, y),
        _ => plain_add_gated(x, gate, y),
    }
}

/// [`add_gated`] by libtorch's operators, which round after each.
///
/// # Shapes
/// As [`add_gated`].
pub fn plain_add_gated(x: &Tensor, gate: &Tensor, y: &Tensor) -> Tensor {
    x + gate * y
}

/// The kind of all, where the kernels may compute.
fn fused_kind(tensors: &[&Tensor]) -> Option<Kind> {
    let kind = tensors.first()?.kind();
    let fits = tensors.iter().all(|tensor| is_readable(tensor) && tensor.kind() == kind);
    (fits && !needs_gradient(tensors)).then_some(kind)
}

/// Whether `x` is (N, T, D), not empty, and each of `rows` (N, 1, D).
pub(crate) fn per_sample(x: &Tensor, rows: &[&Tensor]) -> bool {
    let &[samples, tokens, width] = x.size().as_slice() else { return false };
    samples > 0 && tokens > 0 && width > 0 && rows.iter().all(|row| row.size() == [samples, 1, width])
}

fn fused_norm<E: Element>(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Tensor {
    let (x, shift, scale) = (x.contiguous(), shift.contiguous(), scale.contiguous());
    let (shift, scale) = (values::<E>(&shift), values::<E>(&scale));
    map_tokens::<E>(&x, &|sample, width, _, token, result| {
        let own = sample * width..(sample + 1) * width;
        norm_modulate_row(token, &shift[own.clone()], &scale[own], eps as f32, result);
    })
}

fn fused_gate<E: Element>(x: &Tensor, gate: &Tensor, y: &Tensor) -> Tensor {
    let (x, gate, y) = (x.contiguous(), gate.contiguous(), y.contiguous());
    let (gate, y) = (values::<E>(&gate), values::<E>(&y));
    map_tokens::<E>(&x, &|sample, width, row, token, result| {
        add_gated_row(token, &gate[sample * width..][..width], &y[row * width..][..width], result);
    })
}

/// What computes one token's results: its sample, D, its row among all, its values, and where the results go.
type OfToken<'a, E> = &'a (dyn Fn(usize, usize, usize, &[E], &mut [MaybeUninit<E>]) + Sync);

/// A new tensor of the shape of a contiguous `x` (N, T, D), token by token on all threads.
fn map_tokens<E: Element>(x: &Tensor, of_token: OfToken<'_, E>) -> Tensor {
    let shape = x.size();
    let (tokens, width) = (shape[1] as usize, shape[2] as usize);
    let (result, start) = allocate::<E>(&shape);
    let destination = Destination::new(start);
    let values = values::<E>(x);
    let rows = values.len() / width;
    parallel::for_each(rows.div_ceil(ROWS_OF_A_TASK), &|task| {
        let first = task * ROWS_OF_A_TASK;
        for row in first..rows.min(first + ROWS_OF_A_TASK) {
            // SAFETY: each row is one task's own; the tensor outlives the tasks.
            let place = unsafe { destination.slice(row * width, width) };
            of_token(row / tokens, width, row, &values[row * width..][..width], place);
        }
    });
    result
}

multiversion! {
    fn norm_modulate_row<E: Element>(token: &[E], shift: &[E], scale: &[E], eps: f32, result: &mut [MaybeUninit<E>]) {
        let width = token.len() as f32;
        let mean = sum(token, |value| value) / width;
        // The second pass reads the first-level cache, and loses no digits to cancellation.
        let variance = sum(token, |value| (value - mean) * (value - mean)) / width;
        let factor = 1.0 / (variance + eps).sqrt();
        for (((result, value), shift), scale) in result.iter_mut().zip(token).zip(shift).zip(scale) {
            let normal = (value.to_f32() - mean) * factor;
            result.write(E::from_f32(normal * (1.0 + scale.to_f32()) + shift.to_f32()));
        }
    }
}

multiversion! {
    fn add_gated_row<E: Element>(token: &[E], gate: &[E], branch: &[E], result: &mut [MaybeUninit<E>]) {
        for (((result, value), gate), branch) in result.iter_mut().zip(token).zip(gate).zip(branch) {
            result.write(E::from_f32(value.to_f32() + gate.to_f32() * branch.to_f32()));
        }
    }
}

/// Σ f(value), in 32 partial sums.
#[inline(always)]
pub(crate) fn sum<E: Element>(values: &[E], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; 32];
    let (blocks, rest) = values.as_chunks::<32>();
    for block in blocks {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum += f(value.to_f32());
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += f(value.to_f32());
    }
    sums.iter().sum()
}
