use clap::Args;

use crate::MachineArgs;

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
    /// Where it computes
    #[command(flatten)]
    pub machine: MachineArgs,
    /// The table as JSON on stdout
    #[arg(long)]
    pub json: bool,
}
