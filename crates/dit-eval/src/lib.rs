//! FID and its kin: features, statistics, metrics, confidence intervals.
#![deny(missing_docs)]
