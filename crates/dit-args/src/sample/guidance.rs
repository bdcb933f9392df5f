use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Guidance beyond the plain scale.
#[derive(Args)]
#[command(next_help_heading = "Guidance")]
pub struct GuidanceArgs {
    /// Latent channels that are guided [default: 3 for four-channel latents, as the released models were evaluated]. A scale of
    /// 1 + x on three acts about as 1 + 0.75 x on all four
    #[arg(long, value_name = "3|all")]
    pub cfg_channels: Option<GuidedChannelsArg>,
    /// Guide only at noise levels from LO to HI (sigma, 0.01 to 157), such as `0.3,5`; outside, a step costs half
    #[arg(long, value_name = "LO,HI", allow_hyphen_values = true)]
    pub cfg_interval: Option<String>,
    /// How the scale changes from noise to data [default: constant]
    #[arg(long)]
    pub cfg_schedule: Option<CfgScheduleArg>,
    /// Bring the guided prediction's spread back towards the unguided one's: 0 not at all, 1 wholly [default: 0]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub cfg_rescale: Option<f64>,
    /// Guide away from this class, id or name, in place of no class
    #[arg(long, value_name = "CLASS")]
    pub negative_class: Option<String>,
    /// Guide away from this weaker checkpoint of the same kind, in place of no class
    #[arg(long, value_name = "PATH|NAME")]
    pub autoguidance: Option<String>,
    /// Scale of autoguidance [default: 2]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub autoguidance_scale: Option<f64>,
    /// Guide by the gradient of this classifier of noised latents, which train-classifier makes; adds to any other guidance
    #[arg(long, value_name = "PATH")]
    pub classifier: Option<PathBuf>,
    /// Scale of the classifier's gradient [default: 1]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub classifier_scale: Option<f64>,
}

/// Which latent channels are guided.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GuidedChannelsArg {
    /// The first three
    #[value(name = "3")]
    Three,
    /// All channels
    All,
}

/// How the scale of guidance changes over the walk.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CfgScheduleArg {
    /// The same everywhere
    Constant,
    /// None at first, twice as much at the end
    Linear,
    /// The same ends, more of the walk near them
    Cosine,
}
