//! Weights spread over several files.

use std::collections::BTreeMap;

use crate::{Error, TensorInfo, TensorSource, TensorView};

/// Several sources as one. No name is in two of them.
pub(crate) struct ShardedSource {
    shards: Vec<Box<dyn TensorSource>>,
    infos: BTreeMap<String, TensorInfo>,
    /// Which shard has each tensor.
    places: BTreeMap<String, usize>,
}

impl ShardedSource {
    /// # Errors
    /// [`Error::DuplicateTensor`] where two shards have one name.
    pub(crate) fn new(shards: Vec<Box<dyn TensorSource>>) -> Result<Self, Error> {
        let mut infos = BTreeMap::new();
        let mut places = BTreeMap::new();
        for (i, shard) in shards.iter().enumerate() {
            for (name, info) in shard.infos() {
                if places.insert(name.clone(), i).is_some() {
                    return Err(Error::DuplicateTensor { name: name.clone() });
                }
                infos.insert(name.clone(), info.clone());
            }
        }
        Ok(Self { shards, infos, places })
    }

    fn shard(&self, name: &str) -> Option<&dyn TensorSource> {
        self.places.get(name).and_then(|&place| self.shards.get(place)).map(|shard| &**shard)
    }
}

impl TensorSource for ShardedSource {
    fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<TensorView<'_>, Error> {
        self.shard(name).ok_or_else(|| Error::NoSuchTensor { name: name.to_owned() })?.read(name)
    }

    fn why_missing(&self, name: &str) -> Option<String> {
        self.shards.iter().find_map(|shard| shard.why_missing(name))
    }

    fn prefetch(&self, name: &str) {
        if let Some(shard) = self.shard(name) {
            shard.prefetch(name);
        }
    }

    fn release(&self, name: &str) {
        if let Some(shard) = self.shard(name) {
            shard.release(name);
        }
    }
}
