use std::mem::MaybeUninit;

use dit_autograd::differentiable;
use tch::{Kind, Tensor};

use crate::{
    attention::{Shape, fused, merge_heads, softmax, split_heads},
    cpu::Cpu,
    element::{Bf16, Element, allocate, needs_gradient, values},
    factors::{Factor, Matrix, OwnedPanels},
    gemm::{self, Activation, Epilogue, Left, Output, Words},
    packed::{bytes_of, slice_as_words},
    parallel::{self, Destination},
    simd::multiversion,
    stored::{StoredWeight, pack},
};

/// Longest sequence for a kernel of ours: a head's weights and their gradients, T², are held by each thread at once.
const MOST_TOKENS: usize = 1024;

/// softmax(q·kᵀ / √(D/H))·v for each of H heads. `None` where there is no kernel for it: other kinds, another device, another CPU; in bf16
/// sequences that are longer, or of an odd number of tokens.
///
/// In fp32 without AVX-512, and of longer sequences, it is libtorch's kernel (16 samples of 256 tokens, 6 heads of 64, two Zen 3 cores:
/// 75 ms forward and backward, ours 95), but for the gradient of `qkv`, which is made in one piece.
///
/// # Shapes
/// `qkv` (N, T, 3D) → (N, T, D).
pub(crate) fn self_attention(qkv: &Tensor, heads: i64) -> Option<Tensor> {
    let shape = Shape::of(qkv, heads)?;
    let long = shape.tokens > MOST_TOKENS;
    match qkv.kind() {
        Kind::Float if long || !Words::F32.in_avx512(Cpu::detect()) => Some(by_libtorch(qkv, heads)),
        Kind::Float => of_kind::<f32>(qkv, shape),
        _ if long || !shape.tokens.is_multiple_of(2) => None,
        _ => of_kind::<Bf16>(qkv, shape),
    }
}

/// By libtorch's kernel for CPUs. Its own graph would make of each of the three gradients one of `qkv`, zeros but for a third, and add them.
fn by_libtorch(qkv: &Tensor, heads: i64) -> Tensor {
    let kept = qkv.detach();
    let [q, k, v] = split_heads(&kept, heads); // (N, H, T, D/H) each
    let (dropout, causal, mask, scale) = (0.0, false, None::<&Tensor>, None);
    let (output, logsumexp) =
        Tensor::internal_scaled_dot_product_flash_attention_for_cpu(&q, &k, &v, dropout, causal, mask, scale);
    let result = merge_heads(&output);
    let backward = move |gradient: Tensor, _: &[bool]| {
        let gradient = gradient.unflatten(2, [heads, -1]).transpose(1, 2); // (N, H, T, D/H)
        let (of_q, of_k, of_v) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward(
            &gradient, &q, &k, &v, &output, &logsumexp, dropout, causal, None::<&Tensor>, scale,
        );
        let of_qkv = kept.empty_like();
        for (mut place, part) in split_heads::<3>(&of_qkv, heads).into_iter().zip([of_q, of_k, of_v]) {
            place.copy_(&part);
        }
        vec![Some(of_qkv)]
    };
    differentiable("SelfAttention", &[qkv], result, backward)
}

fn of_kind<E: Factor>(qkv: &Tensor, shape: Shape) -> Option<Tensor> {
    let kept = qkv.detach().contiguous();
    let output = fused(&kept, shape.heads as i64)?;
    if !needs_gradient(&[qkv]) {
        return Some(output);
    }
    let backward = move |gradient: Tensor, _: &[bool]| {
        let gradient = gradient.contiguous();
        let (result, start) = allocate::<E>(&kept.size());
        let (qkv, gradient) = (values::<E>(&kept), values::<E>(&gradient));
        let destination = Destination::new(start);
        parallel::for_each(shape.samples * shape.heads, &|task| {
            let head = Head { shape, sample: task / shape.heads, number: task % shape.heads };
            // SAFETY: the tasks' heads are different, and the tensor outlives them.
            unsafe { head.pull_back(qkv, gradient, destination) };
        });
        vec![Some(result)]
    };
    Some(differentiable("SelfAttention", &[qkv], output, backward))
}

/// One head of one sample.
struct Head {
    shape: Shape,
    sample: usize,
    number: usize,
}

impl Head {
    /// The gradients of this head's queries, keys and values, from that of its results: with weights P = softmax(S), S = scale·Q·Kᵀ,
    /// and results O = P·V,
    ///
    /// dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P ∘ (dP − its mean by P in each row), dQ = scale·dS·K, dK = scale·dSᵀ·Q.
    ///
    /// # Safety
    /// `result` has room for gradients of all of `qkv`, and nobody else touches those of this head.
    unsafe fn pull_back<E: Factor>(&self, qkv: &[E], gradient: &[E], result: Destination<MaybeUninit<E>>) {
        let Shape { tokens, head, .. } = self.shape;
        let scale = 1.0 / (head as f32).sqrt();
        let [q, k, v] = [0, 1, 2].map(|part| self.rows(qkv, 3, part));
        let of_output = self.rows(gradient, 1, 0);
        let scores = product(left(&q, head), &columns(&k, head));
        let of_weights = product(left(&of_output, head), &columns(&v, head));

        let mut weights: Vec<E> = Vec::with_capacity(tokens * tokens);
        let mut of_scores: Vec<E> = Vec::with_capacity(tokens * tokens);
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
            let total = softmax::fp32(scores, tokens, scale, &mut exponentials);
            pull_back_softmax(&exponentials[..tokens], total, of_weights, scale, weights, of_scores);
        }
        // SAFETY: there is room for `tokens` rows of `tokens` elements, and every row is written.
        unsafe {
            weights.set_len(tokens * tokens);
            of_scores.set_len(tokens * tokens);
        }

        // As right factors are what is large: the gradients come out turned, (head, T).
        let of_scores_panels = Matrix { values: &of_scores, columns: tokens }.panels();
        let turned = |rows: &[E]| Matrix { values: rows, columns: head }.transposed(false);
        let of_q = product(turned(&k).as_left(), &columns(&of_scores, tokens));
        let of_k = product(turned(&q).as_left(), &of_scores_panels);
        let of_v = product(turned(&of_output).as_left(), &Matrix { values: &weights, columns: tokens }.panels());
        for (part, gradient) in [of_q, of_k, of_v].iter().enumerate() {
            for token in 0..tokens {
                // SAFETY: the caller's promise.
                let place = unsafe { result.slice(self.start(3, part, token), head) };
                for (place, values) in place.iter_mut().zip(gradient.chunks_exact(tokens)) {
                    place.write(E::from_f32(values[token]));
                }
            }
        }
    }

    /// Where this head's values of part `part` of `parts` begin.
    fn start(&self, parts: usize, part: usize, token: usize) -> usize {
        let Shape { tokens, heads, head, .. } = self.shape;
        (((self.sample * tokens + token) * parts + part) * heads + self.number) * head
    }

    /// Those, row by row.
    fn rows<E: Element>(&self, all: &[E], parts: usize, part: usize) -> Vec<E> {
        let Shape { tokens, head, .. } = self.shape;
        let mut rows = Vec::with_capacity(tokens * head);
        for token in 0..tokens {
            rows.extend_from_slice(&all[self.start(parts, part, token)..][..head]);
        }
        rows
    }
}

/// Rows of `width` elements as a left factor.
fn left<E: Factor>(rows: &[E], width: usize) -> Left<'_> {
    let words = slice_as_words(rows);
    Left { words, rows: rows.len() / width, stride: width / E::WORDS.elements() }
}

/// Rows of `width` elements as the columns of a right factor.
fn columns<E: Factor>(rows: &[E], width: usize) -> OwnedPanels {
    let count = rows.len() / width;
    let rows = StoredWeight::new(E::KIND, bytes_of(rows), count, width);
    let lines = rows.map(|rows| pack(rows, E::WORDS, E::KIND).lines).unwrap_or_default();
    OwnedPanels { kind: E::WORDS, lines, columns: count, depth: width / E::WORDS.elements() }
}

/// In fp32, row by row.
fn product(left: Left<'_>, right: &OwnedPanels) -> Vec<f32> {
    let count = left.rows * right.columns;
    let mut results = Vec::with_capacity(count);
    let output = Output::F32(Destination::new(results.spare_capacity_mut().as_mut_ptr()));
    let epilogue =
        Epilogue { dequantize: None, bias: &[], activation: Activation::Identity, before: None, past_caches: false };
    gemm::multiply(left, right.as_right(), epilogue, output);
    // SAFETY: there is room for all, and every result is written.
    unsafe { results.set_len(count) };
    results
}

multiversion! {
    /// A row of weights from the exponentials, bits of fp32, and their sum; and scale times the gradient of its scores from that of the weights.
    fn pull_back_softmax<E: Element>(
        exponentials: &[u32],
        total: f32,
        of_weights: &[f32],
        scale: f32,
        weights: &mut [MaybeUninit<E>],
        of_scores: &mut [MaybeUninit<E>],
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
            weight.write(E::from_f32(exact));
            of_score.write(E::from_f32(exact * (of_weight - mean) * scale));
        }
    }
}
