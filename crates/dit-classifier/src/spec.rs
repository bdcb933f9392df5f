use dit_config::{BlockDesign, DitConfig, DitSpec, LatentSize, Numerics, Sigma};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The geometry of a classifier: an adaLN-Zero trunk, MLPs four times its width, and a head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierSpec {
    /// Token width D.
    pub hidden: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Patch side in latent pixels; divides the latent's sides.
    pub patch: usize,
    /// Latent channels C.
    pub in_channels: usize,
    /// Latent height and width.
    pub latent: [usize; 2],
    /// Classes.
    pub num_classes: usize,
}

impl ClassifierSpec {
    /// The trunk as a DiT's configuration, of which its geometry counts.
    ///
    /// # Errors
    /// [`Error::Config`] lists every value that no network has.
    pub(crate) fn trunk(&self) -> Result<DitConfig, Error> {
        let [height, width] = self.latent;
        Ok(DitConfig::new(DitSpec {
            block: BlockDesign::AdaLnZero,
            hidden: self.hidden,
            depth: self.depth,
            heads: self.heads,
            patch: self.patch,
            mlp_ratio: 4.0,
            in_channels: self.in_channels,
            latent: LatentSize { height, width },
            num_classes: self.num_classes,
            label_dropout: 0.0,
            sigma: Sigma::Fixed,
            numerics: Numerics::Original,
        })?)
    }
}
