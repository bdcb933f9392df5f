//! A training on disk.

use std::{collections::BTreeMap, path::Path};

use dit_weights::{SafetensorsFile, TchSource, TensorSource, to_tensor, write_safetensors};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::FeatureRecipe;
use crate::Error;

const KEY: &str = "dit_eval_feature_training";

/// What a training is of, to tell it from others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) recipe: FeatureRecipe,
    /// Of the pictures that are trained on, with their labels.
    pub(super) pictures: String,
}

/// All but the tensors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) identity: Identity,
    /// Steps taken.
    pub(super) step: u64,
    /// Where the random numbers are.
    pub(super) random: u64,
    /// The losses of this epoch's steps, together: the bits of an f64, which text might round.
    pub(super) loss: u64,
}

/// Writes tensors by name, such as `variable.head.weight`.
pub(super) fn write(path: &Path, header: &Header, tensors: Vec<(String, Tensor)>) -> Result<(), Error> {
    // No map with keys other than strings and no fallible serializer is in it.
    let text = serde_json::to_string(header).unwrap_or_default();
    Ok(write_safetensors(path, &TchSource::new(tensors)?, &BTreeMap::from([(KEY.to_owned(), text)]))?)
}

/// Reads tensors of the names and shapes of `like`, in its order, where the file is of `identity`.
pub(super) fn read(
    path: &Path,
    identity: &Identity,
    like: &[(String, Tensor)],
) -> Result<(Header, Vec<Tensor>), Error> {
    let other = |difference: String| Error::OtherTraining { path: path.to_owned(), difference };
    let file = SafetensorsFile::open(path)?;
    let text = file.metadata().get(KEY).ok_or_else(|| other("it is no state of such a training".to_owned()))?;
    let header: Header = serde_json::from_str(text).map_err(|error| other(error.to_string()))?;
    if header.identity.recipe != identity.recipe {
        let (found, asked) = (&header.identity.recipe, &identity.recipe);
        return Err(other(format!("the recipe was {found:?}, and is {asked:?}")));
    }
    if header.identity != *identity {
        return Err(other("the pictures are others".to_owned()));
    }
    let mut tensors = Vec::with_capacity(like.len());
    for (name, like) in like {
        let found = to_tensor(&file as &dyn TensorSource, name)?;
        if found.size() != like.size() {
            return Err(other(format!("{name} is {:?}, expected {:?}", found.size(), like.size())));
        }
        tensors.push(found);
    }
    Ok((header, tensors))
}
