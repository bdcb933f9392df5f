use std::path::PathBuf;

use clap::Args;

/// Train the small classifier behind `evaluate --features demo`
///
/// Grey pictures of at most 32 x 32 pixels with labels, such as Fashion-MNIST.
/// Interrupt it any way, at any time: the same command continues, from OUT.training.
#[derive(Args)]
#[command(after_help = "Example:
  dit-cli train-features --data fashion-mnist/ --out features.safetensors")]
pub struct TrainFeaturesArgs {
    /// Labelled pictures: IDX files, or anything that precompute-latents reads
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// Labelled pictures to measure its accuracy on [default: t10k-images-idx3-ubyte beside the data]
    #[arg(long, value_name = "PATH")]
    pub test: Option<PathBuf>,
    /// Recipe
    #[arg(long, value_name = "FILE.toml", default_value = "configs/features.toml")]
    pub config: PathBuf,
    /// safetensors to write, fp16
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// CPU threads [default: all cores this process may use]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}
