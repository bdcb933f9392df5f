//! How many pictures fit into memory at once.

use dit_config::DitConfig;
use tch::Device;

use crate::Precision;

/// More pictures at once bring nothing on a CPU, and make the first one late.
const MOST_ON_CPU: usize = 16;
/// Fewer leave a GPU waiting for what it is to compute.
const MOST_ON_GPU: usize = 64;

/// Bytes that one picture's pass through the transformer takes at its widest point: an upper estimate.
///
/// In a block live at once: the residual stream, its norm, q, k and v, the attention's weights, and the MLP's hidden layer
/// before and after GELU. With guidance every picture has two rows.
pub fn bytes_per_picture(config: &DitConfig, precision: Precision, guided: bool) -> u64 {
    let (tokens, hidden) = (config.tokens() as u64, config.hidden as u64);
    let streams = tokens * (8 * hidden + 2 * config.mlp_hidden() as u64);
    let attention = 2 * config.heads as u64 * tokens * tokens;
    let rows = if guided { 2 } else { 1 };
    rows * precision.bytes() * (streams + attention)
}

/// The batch size whose activations take at most half of what `available` bytes of memory leave beside the transformer's
/// weights, from 1 to 16; 8 where the memory is not known. On a GPU at most a third, as its graphs have memory of their own for as much again, and
/// a power of two, to 64: what is free there varies a little from run to run, and the last bits of pictures go by the batch.
pub fn batch_size_that_fits(
    config: &DitConfig,
    precision: Precision,
    guided: bool,
    device: Device,
    available: Option<u64>,
) -> usize {
    let (most, share) = if device == Device::Cpu { (MOST_ON_CPU, 2) } else { (MOST_ON_GPU, 3) };
    let size = match available {
        None => 8,
        Some(available) => {
            let left = available.saturating_sub(config.parameters().saturating_mul(precision.bytes()));
            let fits = left / share / bytes_per_picture(config, precision, guided).max(1);
            usize::try_from(fits).unwrap_or(most).clamp(1, most)
        }
    };
    if device == Device::Cpu { size } else { 1 << size.ilog2() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_with_memory_and_never_vanish() {
        let config: DitConfig = "DiT-XL/2".parse().unwrap();
        let fits_on = |device, available| batch_size_that_fits(&config, Precision::Fp32, true, device, available);
        let fits = |available| fits_on(Device::Cpu, available);
        assert_eq!(fits(Some(0)), 1);
        assert_eq!(fits(Some(u64::MAX)), MOST_ON_CPU);
        assert_eq!(fits_on(Device::Cuda(1), Some(u64::MAX)), MOST_ON_GPU);
        assert_eq!(fits_on(Device::Cuda(1), Some(0)), 1);
        assert_eq!(fits(None), 8);
        let one = bytes_per_picture(&config, Precision::Fp32, true);
        let room_for = |count: u64| Some(config.parameters() * 4 + count * one);
        assert_eq!(fits(room_for(2 * 5)), 5);
        assert_eq!([7, 8, 9].map(|count| fits_on(Device::Cuda(0), room_for(3 * count))), [4, 8, 8]);
        assert!(bytes_per_picture(&config, Precision::Bf16, false) * 4 == one);
    }
}
