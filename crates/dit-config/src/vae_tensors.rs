use crate::{TensorSpec, VaeConfig, tensors::Specs};

impl VaeConfig {
    /// Every tensor of the state dict, in diffusers' present spelling (`to_q`, `to_out.0`); 248 for Stable Diffusion's.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut specs = Specs::default();
        self.encoder_tensors(&mut specs);
        let latent = self.latent_channels;
        if self.use_quant_conv {
            specs.affine("quant_conv", &[2 * latent, 2 * latent, 1, 1]);
        }
        if self.use_post_quant_conv {
            specs.affine("post_quant_conv", &[latent, latent, 1, 1]);
        }
        self.decoder_tensors(&mut specs);
        specs.0
    }

    fn encoder_tensors(&self, specs: &mut Specs) {
        let widths = &self.block_out_channels;
        let last = widths.len() - 1;
        specs.affine("encoder.conv_in", &[widths[0], self.in_channels, 3, 3]);
        let mut width_in = widths[0];
        for (level, &width) in widths.iter().enumerate() {
            for layer in 0..self.layers_per_block {
                resnet(specs, &format!("encoder.down_blocks.{level}.resnets.{layer}"), width_in, width);
                width_in = width;
            }
            if level < last {
                specs.affine(&format!("encoder.down_blocks.{level}.downsamplers.0.conv"), &[width, width, 3, 3]);
            }
        }
        self.mid_tensors(specs, "encoder.mid_block", widths[last]);
        specs.affine("encoder.conv_norm_out", &[widths[last]]);
        specs.affine("encoder.conv_out", &[2 * self.latent_channels, widths[last], 3, 3]);
    }

    fn decoder_tensors(&self, specs: &mut Specs) {
        let widths: Vec<usize> = self.block_out_channels.iter().rev().copied().collect();
        let last = widths.len() - 1;
        specs.affine("decoder.conv_in", &[widths[0], self.latent_channels, 3, 3]);
        self.mid_tensors(specs, "decoder.mid_block", widths[0]);
        let mut width_in = widths[0];
        for (level, &width) in widths.iter().enumerate() {
            for layer in 0..=self.layers_per_block {
                resnet(specs, &format!("decoder.up_blocks.{level}.resnets.{layer}"), width_in, width);
                width_in = width;
            }
            if level < last {
                specs.affine(&format!("decoder.up_blocks.{level}.upsamplers.0.conv"), &[width, width, 3, 3]);
            }
        }
        specs.affine("decoder.conv_norm_out", &[widths[last]]);
        specs.affine("decoder.conv_out", &[self.out_channels, widths[last], 3, 3]);
    }

    fn mid_tensors(&self, specs: &mut Specs, prefix: &str, width: usize) {
        resnet(specs, &format!("{prefix}.resnets.0"), width, width);
        if self.mid_block_add_attention {
            specs.affine(&format!("{prefix}.attentions.0.group_norm"), &[width]);
            for linear in ["to_q", "to_k", "to_v", "to_out.0"] {
                specs.affine(&format!("{prefix}.attentions.0.{linear}"), &[width, width]);
            }
        }
        resnet(specs, &format!("{prefix}.resnets.1"), width, width);
    }
}

fn resnet(specs: &mut Specs, prefix: &str, width_in: usize, width_out: usize) {
    specs.affine(&format!("{prefix}.norm1"), &[width_in]);
    specs.affine(&format!("{prefix}.conv1"), &[width_out, width_in, 3, 3]);
    specs.affine(&format!("{prefix}.norm2"), &[width_out]);
    specs.affine(&format!("{prefix}.conv2"), &[width_out, width_out, 3, 3]);
    if width_in != width_out {
        specs.affine(&format!("{prefix}.conv_shortcut"), &[width_out, width_in, 1, 1]);
    }
}
