mod choices;
mod editing;
mod guidance;
mod outputs;

use std::path::PathBuf;

use clap::Args;

pub use self::{
    choices::{LabelsArg, SamplePrecisionArg, SamplerArg},
    editing::EditingArgs,
    guidance::{CfgScheduleArg, GuidanceArgs, GuidedChannelsArg},
    outputs::OutputArgs,
};
use crate::{MachineArgs, ModelArgs};

/// Sample pictures from a checkpoint
///
/// Without flags: one picture of each default class, from the fetched DiT-XL/2 256 if it is there, else from the
/// small demo model in the repository.
#[derive(Args)]
#[command(after_help = "Examples:
  dit-cli sample --class 207,360 --cfg-scale 4 --seed 1 --out dogs.png
  dit-cli sample --class \"golden retriever\" --num-samples 8 --out-dir dogs/
  dit-cli sample --sampler dpmpp-2m --out quick.png
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
    /// What the checkpoint's file leaves open
    #[command(flatten)]
    pub opened_as: ModelArgs,
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
    /// Where it computes
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Pictures computed at once [default: what fits into memory, at most 16, on a GPU 64]
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// What is written
    #[command(flatten)]
    pub outputs: OutputArgs,
    /// Repeat what made this PNG: --out is that picture again, --out-dir its whole batch; other flags override its recipe
    #[arg(long, value_name = "X.png")]
    pub from_png: Option<PathBuf>,
    /// A machine-readable summary on stdout when the run is complete; everything else is on stderr
    #[arg(long)]
    pub json: bool,
    // A heading holds for all that comes after it.
    /// How it is guided, beyond the scale
    #[command(flatten)]
    pub guidance: GuidanceArgs,
    /// What it starts from, and where it leads
    #[command(flatten)]
    pub editing: EditingArgs,
}
