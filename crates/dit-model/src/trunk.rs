use dit_config::{BlockDesign, DitConfig};
use tch::{Kind, Tensor, nn};

use crate::{
    Initialization, block::Block, init::Scope, patchify::PatchEmbedder, position::position_table,
    timestep::TimestepEmbedder,
};

/// A [`Dit`](crate::Dit) without labels and without a final layer: from noised latents and their timestep to tokens, for
/// networks with another head, such as a classifier of noised latents.
#[derive(Debug)]
pub struct Trunk {
    config: DitConfig,
    x_embedder: PatchEmbedder,
    /// (1, T, D), frozen.
    pos_embed: Tensor,
    t_embedder: TimestepEmbedder,
    blocks: Vec<Block>,
}

impl Trunk {
    /// A new trunk whose variables stand in `path`, named as a DiT's, all trainable but `pos_embed`. The geometry and the block
    /// design of `config` count; its classes and its output do not.
    pub fn new(path: &nn::Path, config: &DitConfig, initialization: Initialization) -> Self {
        let scope = Scope::root(path, initialization);
        let blocks = scope.sub("blocks");
        Self {
            config: config.clone(),
            x_embedder: PatchEmbedder::new(&scope.sub("x_embedder"), config),
            pos_embed: scope.frozen("pos_embed", &position_table(config)),
            t_embedder: TimestepEmbedder::new(&scope.sub("t_embedder"), config),
            blocks: (0..config.depth).map(|i| Block::new(&blocks.sub(i), config)).collect(),
        }
    }

    /// The tokens that leave the last block.
    ///
    /// # Shapes
    /// `x` (N, C, H, W), any floating-point kind; `t` (N,), timesteps of the training schedule → (N, T, D).
    pub fn forward(&self, x: &Tensor, t: &Tensor) -> Tensor {
        let t = self.t_embedder.forward(t); // (N, D)
        let patches = self.x_embedder.forward(&x.to_kind(self.kind())) + &self.pos_embed; // (N, T, D)
        let (mut x, c) = match self.config.block {
            BlockDesign::AdaLn | BlockDesign::AdaLnZero => (patches, t),
            BlockDesign::CrossAttention => (patches, t.unsqueeze(1)), // (N, 1, D)
            BlockDesign::InContext => (Tensor::cat(&[&patches, &t.unsqueeze(1)], 1), t), // (N, T + 1, D)
        };
        for block in &self.blocks {
            x = block.forward(&x, &c); // (N, T, D)
        }
        x.narrow(1, 0, self.config.tokens() as i64) // (N, T, D)
    }

    /// The kind of weights, activations and output.
    pub fn kind(&self) -> Kind {
        self.pos_embed.kind()
    }
}
