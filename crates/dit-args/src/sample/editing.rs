use std::path::PathBuf;

use clap::Args;

/// Pictures to start from, and strips from one picture to another.
#[derive(Args)]
#[command(next_help_heading = "Editing")]
pub struct EditingArgs {
    /// Start from this picture (JPEG, PNG or WebP; cropped to the model's size), noised
    #[arg(long, value_name = "PICTURE")]
    pub init: Option<PathBuf>,
    /// Share of the steps that --init takes: 1 forgets the picture [default: 0.6; with --invert 1]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub strength: Option<f64>,
    /// Start from the noise that the flow makes of --init (DDIM inversion), so that the same class brings the picture back
    #[arg(long)]
    pub invert: bool,
    /// Class of the picture that is inverted [default: none]
    #[arg(long, value_name = "CLASS")]
    pub init_class: Option<String>,
    /// A strip from one to the other: `classes 3,7`, or `seeds 1,2` of one --class
    #[arg(long, num_args = 2, value_names = ["classes|seeds", "A,B"])]
    pub interpolate: Option<Vec<String>>,
    /// Pictures of the strip [default: 9]
    #[arg(long, value_name = "N")]
    pub frames: Option<u32>,
}
