//! The Inception score. Salimans et al. 2016, section 4.

use tch::{Device, Kind, Tensor};

use super::blocks::permutation;
use super::{Blocks, Estimate, all_came, checked, enough};
use crate::Error;

/// exp(E[KL(p(y|x) ‖ p(y))]) as the mean over splits of the samples, a batch of logits at a time.
#[derive(Debug)]
pub struct InceptionScore {
    splits: usize,
    /// For each sample, its split times ten plus its block.
    cells: Vec<i64>,
    /// Σ p(y|x) of each cell, (S · 10, K).
    p: Option<Tensor>,
    /// Σ Σ p log p of each cell, (S · 10).
    p_log_p: Tensor,
    /// Samples of each cell, (S · 10).
    counts: Tensor,
    seen: usize,
}

impl InceptionScore {
    /// Samples in a split, as the published evaluators have it.
    pub const SPLIT: usize = 5000;

    /// Whether so many samples suffice.
    pub(crate) fn check_count(samples: usize) -> Result<(), Error> {
        enough("samples for the Inception score", samples, Blocks::COUNT)
    }

    /// For `count` samples in splits of about `size`, all of nearly the same size, to which samples are dealt at random by `seed`:
    /// samples are often sorted by class, and a split of few classes would have little variety.
    pub fn new(count: usize, size: usize, seed: u64) -> Self {
        Self::dealt(&permutation(count, seed), size, seed)
    }

    /// The same with splits in the samples' own order: of samples in random order only.
    pub fn in_order(count: usize, size: usize, seed: u64) -> Self {
        Self::dealt(&(0..count).collect::<Vec<_>>(), size, seed)
    }

    fn dealt(order: &[usize], size: usize, seed: u64) -> Self {
        let (count, size) = (order.len(), size.max(1));
        let splits = ((count + size / 2) / size).max(1);
        let blocks = Blocks::new(count, seed);
        let mut cells = vec![0; count];
        for (place, &sample) in order.iter().enumerate() {
            let split = place * splits / count;
            cells[sample] = (split * Blocks::COUNT + blocks.of(sample)) as i64;
        }
        let zeros = || Tensor::zeros([(splits * Blocks::COUNT) as i64], (Kind::Double, Device::Cpu));
        Self { splits, cells, p: None, p_log_p: zeros(), counts: zeros(), seen: 0 }
    }

    /// Adds logits (N, K) of the samples that come next.
    ///
    /// # Errors
    /// [`Error::TensorShape`] for another K, and for more samples than were announced; [`Error::NonFinite`].
    pub fn push(&mut self, logits: &Tensor) -> Result<(), Error> {
        let log_p = checked("logits", logits)?.f_log_softmax(1, Kind::Double)?;
        let (rows, classes) = log_p.size2()?;
        let bad = |expected| Error::TensorShape { what: "logits", actual: logits.size(), expected };
        let cells = self.cells.get(self.seen..self.seen + rows as usize);
        let cells = Tensor::f_from_slice(cells.ok_or_else(|| bad("no more samples than were announced"))?)?;
        let p = log_p.f_exp()?;
        let p_log_p = (&p * &log_p).f_sum_dim_intlist(&[1i64][..], false, Kind::Double)?; // (N)
        let mut sums = match self.p.take() {
            Some(sums) => sums,
            None => Tensor::f_zeros([self.p_log_p.size1()?, classes], (Kind::Double, Device::Cpu))?,
        };
        if sums.size2()?.1 != classes {
            return Err(bad("as many classes as before"));
        }
        let _ = sums.f_index_add_(0, &cells, &p)?;
        let _ = self.p_log_p.f_index_add_(0, &cells, &p_log_p)?;
        let _ = self.counts.f_index_add_(0, &cells, &p_log_p.f_ones_like()?)?;
        self.p = Some(sums);
        self.seen += rows as usize;
        Ok(())
    }

    /// The score; its interval is of the same mean over splits.
    ///
    /// # Errors
    /// [`Error::NotAll`] for fewer samples than were announced, [`Error::TooFew`] for fewer than ten.
    pub fn estimate(&self) -> Result<Estimate, Error> {
        all_came(self.seen, self.cells.len())?;
        Self::check_count(self.seen)?;
        // What was seen was pushed.
        let p = self.p.as_ref().ok_or(Error::TooFew { what: "samples", found: 0, needed: Blocks::COUNT })?;
        let shape = [self.splits as i64, Blocks::COUNT as i64];
        let p = p.f_view([shape[0], shape[1], -1])?; // (S, 10, K)
        let (p_log_p, counts) = (self.p_log_p.f_view(shape)?, self.counts.f_view(shape)?);
        let kept = |block: i64| -> Result<f64, Error> {
            let left = |x: &Tensor| -> Result<Tensor, Error> {
                Ok(x.f_sum_dim_intlist(&[1i64][..], false, Kind::Double)? - x.f_select(1, block)?)
            };
            score(&left(&p)?, &left(&p_log_p)?, &left(&counts)?)
        };
        let all = |x: &Tensor| x.f_sum_dim_intlist(&[1i64][..], false, Kind::Double);
        let value = score(&all(&p)?, &all(&p_log_p)?, &all(&counts)?)?;
        let mut without = [0.0; Blocks::COUNT];
        for (slot, block) in without.iter_mut().zip(0..) {
            *slot = kept(block)?;
        }
        Ok(Estimate::jackknife(value, &without, 1.0))
    }
}

/// The mean score over splits, given their sums of p (S, K), of p log p (S) and of samples (S).
fn score(p: &Tensor, p_log_p: &Tensor, counts: &Tensor) -> Result<f64, Error> {
    // What a block's absence leaves empty, in a split of few samples, has no score.
    let filled = counts.f_gt(0.5)?;
    let counts = counts.f_clamp_min(1.0)?;
    // A class that nobody has contributes nothing: 0 log 0 = 0. Taking a block away may leave −0 and rounding.
    let marginal = (p / counts.f_unsqueeze(1)?).f_clamp_min(0.0)?; // (S, K)
    let entropy = marginal.f_xlogy(&marginal)?.f_sum_dim_intlist(&[1i64][..], false, Kind::Double)?; // (S)
    let scores = (p_log_p / &counts - entropy).f_exp()?;
    Ok(scores.f_masked_select(&filled)?.f_mean(Kind::Double)?.double_value(&[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits that are sure of a class each.
    fn sure(classes: &[i64], among: i64) -> Tensor {
        Tensor::from_slice(classes).one_hot(among).to_kind(Kind::Double) * 200.0
    }

    fn of(mut score: InceptionScore, logits: &Tensor) -> Estimate {
        // In batches that do not fall on splits.
        logits.split(7, 0).iter().for_each(|part| score.push(part).unwrap());
        score.estimate().unwrap()
    }

    #[track_caller]
    fn check(classes: &[i64], size: usize, expected: f64) {
        let found = of(InceptionScore::in_order(classes.len(), size, 0), &sure(classes, 4));
        assert!((found.value - expected).abs() < 1e-9, "{found:?}, expected {expected}");
        assert!(found.low >= 1.0);
    }

    #[test]
    fn scores_count_classes() {
        check(&[0; 40], 5000, 1.0);
        check(&[0, 1, 2, 3].repeat(10), 5000, 4.0);
        check(&[0, 1].repeat(20), 5000, 2.0);
        // Two splits of one class each are no variety; three splits of 2, 2 and 1 classes.
        check(&[[0; 20], [1; 20]].concat(), 20, 1.0);
        check(&[0, 1].repeat(16), 8, 2.0);
        check(&[[0, 1].repeat(20), vec![2; 20]].concat(), 20, (2.0 + 2.0 + 1.0) / 3.0);
        // What is left over is spread: no split of a few samples.
        check(&[0, 1].repeat(11), 20, 2.0);
    }

    /// Random logits of which each leans to a class, class after class.
    fn sorted(count: i64) -> Tensor {
        tch::manual_seed(1);
        let classes: Vec<i64> = (0..count).map(|index| index * 8 / count).collect();
        sure(&classes, 8) * 0.02 + Tensor::randn([count, 8], (Kind::Double, Device::Cpu))
    }

    #[test]
    fn the_order_of_the_samples_does_not_matter() {
        let by_class = sorted(4000);
        let shuffled = by_class.index_select(0, &Tensor::randperm(4000, (Kind::Int64, Device::Cpu)));
        let score = |seed| of(InceptionScore::new(4000, 500, seed), &by_class);
        let (first, again) = (score(0), of(InceptionScore::new(4000, 500, 0), &shuffled));
        // Only which samples share a split differs: less than the interval, and no more than another seed does.
        let half = first.high - first.value;
        assert!((first.value - again.value).abs() < half / 2.0, "{first:?} {again:?}");
        assert!((first.value - score(1).value).abs() < half / 2.0);
        // Split in the order of the classes, a split has one class of eight.
        let in_order = of(InceptionScore::in_order(4000, 500, 0), &by_class);
        assert!(in_order.value < 0.6 * first.value, "{in_order:?} {first:?}");
    }

    #[test]
    fn the_interval_is_of_the_mean_over_splits() {
        let (count, size) = (400, 100);
        let logits = sorted(count);
        let score = InceptionScore::new(count as usize, size, 3);
        let cells = score.cells.clone();
        let found = of(score, &logits);
        // By hand: each block left out of every split.
        let mean = |without: Option<i64>| {
            let each: Vec<f64> = (0..4)
                .map(|split| {
                    let kept: Vec<i64> = (0..count)
                        .filter(|&row| cells[row as usize] / 10 == split && Some(cells[row as usize] % 10) != without)
                        .collect();
                    assert_eq!(kept.len(), if without.is_some() { 90 } else { 100 });
                    let p = logits.index_select(0, &Tensor::from_slice(&kept)).softmax(1, Kind::Double);
                    let marginal = p.mean_dim(&[0i64][..], true, Kind::Double);
                    (&p * (p.log() - marginal.log()))
                        .sum_dim_intlist(&[1i64][..], false, Kind::Double)
                        .mean(Kind::Double)
                        .exp()
                        .double_value(&[])
                })
                .collect();
            each.iter().sum::<f64>() / 4.0
        };
        let expected =
            Estimate::jackknife(mean(None), &std::array::from_fn::<f64, 10, _>(|block| mean(Some(block as i64))), 1.0);
        for (a, b) in [(found.value, expected.value), (found.low, expected.low), (found.high, expected.high)] {
            assert!((a - b).abs() < 1e-9, "{found:?} instead of {expected:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut score = InceptionScore::new(3, 10, 0);
        score.push(&sure(&[0, 1], 4)).unwrap();
        assert!(matches!(score.estimate(), Err(Error::NotAll { found: 2, announced: 3 })));
        score.push(&sure(&[2], 4)).unwrap();
        assert!(matches!(score.estimate(), Err(Error::TooFew { found: 3, .. })));
        assert!(matches!(score.push(&sure(&[0], 4)), Err(Error::TensorShape { .. })));
        let mut score = InceptionScore::new(3, 10, 0);
        score.push(&sure(&[0, 1], 4)).unwrap();
        assert!(matches!(score.push(&sure(&[0], 5)), Err(Error::TensorShape { .. })));
    }
}
