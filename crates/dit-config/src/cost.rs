//! Parameters and multiply-accumulates: the columns of the paper's table 1 and 4.

use crate::{BlockDesign, DitConfig, tensors::TIMESTEP_FEATURES};

impl DitConfig {
    /// Number of parameters, the frozen position table included (as the paper counts).
    pub fn parameters(&self) -> u64 {
        self.tensors().iter().map(|tensor| tensor.numel() as u64).sum()
    }

    /// Multiply-accumulates of one forward pass of one image, without guidance's second half and without the VAE: what
    /// the paper calls Gflops, times 1e9. Linears, the patch convolution and both matrix products of attention count.
    /// Saturates at `u64::MAX`, which no model that could be run comes near.
    pub fn macs(&self) -> u64 {
        let d = self.hidden as u128;
        let tokens = self.tokens() as u128;
        let patch_area = (self.patch * self.patch) as u128;
        let patchify = tokens * d * self.in_channels as u128 * patch_area;
        let timestep = TIMESTEP_FEATURES as u128 * d + d * d;
        let final_linear = tokens * d * patch_area * self.out_channels() as u128;
        let final_modulation = match self.block {
            BlockDesign::AdaLn | BlockDesign::AdaLnZero => 2 * d * d,
            BlockDesign::InContext | BlockDesign::CrossAttention => 0,
        };
        let macs = patchify + timestep + self.depth as u128 * self.block_macs() + final_modulation + final_linear;
        u64::try_from(macs).unwrap_or(u64::MAX)
    }

    fn block_macs(&self) -> u128 {
        let d = self.hidden as u128;
        let conditioning_tokens = 2; // t and y
        let patches = self.tokens() as u128;
        let tokens = match self.block {
            BlockDesign::InContext => patches + conditioning_tokens,
            BlockDesign::CrossAttention | BlockDesign::AdaLn | BlockDesign::AdaLnZero => patches,
        };
        let attention = |queries: u128, keys: u128| 2 * queries * keys * d;
        let self_attention = tokens * 4 * d * d + attention(tokens, tokens);
        let mlp = tokens * 2 * d * self.mlp_hidden() as u128;
        let conditioning = match self.block {
            BlockDesign::InContext => 0,
            BlockDesign::CrossAttention => {
                tokens * 2 * d * d + conditioning_tokens * 2 * d * d + attention(tokens, conditioning_tokens)
            }
            BlockDesign::AdaLn | BlockDesign::AdaLnZero => self.block.modulation_chunks() as u128 * d * d,
        };
        self_attention + mlp + conditioning
    }
}
