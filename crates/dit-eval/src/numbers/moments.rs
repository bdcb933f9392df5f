//! Mean and covariance, a batch at a time.

use tch::{Kind, Tensor};

use super::{Gaussian, checked};
use crate::Error;

/// The count, mean and scatter of vectors, in f64, that batches are added to and that are added to each other.
///
/// The sums are of deviations from the running mean, so that nothing cancels (Chan, Golub & LeVeque 1983).
#[derive(Debug)]
pub struct Moments {
    count: f64,
    /// (D).
    mean: Tensor,
    /// Σ (x − mean)(x − mean)ᵀ, (D, D).
    scatter: Tensor,
}

impl Clone for Moments {
    fn clone(&self) -> Self {
        Self { count: self.count, mean: self.mean.copy(), scatter: self.scatter.copy() }
    }
}

impl Moments {
    /// Of no vector of `width` numbers.
    ///
    /// # Errors
    /// [`Error::Torch`] where memory does not suffice.
    pub fn new(width: usize) -> Result<Self, Error> {
        let (width, options) = (width as i64, (Kind::Double, tch::Device::Cpu));
        let (mean, scatter) = (Tensor::f_zeros([width], options)?, Tensor::f_zeros([width, width], options)?);
        Ok(Self { count: 0.0, mean, scatter })
    }

    /// How many vectors there were.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Adds `batch` (N, D).
    ///
    /// # Errors
    /// [`Error::NonFinite`], [`Error::Width`], [`Error::TensorShape`].
    pub fn push(&mut self, batch: &Tensor) -> Result<(), Error> {
        let batch = checked("features", batch)?;
        let count = batch.size().first().copied().unwrap_or(0);
        if count == 0 {
            return Ok(());
        }
        if batch.size().get(1) != self.mean.size().first() {
            let samples = batch.size().get(1).copied().unwrap_or(0) as usize;
            return Err(Error::Width { samples, reference: self.mean.numel() });
        }
        let mean = batch.f_mean_dim(&[0i64][..], false, Kind::Double)?;
        let deviations = &batch - &mean;
        // In place: (D, D) is large.
        let _ = self.scatter.f_addmm_(&deviations.f_transpose(0, 1)?, &deviations)?;
        self.shift_by(&mean, count as f64)
    }

    /// Adds the vectors that `other` has seen.
    ///
    /// # Errors
    /// [`Error::Width`].
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        self.combine(other, 1.0)
    }

    /// The moments of the vectors that `part` has not seen; `part` must be part of these.
    ///
    /// # Errors
    /// [`Error::Width`].
    pub fn without(&self, part: &Self) -> Result<Self, Error> {
        let mut rest = self.clone();
        rest.combine(part, -1.0)?;
        Ok(rest)
    }

    /// Adds (`sign` 1) or takes away (−1).
    fn combine(&mut self, other: &Self, sign: f64) -> Result<(), Error> {
        if self.mean.size() != other.mean.size() {
            return Err(Error::Width { samples: other.mean.numel(), reference: self.mean.numel() });
        }
        if other.count == 0.0 {
            return Ok(());
        }
        let _ = self.scatter.f_add_(&(&other.scatter * sign))?;
        self.shift_by(&other.mean, sign * other.count)
    }

    /// Moves the mean, and the scatter with it, for `count` more vectors of mean `mean` (fewer, if it is negative).
    fn shift_by(&mut self, mean: &Tensor, count: f64) -> Result<(), Error> {
        let total = self.count + count;
        if total <= 0.0 {
            // Nothing is left.
            *self = Self::new(self.mean.numel())?;
            return Ok(());
        }
        let shift = mean - &self.mean;
        let _ = self.scatter.f_addr_(&(&shift * (self.count * count / total)), &shift)?;
        let _ = self.mean.f_add_(&(shift * (count / total)))?;
        self.count = total;
        Ok(())
    }

    /// Mean and unbiased covariance.
    ///
    /// # Errors
    /// [`Error::TooFew`] for fewer than two vectors.
    pub fn gaussian(&self) -> Result<Gaussian, Error> {
        if self.count < 2.0 {
            return Err(Error::TooFew { what: "samples", found: self.count(), needed: 2 });
        }
        Gaussian::new(self.mean.copy(), &self.scatter / (self.count - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: i64, rows: i64, columns: i64) -> Tensor {
        tch::manual_seed(seed);
        Tensor::randn([rows, columns], (Kind::Double, tch::Device::Cpu)) * 3.0 + 1000.0
    }

    #[track_caller]
    fn assert_same(a: &Moments, b: &Moments) {
        assert_eq!(a.count, b.count);
        assert!((&a.mean - &b.mean).abs().max().double_value(&[]) < 1e-10);
        let difference = (&a.scatter - &b.scatter).abs().max().double_value(&[]);
        assert!(difference < 1e-8 * b.scatter.abs().max().double_value(&[]), "{difference}");
    }

    #[test]
    fn batches_do_not_matter() {
        let x = random(1, 101, 7);
        let mut whole = Moments::new(7).unwrap();
        whole.push(&x).unwrap();
        for size in [1, 10, 64] {
            let mut parts = Moments::new(7).unwrap();
            x.split(size, 0).iter().for_each(|part| parts.push(part).unwrap());
            assert_same(&parts, &whole);
        }
        let gaussian = whole.gaussian().unwrap();
        assert!(
            (gaussian.covariance() - x.transpose(0, 1).cov(1, None::<&Tensor>, None::<&Tensor>))
                .abs()
                .max()
                .double_value(&[])
                < 1e-9
        );
    }

    #[test]
    fn taking_away_undoes_adding() {
        let (mut a, mut b) = (Moments::new(5).unwrap(), Moments::new(5).unwrap());
        a.push(&random(1, 40, 5)).unwrap();
        b.push(&random(2, 30, 5)).unwrap();
        let mut both = a.clone();
        both.merge(&b).unwrap();
        assert_same(&both.without(&b).unwrap(), &a);
        assert_same(&both.without(&Moments::new(5).unwrap()).unwrap(), &both);
    }

    #[test]
    fn what_cannot_be_a_mean_is_refused() {
        let mut moments = Moments::new(2).unwrap();
        assert!(matches!(moments.gaussian(), Err(Error::TooFew { found: 0, needed: 2, .. })));
        let nan = Tensor::from_slice(&[f64::NAN, 1.0, f64::INFINITY, 2.0]).view([2, 2]);
        assert!(matches!(moments.push(&nan), Err(Error::NonFinite { count: 2, .. })));
        assert!(matches!(moments.push(&random(1, 3, 3)), Err(Error::Width { .. })));
        assert!(matches!(moments.push(&random(1, 3, 2).flatten(0, 1)), Err(Error::TensorShape { .. })));
        assert_eq!(moments.count(), 0);
    }
}
