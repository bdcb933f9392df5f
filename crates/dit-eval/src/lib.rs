//! FID and its kin: features, statistics, metrics, confidence intervals.
#![deny(missing_docs)]

mod error;
mod features;

pub use error::Error;
pub use features::demo::{DemoFeatures, DemoNotes};
pub use features::demo_training::{EpochReport, FeatureRecipe, GreyPictures, demo_accuracy, train_demo};
pub use features::{FeatureNetwork, Features, Widths};
