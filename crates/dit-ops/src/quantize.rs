//! Rounding to 8 bits.

use crate::{
    element::Element,
    gemm::{Line, RowScale, words_of_lines},
    parallel::{self, Destination},
    simd::multiversion,
};

multiversion! {
    /// Rounds an output's weights, a multiple of 4, to signed codes −127…127, four a word: weight = code·step. Where `twos` are asked
    /// for, the magnitudes of the first and the second, and of the third and the fourth, of a word add up to no more than 128. Returns
    /// the step and the sum of codes. Weights below 1e-36 of an output that has no larger ones become 0.
    pub(crate) fn quantize_column(weights: &[f32], words: &mut [u32], twos: bool) -> (f32, i32) {
        // Half of what has the code 127: the largest weight, or the largest sum of two, each of which is rounded up by half a step at most.
        // (The whole of two may be more than fp32 holds.)
        let mut most = [0.0_f32; 16];
        let (blocks, rest) = weights.as_chunks::<16>();
        for block in blocks {
            for (lane, most) in most.iter_mut().enumerate() {
                let (weight, other) = (0.5 * block[lane].abs(), if twos { 0.5 * block[lane ^ 1].abs() } else { 0.0 });
                *most = if weight + other > *most { weight + other } else { *most };
            }
        }
        let half = most.iter().fold(0.0_f32, |half, &most| half.max(most));
        let half = rest.as_chunks::<2>().0.iter().fold(half, |half, [a, b]| {
            let [a, b] = [0.5 * a.abs(), 0.5 * b.abs()];
            half.max(if twos { a + b } else { a.max(b) })
        });
        let inverse = 63.5 / half;
        let (step, inverse) = if inverse.is_finite() { (half / 63.5, inverse) } else { (0.0, 0.0) };
        let mut sum = 0;
        for (word, four) in words.iter_mut().zip(weights.as_chunks::<4>().0) {
            let codes = four.map(|weight| (weight * inverse).round_ties_even().clamp(-127.0, 127.0) as i32);
            sum += codes.iter().sum::<i32>();
            *word = codes.iter().enumerate().fold(0, |word, (place, code)| word | (code.cast_unsigned() & 0xff) << (8 * place));
        }
        (step, sum)
    }
}

/// Activations as unsigned codes: value = (code − zero)·step, a step and a zero point for each row.
pub(crate) struct Rows {
    lines: Vec<Line>,
    pub scales: Vec<RowScale>,
}

impl Rows {
    /// Four codes a word, row by row; the first row begins at a cache line.
    pub(crate) fn words(&self) -> &[u32] {
        words_of_lines(&self.lines)
    }
}

/// Rows that a task takes at once.
const ROWS_OF_A_TASK: usize = 16;

/// Rounds activations, rows of `inputs` values, a multiple of 4.
pub(crate) fn quantize_rows<E: Element>(values: &[E], inputs: usize) -> Rows {
    let rows = values.len() / inputs;
    let lines = vec![Line([0; 16]); (values.len() / 4).div_ceil(16)];
    let mut quantized = Rows { lines, scales: vec![RowScale { step: 0.0, zero: 0 }; rows] };
    let words = Destination::new(quantized.lines.as_mut_ptr().cast::<u32>());
    let scales = Destination::new(quantized.scales.as_mut_ptr());
    parallel::for_each(rows.div_ceil(ROWS_OF_A_TASK), &|task| {
        let first = task * ROWS_OF_A_TASK;
        for row in first..rows.min(first + ROWS_OF_A_TASK) {
            // SAFETY: each row is one task's own; both vectors outlive the tasks.
            let (words, scale) = unsafe { (words.slice(row * inputs / 4, inputs / 4), scales.slice(row, 1)) };
            scale[0] = quantize_row(&values[row * inputs..][..inputs], words);
        }
    });
    quantized
}

multiversion! {
    /// Asymmetric: the codes 0 to 255 span the row's least to its largest value, zero included. A row with NaN or infinity has a
    /// step of NaN, so that all of it stays NaN: codes cannot say it.
    fn quantize_row<E: Element>(row: &[E], words: &mut [u32]) -> RowScale {
        let mut least = [0.0_f32; 16];
        let mut most = [0.0_f32; 16];
        let mut poison = [0.0_f32; 16]; // 0 times a number, or NaN
        let (blocks, rest) = row.as_chunks::<16>();
        for block in blocks {
            for lane in 0..16 {
                let value = block[lane].to_f32();
                least[lane] = if value < least[lane] { value } else { least[lane] };
                most[lane] = if value > most[lane] { value } else { most[lane] };
                poison[lane] += value * 0.0;
            }
        }
        for (lane, value) in rest.iter().enumerate() {
            least[lane] = least[lane].min(value.to_f32());
            most[lane] = most[lane].max(value.to_f32());
            poison[lane] += value.to_f32() * 0.0;
        }
        let (least, most) = (least.iter().fold(0.0_f32, |a, &b| a.min(b)), most.iter().fold(0.0_f32, |a, &b| a.max(b)));
        let step = (most - least) / 255.0 + poison.iter().sum::<f32>();
        let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
        let zero = (-least * inverse).round_ties_even();
        for (word, four) in words.iter_mut().zip(row.as_chunks::<4>().0) {
            // Adding 1.5·2²³ rounds to the nearest integer and leaves it in the low bits.
            const ROUND: f32 = 12_582_912.0;
            let mut packed = 0;
            for (place, value) in four.iter().enumerate() {
                let code = (value.to_f32() * inverse + zero).clamp(0.0, 255.0) + ROUND;
                packed |= (code.to_bits() & 0xff) << (8 * place);
            }
            *word = packed;
        }
        RowScale { step, zero: zero as i32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(words: &[u32], scale: RowScale) -> Vec<f32> {
        let codes = words.iter().flat_map(|word| word.to_le_bytes());
        codes.map(|code| (i32::from(code) - scale.zero) as f32 * scale.step).collect()
    }

    #[track_caller]
    fn check_row(row: &[f32]) {
        let quantized = quantize_rows(row, row.len());
        let (least, most) = row.iter().fold((0.0_f32, 0.0_f32), |(a, b), &v| (a.min(v), b.max(v)));
        let step = (most - least) / 255.0;
        for (decoded, &value) in decode(&quantized.words()[..row.len() / 4], quantized.scales[0]).iter().zip(row) {
            assert!((decoded - value).abs() <= step * 1.001, "{value} became {decoded}, step {step}");
        }
    }

    #[test]
    fn rows_are_within_a_step() {
        check_row(&[0.0; 8]);
        check_row(&[1.0, -2.0, 3.5, 0.0]);
        check_row(&[5.0; 20]);
        check_row(&[-1e-3, -2e-3, -3e-3, -4e-3]);
        check_row(&(0..1000).map(|i| ((i * 37 % 101) as f32 - 20.0) * 0.3).collect::<Vec<_>>());
    }

    #[test]
    fn rows_that_are_not_finite_stay_so() {
        for place in [0, 5, 16, 37] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut rows = [1.0_f32; 80];
                rows[place] = bad;
                let quantized = quantize_rows(&rows, 40);
                let decoded = decode(&quantized.words()[..10], quantized.scales[0]);
                assert!(decoded.iter().all(|value| value.is_nan()), "{bad} at {place}: {decoded:?}");
                assert!(quantized.scales[1].step.is_finite(), "the other row is as it was");
            }
        }
    }

    #[test]
    fn columns_are_within_half_a_step() {
        let weights: Vec<f32> = (0..64).map(|i| ((i * 29 % 31) as f32 - 11.0) * 0.01).collect();
        for weights in weights.chunks(20) {
            check_column(weights);
        }
        // What both round up, and alone, and beside what is rounded to nothing.
        check_column(&[63.5 / 127.0, -63.5 / 127.0, 1.0, 0.0]);
        check_column(&[0.0, 0.0, 0.0, -3e-30, 1e-38, 0.0, 0.0, 0.0]);
        check_column(&[2e38; 20]);
        check_column(&[2e38, -3e38, 1.0, 0.0]);
    }

    #[test]
    fn columns_of_what_is_nearly_nothing_are_nothing() {
        for twos in [false, true] {
            for weights in [[0.0; 4], [1e-38; 4], [1e-44, 0.0, -1e-37, 0.0]] {
                let mut word = [u32::MAX];
                assert_eq!((quantize_column(&weights, &mut word, twos), word), ((0.0, 0), [0]), "{weights:?}");
            }
        }
    }

    #[track_caller]
    fn check_column(weights: &[f32]) {
        for twos in [false, true] {
            let mut words = vec![0; weights.len() / 4];
            let (step, sum) = quantize_column(weights, &mut words, twos);
            let codes: Vec<i8> = words.iter().flat_map(|word| word.to_le_bytes()).map(u8::cast_signed).collect();
            assert_eq!(sum, codes.iter().map(|&code| i32::from(code)).sum::<i32>());
            let pairs = codes.as_chunks::<2>().0.iter();
            let most_of_two = pairs.map(|pair| pair.map(i8::unsigned_abs)).map(|[a, b]| a + b).max();
            if twos {
                assert!(matches!(most_of_two, Some(126..=128)), "{codes:?}");
            } else {
                assert!(codes.iter().any(|code| code.unsigned_abs() == 127), "the largest has the largest code");
            }
            for (&code, weight) in codes.iter().zip(weights) {
                assert!((f32::from(code) * step - weight).abs() <= step * 0.501);
            }
        }
    }
}
