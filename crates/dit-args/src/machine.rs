use clap::Args;

/// Where a command computes.
#[derive(Args)]
pub struct MachineArgs {
    /// auto, cpu, cuda or cuda:N [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// CPU threads [default: all cores this process may use]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}
