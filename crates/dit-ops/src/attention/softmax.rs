//! A row of attention's weights with AVX-512, sixteen at a time: softmax but for the division by the sum.

use std::f32::consts::LOG2_E;

use super::exponential::SERIES;
use crate::{avx512::vector as v, cpu::Cpu};

/// Values of a register.
const LANES: usize = 16;
/// 2 to less than this is 0, so that nothing is subnormal.
const LEAST: f32 = -100.0;

/// exp(scale·(score − the greatest)) of the first `tokens` scores, as words of fp32; 0 past them. Gives their sum.
///
/// # Panics
/// If there are fewer words than scores, or `tokens` is more than either.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn fp32(scores: &[f32], tokens: usize, scale: f32, words: &mut [u32]) -> f32 {
    let row = Row::new(scores, tokens, scale);
    let mut sum = v::zero();
    for (block, words) in words[..scores.len()].as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let weights = row.weights(block);
        sum = v::add(sum, weights);
        // SAFETY: a block has as many words as a register.
        unsafe { v::store(words.as_mut_ptr().cast(), weights) };
    }
    v::sum(sum)
}

/// As [`fp32`], rounded to bf16, two to a word; the sum is of what was rounded.
///
/// # Panics
/// If there are fewer words than pairs of scores, or `tokens` is more than either.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) fn bf16(scores: &[f32], tokens: usize, scale: f32, words: &mut [u32]) -> f32 {
    let row = Row::new(scores, tokens, scale);
    let mut sums = [v::zero(); 2];
    for (pair, words) in words[..scores.len() / 2].as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let weights = [row.weights(2 * pair), row.weights(2 * pair + 1)];
        for (sum, &weights) in sums.iter_mut().zip(&weights) {
            *sum = v::add(*sum, weights);
        }
        // SAFETY: a block has as many words as a register.
        unsafe { v::store_two_bf16(words.as_mut_ptr().cast(), v::convert_two_to_bf16(weights)) };
    }
    v::sum(v::add(sums[0], sums[1]))
}

/// Scores, and what makes weights of them.
struct Row<'a> {
    blocks: &'a [[f32; LANES]],
    tokens: usize,
    /// scale · log₂ e.
    factor: v::Floats,
    /// −greatest · factor.
    offset: v::Floats,
}

impl<'a> Row<'a> {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn new(scores: &'a [f32], tokens: usize, scale: f32) -> Self {
        let (blocks, rest) = scores.as_chunks::<LANES>();
        assert!(rest.is_empty() && tokens <= scores.len(), "{tokens} of {} scores", scores.len());
        let mut row = Self { blocks, tokens, factor: v::splat(scale * LOG2_E), offset: v::zero() };
        let mut greatest = [v::splat(f32::NEG_INFINITY); 2];
        for block in 0..tokens.div_ceil(LANES) {
            let greatest = &mut greatest[block % 2];
            *greatest = v::max_within(row.mask(block), *greatest, row.load(block));
        }
        let greatest = v::greatest(v::max(greatest[0], greatest[1]));
        row.offset = v::sub(v::zero(), v::mul(v::splat(greatest), row.factor));
        row
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn load(&self, block: usize) -> v::Floats {
        // SAFETY: a block is as long as a register.
        unsafe { v::load(self.blocks[block].as_ptr()) }
    }

    /// Which lanes of a block are tokens.
    #[inline(always)]
    fn mask(&self, block: usize) -> v::Mask {
        v::first(self.tokens.saturating_sub(block * LANES))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn weights(&self, block: usize) -> v::Floats {
        let power = v::mul_add(self.load(block), self.factor, self.offset);
        v::keep(self.mask(block), exp2(power))
    }
}

/// 2ˣ, within two units in the last place; 0 below 2⁻¹⁰⁰, NaN of NaN.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub(super) fn exp2(x: v::Floats) -> v::Floats {
    let whole = v::round(x);
    let fraction = v::sub(x, whole);
    let mut sum = v::splat(SERIES[0]);
    for &coefficient in &SERIES[1..] {
        sum = v::mul_add(sum, fraction, v::splat(coefficient));
    }
    v::keep(v::unless_less(x, v::splat(LEAST)), v::scale_by_power(sum, whole))
}

/// The weights of one row, [`fp32`].
///
/// # Panics
/// As that, and if the CPU has no AVX-512.
pub(crate) fn softmax(scores: &[f32], tokens: usize, scale: f32, words: &mut [u32]) -> f32 {
    assert!(Cpu::detect().avx512);
    // SAFETY: the CPU has the instructions.
    unsafe { fp32(scores, tokens, scale, words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: f32 = 0.117_851_13;

    /// Scores from a small generator, among them one far below and one far above; what is past `tokens` would spoil a maximum.
    fn scores(tokens: usize, padded: usize) -> Vec<f32> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 16_777_216.0
        };
        let mut scores: Vec<f32> = (0..padded).map(|at| if at < tokens { 60.0 * next() - 30.0 } else { 1e6 }).collect();
        scores[tokens / 2] = -1e5;
        scores[tokens / 3] = 40.0;
        scores
    }

    fn exact(scores: &[f32], tokens: usize) -> Vec<f64> {
        let scale = f64::from(SCALE);
        let greatest = scores[..tokens].iter().copied().fold(f32::NEG_INFINITY, f32::max);
        scores[..tokens].iter().map(|&score| (scale * (f64::from(score) - f64::from(greatest))).exp()).collect()
    }

    #[track_caller]
    fn check(found: &[f32], sum: f32, expected: &[f64], tolerance: f64) {
        let (found, rest) = found.split_at(expected.len());
        assert!(rest.iter().all(|&weight| weight == 0.0), "{rest:?}");
        for (&found, &expected) in found.iter().zip(expected) {
            let error = (f64::from(found) - expected).abs();
            assert!(error <= tolerance * expected.max(1e-30), "{found} for {expected}");
        }
        let total: f64 = expected.iter().sum();
        assert!((f64::from(sum) - total).abs() < 1e-6 * total, "{sum} for {total}");
    }

    /// A kernel.
    type Softmax = unsafe fn(&[f32], usize, f32, &mut [u32]) -> f32;

    /// The one in fp32 and the one in bf16, if this CPU has them.
    fn kernels() -> [Vec<Softmax>; 2] {
        let cpu = Cpu::detect();
        if !cpu.avx512 {
            eprintln!("SKIPPED: no AVX-512");
        }
        let kernel = |there: bool, kernel: Softmax| if there { vec![kernel] } else { Vec::new() };
        [kernel(cpu.avx512, fp32), kernel(cpu.avx512_bf16, bf16)]
    }

    #[test]
    fn weights_are_the_exponentials_and_nothing_past_the_tokens() {
        let [fp32, bf16] = kernels();
        for tokens in [1_usize, 15, 16, 17, 31, 33, 64, 77, 256, 1000] {
            let padded = tokens.next_multiple_of(64);
            let scores = scores(tokens, padded);
            let expected = exact(&scores, tokens);
            for kernel in &fp32 {
                let mut words = vec![u32::MAX; padded];
                // SAFETY: the CPU has the instructions.
                let sum = unsafe { kernel(&scores, tokens, SCALE, &mut words) };
                let found: Vec<f32> = words.iter().map(|&word| f32::from_bits(word)).collect();
                check(&found, sum, &expected, 2e-6);
            }
            for kernel in &bf16 {
                let mut words = vec![u32::MAX; padded / 2];
                // SAFETY: the CPU has the instructions.
                let sum = unsafe { kernel(&scores, tokens, SCALE, &mut words) };
                let halves = |&word: &u32| [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)];
                let found: Vec<f32> = words.iter().flat_map(halves).collect();
                check(&found, sum, &expected, 4e-3);
            }
        }
    }

    #[test]
    fn nan_among_the_scores_is_not_lost() {
        for kernel in kernels().into_iter().flatten() {
            for at in [0, 5, 13, 20] {
                let mut scores = scores(21, 64);
                scores[at] = f32::NAN;
                let mut words = vec![0; 64];
                // SAFETY: the CPU has the instructions.
                let sum = unsafe { kernel(&scores, 21, SCALE, &mut words) };
                assert!(sum.is_nan(), "at {at}: {sum}");
            }
        }
    }
}
