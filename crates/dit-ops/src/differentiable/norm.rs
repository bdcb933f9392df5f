use std::mem::MaybeUninit;

use dit_torch::differentiable;
use tch::{Kind, Tensor};

use super::tokens::{Tokens, with_kinds};
use crate::{
    element::{Bf16, Element, allocate, values},
    parallel::Destination,
    simd::multiversion,
};

/// LayerNorm(x)·(1 + scale) + shift, computed in fp32, of the kind of shift and scale; `x` may be fp32 where they are bf16.
///
/// # Shapes
/// `x` (N, T, D); `shift` and `scale` (N, 1, D) → (N, T, D).
pub(crate) fn layer_norm_modulate(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Option<Tensor> {
    let tokens = Tokens::of(x, &[shift, scale])?;
    if shift.kind() != scale.kind() {
        return None;
    }
    with_kinds!(x.kind(), shift.kind(), of_kinds(tokens, x, shift, scale, eps as f32))
}

/// A token's mean, and what its deviations are multiplied by.
#[derive(Clone, Copy, Default)]
struct Moments {
    mean: f32,
    factor: f32,
}

fn of_kinds<X: Element, E: Element>(tokens: Tokens, x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f32) -> Tensor {
    let width = tokens.width;
    let kept_x = x.detach().contiguous();
    let (kept_scale, added) = (scale.detach().contiguous(), shift.detach().contiguous());
    let (output, start) = allocate::<E>(&x.size());
    let mut moments = vec![Moments::default(); tokens.rows()];
    {
        let (x, shift, scale) = (values::<X>(&kept_x), values::<E>(&added), values::<E>(&kept_scale));
        let (destination, moments) = (Destination::new(start), Destination::new(moments.as_mut_ptr()));
        tokens.for_each(&|row, sample| {
            // SAFETY: each row is one task's own; tensor and moments outlive the tasks.
            let (place, moments) = unsafe { (destination.slice(row * width, width), &mut *moments.at(row)) };
            let token = &x[row * width..][..width];
            let of_sample = sample * width..(sample + 1) * width;
            forward(token, &shift[of_sample.clone()], &scale[of_sample], eps, moments, place);
        });
    }
    let backward = move |gradient: Tensor, _: &[bool]| {
        let gradient = gradient.contiguous();
        let (of_x, start) = allocate::<X>(&gradient.size());
        let destination = Destination::new(start);
        let (gradient, x, scale) = (values::<E>(&gradient), values::<X>(&kept_x), values::<E>(&kept_scale));
        // Of the shift, then of the scale.
        let sums = tokens.sums(2 * width, &|row, sample, sums| {
            // SAFETY: each row is one task's own; the tensor outlives the tasks.
            let place = unsafe { destination.slice(row * width, width) };
            let own = row * width..(row + 1) * width;
            let scale = &scale[sample * width..][..width];
            pull_back(&gradient[own.clone()], &x[own], scale, moments[row], sums, place);
        });
        let half = |first: usize| -> Vec<f32> {
            sums.chunks_exact(2 * width).flat_map(|sums| &sums[first..][..width]).copied().collect()
        };
        let of_row = |first: usize| Some(tokens.per_sample(&half(first), E::KIND));
        vec![Some(of_x), of_row(0), of_row(width)]
    };
    differentiable("LayerNormModulate", &[x, shift, scale], output, backward)
}

multiversion! {
    fn forward<X: Element, E: Element>(
        token: &[X],
        shift: &[E],
        scale: &[E],
        eps: f32,
        moments: &mut Moments,
        result: &mut [MaybeUninit<E>],
    ) {
        let width = token.len() as f32;
        let mean = sum(token, |value| value) / width;
        // The second pass reads the first-level cache, and loses no digits to cancellation.
        let variance = sum(token, |value| (value - mean) * (value - mean)) / width;
        let factor = 1.0 / (variance + eps).sqrt();
        *moments = Moments { mean, factor };
        for (((result, value), shift), scale) in result.iter_mut().zip(token).zip(shift).zip(scale) {
            let normal = (value.to_f32() - mean) * factor;
            result.write(E::from_f32(normal * (1.0 + scale.to_f32()) + shift.to_f32()));
        }
    }
}

multiversion! {
    /// With n = (x − mean)·factor and g = gradient·(1 + scale): factor·(g − mean of g − n·mean of g·n). Adds the gradient to the first half
    /// of `sums`, gradient·n to the second.
    fn pull_back<X: Element, E: Element>(
        gradient: &[E],
        token: &[X],
        scale: &[E],
        moments: Moments,
        sums: &mut [f32],
        result: &mut [MaybeUninit<X>],
    ) {
        const LANES: usize = 32;
        let Moments { mean, factor } = moments;
        let width = token.len();
        let (of_shift, of_scale) = sums.split_at_mut(width);
        let (mut of_g, mut of_gn) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let blocks = gradient.chunks(LANES).zip(token.chunks(LANES)).zip(scale.chunks(LANES));
        let blocks = blocks.zip(of_shift.chunks_mut(LANES)).zip(of_scale.chunks_mut(LANES));
        for ((((gradient, token), scale), of_shift), of_scale) in blocks {
            let lanes = gradient.iter().zip(token).zip(scale).zip(of_shift).zip(of_scale).zip(&mut of_g).zip(&mut of_gn);
            for ((((((gradient, value), scale), of_shift), of_scale), of_g), of_gn) in lanes {
                let gradient = gradient.to_f32();
                let normal = (value.to_f32() - mean) * factor;
                let g = gradient * (1.0 + scale.to_f32());
                *of_shift += gradient;
                *of_scale += gradient * normal;
                *of_g += g;
                *of_gn += g * normal;
            }
        }
        let mean_g = of_g.iter().sum::<f32>() / width as f32;
        let mean_gn = of_gn.iter().sum::<f32>() / width as f32;
        for (((result, gradient), value), scale) in result.iter_mut().zip(gradient).zip(token).zip(scale) {
            let normal = (value.to_f32() - mean) * factor;
            let g = gradient.to_f32() * (1.0 + scale.to_f32());
            result.write(X::from_f32(factor * (g - mean_g - normal * mean_gn)));
        }
    }
}

/// Σ f(value), in 32 partial sums.
#[inline(always)]
fn sum<E: Element>(values: &[E], f: impl Fn(f32) -> f32) -> f32 {
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
