use std::collections::BTreeMap;

use dit_config::TensorSpec;
use dit_ops::Kernels;
use dit_ops::conv::{Convolution, Products};
use dit_weights::{TchSource, check_tensors};
use tch::{Device, Kind, Tensor};

use crate::Error;

/// A state dict, checked against a configuration, that modules take their tensors from by name.
pub(crate) struct Weights {
    tensors: BTreeMap<String, Tensor>,
    device: Device,
    kind: Kind,
    products: Option<Products>,
}

impl Weights {
    /// What tensors are compared with, in messages.
    pub(crate) const EXPECTED: &str = "the AutoencoderKL of its configuration";

    /// Checks names and shapes against `specs` both ways and reports every difference at once.
    pub(crate) fn checked(
        specs: &[TensorSpec],
        tensors: BTreeMap<String, Tensor>,
        device: Device,
        kind: Kind,
        kernels: Kernels,
    ) -> Result<Self, Error> {
        if !matches!(kind, Kind::Float | Kind::Double | Kind::BFloat16 | Kind::Half) {
            let what = "the autoencoder's precision".to_owned();
            return Err(Error::Kind { what, actual: kind, expected: "Float, BFloat16, Half or Double" });
        }
        let source = TchSource::new(tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())))?;
        check_tensors(&source, specs, Self::EXPECTED, |_| None)?;
        for (name, tensor) in &tensors {
            if !tensor.is_floating_point() {
                return Err(Error::Kind { what: name.clone(), actual: tensor.kind(), expected: "floating point" });
            }
        }
        let products = match (kernels, device, kind) {
            (Kernels::Fused | Kernels::Int8, Device::Cpu, Kind::Float) => Some(Products::Fp32),
            (Kernels::Fused | Kernels::Int8, Device::Cpu, Kind::BFloat16) => Some(Products::Bf16),
            _ => None,
        };
        let products = products.filter(|&products| Convolution::is_supported(products));
        Ok(Self { tensors, device, kind, products })
    }

    /// What packed layers multiply; none where layers are to be libtorch's operators.
    pub(crate) fn products(&self) -> Option<Products> {
        self.products
    }

    /// The kind asked for.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// What lies between layers: packed ones round products, and keep everything else in fp32.
    pub(crate) fn activations(&self) -> Kind {
        if self.products.is_some() { Kind::Float } else { self.kind }
    }

    /// A layer's `weight` and `bias`, on the device and in the kind of the activations.
    pub(crate) fn take_pair(&mut self, layer: &str) -> Result<(Tensor, Tensor), Error> {
        Ok((self.take(&format!("{layer}.weight"))?, self.take(&format!("{layer}.bias"))?))
    }

    fn take(&mut self, name: &str) -> Result<Tensor, Error> {
        let missing = || dit_weights::Error::NoSuchTensor { name: name.to_owned() };
        let tensor = self.tensors.remove(name).ok_or_else(missing)?;
        Ok(tensor.detach().to_device(self.device).to_kind(self.activations()))
    }
}
