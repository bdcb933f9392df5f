use clap::Args;

use crate::ModelArgs;

/// Say what a checkpoint is: layout, configuration, cost, problems
#[derive(Args)]
#[command(after_help = "Example:
  dit-cli inspect weights/demo/dit-fashion.safetensors")]
pub struct InspectArgs {
    /// Checkpoint file, diffusers folder (DiT or VAE), folder of latents, or a name from the manifest
    #[arg(value_name = "CKPT")]
    pub ckpt: String,
    /// What the checkpoint's file leaves open
    #[command(flatten)]
    pub opened_as: ModelArgs,
    /// Machine-readable, on stdout
    #[arg(long)]
    pub json: bool,
}
