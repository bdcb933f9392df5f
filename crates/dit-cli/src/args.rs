//! What can be typed, and its help. No logic: `commands` resolves it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{evaluate::EvaluateArgs, train::TrainArgs, train_features::TrainFeaturesArgs};

/// Class-conditional image generation with Diffusion Transformers (DiT).
#[derive(Parser)]
#[command(
    name = "dit-cli",
    version,
    max_term_width = 80,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (finished images are kept)."
)]
pub struct Cli {
    /// Say more on stderr: -v what is loaded, -vv every stage
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Sample(Box<SampleArgs>),
    Inspect(InspectArgs),
    Convert(ConvertArgs),
    PrecomputeLatents(Box<PrecomputeArgs>),
    Train(Box<TrainArgs>),
    Evaluate(Box<EvaluateArgs>),
    TrainFeatures(TrainFeaturesArgs),
    TrainClassifier(TrainClassifierArgs),
    CalibrateCache(CalibrateCacheArgs),
    Completions(CompletionsArgs),
}

/// Sample pictures from a checkpoint
///
/// Without flags: one picture of each default class, from the fetched DiT-XL/2 256 if it is there, else from the
/// small demo model in the repository.
#[derive(Args)]
#[command(after_help = "Examples:
  dit-cli sample --class 207,360 --cfg-scale 4 --seed 1 --out dogs.png
  dit-cli sample --class \"golden retriever\" --num-samples 8 --out-dir dogs/
  dit-cli sample --sampler dpmpp-2m --steps 20 --out quick.png
  dit-cli sample --class 207 --init photo.jpg --strength 0.6 --sampler ddim --out edited.png
  dit-cli sample --interpolate classes 207,360 --animate morph.png --out strip.png
  dit-cli sample --class all --num-samples 50 --out-dir all/ --npz all.npz
  dit-cli sample --sampler ddim --steps 50 --npz samples.npz --json
  dit-cli sample --from-png dogs.png --out again.png")]
pub struct SampleArgs {
    /// Checkpoint: file, diffusers folder, or a name from weights/manifest.json
    /// [default: dit-xl-2-256 if fetched, else the demo]
    #[arg(long, value_name = "PATH|NAME")]
    pub ckpt: Option<String>,
    /// Standard model the checkpoint is, such as DiT-XL/2; only where the file leaves it open
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Attention heads; only where the file leaves them open
    #[arg(long, value_name = "N")]
    pub num_heads: Option<usize>,
    /// Side of the pictures in pixels, to make sure that the checkpoint is the one you mean
    #[arg(long, value_name = "PX")]
    pub image_size: Option<usize>,
    /// Latent codec: diffusers folder, file, name from the manifest, or `none` to write latents only
    /// [default: what the manifest pairs with the checkpoint]
    #[arg(long, value_name = "PATH|NAME|none")]
    pub vae: Option<String>,
    /// Classes: ids, ranges and names, such as `207,360`, `0-9`, "golden retriever" or `all`; order and repeats are kept
    /// [default: the original's eight for ImageNet, else all]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub class: Option<String>,
    /// Pictures per listed class [default: 1]
    #[arg(long, value_name = "N")]
    pub num_samples: Option<usize>,
    /// Classifier-free guidance scale; 1 is no guidance, at half the cost [default: 4.0]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub cfg_scale: Option<f64>,
    /// Latent channels that are guided [default: 3 for four-channel latents, as the released models were evaluated]. A scale of
    /// 1 + x on three acts about as 1 + 0.75 x on all four
    #[arg(long, value_name = "3|all", help_heading = "Guidance")]
    pub cfg_channels: Option<GuidedChannelsArg>,
    /// Guide only at noise levels from LO to HI (sigma, 0.01 to 157), such as `0.3,5`; outside, a step costs half
    #[arg(long, value_name = "LO,HI", allow_hyphen_values = true, help_heading = "Guidance")]
    pub cfg_interval: Option<String>,
    /// How the scale changes from noise to data [default: constant]
    #[arg(long, help_heading = "Guidance")]
    pub cfg_schedule: Option<CfgScheduleArg>,
    /// Bring the guided prediction's spread back towards the unguided one's: 0 not at all, 1 wholly [default: 0]
    #[arg(long, value_name = "F", allow_negative_numbers = true, help_heading = "Guidance")]
    pub cfg_rescale: Option<f64>,
    /// Guide away from this class, id or name, in place of no class
    #[arg(long, value_name = "CLASS", help_heading = "Guidance")]
    pub negative_class: Option<String>,
    /// Guide away from this weaker checkpoint of the same kind, in place of no class
    #[arg(long, value_name = "PATH|NAME", help_heading = "Guidance")]
    pub autoguidance: Option<String>,
    /// Scale of autoguidance [default: 2]
    #[arg(long, value_name = "F", allow_negative_numbers = true, help_heading = "Guidance")]
    pub autoguidance_scale: Option<f64>,
    /// Guide by the gradient of this classifier of noised latents, which train-classifier makes; adds to any other guidance
    #[arg(long, value_name = "PATH", help_heading = "Guidance")]
    pub classifier: Option<PathBuf>,
    /// Scale of the classifier's gradient [default: 1]
    #[arg(long, value_name = "F", allow_negative_numbers = true, help_heading = "Guidance")]
    pub classifier_scale: Option<f64>,
    /// Start from this picture (JPEG, PNG or WebP; cropped to the model's size), noised
    #[arg(long, value_name = "PICTURE", help_heading = "Editing")]
    pub init: Option<PathBuf>,
    /// Share of the steps that --init takes: 1 forgets the picture [default: 0.6; with --invert 1]
    #[arg(long, value_name = "F", allow_negative_numbers = true, help_heading = "Editing")]
    pub strength: Option<f64>,
    /// Start from the noise that the flow makes of --init (DDIM inversion), so that the same class brings the picture back
    #[arg(long, help_heading = "Editing")]
    pub invert: bool,
    /// Class of the picture that is inverted [default: none]
    #[arg(long, value_name = "CLASS", help_heading = "Editing")]
    pub init_class: Option<String>,
    /// A strip from one to the other: `classes 3,7`, or `seeds 1,2` of one --class
    #[arg(long, num_args = 2, value_names = ["classes|seeds", "A,B"], help_heading = "Editing")]
    pub interpolate: Option<Vec<String>>,
    /// Pictures of the strip [default: 9]
    #[arg(long, value_name = "N", help_heading = "Editing")]
    pub frames: Option<u32>,
    /// Take block outputs again from an earlier step while the first block's change stays below this factor, such as 0.1;
    /// calibrate-cache tells what that costs in likeness [default: off]
    #[arg(long, value_name = "off|FACTOR", allow_hyphen_values = true)]
    pub cache: Option<String>,
    /// How classes are chosen from the list: every one --num-samples times, or as many images drawn at random by seed
    /// [default: balanced]
    #[arg(long)]
    pub labels: Option<LabelsArg>,
    /// Sampler [default: ddpm]
    #[arg(long)]
    pub sampler: Option<SamplerArg>,
    /// Steps: a count, sections such as `10,15,20`, `ddim50`, `all`, or a count after `trailing`, `karras` or `lambda`
    /// (equal log-SNR, also called `exponential`; best for the fast samplers)
    /// [default: 250; lambda20 for dpmpp, unipc and heun]
    #[arg(long, value_name = "SPEC")]
    pub steps: Option<String>,
    /// DDIM's noise: 0 deterministic, 1 as much as DDPM [default: 0.0]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub eta: Option<f64>,
    /// Seed; image k of a seed is the same whatever batch it is in [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Replay noise: safetensors with `z` (N,C,H,W) and, for samplers that add noise, `steps` (S,N,C,H,W)
    #[arg(long, value_name = "FILE")]
    pub noise: Option<PathBuf>,
    /// Arithmetic of the transformer and the VAE [default: fp32]
    #[arg(long)]
    pub precision: Option<SamplePrecisionArg>,
    /// auto, cpu, cuda or cuda:N [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// CPU threads [default: all cores this process may use]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Pictures computed at once [default: what fits into memory, at most 16]
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// One grid of all pictures, four columns [default: sample.png if no other output is named]
    #[arg(long, value_name = "FILE.png")]
    pub out: Option<PathBuf>,
    /// One PNG a picture: 000000.png, 000001.png, … Those that are there and were made by the same recipe are kept: a run that
    /// was interrupted continues
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,
    /// `arr_0`, uint8 (N,H,W,3), as FID evaluators read it
    #[arg(long, value_name = "FILE")]
    pub npz: Option<PathBuf>,
    /// One animated PNG of all pictures
    #[arg(long, value_name = "FILE.png")]
    pub animate: Option<PathBuf>,
    /// One PNG with a row for each picture: what the model takes it for, from noise on
    #[arg(long, value_name = "FILE.png")]
    pub trajectory: Option<PathBuf>,
    /// safetensors `latents` (N,C,H,W), scaled as the model sees them, before the VAE
    #[arg(long, value_name = "FILE")]
    pub latents: Option<PathBuf>,
    /// Repeat what made this PNG: --out is that picture again, --out-dir its whole batch; other flags override its recipe
    #[arg(long, value_name = "X.png")]
    pub from_png: Option<PathBuf>,
    /// A machine-readable summary on stdout when the run is complete; everything else is on stderr
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GuidedChannelsArg {
    #[value(name = "3")]
    Three,
    All,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CfgScheduleArg {
    /// The same everywhere
    Constant,
    /// None at first, twice as much at the end
    Linear,
    /// The same ends, more of the walk near them
    Cosine,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LabelsArg {
    /// Every listed class as often
    Balanced,
    /// Drawn uniformly from the list
    Random,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SamplerArg {
    /// Ancestral sampling (Ho et al. 2020)
    Ddpm,
    /// Implicit sampling (Song et al. 2021)
    Ddim,
    /// Euler's method on the probability flow: ddim without noise
    Euler,
    /// DPM-Solver++ 2M: good pictures in 20 steps
    #[value(name = "dpmpp-2m")]
    DpmPlusPlus2M,
    /// DPM-Solver++ 3M
    #[value(name = "dpmpp-3m")]
    DpmPlusPlus3M,
    /// SDE-DPM-Solver++ 2M: adds noise
    #[value(name = "dpmpp-2m-sde")]
    DpmPlusPlus2MSde,
    /// UniPC of order 2
    #[value(name = "unipc")]
    UniPc,
    /// Heun's method: two passes a step
    Heun,
    /// Euler-ancestral: adds noise
    EulerAncestral,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SamplePrecisionArg {
    /// bf16 where the machine has instructions for it, else fp32
    Auto,
    /// The reference
    Fp32,
    /// bfloat16
    Bf16,
    /// The transformer's large Linears in 8 bits, all else bf16; needs AVX-512 VNNI
    Int8,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    Fp32,
    Bf16,
}

/// Say what a checkpoint is: layout, configuration, cost, problems
#[derive(Args)]
#[command(after_help = "Example:
  dit-cli inspect weights/demo/dit-fashion.safetensors")]
pub struct InspectArgs {
    /// Checkpoint file, diffusers folder (DiT or VAE), folder of latents, or a name from the manifest
    #[arg(value_name = "CKPT")]
    pub ckpt: String,
    /// Standard model the checkpoint is; only where the file leaves it open
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Attention heads; only where the file leaves them open
    #[arg(long, value_name = "N")]
    pub num_heads: Option<usize>,
    /// Machine-readable, on stdout
    #[arg(long)]
    pub json: bool,
}

/// Convert a checkpoint between files and layouts
///
/// OUT's name decides the form: `.safetensors`, `.pt` (original layout), or a folder (diffusers).
#[derive(Args)]
#[command(after_help = "Examples:
  dit-cli convert DiT-XL-2-256x256.pt dit-xl-2.safetensors --dtype bf16
  dit-cli convert 0400000.pt hub/ --layout diffusers --ema
  dit-cli convert hub/transformer model.pt")]
pub struct ConvertArgs {
    /// Checkpoint file or diffusers folder
    #[arg(value_name = "IN")]
    pub input: String,
    /// File or folder to write
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// Names and shapes of the output [default: original for a file, diffusers for a folder]
    #[arg(long)]
    pub layout: Option<LayoutArg>,
    /// Element type of the output [default: as in the input]
    #[arg(long)]
    pub dtype: Option<DtypeArg>,
    /// Take the averaged weights of a training checkpoint [default, where it has them]
    #[arg(long, conflicts_with = "raw")]
    pub ema: bool,
    /// Take the weights as trained, not averaged
    #[arg(long)]
    pub raw: bool,
    /// Class names to store: a JSON array of strings
    #[arg(long, value_name = "FILE")]
    pub class_names: Option<PathBuf>,
    /// Standard model the checkpoint is; only where the file leaves it open
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Attention heads; only where the file leaves them open
    #[arg(long, value_name = "N")]
    pub num_heads: Option<usize>,
    /// Replace OUT if it exists
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LayoutArg {
    Original,
    Diffusers,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DtypeArg {
    F32,
    Bf16,
    F16,
}

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
    /// Side of the cropped pictures in pixels
    #[arg(long, value_name = "PX", default_value_t = 256)]
    pub image_size: usize,
    /// How pictures become square
    #[arg(long, default_value = "adm")]
    pub crop: CropArg,
    /// Pictures encoded at once [default: on a CPU 1 at 256 px, where small batches stay in cache, more of smaller ones; on
    /// CUDA 32]
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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CropArg {
    /// Scale the shorter side, crop the middle, as ImageNet models are trained
    Adm,
    /// Do not scale; put into the middle of black
    Pad,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FlipArg {
    Both,
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreArg {
    F16,
    F32,
}

/// Tell what `sample --cache FACTOR` saves and how far it drifts, for a checkpoint
#[derive(Args)]
#[command(after_help = "Example:
  dit-cli calibrate-cache --ckpt dit-fashion-demo --steps 50")]
pub struct CalibrateCacheArgs {
    /// Checkpoint: file, diffusers folder, or a name from weights/manifest.json
    /// [default: dit-xl-2-256 if fetched, else the demo]
    #[arg(long, value_name = "PATH|NAME")]
    pub ckpt: Option<String>,
    /// Factors to try
    #[arg(long, value_name = "LIST", default_value = "0.02,0.05,0.1,0.15,0.2,0.3")]
    pub factors: String,
    /// Classes, one picture each [default: the first eight]
    #[arg(long, value_name = "LIST")]
    pub class: Option<String>,
    /// Steps of DDIM, as `sample` reads them
    #[arg(long, value_name = "SPEC", default_value = "50")]
    pub steps: String,
    /// Classifier-free guidance scale, where the checkpoint has a null class
    #[arg(long, value_name = "F", default_value_t = 4.0, allow_negative_numbers = true)]
    pub cfg_scale: f64,
    /// Seed of the noise
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// auto, cpu, cuda or cuda:N [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// CPU threads [default: all cores this process may use]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// The table as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

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
    /// auto, cpu, cuda or cuda:N [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// CPU threads [default: all cores this process may use]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// A machine-readable summary on stdout; everything else is on stderr
    #[arg(long)]
    pub json: bool,
}

/// Print a completion script for your shell
#[derive(Args)]
#[command(after_help = "Example:
  dit-cli completions bash > ~/.local/share/bash-completion/completions/dit-cli")]
pub struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    pub shell: clap_complete::Shell,
}
