use std::path::Path;

use dit_model::TensorSpec;
use dit_weights::{SafetensorsFile, TensorSource, check_tensors, sha256_of, to_tensor};
use tch::Tensor;

use super::{HISTORY_COUNTS, HISTORY_LOSSES, MEAN, MODEL, OPTIMIZER, SQUARE, State, ema_file};
use crate::{
    TrainError,
    timesteps::{LossHistory, TimestepSampler},
    trainer::Trainer,
};

/// Puts the checkpoint at `path` into a trainer of the same recipe, after comparing every file with its hash.
///
/// On an error the trainer may hold a part of it, and is not to be used.
pub(crate) fn load(trainer: &mut Trainer, state: &State, path: &Path) -> Result<(), TrainError> {
    let damaged = |problem: String| TrainError::Damaged { path: path.to_owned(), problem };
    for (name, expected) in &state.files {
        let found = sha256_of(&[path.join(name)]).map_err(|error| damaged(error.to_string()))?;
        if found != *expected {
            return Err(damaged(format!("{name} has changed: its SHA-256 is {found}, expected {expected}")));
        }
    }
    let _no_grad = tch::no_grad_guard();
    let specs = |tensors: Vec<(String, Tensor)>| -> Vec<TensorSpec> {
        let extent = |extent: i64| usize::try_from(extent).unwrap_or(0);
        let spec = |(name, tensor): (String, Tensor)| TensorSpec {
            name,
            shape: tensor.size().into_iter().map(extent).collect(),
        };
        tensors.into_iter().map(spec).collect()
    };
    let open = |name: &str, expected: &[TensorSpec]| -> Result<SafetensorsFile, TrainError> {
        let file = SafetensorsFile::open(path.join(name))?;
        check_tensors(&file, expected, "the run's recipe", |_| None)?;
        Ok(file)
    };

    let network = &mut trainer.network;
    let names = network.names().to_vec();
    let weights = specs(network.state(network.masters()));
    copy(&open(MODEL, &weights)?, &names, network.masters_mut())?;
    network.publish()?;
    for ema in &mut trainer.emas {
        copy(&open(&ema_file(ema.decay()), &weights)?, &names, ema.weights_mut())?;
    }
    load_optimizer(trainer, state.updates, &names, path)
}

fn load_optimizer(trainer: &mut Trainer, steps: u64, names: &[String], path: &Path) -> Result<(), TrainError> {
    let file = SafetensorsFile::open(path.join(OPTIMIZER))?;
    let moments = |prefix: &str| -> Result<Vec<Tensor>, TrainError> {
        names.iter().map(|name| Ok(to_tensor(&file, &format!("{prefix}{name}"))?)).collect()
    };
    trainer.optimizer.restore(steps, &moments(MEAN)?, &moments(SQUARE)?)?;
    if let TimestepSampler::LossSecondMoment(history) = &mut trainer.sampler {
        let losses = Vec::<f64>::try_from(to_tensor(&file, HISTORY_LOSSES)?)?;
        let counts = Vec::<i64>::try_from(to_tensor(&file, HISTORY_COUNTS)?)?;
        let length = history.parts().1.len();
        let damaged = || TrainError::Damaged {
            path: path.to_owned(),
            problem: "the history of losses makes no sense".to_owned(),
        };
        *history = LossHistory::from_parts(losses, counts)
            .filter(|history| history.parts().1.len() == length)
            .ok_or_else(damaged)?;
    }
    Ok(())
}

/// Copies tensors, checked before, into `targets` of these names.
fn copy(source: &dyn TensorSource, names: &[String], targets: &mut [Tensor]) -> Result<(), TrainError> {
    for (name, target) in names.iter().zip(targets) {
        target.f_copy_(&to_tensor(source, name)?)?;
    }
    Ok(())
}
