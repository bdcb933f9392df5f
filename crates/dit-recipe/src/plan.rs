//! What a run will cost, before it begins.

use dit_config::{DitConfig, VaeConfig};

use crate::{Error, Every, HeldOut, Precision, Recipe};

/// Parameters, memory and arithmetic of a run.
///
/// Memory is an estimate. What belongs to parameters is exact; activations are counted from what the backward pass of a block
/// needs (see [`Memory::activations`]), and what allocators and kernels take on top is a flat sum.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Parameters, the frozen position table included.
    pub parameters: u64,
    /// Multiply-accumulates of one forward pass of one image.
    pub forward_macs: u64,
    /// Multiply-accumulates that training spends on one image: the backward pass costs twice the forward pass, and computing
    /// blocks again costs it once more.
    pub training_macs: u64,
    /// Records computed at once.
    pub micro_batch: usize,
    /// Where the bytes go, as the recipe has it.
    pub memory: Memory,
    /// The same with `train.checkpoint_activations` the other way round.
    pub memory_otherwise: Memory,
    /// Images in the whole run.
    pub images: u64,
}

/// Bytes of a run on its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The fp32 weights, and their copy in bf16 where that is computed in.
    pub weights: u64,
    /// Gradients in fp32; where they arrive in bf16, those too, and the sums of accumulated ones.
    pub gradients: u64,
    /// AdamW's two moments.
    pub moments: u64,
    /// Moving averages.
    pub averages: u64,
    /// What validation, pictures and their measurement take: the first average as a network of its own, the codec
    /// ([`Plan::with_codec`]), and held-out records ([`Plan::with_held_out`]).
    pub watching: u64,
    /// What one micro-batch keeps for the backward pass, and what that works in. A block keeps about (18 + 2r)·D values a token
    /// of width D with an MLP ratio of r, and in bf16, where the sequence between blocks stays fp32, as many as (26 + 2r)·D: inputs
    /// and outputs of norms, modulations and gates, query, key, value and their product, both sides of the MLP's activation; a
    /// quarter of that comes on top. Recomputing blocks keeps D a block, one whole block and its gradients. With
    /// what belongs to parameters it lies within 20 % of what training small models takes beyond the bare process where libtorch's
    /// operators compute, and is up to half too much with kernels that keep less.
    pub activations: u64,
    /// libtorch itself, its kernels' buffers, and batches in flight.
    pub overhead: u64,
}

/// Bytes that a process with libtorch takes before any tensor (150 to 190 MB on a CPU), and what kernels and allocators add to large
/// models.
const OVERHEAD: u64 = 350 << 20;
/// What CUDA's libraries take of a GPU for workspaces, and its allocator by rounding up: a guess, nothing measured.
const ON_GPU: u64 = 700 << 20;

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        let Self { weights, gradients, moments, averages, watching, activations, overhead } = *self;
        [weights, gradients, moments, averages, watching, activations, overhead]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    fn of(recipe: &Recipe, config: &DitConfig, accumulate: usize, recompute: bool) -> Self {
        let parameters = config.parameters();
        let second = if draws(recipe) || recipe.validation.every != Every::Never { parameters } else { 0 };
        let (copies, gradients, value): (u64, u64, u64) = match recipe.train.precision {
            Precision::Fp32 | Precision::Tf32 => (0, 4, 4),
            // Gradients arrive in bf16, and are added up in fp32.
            Precision::Bf16 => (2, if accumulate > 1 { 10 } else { 6 }, 2),
        };
        let micro_batch = recipe.train.batch_size.div_ceil(accumulate.max(1)) as u64;
        let width = config.hidden as u64;
        // In bf16 the sequence between blocks, which the norms keep, what they make of it, and its gradients are fp32.
        let carried = 4 / value - 1;
        let block = ((18.0 + 2.0 * config.mlp_ratio) * config.hidden as f64) as u64 + 8 * carried * width;
        let depth = config.depth as u64;
        let per_token =
            if recompute { (1 + carried) * depth * width + 2 * block + block / 4 } else { depth * block + block / 4 };
        let tokens = config.tokens() as u64;
        let activations = micro_batch.saturating_mul(tokens).saturating_mul(per_token).saturating_mul(value);
        Self {
            weights: parameters * (4 + copies),
            gradients: parameters * gradients,
            moments: parameters * 8,
            averages: parameters * 4 * recipe.ema.decays.len() as u64,
            watching: second * value,
            activations,
            overhead: OVERHEAD,
        }
    }
}

impl Plan {
    /// Counts what `recipe` costs for this network.
    pub fn new(recipe: &Recipe, config: &DitConfig) -> Self {
        let train = &recipe.train;
        let recompute = train.checkpoint_activations;
        let forward_macs = config.macs();
        let memory = |recompute| Memory::of(recipe, config, train.accumulate, recompute);
        Self {
            parameters: config.parameters(),
            forward_macs,
            training_macs: forward_macs.saturating_mul(if recompute { 4 } else { 3 }),
            micro_batch: train.batch_size.div_ceil(train.accumulate.max(1)),
            memory: memory(recompute),
            memory_otherwise: memory(!recompute),
            images: train.steps.saturating_mul(train.batch_size as u64),
        }
    }

    /// The same plan with the codec that pictures of `recipe` are decoded with, in fp32: its weights, and about five feature maps
    /// of its widest layer at the pictures' size.
    #[must_use]
    pub fn with_codec(mut self, recipe: &Recipe, codec: &VaeConfig, config: &DitConfig) -> Self {
        if draws(recipe) {
            let pixels = (config.latent.height * config.latent.width * codec.downsampling().pow(2)) as u64;
            let widest = codec.block_out_channels.first().copied().unwrap_or(0) as u64 * 2;
            let bytes = 4 * (codec.parameters() + 5 * widest * pixels);
            self.memory.watching += bytes;
            self.memory_otherwise.watching += bytes;
        }
        self
    }

    /// The same plan with the held-out records of a folder of `records` that validation keeps in the computer's memory, latents and
    /// noise in fp32: for runs that train there too. Where another folder is held out, whose size is not known here, they are
    /// `validation.records`.
    #[must_use]
    pub fn with_held_out(mut self, recipe: &Recipe, config: &DitConfig, records: u64) -> Self {
        let held_out = match recipe.validation.held_out {
            HeldOut::None => 0,
            HeldOut::Fraction(fraction) => (fraction * records as f64).ceil() as u64,
            HeldOut::Folder(_) => u64::MAX,
        };
        let latent = (config.in_channels * config.latent.height * config.latent.width) as u64;
        let bytes = held_out.min(recipe.validation.records as u64).saturating_mul(2 * 4 * latent);
        for memory in [&mut self.memory, &mut self.memory_otherwise] {
            memory.watching = memory.watching.saturating_add(bytes);
        }
        self
    }

    /// The same plan of a run on a GPU, which also holds what CUDA's libraries work in. Its context is there before it can be asked
    /// what is free.
    #[must_use]
    pub fn on_gpu(mut self) -> Self {
        for memory in [&mut self.memory, &mut self.memory_otherwise] {
            memory.overhead += ON_GPU;
        }
        self
    }

    /// Images per second of a device that keeps up so many multiply-accumulates per second.
    pub fn images_per_second(&self, macs_per_second: f64) -> f64 {
        macs_per_second / self.training_macs.max(1) as f64
    }

    /// Makes sure that the run fits into `available` bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] names the keys that help, with values that fit.
    pub fn check(&self, recipe: &Recipe, config: &DitConfig, available: u64) -> Result<(), Error> {
        let total = self.memory.total();
        if total <= available {
            return Ok(());
        }
        let batch = recipe.train.batch_size;
        let parts = (1..=batch).filter(|parts| batch.is_multiple_of(*parts) && *parts >= recipe.train.accumulate);
        let Memory { watching, overhead, .. } = self.memory;
        let needed = |parts: usize, recompute: bool| {
            Memory { watching, overhead, ..Memory::of(recipe, config, parts, recompute) }.total()
        };
        let fitting = |recompute: bool| parts.clone().find(|parts| needed(*parts, recompute) <= available);
        let mut helps = Vec::new();
        if let Some(parts) = fitting(recipe.train.checkpoint_activations) {
            helps.push(format!("train.accumulate={parts}"));
        }
        // Of a model of one block or two, recomputing saves nothing.
        if !recipe.train.checkpoint_activations
            && let Some(parts) = fitting(true)
            && fitting(false).is_none_or(|kept| parts < kept)
        {
            let parts =
                if parts > recipe.train.accumulate { format!(" and train.accumulate={parts}") } else { String::new() };
            helps.push(format!("train.checkpoint_activations=true{parts}"));
        }
        let help = if helps.is_empty() {
            let Memory { weights, gradients, moments, .. } = self.memory;
            let bytes = (weights + gradients + moments) / self.parameters.max(1);
            format!(
                "nothing makes it fit: weights, gradients and moments take {bytes} bytes a parameter, and 4 for each average; choose a \
                 smaller model or a larger machine"
            )
        } else {
            format!("it fits with --set {}", helps.join(", or with --set "))
        };
        Err(Error::TooLarge {
            problem: format!("training needs about {}, and {} are free", gib(total), gib(available)),
            help,
        })
    }
}

/// Whether `recipe` asks for pictures.
fn draws(recipe: &Recipe) -> bool {
    recipe.samples.every != Every::Never || recipe.eval.every != Every::Never
}

/// Bytes, as people read them.
fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64)
}
