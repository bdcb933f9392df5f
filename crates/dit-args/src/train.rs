use std::path::PathBuf;

use clap::Args;

use crate::MachineArgs;

/// Train a model on a folder of latents
///
/// Interrupt it at any time: the same command with --resume continues, and the result is the same to the bit.
#[derive(Args)]
#[command(
    after_help = "Ctrl-C, SIGTERM or SIGHUP finishes the step, writes a checkpoint and exits with 130; a second Ctrl-C exits at once.

Examples:
  dit-cli train --config configs/fashion.toml --data latents/ --out run/
  dit-cli train --out run/ --resume
  dit-cli train --config configs/dit-s-2.toml --set train.batch_size=64 --set optim.lr=5e-5 --print-config
  dit-cli sample --ckpt run/ --class 0-9"
)]
pub struct TrainArgs {
    /// Recipe [default: the original's for DiT-XL/2; with --resume, that of the run]
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Folder that `precompute-latents` wrote [default with --resume: that of the run]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Folder of the run: checkpoints, log, curves and pictures
    #[arg(long, value_name = "DIR", required_unless_present_any = ["print_config", "plan"])]
    pub out: Option<PathBuf>,
    /// Change a key of the recipe, such as `optim.lr=2e-4`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Continue the run in --out from its newest checkpoint, with the data, codec, device and threads that it had, unless others are
    /// given
    #[arg(long)]
    pub resume: bool,
    /// Print the whole recipe, every key with its meaning, and stop
    #[arg(long)]
    pub print_config: bool,
    /// Say what the run will cost, and stop
    #[arg(long)]
    pub plan: bool,
    /// Train even if the run does not seem to fit into the free memory
    #[arg(long)]
    pub ignore_memory: bool,
    /// Latent codec for pictures: diffusers folder, file, or name from the manifest [default: the one of the latents]
    #[arg(long, value_name = "NAME|PATH")]
    pub vae: Option<String>,
    /// Where it computes
    #[command(flatten)]
    pub machine: MachineArgs,
    /// A machine-readable summary on stdout at the end; everything else is on stderr
    #[arg(long)]
    pub json: bool,
}
