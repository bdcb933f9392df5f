use clap::Args;

/// What a checkpoint's file may leave open.
#[derive(Args)]
pub struct ModelArgs {
    /// Standard model the checkpoint is, such as DiT-XL/2; only where the file leaves it open
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Attention heads; only where the file leaves them open
    #[arg(long, value_name = "N")]
    pub num_heads: Option<usize>,
}
