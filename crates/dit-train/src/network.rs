//! The weights in training: fp32 masters, and the network that computes with them.

use std::collections::BTreeMap;

use dit_model::{Dit, DitConfig, Initialization, Kernels};
use dit_recipe::Precision;
use dit_torch::lists;
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::TrainError;

/// The network, its weights, and where their gradients appear.
///
/// In fp32 the network computes with the masters themselves; in bf16 with a rounded copy, which every change of the masters must
/// be [published](Self::publish) to. Parameters are in the order of their names.
#[derive(Debug)]
pub(crate) struct Network {
    dit: Dit,
    names: Vec<String>,
    /// fp32, trainable.
    masters: Vec<Tensor>,
    /// What the network computes with: the masters, or their copies.
    computing: Vec<Tensor>,
    /// fp32, not trainable: the position table.
    frozen: Vec<(String, Tensor)>,
    precision: Precision,
}

impl Network {
    pub(crate) fn new(
        config: &DitConfig,
        precision: Precision,
        device: Device,
        initialization: Initialization,
    ) -> Result<Self, TrainError> {
        let store = VarStore::new(device);
        let dit = Dit::new(&store.root(), config, initialization);
        let mut names = Vec::new();
        let (mut masters, mut frozen) = (Vec::new(), Vec::new());
        for (name, tensor) in sorted(&store) {
            if tensor.requires_grad() {
                names.push(name);
                masters.push(tensor);
            } else {
                frozen.push((name, tensor));
            }
        }
        let mut network = match precision {
            Precision::Fp32 | Precision::Tf32 => {
                let computing = masters.iter().map(Tensor::shallow_clone).collect();
                Self { dit, names, masters, computing, frozen, precision }
            }
            Precision::Bf16 => {
                let mut rounded = VarStore::new(device);
                rounded.set_kind(Kind::BFloat16);
                // What is carried from block to block stays in fp32: bf16 would lose small branches.
                let dit = Dit::new(&rounded.root(), config, Initialization::Empty).carrying_fp32();
                let computing = sorted(&rounded).into_values().filter(Tensor::requires_grad).collect();
                // No gradient ever flows to the masters themselves.
                let masters = masters.into_iter().map(|master| master.set_requires_grad(false)).collect();
                Self { dit, names, masters, computing, frozen, precision }
            }
        };
        network.dit.optimize(Kernels::Differentiable);
        network.publish()?;
        Ok(network)
    }

    pub(crate) fn dit(&self) -> &Dit {
        &self.dit
    }

    /// Names of the parameters.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The fp32 weights.
    pub(crate) fn masters(&self) -> &[Tensor] {
        &self.masters
    }

    /// The same, to be changed under a no-gradient guard, and then [published](Self::publish).
    pub(crate) fn masters_mut(&mut self) -> &mut [Tensor] {
        &mut self.masters
    }

    /// Gives changed masters to the network.
    pub(crate) fn publish(&mut self) -> Result<(), TrainError> {
        if self.precision == Precision::Bf16 {
            lists::copy(&mut self.computing, &self.masters)?;
        }
        Ok(())
    }

    /// What the network computes with; gradients appear there.
    pub(crate) fn computing(&self) -> &[Tensor] {
        &self.computing
    }

    /// Every tensor of a checkpoint, with `weights` in the place of the masters.
    pub(crate) fn state(&self, weights: &[Tensor]) -> Vec<(String, Tensor)> {
        let weights = self.names.iter().cloned().zip(weights.iter().map(Tensor::shallow_clone));
        let frozen = self.frozen.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        weights.chain(frozen).collect()
    }

    /// A network for inference with `weights` in the place of the masters, computing as this one does.
    pub(crate) fn with_weights(&self, weights: &[Tensor]) -> Result<Dit, TrainError> {
        let mut store = VarStore::new(self.dit.device());
        store.set_kind(self.dit.kind());
        let dit = Dit::new(&store.root(), self.dit.config(), Initialization::Empty);
        let mut dit = match self.precision {
            Precision::Fp32 | Precision::Tf32 => dit,
            Precision::Bf16 => dit.carrying_fp32(),
        };
        let _no_grad = tch::no_grad_guard();
        let mut variables = sorted(&store);
        for (name, value) in self.names.iter().zip(weights) {
            if let Some(variable) = variables.get_mut(name) {
                variable.f_copy_(value)?;
            }
        }
        store.freeze();
        dit.optimize(Kernels::Differentiable);
        Ok(dit)
    }
}

fn sorted(store: &VarStore) -> BTreeMap<String, Tensor> {
    store.variables().into_iter().collect()
}
