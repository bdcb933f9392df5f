//! Precision and recall. Kynkäänniemi et al. 2019, equation 1.

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use tch::{Kind, Tensor};

use super::blocks::choose;
use super::{Estimate, checked, same_width};
use crate::Error;

/// Pictures of the reference that are taken, at most: the cost is their number times that of the samples.
const MOST_REFERENCE: usize = 10_000;
/// A point's neighbourhood reaches to its third neighbour.
const NEIGHBOUR: i64 = 3;
/// Rows and columns of a distance matrix that are in memory at once.
const ROWS: i64 = 1024;
const COLUMNS: i64 = 8192;

/// How many samples look like the reference, and how much of the reference the samples cover.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// The fraction of samples within a neighbourhood of the reference.
    pub precision: Estimate,
    /// The fraction of the reference within a neighbourhood of the samples.
    pub recall: Estimate,
}

/// Precision and recall of `samples` (N, D) against `reference` (M, D), with neighbourhoods up to the third neighbour.
///
/// Of a reference of more than 10,000, as many are chosen by `seed`: the published numbers are against 10,000.
///
/// Time grows with (N + M)² · D; memory does not grow with N · M.
///
/// # Errors
/// [`Error::TooFew`] for fewer than four on either side, [`Error::Width`], [`Error::NonFinite`].
pub fn precision_recall(samples: &Tensor, reference: &Tensor, seed: u64) -> Result<PrecisionRecall, Error> {
    let (x, mut y) = (checked("features", samples)?, checked("reference features", reference)?);
    let count = y.size()[0] as usize;
    if count > MOST_REFERENCE {
        let chosen = choose(count, MOST_REFERENCE, &mut ChaCha8Rng::seed_from_u64(seed));
        y = y.f_index_select(0, &Tensor::from_slice(&chosen))?;
    }
    same_width(&x, &y)?;
    let needed = NEIGHBOUR as usize + 1;
    for (what, side) in [("samples for precision and recall", &x), ("reference samples for precision and recall", &y)] {
        let found = side.size().first().copied().unwrap_or(0) as usize;
        if found < needed {
            return Err(Error::TooFew { what, found, needed });
        }
    }
    let covered = |points: &Tensor, centres: &Tensor| -> Result<Estimate, Error> {
        let hits = covered(points, centres, &radii(centres)?)?;
        Ok(Estimate::fraction(hits, points.size()[0] as usize))
    };
    Ok(PrecisionRecall { precision: covered(&x, &y)?, recall: covered(&y, &x)? })
}

/// The squared distance of each point to its third neighbour: (N).
fn radii(points: &Tensor) -> Result<Tensor, Error> {
    let mut radii = Vec::new();
    for rows in points.f_split(ROWS, 0)? {
        let mut nearest: Option<Tensor> = None; // (rows, 4), the point itself among them
        for columns in points.f_split(COLUMNS, 0)? {
            let mut candidates = squared_distances(&rows, &columns)?;
            if let Some(nearest) = nearest {
                candidates = Tensor::f_cat(&[nearest, candidates], 1)?;
            }
            let kept = candidates.size()[1].min(NEIGHBOUR + 1);
            nearest = Some(candidates.f_topk(kept, 1, false, true)?.0);
        }
        if let Some(nearest) = nearest {
            radii.push(nearest.f_select(1, NEIGHBOUR)?);
        }
    }
    Ok(Tensor::f_cat(&radii, 0)?)
}

/// How many of `points` lie within a neighbourhood of `centres`, whose squared radii are given.
fn covered(points: &Tensor, centres: &Tensor, radii: &Tensor) -> Result<usize, Error> {
    let mut hits = 0;
    for rows in points.f_split(ROWS, 0)? {
        let mut inside = Tensor::f_zeros([rows.size()[0]], (Kind::Bool, rows.device()))?;
        for (columns, radii) in centres.f_split(COLUMNS, 0)?.iter().zip(radii.f_split(COLUMNS, 0)?) {
            let within = squared_distances(&rows, columns)?.f_le_tensor(&radii)?;
            inside = inside.f_logical_or(&within.f_any_dim(1, false)?)?;
        }
        hits += inside.f_sum(Kind::Int64)?.int64_value(&[]);
    }
    Ok(hits as usize)
}

/// ‖aᵢ − bⱼ‖², (N, M).
fn squared_distances(a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
    let norms = |x: &Tensor| x.f_square()?.f_sum_dim_intlist(&[1i64][..], true, Kind::Double);
    let products = a.f_matmul(&b.f_transpose(0, 1)?)?;
    Ok((norms(a)? + norms(b)?.f_transpose(0, 1)? - products * 2.0).f_clamp_min(0.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a line, neighbourhoods can be counted by hand.
    fn line(points: &[f64]) -> Tensor {
        Tensor::from_slice(points).view([-1, 1])
    }

    #[track_caller]
    fn check(samples: &[f64], reference: &[f64], precision: f64, recall: f64) {
        let found = precision_recall(&line(samples), &line(reference), 0).unwrap();
        assert_eq!((found.precision.value, found.recall.value), (precision, recall));
    }

    #[test]
    fn neighbourhoods_on_a_line() {
        // The third neighbours of 0, 1, 2, 3 are 3, 2, 2 and 3 away: together they reach from −3 to 6.
        let reference = [0.0, 1.0, 2.0, 3.0];
        check(&reference, &reference, 1.0, 1.0);
        check(&[-3.0, 6.0, -3.5, 6.5], &reference, 0.5, 1.0);
        check(&[100.0, 101.0, 102.0, 103.0], &reference, 0.0, 0.0);
        // One sample far away reaches over nearly everything.
        check(&[0.5, 0.5, 0.5, 0.5, 1000.0], &reference, 0.8, 0.75);
        // A collapsed generator is precise and covers nothing.
        check(&[0.5; 8], &reference, 1.0, 0.0);
    }

    #[test]
    fn tiles_do_not_matter() {
        tch::manual_seed(1);
        let options = (Kind::Double, tch::Device::Cpu);
        let points = Tensor::randn([1500, 3], options);
        let exact = squared_distances(&points, &points).unwrap().topk(4, 1, false, true).0.select(1, 3);
        assert!((radii(&points).unwrap() - exact).abs().max().double_value(&[]) == 0.0);
    }

    #[test]
    fn too_few_are_refused() {
        let result = precision_recall(&line(&[1.0, 2.0, 3.0]), &line(&[1.0, 2.0, 3.0, 4.0]), 0);
        assert!(matches!(result, Err(Error::TooFew { found: 3, needed: 4, .. })));
    }
}
