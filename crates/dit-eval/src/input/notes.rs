//! Of what statistics are.

use serde::{Deserialize, Serialize};

use crate::{Error, FeatureNetwork};

/// What a file of statistics says of itself, where this toolkit wrote it. As JSON in the array `notes`, uint8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatisticsNotes {
    /// Who wrote it, such as `dit-rs 0.1.0`.
    pub software: String,
    /// SHA-256 of the pictures, as [`Pictures::sha256`](crate::Pictures::sha256) has it.
    pub pictures: String,
    /// How many there were.
    pub count: usize,
    /// The feature network.
    pub network: String,
    /// SHA-256 of its weights.
    pub weights: String,
}

impl StatisticsNotes {
    /// Of statistics of `count` pictures, whose hash is `pictures`, in the features of `network`.
    pub fn new(software: &str, pictures: &str, count: usize, network: &dyn FeatureNetwork) -> Self {
        let (software, pictures) = (software.to_owned(), pictures.to_owned());
        Self { software, pictures, count, network: network.name().to_owned(), weights: network.sha256().to_owned() }
    }

    /// Whether the statistics compare with features of `network`.
    ///
    /// # Errors
    /// [`Error::OtherNetwork`] unless both name and weights are the same.
    pub fn check(&self, network: &dyn FeatureNetwork) -> Result<(), Error> {
        if (self.network.as_str(), self.weights.as_str()) == (network.name(), network.sha256()) {
            return Ok(());
        }
        let of =
            |name: &str, sha256: &str| format!("`{name}` (sha256 {}…)", sha256.chars().take(12).collect::<String>());
        Err(Error::OtherNetwork {
            statistics: of(&self.network, &self.weights),
            network: of(network.name(), network.sha256()),
        })
    }
}
