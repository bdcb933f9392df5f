use std::path::PathBuf;

use clap::Args;

use crate::MachineArgs;

/// Train a classifier of noised latents, for `sample --classifier`
///
/// Interrupt it any way, at any time: the same command continues, from OUT.training.
#[derive(Args)]
#[command(after_help = "Example:
  dit-cli train-classifier --data latents/ --validation latents-test/ --out classifier.safetensors")]
pub struct TrainClassifierArgs {
    /// Latent shards, as `precompute-latents` makes them
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// safetensors file to write, f16
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Latent shards on which its accuracy is told at the end
    #[arg(long, value_name = "DIR")]
    pub validation: Option<PathBuf>,
    /// Steps in all
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub steps: u64,
    /// Latents of a step
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub batch_size: usize,
    /// Highest learning rate; it warms up over 2 % of the steps and falls as half a cosine
    #[arg(long, value_name = "F", default_value_t = 1e-3, allow_negative_numbers = true)]
    pub lr: f64,
    /// AdamW's weight decay
    #[arg(long, value_name = "F", default_value_t = 0.05, allow_negative_numbers = true)]
    pub weight_decay: f64,
    /// Token width of the transformer
    #[arg(long, value_name = "D", default_value_t = 64)]
    pub hidden: usize,
    /// Its blocks
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub depth: usize,
    /// Its attention heads
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub heads: usize,
    /// Side of its patches, in latent pixels
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub patch: usize,
    /// Seed of the weights, the order and the noise
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Steps between two states on disk
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub save_every: u64,
    /// Where it computes
    #[command(flatten)]
    pub machine: MachineArgs,
    /// A machine-readable summary on stdout; everything else is on stderr
    #[arg(long)]
    pub json: bool,
}
