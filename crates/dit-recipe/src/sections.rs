//! Every key of a recipe.

use std::num::NonZeroU64;

use dit_config::{BlockDesign, LatentSize, NoiseScheduleKind, Predict, Process, SigmaKind};

use crate::{
    section::sections,
    values::{
        ClipNorm, Every, Flip, HeldOut, Loss, LrSchedule, ModelName, NonFinitePolicy, Posterior, Precision, Timesteps,
        Weighting,
    },
};

sections! {
    /// The network: a standard model's name, or hidden, depth, heads and patch.
    [model] ModelSection {
        /// A standard model, `DiT-S/8` to `DiT-XL/2`.
        Fixed name: Option<ModelName> = None;
        /// Token width.
        Fixed hidden: Option<usize> = None;
        /// Number of blocks.
        Fixed depth: Option<usize> = None;
        /// Attention heads.
        Fixed heads: Option<usize> = None;
        /// Patch side in latent pixels.
        Fixed patch: Option<usize> = None;
        /// How blocks take the conditioning: `adaln-zero`, `adaln`, `cross-attention` or `in-context`.
        Fixed block: BlockDesign = BlockDesign::AdaLnZero;
        /// Width of the MLP's hidden layer over the token width.
        Fixed mlp_ratio: f64 = 4.0;
        /// Whether labels are ignored: one class, no label dropout.
        Fixed unconditional: bool = false;
        /// Latent height and width; the data's where not given, and refused where the data has another.
        Fixed latent: Option<LatentSize> = None;
        /// Latent channels; likewise.
        Fixed channels: Option<usize> = None;
        /// Classes; the data's where not given. More than the data has are allowed.
        Fixed num_classes: Option<usize> = None;
    }

    /// What is learned: the forward process and the loss.
    [diffusion] DiffusionSection {
        /// Noise schedule: `linear` or `cosine`.
        Fixed schedule: NoiseScheduleKind = NoiseScheduleKind::Linear;
        /// Its steps.
        Fixed steps: usize = 1000;
        /// What the network estimates: `epsilon`, `x0` or `v`.
        Fixed predict: Predict = Predict::Epsilon;
        /// Variance: `learned`, `fixed-small` or `fixed-large`.
        Fixed sigma: SigmaKind = SigmaKind::Learned;
        /// Loss: `mse` (plus the bound, where the variance is learned), `rescaled-mse`, `kl` or `rescaled-kl`.
        Fixed loss: Loss = Loss::Mse;
        /// Weight of the squared error over timesteps: `uniform` or `{ min-snr = 5.0 }`.
        Fixed weighting: Weighting = Weighting::Uniform;
        /// Training timesteps: `uniform`, `loss-second-moment` or `{ logit-normal = { mean = 0.0, std = 1.0 } }`.
        Fixed timesteps: Timesteps = Timesteps::Uniform;
    }

    /// The loop.
    [train] TrainSection {
        /// Optimizer steps in all. With `optim.schedule = "cosine"` a run that continues keeps them.
        Free steps: u64 = 400_000;
        /// Records per optimizer step.
        Fixed batch_size: usize = 256;
        /// Parts in which a batch is computed, one after the other: the gradients are the same, the memory is less.
        Fixed accumulate: usize = 1;
        /// What initialisation, order, flips, noise, timesteps and dropped labels are functions of.
        Fixed seed: u64 = 0;
        /// Arithmetic of the network: `fp32`, `tf32` (CUDA only; training and validation, not what draws and measures pictures) or
        /// `bf16`. Weights, optimizer, averages and loss are fp32.
        Fixed precision: Precision = Precision::Fp32;
        /// Whether blocks are computed again in the backward pass instead of keeping their activations. Gradients are the
        /// same within 1e-6 in fp32; in bf16, where the sum of the conditioning's is rounded otherwise, within 3 %.
        Fixed checkpoint_activations: bool = false;
        /// Steps between checkpoints.
        Free checkpoint_every: NonZeroU64 = NonZeroU64::new(50_000).unwrap_or(NonZeroU64::MIN);
        /// Newest checkpoints that are kept.
        Free keep_last: usize = 3;
        /// Checkpoints of steps that this divides are kept for good: steps, or `never`.
        Free keep_every: Every = Every::Never;
        /// Steps between lines of the log.
        Free log_every: NonZeroU64 = NonZeroU64::new(100).unwrap_or(NonZeroU64::MIN);
    }

    /// AdamW, as PyTorch computes it.
    [optim] OptimSection {
        /// Learning rate.
        Fixed lr: f64 = 1e-4;
        /// Decay of the two moments.
        Fixed betas: [f64; 2] = [0.9, 0.999];
        /// Added to the root of the second moment.
        Fixed eps: f64 = 1e-8;
        /// Decoupled weight decay.
        Fixed weight_decay: f64 = 0.0;
        /// Steps over which the learning rate rises from 0.
        Fixed warmup_steps: u64 = 0;
        /// Learning rate after that: `constant` or `cosine`, to 0 at the last step.
        Fixed schedule: LrSchedule = LrSchedule::Constant;
        /// Bound on the norm of all gradients together: a number, or `off`.
        Fixed clip_grad_norm: ClipNorm = ClipNorm::Off;
    }

    /// Exponential moving averages of the weights.
    [ema] EmaSection {
        /// Their decays; the first is the one that is sampled from. Each starts as a copy.
        Fixed decays: Vec<f64> = vec![0.9999];
    }

    /// What is made of the latents.
    [data] DataSection {
        /// Mirror images: `random` or `never`.
        Fixed flip: Flip = Flip::Random;
        /// Latents: `sample` (a draw from the posterior each time) or `mean`.
        Fixed posterior: Posterior = Posterior::Sample;
        /// Probability of replacing a label by the null class, which guidance needs.
        Fixed label_dropout: f64 = 0.1;
    }

    /// The loss on records that are not trained on, with fixed noise and timesteps.
    [validation] ValidationSection {
        /// Where they come from: `none`, `{ fraction = 0.02 }` of the data, or `{ folder = "…" }` of latents.
        Fixed held_out: HeldOut = HeldOut::None;
        /// Steps between evaluations, or `never`.
        Free every: Every = Every::Never;
        /// At most so many records are evaluated.
        Free records: usize = 2048;
    }

    /// Pictures of the first average, with the same noise each time.
    [samples] SamplesSection {
        /// Steps between grids, or `never`.
        Free every: Every = Every::Never;
        /// Pictures, classes in turn.
        Free count: usize = 16;
        /// Solver steps (DPM-Solver++ 2M at equal steps of log-SNR).
        Free steps: usize = 20;
        /// Classifier-free guidance; 1 is none, and what an unconditional model has where nothing is given.
        Free cfg_scale: f64 = 4.0;
        /// Seed of the noise.
        Free seed: u64 = 0;
    }

    /// FID of a few pictures of the first average, with the same noise each time. With few samples it is biased upwards: it tells
    /// one step of a run from another, and compares with nothing else.
    [eval] EvalSection {
        /// Steps between measurements, or `never`.
        Free every: Every = Every::Never;
        /// What the pictures are compared with: statistics that `evaluate --stats` wrote, or pictures, which are cropped as the
        /// latents' were.
        Free reference: Option<String> = None;
        /// Feature network: `inception`, `inception-pytorch-fid`, `demo`, or a file of weights.
        Free features: String = "inception".to_owned();
        /// Pictures, classes in turn.
        Free count: usize = 1000;
        /// Solver steps (DPM-Solver++ 2M at equal steps of log-SNR).
        Free steps: usize = 20;
        /// Classifier-free guidance; 1 is none.
        Free cfg_scale: f64 = 1.0;
        /// Seed of the noise.
        Free seed: u64 = 0;
    }

    /// What watches over the numbers.
    [guardian] GuardianSection {
        /// When a loss or gradient is no number: `stop`, `skip` or `roll-back`.
        Free on_non_finite: NonFinitePolicy = NonFinitePolicy::Stop;
    }
}

impl DiffusionSection {
    /// What a network of this recipe must be sampled with.
    pub fn process(&self) -> Process {
        let Self { schedule, steps, predict, sigma, .. } = *self;
        Process { schedule, steps, predict, sigma }
    }
}
