use std::cell::{Cell, RefCell};

use dit_model::Block;
use serde::Serialize;
use tch::{Kind, TchError, Tensor};

/// How often blocks were computed, and how often what they gave a step before was taken again; a pass of one sample counts as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CacheReport {
    /// Passes through all blocks.
    pub computed: u64,
    /// Passes through the first block alone.
    pub reused: u64,
}

impl CacheReport {
    /// The share of passes that ended after the first block.
    pub fn share_reused(&self) -> f64 {
        self.reused as f64 / (self.computed + self.reused).max(1) as f64
    }
}

/// Takes what all blocks but the first add to the tokens from an earlier step, while what the first adds has changed by less than a
/// factor since: neighbouring steps ask for nearly the same, and the first block tells how nearly (the idea of TeaCache, Liu et
/// al. 2024, and of first-block caches).
///
/// What is compared is ‖Δ − Δ′‖₁/‖Δ′‖₁ of each image, Δ what the first block adds now, Δ′ what it added when the others were last
/// computed; so drift does not creep in by small steps. Each image is judged alone, the worse of its guided passes counting: its
/// picture does not depend on its batch.
pub(crate) struct BlockCache<'a> {
    factor: f64,
    /// Images of the batch, N; passes have N rows or 2N.
    images: i64,
    last: RefCell<Option<Last>>,
    report: &'a Cell<CacheReport>,
}

/// Of the last pass that computed a row.
struct Last {
    /// What the first block added, (M, T, D).
    first: Tensor,
    /// What the others added, (M, T, D).
    others: Tensor,
}

impl<'a> BlockCache<'a> {
    pub(crate) fn new(factor: f64, images: usize, report: &'a Cell<CacheReport>) -> Self {
        Self { factor, images: images as i64, last: RefCell::new(None), report }
    }

    /// The tokens after all blocks: `x` (M, T, D), the conditioning `c` (M, …) → (M, T, D).
    ///
    /// # Errors
    /// Where libtorch cannot tell how much has changed.
    pub(crate) fn forward(&self, blocks: &[Block], x: Tensor, c: &Tensor) -> Result<Tensor, TchError> {
        let Some((first, others)) = blocks.split_first() else { return Ok(x) };
        let after_first = first.forward(&x, c); // (M, T, D)
        let added = &after_first - &x;
        let rows = x.size()[0];
        let through = |x: Tensor, c: &Tensor| others.iter().fold(x, |x, block| block.forward(&x, c));
        let mut last = self.last.borrow_mut();
        let stale = match &*last {
            Some(last) if last.first.size() == added.size() => self.stale(&added, &last.first)?,
            _ => (0..rows).collect(),
        };
        self.count(rows, stale.len() as i64);
        let others = match &mut *last {
            Some(kept) if (stale.len() as i64) < rows => {
                if !stale.is_empty() {
                    let stale = Tensor::from_slice(&stale).to_device(x.device());
                    let before = after_first.index_select(0, &stale);
                    let fresh = through(before.shallow_clone(), &c.index_select(0, &stale)) - before;
                    kept.others = kept.others.index_copy(0, &stale, &fresh);
                    kept.first = kept.first.index_copy(0, &stale, &added.index_select(0, &stale));
                }
                kept.others.shallow_clone()
            }
            _ => {
                // Added as it was computed, not as a difference of sums: with nothing reused the result is the uncached one's.
                let all = through(after_first.shallow_clone(), c);
                *last = Some(Last { first: added, others: &all - after_first });
                return Ok(all);
            }
        };
        Ok(after_first + others)
    }

    /// The rows that have to be computed.
    fn stale(&self, added: &Tensor, before: &Tensor) -> Result<Vec<i64>, TchError> {
        let mean = |x: Tensor| x.abs().mean_dim([1_i64, 2].as_slice(), false, Kind::Float); // (M,)
        let change = mean(added - before) / mean(before.shallow_clone()).clamp_min(1e-12);
        let change = change.view([-1, self.images]); // (1 or 2, N)
        let worst = change.amax([0_i64].as_slice(), true).expand_as(&change).reshape([-1]); // (M,)
        let worst = Vec::<f64>::try_from(worst.to_kind(Kind::Double))?;
        // NaN is stale.
        let is_stale = |change: f64| change.is_nan() || change >= self.factor;
        Ok((0..).zip(worst).filter(|&(_, change)| is_stale(change)).map(|(row, _)| row).collect())
    }

    fn count(&self, rows: i64, stale: i64) {
        let CacheReport { computed, reused } = self.report.get();
        self.report.set(CacheReport { computed: computed + stale as u64, reused: reused + (rows - stale) as u64 });
    }
}

#[cfg(test)]
mod tests {
    use dit_model::{Dit, DitConfig, Initialization};
    use tch::{Device, nn};

    use super::*;

    fn dit() -> (nn::VarStore, Dit) {
        let config = "DiT-S/8".parse::<DitConfig>().unwrap();
        let config = config.with(|spec| (spec.depth, spec.hidden, spec.heads) = (3, 32, 2)).unwrap();
        let mut store = nn::VarStore::new(Device::Cpu);
        let dit = Dit::new(&store.root(), &config, Initialization::Reference { seed: 0 });
        // Zero gates would make every block the identity.
        let _no_grad = tch::no_grad_guard();
        for (i, variable) in store.trainable_variables().iter_mut().enumerate() {
            let wave =
                (Tensor::arange(variable.numel() as i64, (Kind::Float, Device::Cpu)) * (1.0 + 0.1 * i as f64)).sin();
            let _ = variable.f_add_(&(wave.view(variable.size().as_slice()) * 0.05)).unwrap();
        }
        store.freeze();
        (store, dit)
    }

    /// Latents that grow step by step, each image at its speed.
    fn states(speeds: &[f64], step: usize) -> Tensor {
        let base = (Tensor::arange(64 * 16, (Kind::Float, Device::Cpu)) * 0.7).sin().view([1, 4, 16, 16]);
        let base = base.upsample_nearest2d([32, 32], None, None);
        let speeds = Tensor::from_slice(speeds).to_kind(Kind::Float).view([-1, 1, 1, 1]);
        base * (speeds * step as f64 + 1.0)
    }

    /// Tokens through cached blocks over a few slowly changing states, and what was counted.
    fn walk(factor: f64, speeds: &[f64]) -> (Vec<Tensor>, CacheReport) {
        let (_store, dit) = dit();
        let report = Cell::new(CacheReport::default());
        let n = speeds.len();
        let cache = BlockCache::new(factor, n, &report);
        let labels = Tensor::zeros([n as i64], (Kind::Int64, Device::Cpu));
        let t = Tensor::full([n as i64], 500, (Kind::Int64, Device::Cpu));
        let c = dit.condition(&t, &labels);
        let tokens = (0..6).map(|step| cache.forward(dit.blocks(), dit.embed(&states(speeds, step), &c), &c));
        (tokens.collect::<Result<_, _>>().unwrap(), report.get())
    }

    fn off(a: &Tensor, b: &Tensor) -> f64 {
        ((a - b).norm() / b.norm()).double_value(&[])
    }

    #[test]
    fn factor_zero_is_exactly_the_uncached_result() {
        let (cached, report) = walk(0.0, &[0.0, 0.02]);
        let (_store, dit) = dit();
        assert_eq!((report.computed, report.reused), (12, 0));
        let labels = Tensor::zeros([2], (Kind::Int64, Device::Cpu));
        let c = dit.condition(&Tensor::full([2], 500, (Kind::Int64, Device::Cpu)), &labels);
        for (step, cached) in cached.iter().enumerate() {
            let tokens = dit.embed(&states(&[0.0, 0.02], step), &c);
            let plain = dit.blocks().iter().fold(tokens, |tokens, block| block.forward(&tokens, &c));
            assert_eq!(*cached, plain, "step {step}");
        }
    }

    #[test]
    fn images_that_stand_still_are_reused_and_others_computed_whatever_the_batch() {
        let (_, report) = walk(0.05, &[0.0, 0.5]);
        assert!(report.reused >= 5 && report.computed > 3, "{report:?}");
        let (both, _) = walk(0.05, &[0.02, 0.5]);
        let (one, alone) = walk(0.05, &[0.02]);
        assert!(alone.reused > 0 && alone.computed > 1, "{alone:?}");
        for (both, one) in both.iter().zip(&one) {
            assert!(off(&both.narrow(0, 0, 1), one) < 1e-5, "another image in the batch changes nothing");
        }
    }

    #[test]
    fn drift_grows_with_the_factor_and_stays_of_its_size() {
        let (exact, _) = walk(0.0, &[0.02]);
        let drift = |factor| {
            let (cached, report) = walk(factor, &[0.02]);
            (cached.iter().zip(&exact).map(|(a, b)| off(a, b)).fold(0.0, f64::max), report.reused)
        };
        let ((small, few), (large, many)) = (drift(0.03), drift(0.2));
        assert!(few < many && small < large && large < 0.2, "{small} with {few}, {large} with {many}");
    }
}
