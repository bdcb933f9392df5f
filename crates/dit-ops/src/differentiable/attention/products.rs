//! Attention's backward pass in bf16 by this crate's products, which AMX makes the fastest.

use std::mem::MaybeUninit;

use dit_torch::differentiable;
use tch::Tensor;

use crate::{
    attention::{
        Shape,
        heads::{self, Head},
        softmax::softmax,
    },
    element::{Bf16, Element, allocate, needs_gradient, values},
    factors::{Matrix, OwnedPanels},
    gemm::{self, Epilogue, Left, Output},
    packed::{as_words, on_word_boundary},
    parallel::{self, Destination},
    simd::multiversion,
};

/// Longest sequence: a head's weights and their gradients, T², are held by each thread at once.
const MOST_TOKENS: usize = 1536;

/// Whether a sequence is not too long, and of an even number of tokens.
pub(super) fn fits(shape: Shape) -> bool {
    shape.tokens <= MOST_TOKENS && shape.tokens.is_multiple_of(2)
}

/// (N, T, 3·H·head) → (N, T, H·head), of a sequence that [`fits`], and for which the forward pass has a kernel.
pub(super) fn self_attention(qkv: &Tensor, shape: Shape) -> Tensor {
    let kept = on_word_boundary::<Bf16>(qkv.detach().contiguous());
    let output = heads::self_attention(&kept, shape);
    if !needs_gradient(&[qkv]) {
        return output;
    }
    let backward = move |gradient: Tensor, _: &[bool]| {
        let gradient = on_word_boundary::<Bf16>(gradient.contiguous());
        let (result, start) = allocate::<Bf16>(&kept.size());
        let (qkv, gradient) = (values::<Bf16>(&kept), values::<Bf16>(&gradient));
        let destination = Destination::new(start);
        parallel::for_each(shape.samples * shape.heads, &|task| {
            // SAFETY: the tasks' heads are different, and the tensor outlives them.
            unsafe { Head::at(shape, task).pull_back(qkv, gradient, destination) };
        });
        vec![Some(result)]
    };
    differentiable("SelfAttention", &[qkv], output, backward)
}

impl Head {
    /// The gradients of this head's queries, keys and values, from that of its results: with weights P = softmax(S), S = scale·Q·Kᵀ,
    /// and results O = P·V,
    ///
    /// dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P ∘ (dP − its mean by P in each row), dQ = scale·dS·K, dK = scale·dSᵀ·Q.
    ///
    /// # Safety
    /// `result` has room for gradients of all of `qkv`, and nobody else touches those of this head.
    unsafe fn pull_back(self, qkv: &[Bf16], gradient: &[Bf16], result: Destination<MaybeUninit<Bf16>>) {
        let Shape { tokens, head, .. } = self.shape;
        let scale = self.scale();
        let [q, k, v] = [0, 1, 2].map(|part| self.words(qkv, 3, part));
        let of_output = self.words(gradient, 1, 0);
        let [q, k, v, of_output] =
            [&q, &k, &v, &of_output].map(|words| Matrix { values: elements(words), columns: head });
        let scores = product(q.as_left(), &k.turned_panels());
        let of_weights = product(of_output.as_left(), &v.turned_panels());

        let mut weights: Vec<Bf16> = Vec::with_capacity(tokens * tokens);
        let mut of_scores: Vec<Bf16> = Vec::with_capacity(tokens * tokens);
        let padded = tokens.next_multiple_of(16);
        let (mut row_scores, mut exponentials) = (vec![0.0; padded], vec![0; padded]);
        let rows = scores.chunks_exact(tokens).zip(of_weights.chunks_exact(tokens));
        let places = weights.spare_capacity_mut().chunks_exact_mut(tokens);
        let places = places.zip(of_scores.spare_capacity_mut().chunks_exact_mut(tokens));
        for ((scores, of_weights), (weights, of_scores)) in rows.zip(places) {
            let scores = if tokens == padded {
                scores
            } else {
                row_scores[..tokens].copy_from_slice(scores);
                &row_scores
            };
            let total = softmax(scores, tokens, scale, &mut exponentials);
            pull_back_softmax(&exponentials[..tokens], total, of_weights, scale, weights, of_scores);
        }
        // SAFETY: there is room for `tokens` rows of `tokens` elements, and every row is written.
        unsafe {
            weights.set_len(tokens * tokens);
            of_scores.set_len(tokens * tokens);
        }

        drop((scores, of_weights));

        // What is large is the right factor: the gradients come out turned, (head, T).
        let of_scores = Matrix { values: &of_scores, columns: tokens };
        let weights = Matrix { values: &weights, columns: tokens };
        let of_q = product(k.transposed(false).as_left(), &of_scores.turned_panels());
        let of_k = product(q.transposed(false).as_left(), &of_scores.panels());
        let of_v = product(of_output.transposed(false).as_left(), &weights.panels());
        for (part, gradient) in [of_q, of_k, of_v].iter().enumerate() {
            for token in 0..tokens {
                // SAFETY: the caller's promise.
                let place = unsafe { result.slice(self.start(3, part, token), head) };
                for (place, values) in place.iter_mut().zip(gradient.chunks_exact(tokens)) {
                    place.write(Bf16::from_f32(values[token]));
                }
            }
        }
    }

    /// This head's values of part `part` of `parts`, row by row, as words.
    fn words(self, all: &[Bf16], parts: usize, part: usize) -> Vec<u32> {
        let Shape { tokens, head, .. } = self.shape;
        let mut words = Vec::with_capacity(tokens * head);
        for token in 0..tokens {
            words.extend_from_slice(as_words(self.row(all, parts, part, token)));
        }
        words
    }
}

/// Words as the elements that they are of.
fn elements(words: &[u32]) -> &[Bf16] {
    // SAFETY: a word is two elements, and its alignment at least theirs.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 2) }
}

multiversion! {
    /// A row of weights from the exponentials, bits of fp32, and their sum; and scale times the gradient of its scores from that of the weights.
    fn pull_back_softmax(
        exponentials: &[u32],
        total: f32,
        of_weights: &[f32],
        scale: f32,
        weights: &mut [MaybeUninit<Bf16>],
        of_scores: &mut [MaybeUninit<Bf16>],
    ) {
        const LANES: usize = 16;
        let factor = 1.0 / total;
        let mut sums = [0.0_f32; LANES];
        for (exponentials, of_weights) in exponentials.chunks(LANES).zip(of_weights.chunks(LANES)) {
            for ((sum, &bits), of_weight) in sums.iter_mut().zip(exponentials).zip(of_weights) {
                *sum += f32::from_bits(bits) * of_weight;
            }
        }
        let mean = sums.iter().sum::<f32>() * factor;
        let all = exponentials.iter().zip(of_weights).zip(weights).zip(of_scores);
        for (((&bits, of_weight), weight), of_score) in all {
            let exact = f32::from_bits(bits) * factor;
            weight.write(Bf16::from_f32(exact));
            of_score.write(Bf16::from_f32(exact * (of_weight - mean) * scale));
        }
    }
}

/// The product of two factors in fp32, row by row.
fn product(left: Left<'_>, right: &OwnedPanels) -> Vec<f32> {
    let count = left.rows * right.columns;
    let mut results = Vec::with_capacity(count);
    let output = Output::F32(Destination::new(results.spare_capacity_mut().as_mut_ptr()));
    gemm::multiply(left, right.as_right(), Epilogue::plain(), output);
    // SAFETY: there is room for all, and every result is written.
    unsafe { results.set_len(count) };
    results
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::{attention::plain_attention, cpu::Cpu, merge_heads, split_heads};

    #[test]
    fn gradients_are_those_of_the_mathematics() {
        if !Cpu::detect().avx512 {
            eprintln!("SKIPPED: no AVX-512");
            return;
        }
        for [samples, tokens, heads, head] in [[1, 2, 1, 2], [2, 16, 3, 8], [1, 50, 2, 64], [2, 130, 2, 72]] {
            let shape = [samples, tokens, 3 * heads * head];
            let at = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, tch::Device::Cpu));
            let qkv = ((&at * 12.9898).sin() * 2.0).view(shape).to_kind(Kind::BFloat16);
            let weights = (at * 0.7311).cos().view(shape).narrow(2, 0, heads * head).to_kind(Kind::BFloat16);
            let exact = qkv.to_kind(Kind::Double).set_requires_grad(true);
            let [q, k, v] = split_heads(&exact, heads);
            (merge_heads(&plain_attention(&q, &k, &v)) * weights.to_kind(Kind::Double)).sum(Kind::Double).backward();
            let own = qkv.set_requires_grad(true);
            let shape = Shape::of(&own, heads).unwrap();
            assert!(fits(shape));
            (self_attention(&own, shape) * &weights).sum(Kind::Float).backward();
            let error = (own.grad().to_kind(Kind::Double) - exact.grad()).norm().double_value(&[]);
            let error = error / exact.grad().norm().double_value(&[]);
            assert!(error < 2e-2, "{samples} × {tokens}, {heads} heads of {head}: {error}");
        }
    }
}
