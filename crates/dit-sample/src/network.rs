//! The transformer as one batch sees it.

use dit_diffusion::{DenoiserError, Timestep};
use dit_model::GraphedDit;
use tch::{Kind, Tensor};

use crate::cache::BlockCache;

/// A transformer, and what changes its pass for this batch.
pub(crate) struct Network<'a> {
    dit: &'a GraphedDit,
    blend: Option<Blend>,
    cache: Option<BlockCache<'a>>,
}

/// Labels that the first samples are led to: each its share of the way.
pub(crate) struct Blend {
    /// (N,) int64.
    pub to: Tensor,
    /// (N,), 0 to 1.
    pub share: Tensor,
}

impl<'a> Network<'a> {
    pub(crate) fn new(dit: &'a GraphedDit, blend: Option<Blend>, cache: Option<BlockCache<'a>>) -> Self {
        Self { dit, blend, cache }
    }

    /// `x` (M, C, H, W), `labels` (M,) → (M, C or 2C, H, W); M is N, or 2N in guided passes.
    pub(crate) fn forward(&self, x: &Tensor, t: Timestep, labels: &Tensor) -> Result<Tensor, DenoiserError> {
        if self.blend.is_none() && self.cache.is_none() {
            return Ok(self.dit.forward(x, i64::from(t.0), labels)?);
        }
        let dit = self.dit.dit();
        let t = Tensor::f_full([x.size()[0]], i64::from(t.0), (Kind::Int64, x.device()))?; // (M,)
        let c = self.condition(&t, labels); // (M, D) or (M, 2, D)
        let tokens = dit.embed(x, &c); // (M, T, D)
        let tokens = match &self.cache {
            Some(cache) => cache.forward(dit.blocks(), tokens, &c)?,
            None => dit.blocks().iter().fold(tokens, |tokens, block| block.forward(&tokens, &c)),
        }; // (M, T, D)
        Ok(dit.unpatchify(&dit.final_tokens(&tokens, &c)))
    }

    /// The embeddings enter the conditioning linearly in every block design, so a line between two conditionings is one between
    /// two labels.
    fn condition(&self, t: &Tensor, labels: &Tensor) -> Tensor {
        let dit = self.dit.dit();
        let from = dit.condition(t, labels);
        let Some(Blend { to, share }) = &self.blend else { return from };
        let (samples, rows) = (to.size()[0], labels.size()[0]);
        let to = dit.condition(&t.narrow(0, 0, samples), to);
        let mut shape = vec![1; from.dim()];
        shape[0] = samples;
        let share = share.to_kind(from.kind()).view(shape.as_slice());
        let first = from.narrow(0, 0, samples);
        let blended = &first + share * (to - &first);
        Tensor::cat(&[blended, from.narrow(0, samples, rows - samples)], 0)
    }
}
