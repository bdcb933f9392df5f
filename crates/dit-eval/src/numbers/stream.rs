//! FID of samples that arrive a batch at a time and are not kept.

use tch::Tensor;

use super::{Blocks, Estimate, FrechetReference, Moments, all_came};
use crate::Error;

/// Sums over samples as they come, for one Fréchet distance with its interval.
///
/// ```
/// use dit_eval::{FidStream, FrechetReference, Gaussian};
/// use tch::{Device, Kind, Tensor};
///
/// let unit = Gaussian::new(Tensor::zeros([4], (Kind::Double, Device::Cpu)), Tensor::eye(4, (Kind::Double, Device::Cpu)))?;
/// let reference = FrechetReference::new(unit)?;
/// let mut stream = FidStream::new(&reference, 500, 0)?;
/// for _ in 0..5 {
///     stream.push(&(Tensor::randn([100, 4], (Kind::Float, Device::Cpu)) + 1.0))?;
/// }
/// assert!((stream.estimate()?.value - 4.0).abs() < 1.0);
/// # Ok::<(), dit_eval::Error>(())
/// ```
#[derive(Debug)]
pub struct FidStream<'a> {
    reference: &'a FrechetReference,
    blocks: Blocks,
    parts: Vec<Moments>,
    count: usize,
    seen: usize,
}

impl<'a> FidStream<'a> {
    /// For `count` samples; `seed` decides which are left out together for the interval.
    ///
    /// # Errors
    /// [`Error::Torch`].
    pub fn new(reference: &'a FrechetReference, count: usize, seed: u64) -> Result<Self, Error> {
        let parts = (0..Blocks::COUNT).map(|_| Moments::new(reference.width())).collect::<Result<_, _>>()?;
        Ok(Self { reference, blocks: Blocks::new(count, seed), parts, count, seen: 0 })
    }

    /// The next samples' features (N, D).
    ///
    /// # Errors
    /// [`Error::TensorShape`] for other widths, and for more samples than were announced; [`Error::NonFinite`].
    pub fn push(&mut self, features: &Tensor) -> Result<(), Error> {
        let rows = features.size().first().map_or(0, |&rows| rows as usize);
        if rows > self.count - self.seen {
            let expected = "no more samples than were announced";
            return Err(Error::TensorShape { what: "features", actual: features.size(), expected });
        }
        for (part, rows) in self.parts.iter_mut().zip(self.blocks.rows(self.seen, rows)) {
            part.push(&features.f_index_select(0, &rows)?)?;
        }
        self.seen += rows;
        Ok(())
    }

    /// The distance of all samples.
    ///
    /// # Errors
    /// [`Error::NotAll`] for fewer than were announced; as [`FrechetReference::estimate`].
    pub fn estimate(&self) -> Result<Estimate, Error> {
        all_came(self.seen, self.count)?;
        self.reference.estimate(&self.parts)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::Gaussian;

    fn reference() -> FrechetReference {
        let options = (Kind::Double, Device::Cpu);
        FrechetReference::new(Gaussian::new(Tensor::zeros([3], options), Tensor::eye(3, options)).unwrap()).unwrap()
    }

    #[test]
    fn batches_of_any_size_give_the_same_number() {
        tch::manual_seed(3);
        let (reference, x) = (reference(), Tensor::randn([60, 3], (Kind::Float, Device::Cpu)));
        let of = |size: i64| {
            let mut stream = FidStream::new(&reference, 60, 5).unwrap();
            x.split(size, 0).iter().for_each(|batch| stream.push(batch).unwrap());
            stream.estimate().unwrap()
        };
        let whole = of(60);
        for size in [1, 7, 59] {
            let found = of(size);
            for (a, b) in [(found.value, whole.value), (found.low, whole.low), (found.high, whole.high)] {
                assert!((a - b).abs() < 1e-9, "{size}: {found:?} instead of {whole:?}");
            }
        }
    }

    #[test]
    fn what_was_not_announced_is_refused() {
        let reference = reference();
        let mut stream = FidStream::new(&reference, 4, 0).unwrap();
        let rows = |count: i64, width: i64| Tensor::zeros([count, width], (Kind::Float, Device::Cpu));
        stream.push(&rows(3, 3)).unwrap();
        assert!(matches!(stream.push(&rows(2, 3)), Err(Error::TensorShape { .. })));
        assert!(stream.push(&rows(1, 2)).is_err());
        // A number of three is none of four.
        assert!(matches!(stream.estimate(), Err(Error::NotAll { found: 3, announced: 4 })));
        stream.push(&rows(1, 3)).unwrap();
        assert!(stream.estimate().is_ok());
        assert!(matches!(FidStream::new(&reference, 0, 0).unwrap().estimate(), Err(Error::TooFew { .. })));
    }
}
