//! The kernel distance. Bińkowski et al. 2018, equation 4, with k(x, y) = (x·y / d + 1)³.

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use tch::{Kind, Tensor};

use super::blocks::{choose, permutation};
use super::{Blocks, Estimate, enough, gather, rows_of, same_width};
use crate::Error;

/// Rows and columns of a kernel matrix that are in memory at once.
const TILE: usize = 2048;
/// Samples of either side from which the interval is computed, at most: the cost is their square.
const MOST_FOR_INTERVAL: usize = 10_000;

/// How the kernel distance is estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KidOptions {
    /// Subsets that are drawn.
    pub subsets: usize,
    /// Samples in each, of either side; fewer where there are fewer.
    pub size: usize,
    /// Of the subsets.
    pub seed: u64,
}

impl Default for KidOptions {
    /// 100 subsets of 1000, as the published evaluators take.
    fn default() -> Self {
        Self { subsets: 100, size: 1000, seed: 0 }
    }
}

impl KidOptions {
    /// Pictures of a side that subsets are drawn from, at most: with more, nothing is gained but memory is lost.
    pub const MOST: usize = 50_000;

    /// Whether so many of either side suffice.
    pub(crate) fn check_counts(samples: usize, reference: usize) -> Result<(), Error> {
        const LEAST: usize = 2 * Blocks::COUNT;
        enough("samples for KID", samples, LEAST)?;
        enough("reference samples for KID", reference, LEAST)
    }
}

/// The squared maximum mean discrepancy between `samples` (N, D) and `reference` (M, D): the mean of unbiased estimates over
/// random subsets. It may be below zero.
///
/// Its interval is that of the estimate over all samples (of at most 10,000 on either side).
///
/// # Errors
/// [`Error::TooFew`] for fewer than twenty on either side, [`Error::Width`], [`Error::NonFinite`].
pub fn kernel_distance(samples: &Tensor, reference: &Tensor, options: KidOptions) -> Result<Estimate, Error> {
    let counts = [rows_of("features", samples)?, rows_of("reference features", reference)?];
    same_width(samples, reference)?;
    let [n, m] = counts;
    KidOptions::check_counts(n, m)?;
    let size = options.size.clamp(2, n.min(m));
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    // A single choice of everything is always the same.
    let subsets = if size == n && size == m { 1 } else { options.subsets.max(1) };
    let mut sum = 0.0;
    for _ in 0..subsets {
        let part = |side: &Tensor, count: usize, random: &mut ChaCha8Rng| {
            gather(side, &Tensor::from_slice(&choose(count, size, random)))
        };
        let (a, b) = (part(samples, n, &mut random)?, part(reference, m, &mut random)?);
        let (size, own) =
            (size as f64, |side: &Tensor| -> Result<f64, Error> { Ok(kernel_sum(side, side)? - diagonal_sum(side)?) });
        sum += (own(&a)? + own(&b)?) / (size * (size - 1.0)) - 2.0 * kernel_sum(&a, &b)? / (size * size);
    }
    let without = jackknife(samples, reference, options.seed)?;
    let covers = match n > MOST_FOR_INTERVAL {
        true => "the draw of 10,000 samples, as more take too long; not that of the subsets",
        false => "the draw of the samples; not that of the subsets",
    };
    Ok(Estimate::jackknife(sum / subsets as f64, &without, f64::NEG_INFINITY).covering(covers))
}

/// The unbiased estimate over all samples but those of one block, for each block.
fn jackknife(x: &Tensor, y: &Tensor, seed: u64) -> Result<[f64; Blocks::COUNT], Error> {
    let at_most = |side: &Tensor| -> Result<Tensor, Error> {
        let count = side.size().first().copied().unwrap_or(0) as usize;
        let mut order = permutation(count, seed);
        order.truncate(MOST_FOR_INTERVAL);
        let order: Vec<i64> = order.into_iter().map(|index| index as i64).collect();
        gather(side, &Tensor::from_slice(&order))
    };
    let (x, y) = (at_most(x)?, at_most(y)?);
    // In random order already: every tenth.
    let count = x.size()[0];
    let blocks: Vec<Tensor> = (0..Blocks::COUNT as i64)
        .map(|block| x.f_slice(0, block, count, Blocks::COUNT as i64))
        .collect::<Result<_, _>>()?;
    let m = y.size()[0] as f64;
    let within_reference = (kernel_sum(&y, &y)? - diagonal_sum(&y)?) / (m * (m - 1.0));
    let mut rows = [0.0; Blocks::COUNT]; // k(block, all), without the diagonal
    let mut own = [0.0; Blocks::COUNT]; // k(block, block), without the diagonal
    let mut across = [0.0; Blocks::COUNT]; // k(block, reference)
    for (index, block) in blocks.iter().enumerate() {
        let diagonal = diagonal_sum(block)?;
        rows[index] = kernel_sum(block, &x)? - diagonal;
        own[index] = kernel_sum(block, block)? - diagonal;
        across[index] = kernel_sum(block, &y)?;
    }
    let (all, all_across) = (rows.iter().sum::<f64>(), across.iter().sum::<f64>());
    Ok(std::array::from_fn(|index| {
        let left = (count - blocks[index].size()[0]) as f64;
        let within = all - 2.0 * rows[index] + own[index];
        within / (left * (left - 1.0)) + within_reference - 2.0 * (all_across - across[index]) / (left * m)
    }))
}

/// Σ k(aᵢ, bⱼ), a tile at a time.
fn kernel_sum(a: &Tensor, b: &Tensor) -> Result<f64, Error> {
    let width = a.size().get(1).copied().unwrap_or(1).max(1) as f64;
    let mut sum = 0.0;
    for rows in a.f_split(TILE as i64, 0)? {
        for columns in b.f_split(TILE as i64, 0)? {
            let kernel = rows.f_matmul(&columns.f_transpose(0, 1)?)? / width + 1.0;
            sum += kernel.f_pow_tensor_scalar(3)?.f_sum(Kind::Double)?.double_value(&[]);
        }
    }
    Ok(sum)
}

/// Σ k(aᵢ, aᵢ).
fn diagonal_sum(a: &Tensor) -> Result<f64, Error> {
    let width = a.size().get(1).copied().unwrap_or(1).max(1) as f64;
    let norms = a.f_square()?.f_sum_dim_intlist(&[1i64][..], false, Kind::Double)?;
    Ok((norms / width + 1.0).f_pow_tensor_scalar(3)?.f_sum(Kind::Double)?.double_value(&[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: i64, rows: i64, shift: f64) -> Tensor {
        tch::manual_seed(seed);
        Tensor::randn([rows, 4], (Kind::Double, tch::Device::Cpu)) + shift
    }

    /// The unbiased estimate as its definition has it, pair by pair.
    fn by_pairs(x: &Tensor, y: &Tensor) -> f64 {
        let rows = |x: &Tensor| -> Vec<Vec<f64>> { Vec::try_from(x).unwrap() };
        let (x, y) = (rows(x), rows(y));
        let k = |a: &[f64], b: &[f64]| (a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / 4.0 + 1.0).powi(3);
        let (n, m) = (x.len() as f64, y.len() as f64);
        let own = |x: &[Vec<f64>]| -> f64 {
            let pairs = x.iter().enumerate().flat_map(|(i, a)| x.iter().enumerate().map(move |(j, b)| (i, j, a, b)));
            pairs.filter(|(i, j, ..)| i != j).map(|(_, _, a, b)| k(a, b)).sum()
        };
        let across: f64 = x.iter().flat_map(|a| y.iter().map(move |b| k(a, b))).sum();
        own(&x) / (n * (n - 1.0)) + own(&y) / (m * (m - 1.0)) - 2.0 * across / (n * m)
    }

    #[test]
    fn one_subset_of_everything_is_the_definition() {
        let (x, y) = (random(1, 33, 0.0), random(2, 33, 0.4));
        let found = kernel_distance(&x, &y, KidOptions::default()).unwrap();
        let expected = by_pairs(&x, &y);
        assert!((found.value - expected).abs() < 1e-10, "{found:?} {expected}");
    }

    #[test]
    fn the_interval_leaves_blocks_out() {
        let (x, y) = (random(3, 57, 0.0), random(4, 41, 0.3));
        let without = jackknife(&x, &y, 9).unwrap();
        let order: Vec<i64> = permutation(57, 9).into_iter().map(|index| index as i64).collect();
        for (block, found) in without.into_iter().enumerate() {
            let kept: Vec<i64> =
                order.iter().enumerate().filter(|(place, _)| place % 10 != block).map(|(_, &index)| index).collect();
            let expected = by_pairs(&x.index_select(0, &Tensor::from_slice(&kept)), &y);
            assert!((found - expected).abs() < 1e-10, "{found} {expected}");
        }
    }

    #[test]
    fn the_same_distribution_is_within_the_interval_of_zero() {
        let found =
            kernel_distance(&random(5, 800, 0.0), &random(6, 800, 0.0), KidOptions { size: 200, ..Default::default() });
        let found = found.unwrap();
        assert!(found.low < 0.0 && found.high > 0.0, "{found:?}");
        let apart = kernel_distance(&random(5, 800, 0.0), &random(6, 800, 1.0), KidOptions::default()).unwrap();
        assert!(apart.low > 0.0, "{apart:?}");
    }

    #[test]
    fn too_few_are_refused() {
        let result = kernel_distance(&random(1, 19, 0.0), &random(2, 30, 0.0), KidOptions::default());
        assert!(matches!(result, Err(Error::TooFew { found: 19, needed: 20, .. })));
    }
}
