use std::path::PathBuf;

use clap::Args;

/// Files to write.
#[derive(Args)]
pub struct OutputArgs {
    /// One grid of all pictures, four columns [default: sample.png if no other output is named]
    #[arg(long, value_name = "FILE.png")]
    pub out: Option<PathBuf>,
    /// One PNG a picture: 000000.png, 000001.png, … Those that are there and were made by the same recipe are kept: a run that
    /// was interrupted continues
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,
    /// `arr_0`, uint8 (N,H,W,3), as FID evaluators read it, and `arr_1`, the classes. A run that is interrupted leaves what is
    /// finished as FILE.interrupted
    #[arg(long, value_name = "FILE")]
    pub npz: Option<PathBuf>,
    /// One animated PNG of all pictures
    #[arg(long, value_name = "FILE.png")]
    pub animate: Option<PathBuf>,
    /// One PNG with a row for each picture: what the model takes it for, from noise on
    #[arg(long, value_name = "FILE.png")]
    pub trajectory: Option<PathBuf>,
    /// safetensors `latents` (N,C,H,W), scaled as the model sees them, before the VAE. A run that is interrupted leaves what is
    /// finished as FILE.interrupted
    #[arg(long, value_name = "FILE")]
    pub latents: Option<PathBuf>,
}
