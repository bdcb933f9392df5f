//! FID and its kin: features, statistics, metrics, confidence intervals.
#![deny(missing_docs)]

mod cache;
mod error;
mod evaluate;
mod features;
mod input;
mod numbers;

pub use cache::{ExtractionProgress, FeatureSet};
pub use error::Error;
pub use evaluate::{Measured, Metric, Reference, evaluate, statistics_of};
pub use features::demo::{DemoFeatures, DemoNotes};
pub use features::demo_training::{EpochReport, FeatureRecipe, GreyPictures, demo_accuracy, train_demo};
pub use features::inception::{Inception, Preprocessing};
pub use features::{FeatureNetwork, Features, Widths};
pub use input::{Fit, PictureReader, Pictures, Statistics};
pub use numbers::{
    Blocks, Estimate, FrechetReference, Gaussian, InceptionScore, IntervalMethod, KidOptions, Moments, PrecisionRecall,
    kernel_distance, precision_recall,
};
