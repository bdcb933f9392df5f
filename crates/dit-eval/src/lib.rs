//! FID and its kin: features, statistics, metrics, confidence intervals.
//!
//! - [`Pictures`]: npz archives (mapped), folders, tars, and whatever `dit-data` reads, as uint8 (N, H, W, 3);
//! - [`Inception`]: the network on which FID is defined, and [`DemoFeatures`], a small classifier of clothes; both are
//!   [`FeatureNetwork`]s;
//! - [`FeatureSet`]: features kept on disk in chunks, under the hashes of pictures and weights, so that a run may end at any time;
//!   [`Extraction`]: those that are still to be computed ([`statistics_of_pictures`] keeps none);
//! - [`Moments`], [`FrechetReference`], [`kernel_distance`], [`precision_recall`], [`InceptionScore`]: the numbers, in f64, each an
//!   [`Estimate`] with a 95 % interval;
//! - [`evaluate()`]: all of it, for samples and a [`Reference`]; [`Sides`]: whether it can be had, before it is computed.
//!
//! # What it never does
//! It samples nothing, trains no generator, prints nothing, and never skips a picture: one that cannot be decoded is an error,
//! since a number over fewer pictures is another number.
//!
//! ```
//! use dit_eval::{FrechetReference, Moments};
//! use tch::{Device, Kind, Tensor};
//!
//! let draw = |shift: f64| Tensor::randn([500, 4], (Kind::Float, Device::Cpu)) + shift;
//! let (mut samples, mut reference) = (Moments::new(4)?, Moments::new(4)?);
//! samples.push(&draw(1.0))?;
//! reference.push(&draw(0.0))?;
//!
//! // Two unit Gaussians whose means are (1, 1, 1, 1) apart: their distance is 4.
//! let distance = FrechetReference::new(reference.gaussian()?)?.distance(&samples.gaussian()?)?;
//! assert!((distance - 4.0).abs() < 1.0);
//! # Ok::<(), dit_eval::Error>(())
//! ```
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod batches;
mod cache;
mod error;
mod evaluate;
mod extraction;
mod features;
mod input;
mod numbers;
mod sides;
mod streamed;

pub use cache::FeatureSet;
pub use error::Error;
pub use evaluate::{LeftOut, Measured, Metric, Reference, evaluate, statistics_of};
pub use extraction::{Extraction, ExtractionProgress};
pub use features::demo::{DemoFeatures, DemoNotes, SIDE as DEMO_SIDE};
pub use features::demo_training::{
    EpochReport, FeatureRecipe, FeatureReport, FeatureTraining, GreyPictures, demo_accuracy,
};
pub use features::inception::{Inception, Preprocessing};
pub use features::{FeatureNetwork, Features, Widths};
pub use input::{Fit, PictureReader, Pictures, Statistics, StatisticsNotes};
pub use numbers::{
    Blocks, Estimate, FidStream, FrechetReference, Gaussian, InceptionScore, IntervalMethod, KidOptions, Moments,
    PrecisionRecall, kernel_distance, precision_recall,
};
pub use sides::Sides;
pub use streamed::statistics_of_pictures;
