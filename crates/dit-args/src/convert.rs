use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::ModelArgs;

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
    /// Class names to store, not in a `.pt`: a JSON array of strings
    #[arg(long, value_name = "FILE")]
    pub class_names: Option<PathBuf>,
    /// What the checkpoint's file leaves open
    #[command(flatten)]
    pub opened_as: ModelArgs,
    /// Replace OUT if it exists
    #[arg(long)]
    pub force: bool,
}

/// Layouts of a checkpoint's tensors.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LayoutArg {
    /// Names and shapes of the original release
    Original,
    /// Names and shapes of diffusers
    Diffusers,
}

/// Element types of a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DtypeArg {
    /// Single precision
    F32,
    /// bfloat16
    Bf16,
    /// Half precision
    F16,
}
