use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Encode a dataset into latent shards for training
///
/// Interrupt it any way, at any time: the same command continues, and the result is the same to the byte.
#[derive(Args)]
#[command(
    after_help = "Sources, recognised by looking: a folder of class folders, ImageNet's tar of tars, WebDataset tars,
parquet shards, IDX files (MNIST and its family).

Examples:
  dit-cli precompute-latents --data imagenet/train --out latents/ --precision bf16
  dit-cli precompute-latents --data fashion/ --out latents/ --vae vae-fashion-demo --image-size 32 --crop pad
  dit-cli precompute-latents --out latents/ --verify"
)]
pub struct PrecomputeArgs {
    /// Labelled pictures: a folder, archive, glob of archives, or file
    #[arg(long, value_name = "PATH", required_unless_present = "verify")]
    pub data: Option<PathBuf>,
    /// Folder to write, or to continue
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Latent codec: diffusers folder, file, or name from the manifest
    #[arg(long, value_name = "NAME|PATH", default_value = "sd-vae-ft-ema")]
    pub vae: String,
    /// Side of the cropped pictures in pixels [default: 256]
    #[arg(long, value_name = "PX")]
    pub image_size: Option<usize>,
    /// How pictures become square
    #[arg(long, default_value = "adm")]
    pub crop: CropArg,
    /// Pictures encoded at once [default: on a CPU 1 at 256 px, where small batches stay in cache, more of smaller ones; on
    /// CUDA 32 at 256 px, 8 at 512]
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Threads that decode and crop [default: all cores this process may use]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Threads of the encoder on a CPU [default: all cores this process may use]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// auto, cpu, cuda or cuda:N [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Arithmetic of the encoder [default: fp32]
    #[arg(long)]
    pub precision: Option<PrecisionArg>,
    /// Records per shard
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub shard_size: usize,
    /// Store the mirror image beside each picture, so that training can flip at random
    #[arg(long, default_value = "both")]
    pub flip: FlipArg,
    /// Element type of the stored moments
    #[arg(long, default_value = "f16")]
    pub store: StoreArg,
    /// Fraction of the pictures that may be unreadable; they are skipped and listed in skipped.jsonl
    #[arg(long, value_name = "F", default_value_t = 0.001)]
    pub max_skipped: f64,
    /// Take only the first N records
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Read everything back and compare its SHA-256; without --data, that is all
    #[arg(long)]
    pub verify: bool,
    /// A machine-readable summary on stdout; everything else is on stderr
    #[arg(long)]
    pub json: bool,
}

/// How pictures become square.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CropArg {
    /// Scale the shorter side, crop the middle, as ImageNet models are trained
    Adm,
    /// Do not scale; put into the middle of black
    Pad,
}

/// Whether mirror images are stored.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FlipArg {
    /// The picture and its mirror image
    Both,
    /// The picture alone
    None,
}

/// Element types of stored moments.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreArg {
    /// Half precision
    F16,
    /// Single precision
    F32,
}

/// Arithmetic of encoding.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// The reference
    Fp32,
    /// bfloat16
    Bf16,
}
