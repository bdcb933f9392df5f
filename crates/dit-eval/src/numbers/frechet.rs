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

/// What distances are measured to, with a root of its covariance.
#[derive(Debug)]
pub struct FrechetReference {
    gaussian: Gaussian,
    /// F with F Fᵀ = Σ, columns from the shortest to the longest: (D, R), R the covariance's rank.
    root: Tensor,
}

impl FrechetReference {
    /// Measures to `gaussian`.
    ///
    /// # Errors
    /// [`Error::NotCovariance`] for variances below zero, [`Error::Torch`].
    pub fn new(gaussian: Gaussian) -> Result<Self, Error> {
        let root = root_of(&gaussian.covariance)?;
        Ok(Self { gaussian, root })
    }

    /// How many numbers a vector has.
    pub fn width(&self) -> usize {
        self.gaussian.width()
    }

    /// ‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁Σ₂)^½.
    ///
    /// With Σ₁ = F₁F₁ᵀ and Σ₂ = F₂F₂ᵀ, (Σ₁Σ₂)^½ has the eigenvalues of (F₂ᵀΣ₁F₂)^½, the singular values of F₁ᵀF₂: real and not
    /// negative, whatever is singular, and each as exact as the largest (ε · √(λ₁λ₂)). Roots of the eigenvalues of F₂ᵀΣ₁F₂ would
    /// be exact to √ε of it only.
    ///
    /// # Errors
    /// [`Error::Width`]; [`Error::NotCovariance`] for variances below zero; [`Error::Torch`].
    pub fn distance(&self, samples: &Gaussian) -> Result<f64, Error> {
        self.check_width(samples)?;
        let product = root_of(&samples.covariance)?.f_transpose(0, 1)?.f_matmul(&self.root)?;
        let (_, lengths, _) = product.f_svd(true, false)?;
        self.with_cross(samples, sum(&lengths)?)
    }

    /// The same in a fraction of the time, by the eigenvalues of F₂ᵀΣ₁F₂: of singular covariances larger by √ε of the traces for
    /// each direction that is missing. Where both covariances fall off alike, the matrix is graded from its first row to its last,
    /// and an upper triangle is reduced from the end, so that small eigenvalues keep their digits.
    fn rough_distance(&self, samples: &Gaussian) -> Result<f64, Error> {
        self.check_width(samples)?;
        let inner = self.root.f_transpose(0, 1)?.f_matmul(&samples.covariance)?.f_matmul(&self.root)?;
        let values = symmetric(&inner)?.f_linalg_eigvalsh("U")?;
        self.with_cross(samples, sum(&values.f_clamp_min(0.0)?.f_sqrt()?)?)
    }

    fn check_width(&self, samples: &Gaussian) -> Result<(), Error> {
        let (samples, reference) = (samples.width(), self.gaussian.width());
        if samples == reference { Ok(()) } else { Err(Error::Width { samples, reference }) }
    }

    /// The distance, given tr (Σ₁Σ₂)^½.
    fn with_cross(&self, samples: &Gaussian, cross: f64) -> Result<f64, Error> {
        let shift = sum(&(&samples.mean - &self.gaussian.mean).f_square()?)?;
        let trace = |x: &Gaussian| -> Result<f64, Error> { Ok(x.covariance.f_trace()?.double_value(&[])) };
        // What is below zero is rounding.
        Ok((shift + trace(samples)? + trace(&self.gaussian)? - 2.0 * cross).max(0.0))
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
        // Only how far they are from one another counts: what the rough way adds, it adds to all alike.
        let filled = blocks.iter().filter(|block| block.count() > 0);
        let without = filled.map(|block| self.rough_distance(&all.without(block)?.gaussian()?));
        Ok(Estimate::jackknife(value, &without.collect::<Result<Vec<_>, _>>()?, 0.0))
    }
}

fn sum(x: &Tensor) -> Result<f64, Error> {
    Ok(x.f_sum(Kind::Double)?.double_value(&[]))
}

fn symmetric(x: &Tensor) -> Result<Tensor, Error> {
    Ok((x + x.f_transpose(0, 1)?) * 0.5)
}

/// F with F Fᵀ = `covariance` and orthogonal columns, from the shortest to the longest: (D, R). Directions whose variance is nothing
/// but rounding, below D · ε of the largest, are left out: their roots would not be small.
fn root_of(covariance: &Tensor) -> Result<Tensor, Error> {
    let (values, vectors) = symmetric(covariance)?.f_linalg_eigh("L")?; // ascending
    let end = |x: Tensor| x.double_value(&[]);
    let largest = if values.numel() == 0 { 0.0 } else { end(values.f_abs()?.f_max()?) };
    if values.numel() > 0 && end(values.f_min()?) < -ROUNDING * largest {
        return Err(Error::NotCovariance { problem: "has variances below zero" });
    }
    let least = values.numel() as f64 * f64::EPSILON * largest;
    let rounding = end(values.f_le(least)?.f_sum(Kind::Int64)?) as i64;
    let kept = values.size1()? - rounding;
    Ok(vectors.f_narrow(1, rounding, kept)? * values.f_narrow(0, rounding, kept)?.f_sqrt()?)
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
        let basis = basis(a.0.len() as i64);
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

    /// Random orthogonal (D, D).
    fn basis(width: i64) -> Tensor {
        tch::manual_seed(width);
        Tensor::linalg_qr(&Tensor::randn([width, width], (Kind::Double, tch::Device::Cpu)), "reduced").0
    }

    /// Covariances of full rank with variances over many orders of magnitude, `scale` apart: every eigenvalue counts, relative to
    /// the distance itself, which is far below the traces.
    #[track_caller]
    fn check_wide(width: i64, power: f64, scale: f64) {
        let variances: Vec<f64> = (1..=width).map(|index| (index as f64).powf(-power)).collect();
        let basis = basis(width);
        let of = |scale: f64| {
            let scaled = &basis * Tensor::from_slice(&variances) * scale;
            Gaussian::new(
                Tensor::zeros([width], (Kind::Double, tch::Device::Cpu)),
                scaled.matmul(&basis.transpose(0, 1)),
            )
        };
        let reference = FrechetReference::new(of(1.0).unwrap()).unwrap();
        let trace: f64 = variances.iter().sum();
        let expected = (scale.sqrt() - 1.0).powi(2) * trace;
        let bound = 1e-13 * width as f64 * trace + 1e-6 * expected;
        for found in [reference.distance(&of(scale).unwrap()), reference.rough_distance(&of(scale).unwrap())] {
            let found = found.unwrap();
            assert!((found - expected).abs() <= bound, "{width}, {power}: {found:e}, expected {expected:e}");
        }
    }

    #[test]
    fn small_variances_are_not_lost() {
        for (width, power) in [(64, 4.0), (256, 2.0), (256, 4.0), (512, 3.0)] {
            check_wide(width, power, 1.0);
            check_wide(width, power, 1.02);
        }
    }

    /// As many rows of features as blocks are dealt: spread evenly, or over many orders of magnitude.
    fn rows(seed: i64, count: i64, width: i64, power: f64) -> Tensor {
        tch::manual_seed(seed);
        let lengths: Vec<f64> = (1..=width).map(|index| (index as f64).powf(-power / 2.0)).collect();
        Tensor::randn([count, width], (Kind::Double, tch::Device::Cpu)) * Tensor::from_slice(&lengths)
    }

    fn moments(x: &Tensor) -> Moments {
        let mut moments = Moments::new(x.size()[1] as usize).unwrap();
        moments.push(x).unwrap();
        moments
    }

    fn estimate_of(reference: &FrechetReference, x: &Tensor, seed: u64) -> Estimate {
        let count = x.size()[0] as usize;
        let blocks = Blocks::new(count, seed).rows(0, count).map(|rows| moments(&x.index_select(0, &rows)));
        reference.estimate(&blocks).unwrap()
    }

    #[track_caller]
    fn check_interval(count: i64, width: i64, power: f64, quantile: f64) {
        let reference = FrechetReference::new(moments(&rows(1, 500, width, power)).gaussian().unwrap()).unwrap();
        let x = rows(2, count, width, power);
        let found = estimate_of(&reference, &x, 3);
        // By hand: the rows of all other blocks, as samples of their own.
        let dealt = Blocks::new(count as usize, 3).rows(0, count as usize);
        let filled = dealt.iter().filter(|rows| rows.numel() > 0).count();
        let distance = |x: &Tensor| reference.distance(&moments(x).gaussian().unwrap()).unwrap();
        let without: Vec<f64> = (0..filled)
            .map(|block| {
                let kept: Vec<&Tensor> =
                    dealt.iter().enumerate().filter(|(of, _)| *of != block).map(|(_, rows)| rows).collect();
                distance(&x.index_select(0, &Tensor::cat(&kept, 0)))
            })
            .collect();
        let mean = without.iter().sum::<f64>() / filled as f64;
        let squares: f64 = without.iter().map(|value| (value - mean).powi(2)).sum();
        let half = quantile * ((filled as f64 - 1.0) / filled as f64 * squares).sqrt();
        let value = distance(&x);
        assert!((found.value - value).abs() < 1e-9 * value, "{found:?} instead of {value}");
        for (a, b) in [(found.low, (value - half).max(0.0)), (found.high, value + half)] {
            assert!((a - b).abs() < 1e-6 * half, "{found:?} instead of {value} ± {half}");
        }
    }

    #[test]
    fn the_interval_leaves_blocks_out() {
        check_interval(200, 8, 0.0, 2.262_157);
        check_interval(203, 40, 3.0, 2.262_157);
        // Fewer samples than features, than blocks.
        check_interval(25, 40, 1.0, 2.262_157);
        check_interval(7, 8, 0.0, 2.446_912);
        check_interval(3, 4, 0.0, 4.302_653);
    }

    #[test]
    fn the_interval_is_as_wide_as_draws_are_apart() {
        let reference = FrechetReference::new(moments(&rows(1, 5000, 6, 1.0)).gaussian().unwrap()).unwrap();
        let draws: Vec<Estimate> =
            (0..40).map(|seed| estimate_of(&reference, &(rows(100 + seed, 300, 6, 1.0) * 1.3 + 0.2), 0)).collect();
        let mean = draws.iter().map(|draw| draw.value).sum::<f64>() / 40.0;
        let inside = draws.iter().filter(|draw| draw.low <= mean && mean <= draw.high).count();
        // Of 95 %, fewer than 35 of 40 come in one of 72 times; these draws are the same whenever they are made.
        assert!(inside >= 35, "{inside} of 40 intervals hold the mean");
        let spread = (draws.iter().map(|draw| (draw.value - mean).powi(2)).sum::<f64>() / 39.0).sqrt();
        let half = draws.iter().map(|draw| draw.high - draw.value).sum::<f64>() / 40.0;
        assert!(half > 1.7 * spread && half < 3.5 * spread, "{half} for draws {spread} apart");
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
