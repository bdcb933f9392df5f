use dit_config::VaeConfig;

use crate::Error;
use crate::attention::Attention;
use crate::features::Features;
use crate::resnet::{Resnet, Widths};
use crate::weights::Weights;

/// The lowest resolution's block, the same in encoder and decoder: resnet, attention (where configured), resnet.
#[derive(Debug)]
pub(crate) struct Middle {
    first: Resnet,
    attention: Option<Attention>,
    second: Resnet,
}

impl Middle {
    pub(crate) fn new(weights: &mut Weights, name: &str, width: usize, config: &VaeConfig) -> Result<Self, Error> {
        let groups = config.norm_num_groups;
        let widths = Widths { input: width, output: width };
        Ok(Self {
            first: Resnet::new(weights, &format!("{name}.resnets.0"), widths, groups)?,
            attention: if config.mid_block_add_attention {
                Some(Attention::new(weights, &format!("{name}.attentions.0"), groups)?)
            } else {
                None
            },
            second: Resnet::new(weights, &format!("{name}.resnets.1"), widths, groups)?,
        })
    }

    pub(crate) fn forward(&self, x: Features) -> Result<Features, Error> {
        let x = self.first.forward(x)?; // (N, C, h, w)
        let x = match &self.attention {
            None => x,
            Some(attention) => attention.forward(x)?, // (N, C, h, w)
        };
        self.second.forward(x) // (N, C, h, w)
    }
}
