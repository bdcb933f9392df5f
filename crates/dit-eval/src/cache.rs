//! Features on disk, a chunk at a time, so that an interrupted run continues.

use std::{
    fs,
    path::{Path, PathBuf},
};

use dit_files::{ensure_folder, mark_as_cache};
use dit_weights::{SafetensorsFile, TchSource, TensorSource, to_tensor, write_safetensors};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use tch::{Device, Kind, Tensor};

use crate::numbers::choose;
use crate::{Error, FeatureNetwork, Features, Widths};

const CHUNK: usize = FeatureSet::CHUNK;
/// What the folder's name begins with changes when features would.
const VERSION: u32 = 1;

/// The features of pictures, in a folder of chunks.
///
/// The folder's name holds the hashes of the pictures and of the network, so that features are never taken for those of others;
/// a chunk appears whole or not at all.
#[derive(Debug)]
pub struct FeatureSet {
    folder: PathBuf,
    count: usize,
    widths: Widths,
}

impl FeatureSet {
    /// Pictures whose features are in one file; no batch is larger.
    pub const CHUNK: usize = 1024;

    /// The features that the network with this name and hash has of `count` pictures with the hash `pictures`, in `cache`; whether
    /// they are there already, chunks tell.
    pub(crate) fn at(cache: &Path, pictures: &str, count: usize, network: &dyn FeatureNetwork) -> Self {
        let short = |hash: &str| hash.chars().take(16).collect::<String>();
        let name = format!("{VERSION}-{}-{}-{}", network.name(), short(network.sha256()), short(pictures));
        Self { folder: cache.join(name), count, widths: network.widths() }
    }

    /// Makes the folder `cache` if it is not there, and sees that files can be made in it: before minutes of computing. What holds
    /// nothing but features is marked as a cache, so that it is taken for no class of the pictures that it lies beside.
    ///
    /// # Errors
    /// [`Error::Cache`].
    pub fn ensure_cache(cache: &Path) -> Result<(), Error> {
        let failed =
            |source: Box<dyn std::error::Error + Send + Sync>| Error::Cache { folder: cache.to_owned(), source };
        fs::create_dir_all(cache).map_err(|error| failed(error.into()))?;
        ensure_folder(cache).map_err(|error| failed(error.into()))?;
        let entries = fs::read_dir(cache).map_err(|error| failed(error.into()))?;
        let ours = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(format!("{VERSION}-").as_bytes());
        if entries.flatten().all(|entry| ours(&entry.file_name())) {
            mark_as_cache(cache, "features that dit-cli evaluate keeps").map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }

    /// Where they are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Pictures there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many numbers there are for each.
    pub fn widths(&self) -> Widths {
        self.widths
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> usize {
        self.count.div_ceil(CHUNK)
    }

    /// The features of one chunk; chunks come in the pictures' order.
    ///
    /// # Errors
    /// [`Error::Weights`] where the file cannot be read, [`Error::TensorShape`] where it is another's.
    pub fn read_chunk(&self, chunk: usize) -> Result<Features, Error> {
        let file = SafetensorsFile::open(self.path(chunk))?;
        let rows = self.range(chunk).len();
        let read = |name: &str, width: usize| -> Result<Tensor, Error> {
            let x = to_tensor(&file, name)?;
            if x.size() == [rows as i64, width as i64] {
                return Ok(x);
            }
            let expected = "those of a chunk of these pictures";
            Err(Error::TensorShape { what: "cached features", actual: x.size(), expected })
        };
        let Widths { pooled, spatial, logits } = self.widths;
        Ok(Features {
            pooled: read("pooled", pooled)?,
            spatial: spatial.map(|width| read("spatial", width)).transpose()?,
            logits: logits.map(|width| read("logits", width)).transpose()?,
        })
    }

    /// The pooled features of all pictures (N, D), in memory.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk).
    pub fn pooled(&self) -> Result<Tensor, Error> {
        self.pooled_at(None)
    }

    /// The pooled features of all pictures, or of `most` that are chosen by `seed`, in the pictures' order (N, D). What is not
    /// chosen is in memory for a chunk only.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk).
    pub fn pooled_of(&self, most: usize, seed: u64) -> Result<Tensor, Error> {
        if self.count <= most {
            return self.pooled();
        }
        let mut chosen = choose(self.count, most, &mut ChaCha8Rng::seed_from_u64(seed));
        chosen.sort_unstable();
        self.pooled_at(Some(&chosen))
    }

    /// Those of the pictures `chosen`, ascending, or of all. A chunk at a time into the whole: joining chunks would take twice the
    /// memory.
    fn pooled_at(&self, chosen: Option<&[i64]>) -> Result<Tensor, Error> {
        let count = chosen.map_or(self.count, <[i64]>::len) as i64;
        let whole = Tensor::f_zeros([count, self.widths.pooled as i64], (Kind::Float, Device::Cpu))?;
        let mut rest = chosen;
        let mut at = 0;
        for chunk in 0..self.chunks() {
            let range = self.range(chunk);
            let part = match &mut rest {
                None => self.read_chunk(chunk)?.pooled,
                Some(rest) => {
                    let (here, later) = rest.split_at(rest.partition_point(|&index| index < range.end as i64));
                    *rest = later;
                    if here.is_empty() {
                        continue;
                    }
                    let rows: Vec<i64> = here.iter().map(|index| index - range.start as i64).collect();
                    self.read_chunk(chunk)?.pooled.f_index_select(0, &Tensor::f_from_slice(&rows)?)?
                }
            };
            let rows = part.size2()?.0;
            whole.f_narrow(0, at, rows)?.f_copy_(&part)?;
            at += rows;
        }
        Ok(whole)
    }

    fn path(&self, chunk: usize) -> PathBuf {
        self.folder.join(format!("{chunk:06}.safetensors"))
    }

    /// The pictures of a chunk.
    pub(crate) fn range(&self, chunk: usize) -> std::ops::Range<usize> {
        let start = (chunk * CHUNK).min(self.count);
        start..(start + CHUNK).min(self.count)
    }

    /// Writes a chunk, of the features of its pictures one batch after the other.
    ///
    /// # Errors
    /// [`Error::NonFinite`]; whatever writing meets.
    pub(crate) fn write_chunk(&self, chunk: usize, parts: &[Features]) -> Result<(), Error> {
        let Features { pooled, spatial, logits } = Features::joined(parts)?;
        let joined = [("pooled", Some(pooled)), ("spatial", spatial), ("logits", logits)];
        let mut tensors = Vec::new();
        for (name, tensor) in joined {
            let Some(tensor) = tensor else { continue };
            let finite = tensor.f_isfinite()?.f_sum(Kind::Int64)?.int64_value(&[]) as usize;
            if finite < tensor.numel() {
                return Err(Error::NonFinite { what: "features", count: tensor.numel() - finite });
            }
            tensors.push((name.to_owned(), tensor));
        }
        let source = TchSource::new(tensors)?;
        debug_assert!(!source.infos().is_empty());
        Ok(write_safetensors(self.path(chunk), &source, &Default::default())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Extraction;
    use crate::extraction::tests::{COUNT, Pixels, numbered};

    #[test]
    fn some_of_the_features_are_those_of_some_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = numbered(folder.path());
        let extraction = Extraction::prepare(&pictures, "12", &Pixels, &folder.path().join("kept")).unwrap();
        let set = extraction.run(100, &mut |_| ()).unwrap();
        let of = |most, seed| -> Vec<i64> {
            let rows = Vec::<Vec<f64>>::try_from(&set.pooled_of(most, seed).unwrap().to_kind(Kind::Double)).unwrap();
            rows.iter().map(|row| row[0] as i64 + 256 * row[1] as i64).collect()
        };
        assert_eq!(of(COUNT, 0), (0..COUNT as i64).collect::<Vec<_>>());
        for most in [1, 10, 2000] {
            let chosen = of(most, 7);
            assert_eq!(chosen.len(), most);
            assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]), "each once, in order");
            assert_eq!(chosen, of(most, 7));
        }
        assert_ne!(of(10, 7), of(10, 8));
        assert!(of(10, 7).iter().any(|&index| index >= 1024), "of all chunks");
    }

    #[test]
    fn a_cache_that_cannot_be_is_told_before_anything_is_computed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        for cache in [file.clone(), file.join("below")] {
            let message = FeatureSet::ensure_cache(&cache).unwrap_err().to_string();
            assert!(message.contains("cannot keep features in"), "{message}");
        }
        FeatureSet::ensure_cache(&folder.path().join("new/folder")).unwrap();
    }

    #[test]
    fn what_holds_nothing_but_features_is_marked_as_a_cache() {
        let folder = tempfile::tempdir().unwrap();
        for (name, inside, marked) in
            [("new", None, true), ("older", Some("1-demo-12-34"), true), ("mine", Some("notes"), false)]
        {
            let cache = folder.path().join(name);
            fs::create_dir_all(inside.map_or(folder.path().to_owned(), |inside| cache.join(inside))).unwrap();
            FeatureSet::ensure_cache(&cache).unwrap();
            assert_eq!(dit_files::is_marked_as_cache(&cache), marked, "{name}");
            FeatureSet::ensure_cache(&cache).unwrap();
        }
    }
}
