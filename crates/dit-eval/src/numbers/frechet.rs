//! The Fréchet distance of two Gaussians. Fréchet 1957; Heusel et al. 2017, equation 6.

use tch::{Kind, Tensor};

use super::{Blocks, Estimate, Moments};
use crate::Error;

/// What may be rounding, as a share of the largest value: covariances are also kept in f32.
const ROUNDING: f64 = 1e-5;

/// A mean (D) and a covariance (D, D), f64, finite.
#[derive(Debug)]
pub struct Gaussian {
    mean: Tensor,
    covariance: Tensor,
}

impl Gaussian {
    /// The Gaussian of these moments.
    ///
    /// # Errors
    /// [`Error::TensorShape`], [`Error::NonFinite`], [`Error::NotCovariance`] unless the covariance is symmetric.
    pub fn new(mean: Tensor, covariance: Tensor) -> Result<Self, Error> {
        let (mean, covariance) = (mean.f_to_kind(Kind::Double)?, covariance.f_to_kind(Kind::Double)?);
        let width = mean.numel() as i64;
        if mean.size() != [width] || covariance.size() != [width, width] {
            let actual = [mean.size(), covariance.size()].concat();
            return Err(Error::TensorShape { what: "mean and covariance", actual, expected: "(D) and (D, D)" });
        }
        for (what, x) in [("means", &mean), ("covariances", &covariance)] {
            let finite = x.f_isfinite()?.f_sum(Kind::Int64)?.int64_value(&[]) as usize;
            if finite < x.numel() {
                return Err(Error::NonFinite { what, count: x.numel() - finite });
            }
        }
        let largest = |x: &Tensor| -> Result<f64, Error> {
            Ok(if x.numel() == 0 { 0.0 } else { x.f_abs()?.f_max()?.double_value(&[]) })
        };
        if largest(&(&covariance - covariance.f_transpose(0, 1)?))? > ROUNDING * largest(&covariance)? {
            return Err(Error::NotCovariance { problem: "is not symmetric" });
        }
        Ok(Self { mean, covariance })
    }

    /// (D).
    pub fn mean(&self) -> &Tensor {
        &self.mean
    }

    /// (D, D).
    pub fn covariance(&self) -> &Tensor {
        &self.covariance
    }

    /// D.
    pub fn width(&self) -> usize {
        self.mean.numel()
    }
}

/// What distances are measured to, with the root of its covariance.
#[derive(Debug)]
pub struct FrechetReference {
    gaussian: Gaussian,
    /// The symmetric root of the covariance.
    root: Tensor,
}

impl FrechetReference {
    /// Measures to `gaussian`.
    ///
    /// # Errors
    /// [`Error::NotCovariance`] for variances below zero, [`Error::Torch`].
    pub fn new(gaussian: Gaussian) -> Result<Self, Error> {
        let (values, vectors) = symmetric(&gaussian.covariance)?.f_linalg_eigh("L")?;
        let end = |x: Tensor| x.double_value(&[]);
        if end(values.f_min()?) < -ROUNDING * end(values.f_abs()?.f_max()?) {
            return Err(Error::NotCovariance { problem: "has variances below zero" });
        }
        let scaled = &vectors * above_rounding(&values)?.f_sqrt()?;
        let root = scaled.f_matmul(&vectors.f_transpose(0, 1)?)?;
        Ok(Self { gaussian, root })
    }

    /// How many numbers a vector has.
    pub fn width(&self) -> usize {
        self.gaussian.width()
    }

    /// ‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁Σ₂)^½.
    ///
    /// (Σ₁Σ₂)^½ has the eigenvalues of (R Σ₁ R)^½ with R² = Σ₂, which is symmetric: its eigenvalues are real, and no singular
    /// covariance makes them fail. Those that are nothing but rounding count as zero.
    ///
    /// # Errors
    /// [`Error::Width`], [`Error::Torch`].
    pub fn distance(&self, samples: &Gaussian) -> Result<f64, Error> {
        if samples.width() != self.gaussian.width() {
            return Err(Error::Width { samples: samples.width(), reference: self.gaussian.width() });
        }
        let inner = self.root.f_matmul(&samples.covariance)?.f_matmul(&self.root)?;
        let values = symmetric(&inner)?.f_linalg_eigvalsh("L")?;
        let cross = above_rounding(&values)?.f_sqrt()?.f_sum(Kind::Double)?.double_value(&[]);
        let shift = (&samples.mean - &self.gaussian.mean).f_square()?.f_sum(Kind::Double)?.double_value(&[]);
        let trace = |x: &Tensor| -> Result<f64, Error> { Ok(x.f_trace()?.double_value(&[])) };
        let distance = shift + trace(&samples.covariance)? + trace(&self.gaussian.covariance)? - 2.0 * cross;
        // What is below zero is rounding.
        Ok(distance.max(0.0))
    }

    /// The distance of samples that came in [`Blocks`], with its interval.
    ///
    /// # Errors
    /// [`Error::TensorShape`] unless there are ten blocks;
    /// [`Error::TooFew`] where a block's absence leaves fewer than two samples; as [`distance`](Self::distance).
    pub fn estimate(&self, blocks: &[Moments]) -> Result<Estimate, Error> {
        if blocks.len() != Blocks::COUNT {
            let actual = vec![blocks.len() as i64];
            return Err(Error::TensorShape { what: "blocks of samples", actual, expected: "10" });
        }
        let mut all = Moments::new(self.gaussian.width())?;
        blocks.iter().try_for_each(|block| all.merge(block))?;
        let value = self.distance(&all.gaussian()?)?;
        let mut without = [0.0; Blocks::COUNT];
        for (slot, block) in without.iter_mut().zip(blocks) {
            *slot = self.distance(&all.without(block)?.gaussian()?)?;
        }
        Ok(Estimate::jackknife(value, without, 0.0))
    }
}

fn symmetric(x: &Tensor) -> Result<Tensor, Error> {
    Ok((x + x.f_transpose(0, 1)?) * 0.5)
}

/// Eigenvalues, ascending, with those below D · ε · the largest set to zero.
fn above_rounding(values: &Tensor) -> Result<Tensor, Error> {
    let largest = values.f_max()?.double_value(&[]).max(0.0);
    let least = values.numel() as f64 * f64::EPSILON * largest;
    Ok(values.f_where_self(&values.f_gt(least)?, &values.f_zeros_like()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagonal(mean: &[f64], variances: &[f64]) -> Gaussian {
        Gaussian::new(Tensor::from_slice(mean), Tensor::from_slice(variances).diag(0)).unwrap()
    }

    /// For commuting covariances: ‖μ₁ − μ₂‖² + Σ (√v₁ − √v₂)².
    #[track_caller]
    fn check(a: (&[f64], &[f64]), b: (&[f64], &[f64])) {
        let shift: f64 = a.0.iter().zip(b.0).map(|(a, b)| (a - b).powi(2)).sum();
        let spread: f64 = a.1.iter().zip(b.1).map(|(a, b)| (a.sqrt() - b.sqrt()).powi(2)).sum();
        let expected = shift + spread;
        // The same in another basis, in which nothing is diagonal.
        tch::manual_seed(a.0.len() as i64);
        let width = a.0.len() as i64;
        let random = Tensor::randn([width, width], (Kind::Double, tch::Device::Cpu));
        let (basis, _) = Tensor::linalg_qr(&random, "reduced");
        let turned = |(mean, variances): (&[f64], &[f64])| {
            let Gaussian { mean, covariance } = diagonal(mean, variances);
            Gaussian::new(basis.matmul(&mean), basis.matmul(&covariance).matmul(&basis.transpose(0, 1))).unwrap()
        };
        let pairs = [(diagonal(a.0, a.1), diagonal(b.0, b.1)), (turned(a), turned(b)), (turned(b), turned(a))];
        for (samples, reference) in pairs {
            let found = FrechetReference::new(reference).unwrap().distance(&samples).unwrap();
            // What the distance is a difference of.
            let traces: f64 = a.1.iter().chain(b.1).sum();
            assert!((found - expected).abs() <= 1e-8 * (expected + traces), "{found}, expected {expected}");
        }
    }

    #[test]
    fn distances_have_their_closed_form() {
        check((&[0.0, 0.0], &[1.0, 1.0]), (&[0.0, 0.0], &[1.0, 1.0]));
        check((&[1.0, -2.0], &[1.0, 4.0]), (&[0.5, 3.0], &[9.0, 0.25]));
        check((&[0.0; 5], &[1.0, 2.0, 3.0, 4.0, 5.0]), (&[1.0; 5], &[5.0, 4.0, 3.0, 2.0, 1.0]));
    }

    #[test]
    fn singular_covariances_are_no_failure() {
        // One side, both sides in the same direction, both in different ones, and nothing but means.
        check((&[0.0; 3], &[1.0, 2.0, 0.0]), (&[1.0; 3], &[1.0, 3.0, 4.0]));
        check((&[0.0; 3], &[1.0, 2.0, 0.0]), (&[1.0; 3], &[5.0, 3.0, 0.0]));
        check((&[0.0; 3], &[0.0, 2.0, 0.0]), (&[1.0; 3], &[5.0, 0.0, 1.0]));
        check((&[0.0; 3], &[0.0; 3]), (&[1.0, 2.0, 3.0], &[0.0; 3]));
        check((&[0.0; 4], &[1e-9, 1.0, 1e6, 0.0]), (&[0.0; 4], &[1e-8, 4.0, 1e6, 0.0]));
    }

    #[test]
    fn other_widths_and_values_that_are_not_numbers_are_refused() {
        let reference = FrechetReference::new(diagonal(&[0.0], &[1.0])).unwrap();
        assert!(matches!(reference.distance(&diagonal(&[0.0; 2], &[1.0; 2])), Err(Error::Width { .. })));
        let mean = Tensor::from_slice(&[f64::NAN]);
        let covariance = Tensor::from_slice(&[1.0]).view([1, 1]);
        assert!(matches!(Gaussian::new(mean, covariance.copy()), Err(Error::NonFinite { count: 1, .. })));
        assert!(matches!(Gaussian::new(covariance.copy(), covariance), Err(Error::TensorShape { .. })));
    }

    #[test]
    fn what_is_no_covariance_is_refused() {
        let skewed = Tensor::from_slice(&[1.0, 0.5, 0.4, 1.0]).view([2, 2]);
        let mean = || Tensor::zeros([2], (Kind::Double, tch::Device::Cpu));
        assert!(matches!(Gaussian::new(mean(), skewed), Err(Error::NotCovariance { .. })));
        let indefinite = Tensor::from_slice(&[1.0, 2.0, 2.0, 1.0]).view([2, 2]);
        let reference = FrechetReference::new(Gaussian::new(mean(), indefinite).unwrap());
        assert!(matches!(reference, Err(Error::NotCovariance { .. })));
        // Rounding to f32 is none of this: rank one, whose zero may be a little below.
        let x = Tensor::from_slice(&[0.1, 0.7, 1.3]).view([3, 1]);
        let rounded = x.matmul(&x.transpose(0, 1)).to_kind(Kind::Float);
        let mean = Tensor::zeros([3], (Kind::Double, tch::Device::Cpu));
        assert!(FrechetReference::new(Gaussian::new(mean, rounded).unwrap()).is_ok());
    }
}
