use std::collections::BTreeMap;

use dit_config::VaeConfig;
use dit_weights::{TchSource, check_tensors};
use tch::{Device, Kind, Tensor};

use crate::Error;

/// A state dict, checked against a configuration, that modules take their tensors from by name.
pub(crate) struct Weights {
    tensors: BTreeMap<String, Tensor>,
    device: Device,
    kind: Kind,
}

impl Weights {
    /// Checks names and shapes both ways and reports every difference at once.
    pub(crate) fn checked(
        config: &VaeConfig,
        tensors: BTreeMap<String, Tensor>,
        device: Device,
        kind: Kind,
    ) -> Result<Self, Error> {
        if !matches!(kind, Kind::Float | Kind::Double | Kind::BFloat16 | Kind::Half) {
            let what = "the autoencoder's precision".to_owned();
            return Err(Error::Kind { what, actual: kind, expected: "Float, BFloat16, Half or Double" });
        }
        let source = TchSource::new(tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())))?;
        check_tensors(&source, &config.tensors(), "the AutoencoderKL of its configuration", |_| None)?;
        for (name, tensor) in &tensors {
            if !tensor.is_floating_point() {
                return Err(Error::Kind { what: name.clone(), actual: tensor.kind(), expected: "floating point" });
            }
        }
        Ok(Self { tensors, device, kind })
    }

    /// Hands one tensor out, on the device and in the kind asked for.
    pub(crate) fn take(&mut self, name: &str) -> Result<Tensor, Error> {
        let missing = || dit_weights::Error::NoSuchTensor { name: name.to_owned() };
        let tensor = self.tensors.remove(name).ok_or_else(missing)?;
        Ok(tensor.detach().to_device(self.device).to_kind(self.kind))
    }
}
