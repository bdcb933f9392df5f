use dit_config::{BlockDesign, DitConfig, Process};
use dit_ops::Kernels;
use dit_weights::Checkpoint;
use tch::{Device, Kind, Tensor, nn};

use crate::{
    Initialization, ModelError,
    block::Block,
    final_layer::FinalLayer,
    init::Scope,
    label::LabelEmbedder,
    load::Loader,
    patchify::{PatchEmbedder, unpatchify},
    position::position_table,
    timestep::TimestepEmbedder,
};

/// The diffusion transformer.
///
/// Shapes: N samples, C latent channels, H×W latent, p patch side, T = H/p · W/p patch tokens, D token width,
/// C_out = 2C with learned sigma (the mean's target, then the variance's interpolation coefficient), else C.
///
/// Kinds: weights and activations have the variable store's kind, fp32 or bf16 (fp16 on a GPU), LayerNorms and softmax
/// included, whose sums libtorch keeps in fp32. Timestep features are always computed in fp32. In training in bf16 what is
/// carried from block to block can stay in fp32: see [`carrying_fp32`](Self::carrying_fp32).
#[derive(Debug)]
pub struct Dit {
    config: DitConfig,
    /// Of the checkpoint that it was loaded from.
    process: Option<Process>,
    x_embedder: PatchEmbedder,
    /// (1, T, D), frozen. Its kind is that of the sequence between blocks.
    pos_embed: Tensor,
    t_embedder: TimestepEmbedder,
    y_embedder: LabelEmbedder,
    blocks: Vec<Block>,
    final_layer: FinalLayer,
}

impl Dit {
    /// A new model whose variables stand in `path` under the published checkpoints' names ([`DitConfig::tensors`]), with
    /// the store's device and kind. All are trainable but `pos_embed`. Where the store's kind changes later ([`nn::VarStore::bfloat16`]
    /// and its kin), the model's does; but not that of weights that [`optimize`](Self::optimize) packed, so change it before.
    ///
    /// # Panics
    /// If `path` already holds a model: tch would rename the second one's variables without a word.
    pub fn new(path: &nn::Path, config: &DitConfig, initialization: Initialization) -> Self {
        assert!(path.get("pos_embed").is_none(), "{:?} already holds a DiT; give each its own path", path.path(""));
        Self::build(&Scope::root(path, initialization), config)
    }

    fn build(scope: &Scope, config: &DitConfig) -> Self {
        let blocks = scope.sub("blocks");
        Self {
            config: config.clone(),
            process: None,
            x_embedder: PatchEmbedder::new(&scope.sub("x_embedder"), config),
            pos_embed: scope.frozen("pos_embed", &position_table(config)),
            t_embedder: TimestepEmbedder::new(&scope.sub("t_embedder"), config),
            y_embedder: LabelEmbedder::new(&scope.sub("y_embedder"), config),
            blocks: (0..config.depth).map(|i| Block::new(&blocks.sub(i), config)).collect(),
            final_layer: FinalLayer::new(&scope.sub("final_layer"), config),
        }
    }

    /// Keeps the sequence between blocks, the position table and the conditioning's sum in fp32; each branch rounds its input to the
    /// weights' kind, as PyTorch's autocast does. A sum of bf16 loses branches smaller than 2⁻⁸ of it, and those of adaLN-Zero
    /// begin at nothing: training in bf16 needs this.
    #[must_use]
    pub fn carrying_fp32(mut self) -> Self {
        self.pos_embed = position_table(&self.config).to_device(self.device());
        self
    }

    /// The model of a checkpoint, for inference: on `device`, converted to `kind`, none of its weights trainable, with the
    /// fastest kernels of that kind.
    ///
    /// # Errors
    /// As [`load_with`](Self::load_with).
    pub fn load(checkpoint: &Checkpoint, device: Device, kind: Kind) -> Result<Self, ModelError> {
        Self::load_with(checkpoint, device, kind, Kernels::Fused)
    }

    /// [`load`](Self::load) with a choice of kernels.
    ///
    /// Each weight goes from the mapped file to its place in the form that it is computed with, and the file's pages are released:
    /// there is never more than one copy, and the page cache's. To go on training, make a model with
    /// [`new`](Self::new) and [`Initialization::Empty`], then [`dit_weights::load_into`] its variable store.
    ///
    /// # Errors
    /// [`ModelError::Checkpoint`] where the file cannot be read or holds NaN or infinities, and where the device is not there or lacks
    /// memory for the weights; [`ModelError::Kind`].
    pub fn load_with(
        checkpoint: &Checkpoint,
        device: Device,
        kind: Kind,
        kernels: Kernels,
    ) -> Result<Self, ModelError> {
        if !is_float(kind) {
            return Err(ModelError::Kind { kind });
        }
        let config = checkpoint.config();
        let expected = (&config.tensors()[..], &config.to_string()[..]);
        let loader = Loader::new(checkpoint, expected, device, kind, kernels)?;
        let mut dit = Self::build(&Scope::of_file(&loader), config);
        loader.finish()?;
        dit.process = Some(checkpoint.process());
        // The Linears have their form; what lies between them follows.
        dit.optimize(kernels);
        Ok(dit)
    }

    /// Chooses how the model computes. [`Kernels::Plain`] is how a [`new`](Self::new) model starts; [`Kernels::Differentiable`] is for
    /// training, and gives gradients too; the others are for inference. On a GPU [`Kernels::Fused`] takes the few fused operators that
    /// libtorch has, and the rest leaves a model there, or of another kind than fp32 and bf16, as it is.
    ///
    /// With [`Kernels::Fused`] and [`Kernels::Int8`] weights must no longer change: the large Linears are packed, or rounded to 8
    /// bits, and keep no tie to the variable store: a store that is still there holds its own copy, and what changes in it has no
    /// effect any more. That cannot be undone. Nor do gradients reach them: a model whose weights were trainable when they were packed
    /// computes under [`tch::no_grad`] alone, and else panics; freeze the store first where that is not wanted.
    pub fn optimize(&mut self, kernels: Kernels) {
        self.t_embedder.optimize(kernels);
        for block in &mut self.blocks {
            block.optimize(kernels);
        }
        self.final_layer.optimize(kernels);
    }

    /// Whether a forward pass would lose gradients without a word.
    pub(crate) fn loses_gradients(&self) -> bool {
        self.t_embedder.loses_gradients()
    }

    /// The network's output for noised latents `x` at timesteps `t` of classes `labels`.
    ///
    /// A pure function. For input that was not made by the program itself, use [`try_forward`](Self::try_forward).
    ///
    /// The arguments must pass [`check_input`](Self::check_input); this is not checked: others panic in libtorch or give meaningless
    /// values. (On a GPU a label out of range ends the process' use of it.)
    ///
    /// # Shapes
    /// `x` (N, C, H, W), any floating-point kind; `t` (N,), timesteps of the training schedule, integers or floats, 0 to one less
    /// than its steps (999, but for models with a process of their own; the model does not know it); `labels` (N,) int64, the null class where there is one allowed → (N, C_out, H, W), the model's kind.
    ///
    /// # Panics
    /// Where gradients are recorded though trainable weights were packed ([`optimize`](Self::optimize)).
    pub fn forward(&self, x: &Tensor, t: &Tensor, labels: &Tensor) -> Tensor {
        let c = self.condition(t, labels); // (N, D), or (N, 2, D)
        let mut x = self.embed(x, &c); // (N, T, D)
        for block in &self.blocks {
            x = block.forward(&x, &c); // (N, T, D)
        }
        let tokens = self.final_tokens(&x, &c); // (N, T, p·p·C_out)
        self.unpatchify(&tokens) // (N, C_out, H, W)
    }

    /// [`check_input`](Self::check_input), then [`forward`](Self::forward).
    ///
    /// # Errors
    /// As [`check_input`](Self::check_input).
    pub fn try_forward(&self, x: &Tensor, t: &Tensor, labels: &Tensor) -> Result<Tensor, ModelError> {
        self.check_input(x, t, labels)?;
        Ok(self.forward(x, t, labels))
    }

    /// What the blocks are conditioned on: one row per sample, independent of the others and of the latents.
    ///
    /// # Shapes
    /// `t` (N,), `labels` (N,) → the sum of both embeddings, (N, D), for adaLN and adaLN-Zero; the sequence \[timestep,
    /// label\], (N, 2, D), for in-context and cross-attention.
    pub fn condition(&self, t: &Tensor, labels: &Tensor) -> Tensor {
        let t = self.t_embedder.forward(t).to_kind(self.carried_kind()); // (N, D)
        let y = self.y_embedder.forward(labels).to_kind(self.carried_kind()); // (N, D)
        match self.config.block {
            BlockDesign::AdaLn | BlockDesign::AdaLnZero => t + y, // (N, D)
            BlockDesign::InContext | BlockDesign::CrossAttention => Tensor::stack(&[t, y], 1), // (N, 2, D)
        }
    }

    /// The sequence that enters the first block: patches with their positions, and with in-context conditioning the two
    /// conditioning tokens after them.
    ///
    /// # Shapes
    /// `x` (N, C, H, W), `c` of [`condition`](Self::condition) → (N, T, D); in-context (N, T + 2, D).
    pub fn embed(&self, x: &Tensor, c: &Tensor) -> Tensor {
        let patches = self.x_embedder.forward(&x.to_kind(self.kind())) + &self.pos_embed; // (N, T, D)
        match self.config.block {
            BlockDesign::InContext => Tensor::cat(&[&patches, c], 1), // (N, T + 2, D)
            BlockDesign::CrossAttention | BlockDesign::AdaLn | BlockDesign::AdaLnZero => patches, // (N, T, D)
        }
    }

    /// The blocks, first to last; each maps the sequence to one of the same shape.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The output as tokens, from the sequence that leaves the last block.
    ///
    /// # Shapes
    /// `x` (N, T, D), in-context (N, T + 2, D); `c` of [`condition`](Self::condition) → (N, T, p·p·C_out).
    pub fn final_tokens(&self, x: &Tensor, c: &Tensor) -> Tensor {
        let patches = x.narrow(1, 0, self.config.tokens() as i64); // (N, T, D)
        self.final_layer.forward(&patches, c) // (N, T, p·p·C_out)
    }

    /// Tokens back into an image of latents.
    ///
    /// # Shapes
    /// (N, T, p·p·C_out) → (N, C_out, H, W).
    pub fn unpatchify(&self, tokens: &Tensor) -> Tensor {
        unpatchify(tokens, self.config.grid(), self.config.patch)
    }

    /// The diffusion process that the checkpoint says it was trained on; none of a model that was not loaded from one.
    pub fn process(&self) -> Option<Process> {
        self.process
    }

    /// The timestep's features and embedding.
    pub fn timestep_embedder(&self) -> &TimestepEmbedder {
        &self.t_embedder
    }

    /// The label table.
    pub fn label_embedder(&self) -> &LabelEmbedder {
        &self.y_embedder
    }

    /// The position table as loaded or computed, (1, T, D).
    pub fn pos_embed(&self) -> &Tensor {
        &self.pos_embed
    }

    /// What this model is on paper.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// Where the weights are, and where the arguments of a forward pass must be.
    pub fn device(&self) -> Device {
        self.pos_embed.device()
    }

    /// The kind of weights, activations and output.
    pub fn kind(&self) -> Kind {
        self.x_embedder.kind()
    }

    /// The kind of the sequence between blocks and of the conditioning: [`kind`](Self::kind), or fp32
    /// ([`carrying_fp32`](Self::carrying_fp32)).
    pub fn carried_kind(&self) -> Kind {
        self.pos_embed.kind()
    }
}

/// Whether weights and latents can be of `kind`.
pub(crate) fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half | Kind::Double)
}
