//! What can be typed on the command line of the DiT toolkit, and its help.
//!
//! One file a command. Whatever is typed ends as a [`Cli`], which the program resolves. This crate never looks at a file, decides
//! nothing, and needs neither libtorch nor any other crate of the toolkit: help, completions and the complaint about a
//! mistyped option are there at once.
//!
//! ```
//! use clap::Parser;
//! use dit_args::{Cli, Command};
//!
//! let cli = Cli::try_parse_from(["dit-cli", "sample", "--class", "207", "--steps", "50"]).unwrap();
//! let Command::Sample(args) = cli.command else { panic!("sample was typed") };
//! assert_eq!(args.class.as_deref(), Some("207"));
//! ```

#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod calibrate_cache;
mod completions;
mod convert;
mod evaluate;
mod inspect;
mod machine;
mod model;
mod precompute;
mod sample;
mod train;
mod train_classifier;
mod train_features;

use clap::{Parser, Subcommand};

pub use self::{
    calibrate_cache::CalibrateCacheArgs,
    completions::CompletionsArgs,
    convert::{ConvertArgs, DtypeArg, LayoutArg},
    evaluate::{EvaluateArgs, LARGEST_BATCH, MetricArg},
    inspect::InspectArgs,
    machine::MachineArgs,
    model::ModelArgs,
    precompute::{CropArg, FlipArg, PrecisionArg, PrecomputeArgs, StoreArg},
    sample::{
        CfgScheduleArg, EditingArgs, GuidanceArgs, GuidedChannelsArg, LabelsArg, OutputArgs, SampleArgs,
        SamplePrecisionArg, SamplerArg,
    },
    train::TrainArgs,
    train_classifier::TrainClassifierArgs,
    train_features::TrainFeaturesArgs,
};

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
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do; the help of each is that of its arguments.
#[derive(Subcommand)]
#[expect(missing_docs, reason = "clap would show a variant's documentation in place of its arguments'")]
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
