//! From features to numbers: all in f64, on the CPU.

mod blocks;
mod frechet;
mod interval;
mod kernel;
mod manifold;
mod moments;
mod score;
mod stream;

pub use blocks::Blocks;
pub(crate) use blocks::choose;
pub use frechet::{FrechetReference, Gaussian};
pub use interval::{Estimate, IntervalMethod};
pub use kernel::{KidOptions, kernel_distance};
pub use manifold::{PrecisionRecall, precision_recall};
pub use moments::Moments;
pub use score::InceptionScore;
pub use stream::FidStream;

use tch::{Kind, Tensor};

use crate::Error;

/// That there are at least `needed` of `what`.
pub(crate) fn enough(what: &'static str, found: usize, needed: usize) -> Result<(), Error> {
    if found < needed { Err(Error::TooFew { what, found, needed }) } else { Ok(()) }
}

/// That a stream of samples is at its end.
fn all_came(found: usize, announced: usize) -> Result<(), Error> {
    if found == announced { Ok(()) } else { Err(Error::NotAll { found, announced }) }
}

/// `x` as f64 (N, D), all finite.
fn checked(what: &'static str, x: &Tensor) -> Result<Tensor, Error> {
    rows_of(what, x)?;
    Ok(x.f_to_kind(Kind::Double)?)
}

/// The number of rows of `x` (N, D), all finite.
fn rows_of(what: &'static str, x: &Tensor) -> Result<usize, Error> {
    let size = x.size();
    let &[rows, _] = &size[..] else {
        return Err(Error::TensorShape { what, actual: size, expected: "(N, D)" });
    };
    let finite = x.f_isfinite()?.f_sum(Kind::Int64)?.int64_value(&[]);
    let bad = x.numel() as i64 - finite;
    if bad > 0 {
        return Err(Error::NonFinite { what, count: bad as usize });
    }
    Ok(rows as usize)
}

/// The rows of `x` at `index`, as f64.
fn gather(x: &Tensor, index: &Tensor) -> Result<Tensor, Error> {
    Ok(x.f_index_select(0, index)?.f_to_kind(Kind::Double)?)
}

/// The two (N, D) have one D.
fn same_width(samples: &Tensor, reference: &Tensor) -> Result<(), Error> {
    let width = |x: &Tensor| x.size().get(1).copied().unwrap_or(0) as usize;
    let (samples, reference) = (width(samples), width(reference));
    if samples == reference { Ok(()) } else { Err(Error::Width { samples, reference }) }
}
