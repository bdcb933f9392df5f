use dit_config::VaeConfig;
use tch::Tensor;

use crate::Error;
use crate::layers::{Between, Conv2d, NormConv, channels_last};
use crate::middle::Middle;
use crate::resampling::Downsample;
use crate::resnet::{Resnet, Widths};
use crate::weights::Weights;

/// Images to the two halves of the posterior's parameters, before the 1×1 convolution that may follow.
#[derive(Debug)]
pub(crate) struct Encoder {
    conv_in: Conv2d,
    levels: Vec<Level>,
    middle: Middle,
    out: NormConv,
}

/// The resnets of one resolution, then the step to the next; the last level has none.
#[derive(Debug)]
struct Level {
    resnets: Vec<Resnet>,
    downsample: Option<Downsample>,
}

impl Encoder {
    pub(crate) fn new(weights: &mut Weights, config: &VaeConfig) -> Result<Self, Error> {
        let groups = config.norm_num_groups;
        let conv_in = Conv2d::same(weights, "encoder.conv_in")?;
        let mut levels = Vec::new();
        let mut input = config.block_out_channels[0];
        for (i, &output) in config.block_out_channels.iter().enumerate() {
            let name = format!("encoder.down_blocks.{i}");
            let mut resnets = Vec::new();
            for j in 0..config.layers_per_block {
                let widths = Widths { input, output };
                resnets.push(Resnet::new(weights, &format!("{name}.resnets.{j}"), widths, groups)?);
                input = output;
            }
            let last = i + 1 == config.block_out_channels.len();
            let downsample =
                if last { None } else { Some(Downsample::new(weights, &format!("{name}.downsamplers.0"))?) };
            levels.push(Level { resnets, downsample });
        }
        let middle = Middle::new(weights, "encoder.mid_block", input, config)?;
        let conv_out = Conv2d::same(weights, "encoder.conv_out")?;
        let out = NormConv::new(weights, "encoder.conv_norm_out", groups, Between::Silu, conv_out)?;
        Ok(Self { conv_in, levels, middle, out })
    }

    pub(crate) fn forward(&self, images: &Tensor) -> Result<Tensor, Error> {
        let mut x = self.conv_in.features(&channels_last(images))?; // (N, C₀, H, W)
        for level in &self.levels {
            for resnet in &level.resnets {
                x = resnet.forward(x)?; // (N, Cᵢ, H / 2ⁱ, W / 2ⁱ)
            }
            if let Some(downsample) = &level.downsample {
                x = downsample.forward(&x)?; // (N, Cᵢ, H / 2ⁱ⁺¹, W / 2ⁱ⁺¹)
            }
        }
        let x = self.middle.forward(x)?; // (N, C_last, h, w)
        self.out.forward(&x) // (N, 2·C_latent, h, w)
    }
}
