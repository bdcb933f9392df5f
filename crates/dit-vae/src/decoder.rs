use dit_config::VaeConfig;
use tch::Tensor;

use crate::Error;
use crate::layers::{Between, Conv2d, NormConv, channels_last};
use crate::middle::Middle;
use crate::resampling::Upsample;
use crate::resnet::{Resnet, Widths};
use crate::weights::Weights;

/// Raw latents, after the 1×1 convolution that may precede, to images. One resnet a level more than the encoder.
#[derive(Debug)]
pub(crate) struct Decoder {
    conv_in: Conv2d,
    middle: Middle,
    levels: Vec<Level>,
    out: NormConv,
}

/// The resnets of one resolution, then the step to the next; the last level has none.
#[derive(Debug)]
struct Level {
    resnets: Vec<Resnet>,
    upsample: Option<Upsample>,
}

impl Decoder {
    pub(crate) fn new(weights: &mut Weights, config: &VaeConfig) -> Result<Self, Error> {
        let groups = config.norm_num_groups;
        let widths: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let conv_in = Conv2d::same(weights, "decoder.conv_in")?;
        let mut input = widths[0];
        let middle = Middle::new(weights, "decoder.mid_block", input, config)?;
        let mut levels = Vec::new();
        for (i, &output) in widths.iter().enumerate() {
            let name = format!("decoder.up_blocks.{i}");
            let mut resnets = Vec::new();
            for j in 0..=config.layers_per_block {
                let widths = Widths { input, output };
                resnets.push(Resnet::new(weights, &format!("{name}.resnets.{j}"), widths, groups)?);
                input = output;
            }
            let last = i + 1 == widths.len();
            let upsample = if last { None } else { Some(Upsample::new(weights, &format!("{name}.upsamplers.0"))?) };
            levels.push(Level { resnets, upsample });
        }
        let conv_out = Conv2d::same(weights, "decoder.conv_out")?;
        let out = NormConv::new(weights, "decoder.conv_norm_out", groups, Between::Silu, conv_out)?;
        Ok(Self { conv_in, middle, levels, out })
    }

    pub(crate) fn forward(&self, raw: &Tensor) -> Result<Tensor, Error> {
        let x = self.conv_in.features(&channels_last(raw))?; // (N, C_last, h, w)
        let mut x = self.middle.forward(x)?; // (N, C_last, h, w)
        for level in &self.levels {
            for resnet in &level.resnets {
                x = resnet.forward(x)?; // (N, Cᵢ, h·2ⁱ, w·2ⁱ)
            }
            if let Some(upsample) = &level.upsample {
                x = upsample.forward(&x)?; // (N, Cᵢ, h·2ⁱ⁺¹, w·2ⁱ⁺¹)
            }
        }
        self.out.forward(&x) // (N, 3, H, W)
    }
}
