//! Precision and recall. Kynkäänniemi et al. 2019, equation 1.

use tch::{Kind, Tensor};

use super::{Blocks, Estimate, enough, gather, rows_of, same_width};
use crate::Error;

/// A point's neighbourhood reaches to its third neighbour.
const NEIGHBOUR: i64 = 3;
/// Rows and columns of a distance matrix that are in memory at once.
const ROWS: i64 = 1024;
const COLUMNS: i64 = 8192;
/// What may be rounding in a squared distance, as a share of what it is a difference of. Points that are nearer, by a few in the last
/// digit of fp32 in every feature, are taken for one.
const ROUNDING: f64 = 1e-13;

/// How many samples look like the reference, and how much of the reference the samples cover.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// The fraction of samples within a neighbourhood of the reference.
    pub precision: Estimate,
    /// The fraction of the reference within a neighbourhood of the samples.
    pub recall: Estimate,
}

impl PrecisionRecall {
    /// Pictures of the reference that the published numbers are against, at most.
    pub const MOST_REFERENCE: usize = 10_000;
    /// Samples that the published numbers are of, at most: memory grows with their number, time with its square.
    pub const MOST_SAMPLES: usize = 50_000;

    /// Whether so many of either side suffice.
    pub(crate) fn check_counts(samples: usize, reference: usize) -> Result<(), Error> {
        enough("samples for precision and recall", samples, Blocks::COUNT)?;
        enough("reference samples for precision and recall", reference, NEIGHBOUR as usize + 1)
    }
}

/// Precision and recall of `samples` (N, D) against `reference` (M, D), with neighbourhoods up to the third neighbour.
///
/// Precision's interval is that of a fraction of independent samples, as the neighbourhoods are the reference's. Recall's
/// neighbourhoods are the samples': each of ten blocks of them, dealt by `seed`, is left out in turn.
///
/// Time grows with (N + M)² · D; memory does not grow with N · M, and features stay of the kind that they are.
///
/// # Errors
/// [`Error::TooFew`] for fewer than ten samples or a reference of fewer than four, [`Error::Width`], [`Error::NonFinite`].
pub fn precision_recall(samples: &Tensor, reference: &Tensor, seed: u64) -> Result<PrecisionRecall, Error> {
    let counts = [rows_of("features", samples)?, rows_of("reference features", reference)?];
    same_width(samples, reference)?;
    PrecisionRecall::check_counts(counts[0], counts[1])?;
    let precision = covered(samples, &Centres::new(reference, &everything(reference))?)?.whole;
    let hits = covered(reference, &Centres::new(samples, &Blocks::new(counts[0], seed).rows(0, counts[0]))?)?;
    let fraction = |hits: usize| hits as f64 / counts[1] as f64;
    let recall = Estimate::jackknife(fraction(hits.whole), &hits.without.map(fraction), 0.0).of_a_fraction();
    Ok(PrecisionRecall {
        precision: Estimate::fraction(precision, counts[0]),
        recall: recall.covering("the draw of the samples, and so of their neighbourhoods"),
    })
}

/// All of `x` as one block, the others empty.
fn everything(x: &Tensor) -> [Tensor; Blocks::COUNT] {
    let rows = x.size().first().copied().unwrap_or(0);
    std::array::from_fn(|block| Tensor::arange(if block == 0 { rows } else { 0 }, (Kind::Int64, x.device())))
}

/// Points with their neighbourhoods, in blocks.
struct Centres<'a> {
    points: &'a Tensor,
    tiles: Vec<Tile>,
    /// Of which blocks there are any points.
    blocks: Vec<usize>,
}

/// Some points of one block.
struct Tile {
    block: usize,
    /// Rows of the points: (n).
    index: Tensor,
    /// Squared distances to the third neighbour among all, then among all but those of each of `Centres::blocks`, where there
    /// are several: (1 + blocks, n).
    radii: Tensor,
}

/// How many points are covered by all centres, and by all but those of each block.
struct Hits {
    whole: usize,
    without: [usize; Blocks::COUNT],
}

impl<'a> Centres<'a> {
    fn new(points: &'a Tensor, rows: &[Tensor; Blocks::COUNT]) -> Result<Self, Error> {
        let blocks: Vec<usize> = (0..Blocks::COUNT).filter(|&block| rows[block].numel() > 0).collect();
        let mut places = Vec::new();
        for &block in &blocks {
            for index in rows[block].f_split(COLUMNS, 0)? {
                places.push((block, index));
            }
        }
        let mut tiles = Vec::new();
        for (block, index) in &places {
            let mut radii = Vec::new();
            for index in index.f_split(ROWS, 0)? {
                radii.push(radii_of(&gather(points, &index)?, points, &places, &blocks)?);
            }
            tiles.push(Tile { block: *block, index: index.shallow_clone(), radii: Tensor::f_cat(&radii, 1)? });
        }
        Ok(Self { points, tiles, blocks })
    }
}

/// The squared distance of each row to its third neighbour, among all points and without each block: (1 + blocks, rows).
fn radii_of(rows: &Tensor, points: &Tensor, places: &[(usize, Tensor)], blocks: &[usize]) -> Result<Tensor, Error> {
    // A third neighbour, the point itself among them, is among the nearest four of some block.
    let mut nearest: Vec<Tensor> = Vec::new(); // of each block: (rows, 4 or fewer)
    for &block in blocks {
        let mut kept: Option<Tensor> = None;
        for (_, index) in places.iter().filter(|(of, _)| *of == block) {
            let mut candidates = squared_distances(rows, &gather(points, index)?)?;
            if let Some(kept) = kept {
                candidates = Tensor::f_cat(&[kept, candidates], 1)?;
            }
            kept = Some(smallest(&candidates)?);
        }
        nearest.extend(kept);
    }
    let third = |nearest: &[&Tensor]| -> Result<Tensor, Error> {
        let nearest = smallest(&Tensor::f_cat(nearest, 1)?)?;
        Ok(nearest.f_select(1, NEIGHBOUR.min(nearest.size2()?.1 - 1))?)
    };
    let mut radii = vec![third(&nearest.iter().collect::<Vec<_>>())?];
    if blocks.len() > 1 {
        for left_out in 0..blocks.len() {
            let kept = nearest.iter().enumerate().filter(|(block, _)| *block != left_out);
            radii.push(third(&kept.map(|(_, nearest)| nearest).collect::<Vec<_>>())?);
        }
    }
    Ok(Tensor::f_stack(&radii, 0)?)
}

/// The four smallest of each row, or as many as there are, ascending.
fn smallest(distances: &Tensor) -> Result<Tensor, Error> {
    let kept = distances.size2()?.1.min(NEIGHBOUR + 1);
    Ok(distances.f_topk(kept, 1, false, true)?.0)
}

/// How many of `points` lie within a neighbourhood of `centres`.
fn covered(points: &Tensor, centres: &Centres) -> Result<Hits, Error> {
    let mut hits = Hits { whole: 0, without: [0; Blocks::COUNT] };
    let device = points.device();
    for index in Tensor::f_arange(points.size2()?.0, (Kind::Int64, device))?.f_split(ROWS, 0)? {
        let rows = gather(points, &index)?;
        let outside = || Tensor::f_zeros([index.size1()?], (Kind::Bool, device));
        let mut whole = outside()?;
        let mut without = centres.blocks.iter().map(|_| outside()).collect::<Result<Vec<_>, _>>()?;
        for tile in &centres.tiles {
            let distances = squared_distances(&rows, &gather(centres.points, &tile.index)?)?;
            let within = |set: usize| -> Result<Tensor, Error> {
                Ok(distances.f_le_tensor(&tile.radii.f_select(0, set as i64)?)?.f_any_dim(1, false)?)
            };
            whole = whole.f_logical_or(&within(0)?)?;
            if without.len() > 1 {
                let others = without.iter_mut().zip(&centres.blocks).enumerate();
                for (place, (inside, _)) in others.filter(|(_, (_, block))| **block != tile.block) {
                    *inside = inside.f_logical_or(&within(1 + place)?)?;
                }
            }
        }
        let count =
            |inside: &Tensor| -> Result<usize, Error> { Ok(inside.f_sum(Kind::Int64)?.int64_value(&[]) as usize) };
        hits.whole += count(&whole)?;
        for (inside, &block) in without.iter().zip(&centres.blocks) {
            hits.without[block] += count(inside)?;
        }
    }
    Ok(hits)
}

/// ‖aᵢ − bⱼ‖², (N, M), as a difference of products; what is nothing but rounding is zero, so that a point is in every neighbourhood
/// around its like, however many of those make the neighbourhood a point.
fn squared_distances(a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
    let norms = |x: &Tensor| x.f_square()?.f_sum_dim_intlist(&[1i64][..], true, Kind::Double);
    let products = a.f_matmul(&b.f_transpose(0, 1)?)?;
    let sums = norms(a)? + norms(b)?.f_transpose(0, 1)?;
    let distances = &sums - products * 2.0;
    let nothing = distances.f_le_tensor(&(sums * ROUNDING))?;
    Ok(distances.f_masked_fill(&nothing, 0.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a line, neighbourhoods can be counted by hand.
    fn line(points: &[f64]) -> Tensor {
        Tensor::from_slice(points).view([-1, 1])
    }

    /// The fraction of `points` that the neighbourhoods of `centres` cover.
    fn fraction(points: &Tensor, centres: &Tensor) -> f64 {
        let hits = covered(points, &Centres::new(centres, &everything(centres)).unwrap()).unwrap();
        hits.whole as f64 / points.size()[0] as f64
    }

    #[track_caller]
    fn check(samples: &[f64], reference: &[f64], precision: f64, recall: f64) {
        let (samples, reference) = (line(samples), line(reference));
        assert_eq!((fraction(&samples, &reference), fraction(&reference, &samples)), (precision, recall));
        // The same through the whole, of enough samples.
        if samples.size()[0] >= Blocks::COUNT as i64 {
            let found = precision_recall(&samples, &reference, 0).unwrap();
            assert_eq!((found.precision.value, found.recall.value), (precision, recall));
        }
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
        check(&[0.5; 12], &reference, 1.0, 0.0);
        check(&[0.0, 1.0, 2.0, 3.0].repeat(3), &reference, 1.0, 1.0);
    }

    /// Points far from the origin, as features are, of which every one is there `times`, in another order on the other side.
    #[track_caller]
    fn check_copies(width: i64, count: i64, times: i64) {
        tch::manual_seed(width);
        let points = (Tensor::rand([count, width], (Kind::Float, tch::Device::Cpu)) + 5.0).repeat([times, 1]);
        let shuffled = points.index_select(0, &Tensor::randperm(count * times, (Kind::Int64, tch::Device::Cpu)));
        let found = precision_recall(&shuffled, &points, 0).unwrap();
        assert_eq!((found.precision.value, found.recall.value), (1.0, 1.0), "{width}, {count}, {times}");
        // What differs in the last digits of fp32 is no copy: outside of neighbourhoods that are points, but for one.
        let beside = &points + 5e-6;
        let beside = Tensor::cat(&[beside.narrow(0, 1, count * times - 1), points.narrow(0, 0, 1)], 0);
        let found = precision_recall(&beside, &points, 0).unwrap();
        let expected = if times > 3 { 1.0 / (count * times) as f64 } else { 1.0 };
        assert_eq!(found.precision.value, expected, "{width}, {count}, {times}");
    }

    #[test]
    fn copies_are_covered_whatever_rounding_does() {
        for width in [3, 128, 2048] {
            // With four copies of it a point's neighbourhood is the point itself.
            check_copies(width, 30, 4);
            check_copies(width, 30, 7);
            check_copies(width, 30, 2);
        }
    }

    fn random(seed: i64, rows: i64, spread: f64) -> Tensor {
        tch::manual_seed(seed);
        Tensor::randn([rows, 3], (Kind::Double, tch::Device::Cpu)) * spread
    }

    #[test]
    fn tiles_do_not_matter() {
        let points = random(1, 1500, 1.0);
        let exact = squared_distances(&points, &points).unwrap().topk(4, 1, false, true).0.select(1, 3);
        let centres = Centres::new(&points, &everything(&points)).unwrap();
        assert_eq!(centres.tiles.len(), 1);
        assert!((centres.tiles[0].radii.select(0, 0) - exact).abs().max().double_value(&[]) < 1e-12);
    }

    #[test]
    fn recall_without_a_block_is_recall_of_the_others() {
        // 23: blocks of three and of two.
        for count in [10, 23, 200] {
            let (samples, reference) = (random(2, count, 0.7), random(3, 150, 1.0));
            let rows = Blocks::new(count as usize, 4).rows(0, count as usize);
            let hits = covered(&reference, &Centres::new(&samples, &rows).unwrap()).unwrap();
            assert_eq!(hits.whole as f64 / 150.0, fraction(&reference, &samples));
            for block in 0..Blocks::COUNT {
                let kept: Vec<&Tensor> =
                    rows.iter().enumerate().filter(|(of, _)| *of != block).map(|(_, rows)| rows).collect();
                let rest = samples.index_select(0, &Tensor::cat(&kept, 0));
                assert_eq!(hits.without[block] as f64 / 150.0, fraction(&reference, &rest), "{count}: {block}");
            }
        }
    }

    #[test]
    fn recalls_interval_is_as_wide_as_draws_are_apart() {
        let reference = random(5, 2000, 1.0);
        let draws: Vec<Estimate> = (0..40)
            .map(|seed| precision_recall(&random(100 + seed, 200, 0.6), &reference, 0).unwrap().recall)
            .collect();
        let mean = draws.iter().map(|draw| draw.value).sum::<f64>() / 40.0;
        let spread = (draws.iter().map(|draw| (draw.value - mean).powi(2)).sum::<f64>() / 39.0).sqrt();
        let half = draws.iter().map(|draw| draw.high - draw.value).sum::<f64>() / 40.0;
        // Of a normal distribution 1.96 times; Student's t makes it more, and the jackknife errs on the wide side.
        assert!(half > 1.7 * spread && half < 5.0 * spread, "{half} for draws {spread} apart");
        // That of a fraction of the reference would be far too narrow, with neighbourhoods that are not redrawn.
        let fixed = Estimate::fraction((mean * 1000.0) as usize, 1000);
        assert!(fixed.high - fixed.value < 0.75 * half, "{fixed:?} {half}");
        let inside = draws.iter().filter(|draw| draw.low <= mean && mean <= draw.high).count();
        // Of 95 %, fewer than 35 of 40 come in one of 72 times; these draws are the same whenever they are made.
        assert!(inside >= 35, "{inside} of 40 intervals hold the mean");
    }

    #[test]
    fn too_few_are_refused() {
        let (few, more) = (line(&[1.0, 2.0, 3.0]), line(&[1.0; 12]));
        let refused = |samples, reference| match precision_recall(samples, reference, 0) {
            Err(Error::TooFew { found, needed, .. }) => (found, needed),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&few, &more), (3, 10));
        assert_eq!(refused(&more, &few), (3, 4));
    }
}
