use dit_config::{DitConfig, LatentSize, Size, StandardModel};

/// What the training loss of a published model was at a step, about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpectedLoss {
    /// Steps taken.
    pub step: u64,
    /// The loss, squared error plus bound, averaged over many batches.
    pub loss: f64,
}

/// The losses that the original's recipe is known to give on ImageNet at 256 pixels: those of DiT-S/8 and DiT-XL/2. Empty for
/// other models, whose curves lie between, and for other data.
pub fn expected_loss(config: &DitConfig) -> &'static [ExpectedLoss] {
    if config.latent != LatentSize::square(32) || config.num_classes != 1000 || config.in_channels != 4 {
        return &[];
    }
    match config.standard_model() {
        Some(StandardModel { size: Size::S, patch: 8 }) => {
            &[ExpectedLoss { step: 5_000, loss: 0.19 }, ExpectedLoss { step: 100_000, loss: 0.17 }]
        }
        Some(StandardModel { size: Size::XL, patch: 2 }) => {
            &[ExpectedLoss { step: 2_500, loss: 0.175 }, ExpectedLoss { step: 400_000, loss: 0.14 }]
        }
        _ => &[],
    }
}
