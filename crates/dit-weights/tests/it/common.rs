//! What several tests need.

use std::path::PathBuf;

use dit_weights::{
    BlockDesign, DitConfig, DitSpec, LatentSize, MemorySource, OpenOptions, Sigma, TensorView, position_table,
};

/// The file or folder `name` among the fixtures.
pub fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "tests", "fixtures", name].iter().collect()
}

pub fn with_heads(heads: usize) -> OpenOptions {
    OpenOptions { heads: Some(heads), ..OpenOptions::default() }
}

/// What the file `dit-fixed-sigma` does not say itself: its heads, and that its last class is no null class.
pub fn fixed_sigma_options() -> OpenOptions {
    OpenOptions { num_classes: Some(7), ..with_heads(2) }
}

/// A small DiT of any design.
pub fn tiny(block: BlockDesign) -> DitConfig {
    DitConfig::new(DitSpec {
        block,
        hidden: 16,
        depth: 2,
        heads: 4,
        patch: 2,
        mlp_ratio: 4.0,
        in_channels: 3,
        latent: LatentSize { height: 4, width: 12 },
        num_classes: 5,
        label_dropout: 0.1,
        sigma: Sigma::Learned,
        numerics: Default::default(),
    })
    .unwrap()
}

/// Every tensor of `config`, the position table as it must be, the rest distinct small numbers.
pub fn weights_of(config: &DitConfig) -> MemorySource {
    let mut source = MemorySource::default();
    for (i, spec) in config.tensors().into_iter().enumerate() {
        let values: Vec<f32> = match spec.name.as_str() {
            "pos_embed" => position_table(config.grid(), config.hidden),
            _ => (0..spec.numel()).map(|k| (i as f32 + 1.0) / 64.0 + k as f32 / 4096.0).collect(),
        };
        source.insert(spec.name, TensorView::from_f32(spec.shape, &values).unwrap());
    }
    source
}
