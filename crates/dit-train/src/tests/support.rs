//! A network and batches small enough for tests. Gates are not zero: that would hide every mistake behind them.

use dit_config::{BlockDesign, DitConfig, DitSpec, LatentSize, Numerics, Sigma, VaeConfig, VaeSpec};
use dit_data::shard::Position;
use dit_model::Initialization;
use dit_recipe::{Recipe, Sections};
use dit_vae::LatentScale;
use tch::{Device, Tensor};

use crate::{
    feed::{RawBatch, StepData},
    random::{self, Moment, Purpose},
    timesteps::Lot,
    trainer::Trainer,
};

/// A network of width 24 on latents of 4 × 4 × 6 and three classes.
pub(crate) fn config(block: BlockDesign, depth: usize) -> DitConfig {
    DitConfig::new(DitSpec {
        block,
        hidden: 24,
        depth,
        heads: 3,
        patch: 2,
        mlp_ratio: 4.0,
        in_channels: 4,
        latent: LatentSize { height: 4, width: 6 },
        num_classes: 3,
        label_dropout: 0.1,
        sigma: Sigma::Learned,
        numerics: Numerics::Original,
    })
    .unwrap()
}

/// Latents as they are.
pub(crate) fn unit_scale() -> LatentScale {
    LatentScale::of(&VaeConfig::new(VaeSpec { scaling_factor: 1.0, ..VaeSpec::default() }).unwrap())
}

/// A trainer whose weights, and averages, are those that `weight` gives for a name and a shape.
pub(crate) fn trainer(config: &DitConfig, sections: Sections, weight: impl Fn(&str, &[i64]) -> Tensor) -> Trainer {
    let recipe = Recipe::new(sections).unwrap();
    let mut trainer = Trainer::new(&recipe, config, unit_scale(), Device::Cpu, Initialization::Empty).unwrap();
    let _no_grad = tch::no_grad_guard();
    let names = trainer.network.names().to_vec();
    for (name, master) in names.iter().zip(trainer.network.masters_mut()) {
        master.copy_(&weight(name, &master.size()));
    }
    trainer.network.publish().unwrap();
    let masters: Vec<Tensor> = trainer.network.masters().iter().map(Tensor::detach).collect();
    for ema in &mut trainer.emas {
        ema.weights_mut().iter_mut().zip(&masters).for_each(|(average, master)| average.copy_(master));
    }
    trainer
}

/// Normal values of deviation `std`, the same for the same name.
pub(crate) fn random_weight(name: &str, shape: &[i64], std: f64) -> Tensor {
    let seed = name.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let rng = random::generator(Moment { seed, step: 0, rollbacks: 0 }, Purpose::Noise);
    let count = shape.iter().product::<i64>() as usize;
    (Tensor::from_slice(&random::normals(&rng, count)) * std).view(shape)
}

/// Weights of the size that keeps every branch visible.
pub(crate) fn visible_weight(name: &str, shape: &[i64]) -> Tensor {
    let fan_in: i64 = shape.iter().skip(1).product();
    let std = if name.ends_with("bias") { 0.1 } else { 1.0 / (fan_in as f64).sqrt() };
    let norm_weight = name.contains("norm") && name.ends_with("weight");
    random_weight(name, shape, std) + if norm_weight { 1.0 } else { 0.0 }
}

/// The `step`-th batch of `n` samples for `config`.
pub(crate) fn batch(config: &DitConfig, n: usize, step: u64) -> StepData {
    let shape = [n, config.in_channels, config.latent.height, config.latent.width];
    let count = shape.iter().product();
    let moment = Moment { seed: 3, step, rollbacks: 0 };
    let normals = |purpose| random::normals(&random::generator(moment, purpose), count);
    let mut rng = random::generator(moment, Purpose::Timesteps);
    let batch = RawBatch {
        latents: normals(Purpose::ValidationNoise),
        noise: normals(Purpose::Noise),
        shape,
        labels: (0..n).map(|sample| ((sample as u64 + step) as usize % config.label_rows()) as i64).collect(),
        records: (0..n as u64).collect(),
    };
    let lots = (0..n).map(|_| Lot { unit: random::unit(&mut rng), normal: 0.0 }).collect();
    StepData { batch, lots, after: Position { epoch: 0, consumed: 0, seed: 0, records: 0 } }
}

/// Largest difference of two tensors.
pub(crate) fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}
