//! The Inception score. Salimans et al. 2016, section 4.

use tch::{Kind, Tensor};

use super::{Blocks, Estimate, checked};
use crate::Error;

/// exp(E[KL(p(y|x) ‖ p(y))]), a batch of logits at a time.
#[derive(Debug)]
pub struct InceptionScore {
    split: usize,
    splits: Vec<Sums>,
    blocks: [Sums; Blocks::COUNT],
    count: usize,
}

/// Sums over samples.
#[derive(Debug, Default)]
struct Sums {
    count: f64,
    /// Σ p(y|x), (K).
    p: Option<Tensor>,
    /// Σ Σ p log p.
    p_log_p: f64,
}

impl Sums {
    fn add(&mut self, p: &Tensor, p_log_p: &Tensor, sign: f64) -> Result<(), Error> {
        self.count += sign * p.size().first().copied().unwrap_or(0) as f64;
        self.p_log_p += sign * p_log_p.f_sum(Kind::Double)?.double_value(&[]);
        let sum = p.f_sum_dim_intlist(&[0i64][..], false, Kind::Double)?;
        self.p = Some(match self.p.take() {
            Some(before) => before + sum * sign,
            None => sum * sign,
        });
        Ok(())
    }

    fn merge(&mut self, other: &Self, sign: f64) {
        self.count += sign * other.count;
        self.p_log_p += sign * other.p_log_p;
        self.p = match (self.p.take(), &other.p) {
            (Some(own), Some(other)) => Some(own + other * sign),
            (own, other) => own.or_else(|| other.as_ref().map(|p| p * sign)),
        };
    }

    fn score(&self) -> Result<f64, Error> {
        let Some(p) = &self.p else { return Err(too_few(0)) };
        // A class that nobody has contributes nothing: 0 log 0 = 0.
        let marginal = (p / self.count).f_clamp_min(0.0)?;
        let entropy = marginal.f_xlogy(&marginal)?.f_sum(Kind::Double)?.double_value(&[]);
        Ok((self.p_log_p / self.count - entropy).exp())
    }
}

fn too_few(found: usize) -> Error {
    Error::TooFew { what: "samples for the Inception score", found, needed: Blocks::COUNT }
}

impl InceptionScore {
    /// Samples in a split, as the published evaluators have it.
    pub const SPLIT: usize = 5000;

    /// The score as the mean over splits of `split` samples in their order, the last one of what is left.
    pub fn new(split: usize) -> Self {
        Self { split: split.max(1), splits: Vec::new(), blocks: Default::default(), count: 0 }
    }

    /// Adds logits (N, K) of the samples that come next; `blocks` tells where they belong.
    ///
    /// # Errors
    /// [`Error::NonFinite`], [`Error::TensorShape`].
    pub fn push(&mut self, logits: &Tensor, blocks: &Blocks) -> Result<(), Error> {
        let log_p = checked("logits", logits)?.f_log_softmax(1, Kind::Double)?;
        let p = log_p.f_exp()?;
        let p_log_p = (&p * &log_p).f_sum_dim_intlist(&[1i64][..], false, Kind::Double)?; // (N)
        let count = p.size().first().copied().unwrap_or(0) as usize;
        for (block, rows) in self.blocks.iter_mut().zip(blocks.rows(self.count, count)) {
            if rows.numel() > 0 {
                block.add(&p.f_index_select(0, &rows)?, &p_log_p.f_index_select(0, &rows)?, 1.0)?;
            }
        }
        let mut done = 0;
        while done < count {
            let index = (self.count + done) / self.split;
            let until = ((index + 1) * self.split - self.count).min(count);
            self.splits.resize_with(index + 1, Sums::default);
            let (start, length) = (done as i64, (until - done) as i64);
            if let Some(split) = self.splits.last_mut() {
                split.add(&p.f_narrow(0, start, length)?, &p_log_p.f_narrow(0, start, length)?, 1.0)?;
            }
            done = until;
        }
        self.count += count;
        Ok(())
    }

    /// The score; its interval is that of all samples as one split.
    ///
    /// # Errors
    /// [`Error::TooFew`] for fewer than ten samples.
    pub fn estimate(&self) -> Result<Estimate, Error> {
        if self.count < Blocks::COUNT {
            return Err(too_few(self.count));
        }
        let scores: Vec<f64> = self.splits.iter().map(Sums::score).collect::<Result<_, _>>()?;
        let mut without = [0.0; Blocks::COUNT];
        for (left_out, slot) in without.iter_mut().enumerate() {
            let mut rest = Sums::default();
            let kept = self.blocks.iter().enumerate().filter(|(index, _)| *index != left_out);
            kept.for_each(|(_, block)| rest.merge(block, 1.0));
            *slot = rest.score()?;
        }
        Ok(Estimate::jackknife(scores.iter().sum::<f64>() / scores.len() as f64, without, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits that are sure of a class each.
    fn sure(classes: &[i64], among: i64) -> Tensor {
        Tensor::from_slice(classes).one_hot(among).to_kind(Kind::Double) * 200.0
    }

    #[track_caller]
    fn check(classes: &[i64], split: usize, expected: f64) {
        let mut score = InceptionScore::new(split);
        let blocks = Blocks::new(classes.len(), 0);
        // In batches that do not fall on splits.
        sure(classes, 4).split(7, 0).iter().for_each(|part| score.push(part, &blocks).unwrap());
        let found = score.estimate().unwrap();
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
        check(&[0, 1].repeat(16), 12, 2.0);
        check(&[[0, 1].repeat(20), vec![2; 20]].concat(), 20, (2.0 + 2.0 + 1.0) / 3.0);
    }

    #[test]
    fn too_few_are_refused() {
        let mut score = InceptionScore::new(10);
        score.push(&sure(&[0, 1, 2], 4), &Blocks::new(3, 0)).unwrap();
        assert!(matches!(score.estimate(), Err(Error::TooFew { found: 3, .. })));
    }
}
