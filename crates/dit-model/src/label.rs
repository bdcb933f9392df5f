use dit_config::DitConfig;
use tch::Tensor;

use crate::init::{Distribution, Scope};

/// One learned vector per class, and one for the null class where the model was trained with label dropout.
#[derive(Debug)]
pub struct LabelEmbedder {
    /// (classes, or classes + 1, D).
    table: Tensor,
}

impl LabelEmbedder {
    pub(crate) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let shape = [config.label_rows(), config.hidden];
        let table = scope.sub("embedding_table").variable("weight", &shape, Distribution::Normal { std: 0.02 });
        Self { table }
    }

    /// # Shapes
    /// `labels` (N,) int64, each below [`DitConfig::label_rows`] → (N, D).
    pub fn forward(&self, labels: &Tensor) -> Tensor {
        let (no_padding, scale_grad_by_freq, sparse) = (-1, false, false);
        Tensor::embedding(&self.table, labels, no_padding, scale_grad_by_freq, sparse)
    }
}
