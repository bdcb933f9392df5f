//! The state of a training run on disk.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use dit_data::shard::Position;
use dit_ops::AdamW;
use dit_weights::{SafetensorsFile, TchSource, TensorSource, to_tensor, write_safetensors};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::{Error, training::Identity};

const KEY: &str = "dit_classifier_training";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    identity: Identity,
    step: u64,
    position: Position,
}

/// What was read.
pub(crate) struct State {
    pub step: u64,
    pub position: Position,
    /// As the parameters they were read for, in their order.
    pub parameters: Vec<Tensor>,
    pub exp_avg: Vec<Tensor>,
    pub exp_avg_sq: Vec<Tensor>,
}

pub(crate) fn write(
    path: &Path,
    identity: &Identity,
    parameters: &[(String, Tensor)],
    optimizer: &AdamW,
    position: Position,
) -> Result<(), Error> {
    let (exp_avg, exp_avg_sq) = optimizer.moments();
    let values = parameters.iter().map(|(_, variable)| variable);
    let groups: [(&str, Vec<&Tensor>); 3] = [
        ("parameter", values.collect()),
        ("exp_avg", exp_avg.iter().collect()),
        ("exp_avg_sq", exp_avg_sq.iter().collect()),
    ];
    let mut tensors = Vec::with_capacity(3 * parameters.len());
    for (group, values) in groups {
        let named = parameters.iter().zip(values);
        tensors.extend(named.map(|((name, _), value)| (format!("{group}.{name}"), value.shallow_clone())));
    }
    let header = Header { identity: identity.clone(), step: optimizer.steps_taken(), position };
    // No map with keys other than strings and no fallible serializer is in it.
    let text = serde_json::to_string(&header).unwrap_or_default();
    Ok(write_safetensors(path, &TchSource::new(tensors)?, &BTreeMap::from([(KEY.to_owned(), text)]))?)
}

pub(crate) fn read(
    path: &Path,
    identity: &Identity,
    parameters: &[(String, Tensor)],
    device: Device,
) -> Result<State, Error> {
    let file = SafetensorsFile::open(path)?;
    let other = |differences| Error::OtherRun { path: PathBuf::from(path), differences };
    let text =
        file.metadata().get(KEY).ok_or_else(|| other(vec!["it is no state of a classifier's training".into()]))?;
    let Header { identity: found, step, position } =
        serde_json::from_str(text).map_err(|error| other(vec![error.to_string()]))?;
    let differences = differences(&found, identity);
    if !differences.is_empty() {
        return Err(other(differences));
    }
    let group = |group: &str| -> Result<Vec<Tensor>, Error> {
        parameters
            .iter()
            .map(|(name, variable)| {
                let name = format!("{group}.{name}");
                let value = to_tensor(&file as &dyn TensorSource, &name)?.to_device(device);
                match value.size() == variable.size() {
                    true => Ok(value),
                    false => Err(other(vec![format!("{name} is {:?}, expected {:?}", value.size(), variable.size())])),
                }
            })
            .collect()
    };
    Ok(State {
        step,
        position,
        parameters: group("parameter")?,
        exp_avg: group("exp_avg")?,
        exp_avg_sq: group("exp_avg_sq")?,
    })
}

/// Where two runs differ, a line each.
fn differences(found: &Identity, asked: &Identity) -> Vec<String> {
    let mut lines = Vec::new();
    let mut compare = |what: &str, found: String, asked: String| {
        if found != asked {
            lines.push(format!("{what}: {found} there, {asked} asked for"));
        }
    };
    let (a, b) = (&found.options, &asked.options);
    compare("steps", a.steps.to_string(), b.steps.to_string());
    compare("batch size", a.batch_size.to_string(), b.batch_size.to_string());
    compare("learning rate", a.learning_rate.to_string(), b.learning_rate.to_string());
    compare("weight decay", a.weight_decay.to_string(), b.weight_decay.to_string());
    compare("seed", a.seed.to_string(), b.seed.to_string());
    compare("geometry", format!("{:?}", found.spec), format!("{:?}", asked.spec));
    compare("codec of the latents", found.vae_sha256.clone(), asked.vae_sha256.clone());
    compare("pictures", found.source.clone(), asked.source.clone());
    compare("classes", found.class_names.join(", "), asked.class_names.join(", "));
    lines
}
