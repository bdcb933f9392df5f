use dit_config::{BlockDesign, DitConfig, LatentSize, Size, StandardModel};
use dit_recipe::{Recipe, Sections};

/// What the training loss of a published model was at a step, about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpectedLoss {
    /// Steps taken.
    pub step: u64,
    /// The loss, squared error plus bound, averaged over many batches.
    pub loss: f64,
}

/// The losses that the original's recipe is known to give on ImageNet at 256 pixels: those of DiT-S/8 and DiT-XL/2. Empty for
/// other models, whose curves lie between, for other data, and for a recipe whose loss is another or comes down otherwise.
pub fn expected_loss(recipe: &Recipe, config: &DitConfig) -> &'static [ExpectedLoss] {
    let original = Sections::default();
    let data = config.latent == LatentSize::square(32) && config.num_classes == 1000 && config.in_channels == 4;
    let model = config.block == BlockDesign::AdaLnZero && config.mlp_ratio == 4.0;
    let learned = recipe.diffusion == original.diffusion && recipe.data == original.data;
    let steps = recipe.train.batch_size == original.train.batch_size && recipe.optim == original.optim;
    if !(data && model && learned && steps) {
        return &[];
    }
    match config.standard_model() {
        Some(StandardModel { size: Size::S, patch: 8 }) => {
            &[ExpectedLoss { step: 5_000, loss: 0.19 }, ExpectedLoss { step: 100_000, loss: 0.17 }]
        }
        Some(StandardModel { size: Size::XL, patch: 2 }) => &[ExpectedLoss { step: 2_500, loss: 0.175 }],
        _ => &[],
    }
}
