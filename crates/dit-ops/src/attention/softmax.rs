//! A row of attention's weights in AVX-512 registers: softmax but for the division by the sum.

use std::{arch::x86_64::*, f32::consts::LOG2_E, f64::consts::LN_2};

/// Values of a register.
const LANES: usize = 16;
/// ln 2ᵏ / k!, k from 6 to 0: Taylor's series of 2ᶠ, whose rest is below 1.3e-7 of it where |f| ≤ ½.
const SERIES: [f32; 7] = {
    let x = LN_2;
    let (square, cube) = (x * x, x * x * x);
    let exact = [cube * cube / 720.0, square * cube / 120.0, square * square / 24.0, cube / 6.0, square / 2.0, x, 1.0];
    let mut rounded = [0.0; 7];
    let mut k = 0;
    while k < exact.len() {
        rounded[k] = exact[k] as f32;
        k += 1;
    }
    rounded
};
/// 2 to this and below is 0.
const LEAST: f32 = -150.0;

/// exp(scale·(score − the greatest)) of the first `tokens` scores, as words of fp32; 0 past them. Gives their sum.
///
/// # Panics
/// If there are fewer words than scores, or `tokens` is more than either.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn fp32(scores: &[f32], tokens: usize, scale: f32, words: &mut [u32]) -> f32 {
    let row = Row::new(scores, tokens, scale);
    let mut sum = _mm512_setzero_ps();
    for (block, words) in words[..scores.len()].as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let weights = row.weights(block);
        sum = _mm512_add_ps(sum, weights);
        // SAFETY: a block has as many words as a register.
        unsafe { _mm512_storeu_ps(words.as_mut_ptr().cast(), weights) };
    }
    _mm512_reduce_add_ps(sum)
}

/// As [`fp32`](fp32()), rounded to bf16, two to a word; the sum is of what was rounded.
///
/// # Panics
/// If there are fewer words than pairs of scores, or `tokens` is more than either.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) fn bf16(scores: &[f32], tokens: usize, scale: f32, words: &mut [u32]) -> f32 {
    let row = Row::new(scores, tokens, scale);
    let mut sums = [_mm512_setzero_ps(); 2];
    for (pair, words) in words[..scores.len() / 2].as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let weights = [row.weights(2 * pair), row.weights(2 * pair + 1)];
        for (sum, &weights) in sums.iter_mut().zip(&weights) {
            *sum = _mm512_add_ps(*sum, weights);
        }
        let rounded = _mm512_cvtne2ps_pbh(weights[1], weights[0]);
        // SAFETY: a block has as many words as a register; both types are 512 bits of anything.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), std::mem::transmute::<__m512bh, __m512i>(rounded)) };
    }
    _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]))
}

/// Scores, and what makes weights of them.
struct Row<'a> {
    blocks: &'a [[f32; LANES]],
    tokens: usize,
    /// scale · log₂ e.
    factor: __m512,
    /// −greatest · factor.
    offset: __m512,
}

impl<'a> Row<'a> {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn new(scores: &'a [f32], tokens: usize, scale: f32) -> Self {
        let (blocks, rest) = scores.as_chunks::<LANES>();
        assert!(rest.is_empty() && tokens <= scores.len(), "{tokens} of {} scores", scores.len());
        let zero = _mm512_setzero_ps();
        let mut row = Self { blocks, tokens, factor: _mm512_set1_ps(scale * LOG2_E), offset: zero };
        let mut greatest = [_mm512_set1_ps(f32::NEG_INFINITY); 2];
        for block in 0..tokens.div_ceil(LANES) {
            let greatest = &mut greatest[block % 2];
            *greatest = _mm512_mask_max_ps(*greatest, row.mask(block), *greatest, row.load(block));
        }
        let greatest = _mm512_reduce_max_ps(_mm512_max_ps(greatest[0], greatest[1]));
        row.offset = _mm512_sub_ps(zero, _mm512_mul_ps(_mm512_set1_ps(greatest), row.factor));
        row
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(&self, block: usize) -> __m512 {
        // SAFETY: a block is as long as a register.
        unsafe { _mm512_loadu_ps(self.blocks[block].as_ptr()) }
    }

    /// Which lanes of a block are tokens.
    #[inline(always)]
    fn mask(&self, block: usize) -> __mmask16 {
        match self.tokens.saturating_sub(block * LANES) {
            0 => 0,
            count => u16::MAX >> (LANES - count.min(LANES)),
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn weights(&self, block: usize) -> __m512 {
        let power = _mm512_fmadd_ps(self.load(block), self.factor, self.offset);
        _mm512_maskz_mov_ps(self.mask(block), exp2(power))
    }
}

/// 2ˣ, within two units in the last place; 0 far below, NaN of NaN.
#[target_feature(enable = "avx512f")]
#[inline]
fn exp2(x: __m512) -> __m512 {
    // Of NaN, the maximum is its second argument.
    let x = _mm512_max_ps(_mm512_set1_ps(LEAST), x);
    let whole = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let fraction = _mm512_sub_ps(x, whole);
    let mut sum = _mm512_set1_ps(SERIES[0]);
    for &coefficient in &SERIES[1..] {
        sum = _mm512_fmadd_ps(sum, fraction, _mm512_set1_ps(coefficient));
    }
    _mm512_scalef_ps(sum, whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;

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

    #[test]
    fn weights_are_the_exponentials_and_nothing_past_the_tokens() {
        let cpu = Cpu::detect();
        for tokens in [1_usize, 15, 16, 17, 31, 33, 64, 77, 256, 1000] {
            let padded = tokens.next_multiple_of(64);
            let scores = scores(tokens, padded);
            let expected = exact(&scores, tokens);
            if cpu.avx512 {
                let mut words = vec![u32::MAX; padded];
                // SAFETY: the CPU has the instructions.
                let sum = unsafe { fp32(&scores, tokens, SCALE, &mut words) };
                let found: Vec<f32> = words.iter().map(|&word| f32::from_bits(word)).collect();
                check(&found, sum, &expected, 2e-6);
            }
            if cpu.avx512_bf16 {
                let mut words = vec![u32::MAX; padded / 2];
                // SAFETY: the CPU has the instructions.
                let sum = unsafe { bf16(&scores, tokens, SCALE, &mut words) };
                let halves = |&word: &u32| [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)];
                let found: Vec<f32> = words.iter().flat_map(halves).collect();
                check(&found, sum, &expected, 4e-3);
            }
        }
    }

    #[test]
    fn nan_among_the_scores_is_not_lost() {
        if Cpu::detect().avx512 {
            for at in [0, 5, 20] {
                let mut scores = scores(21, 64);
                scores[at] = f32::NAN;
                let mut words = vec![0; 64];
                // SAFETY: the CPU has the instructions.
                let sum = unsafe { fp32(&scores, 21, SCALE, &mut words) };
                assert!(sum.is_nan(), "at {at}: {sum}");
            }
        }
    }
}
