//! Features on disk, a chunk at a time, so that an interrupted run continues.

use std::{
    fs,
    path::{Path, PathBuf},
};

use dit_files::{ensure_folder, free_bytes};
use dit_weights::{SafetensorsFile, TchSource, TensorSource, to_tensor, write_safetensors};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use tch::Tensor;

use crate::{Error, FeatureNetwork, Features, Pictures, Widths};
use crate::{batches::for_each_batch, numbers::choose};

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

/// How far an extraction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtractionProgress {
    /// Pictures whose features are there.
    pub done: usize,
    /// Of those, how many were there before.
    pub resumed: usize,
    /// All pictures.
    pub total: usize,
}

impl FeatureSet {
    /// Pictures whose features are in one file; no batch is larger.
    pub const CHUNK: usize = 1024;

    /// The features of `pictures`, whose hash is `sha256`, computed where `cache` does not have them yet.
    ///
    /// Pictures are read and decoded on a thread of their own while `network` computes. Every batch is of `batch_size` pictures
    /// but for the last of a chunk of 1024, so that an interrupted run gives what an uninterrupted one does.
    ///
    /// # Errors
    /// [`Error::NoRoom`] before anything is computed; whatever reading, computing and writing meet; [`Error::NonFinite`] for features that are not numbers.
    pub fn extract(
        pictures: &Pictures,
        sha256: &str,
        network: &dyn FeatureNetwork,
        cache: &Path,
        batch_size: usize,
        progress: &mut dyn FnMut(ExtractionProgress),
    ) -> Result<Self, Error> {
        network.check_size(pictures.height(), pictures.width())?;
        let short = |hash: &str| hash.chars().take(16).collect::<String>();
        let folder = cache.join(format!("{VERSION}-{}-{}-{}", network.name(), short(network.sha256()), short(sha256)));
        Self::ensure_cache(&folder)?;
        let set = Self { folder, count: pictures.len(), widths: network.widths() };
        let missing: Vec<usize> = (0..set.chunks()).filter(|&chunk| set.read_chunk(chunk).is_err()).collect();
        let absent: usize = missing.iter().map(|&chunk| set.range(chunk).len()).sum();
        let needed = absent as u64 * set.widths.bytes();
        if let Some(free) = free_bytes(&set.folder).filter(|&free| free < needed) {
            return Err(Error::NoRoom { folder: cache.to_owned(), needed, free });
        }
        let resumed = set.count - absent;
        let mut done = resumed;
        progress(ExtractionProgress { done, resumed, total: set.count });
        let ranges: Vec<_> = missing.into_iter().map(|chunk| set.range(chunk)).collect();
        let mut parts = Vec::new();
        for_each_batch(pictures, &ranges, batch_size.clamp(1, CHUNK), &mut |batch, pictures| {
            parts.push(network.extract(pictures)?);
            done += batch.len();
            progress(ExtractionProgress { done, resumed, total: set.count });
            let chunk = batch.start / CHUNK;
            if batch.end == set.range(chunk).end {
                set.write_chunk(chunk, &std::mem::take(&mut parts))?;
            }
            Ok(())
        })?;
        Ok(set)
    }

    /// Makes the folder `cache` if it is not there, and sees that files can be made in it: before minutes of computing.
    ///
    /// # Errors
    /// [`Error::Cache`].
    pub fn ensure_cache(cache: &Path) -> Result<(), Error> {
        let failed =
            |source: Box<dyn std::error::Error + Send + Sync>| Error::Cache { folder: cache.to_owned(), source };
        fs::create_dir_all(cache).map_err(|error| failed(error.into()))?;
        ensure_folder(cache).map_err(|error| failed(error.into()))
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
        let chunks = (0..self.chunks()).map(|chunk| Ok(self.read_chunk(chunk)?.pooled));
        Ok(Tensor::f_cat(&chunks.collect::<Result<Vec<_>, Error>>()?, 0)?)
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
        let mut parts = Vec::new();
        let mut rest = &chosen[..];
        for chunk in 0..self.chunks() {
            let range = self.range(chunk);
            let (here, later) = rest.split_at(rest.partition_point(|&index| index < range.end as i64));
            rest = later;
            if !here.is_empty() {
                let rows: Vec<i64> = here.iter().map(|index| index - range.start as i64).collect();
                parts.push(self.read_chunk(chunk)?.pooled.f_index_select(0, &Tensor::f_from_slice(&rows)?)?);
            }
        }
        Ok(Tensor::f_cat(&parts, 0)?)
    }

    fn path(&self, chunk: usize) -> PathBuf {
        self.folder.join(format!("{chunk:06}.safetensors"))
    }

    /// The pictures of a chunk.
    fn range(&self, chunk: usize) -> std::ops::Range<usize> {
        let start = (chunk * CHUNK).min(self.count);
        start..(start + CHUNK).min(self.count)
    }

    fn write_chunk(&self, chunk: usize, parts: &[Features]) -> Result<(), Error> {
        let Features { pooled, spatial, logits } = Features::joined(parts)?;
        let joined = [("pooled", Some(pooled)), ("spatial", spatial), ("logits", logits)];
        let mut tensors = Vec::new();
        for (name, tensor) in joined {
            let Some(tensor) = tensor else { continue };
            let finite = tensor.f_isfinite()?.f_sum(tch::Kind::Int64)?.int64_value(&[]) as usize;
            if finite < tensor.numel() {
                return Err(Error::NonFinite { what: "features", count: tensor.numel() - finite });
            }
            tensors.push((name.to_owned(), tensor));
        }
        let source = TchSource::new(tensors)?;
        debug_assert!(!source.infos().is_empty());
        Ok(write_safetensors(&self.path(chunk), &source, &Default::default())?)
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::Fit;
    use crate::input::{npy_of, zip};

    /// A picture's own bytes.
    struct Pixels;

    impl FeatureNetwork for Pixels {
        fn name(&self) -> &str {
            "pixels"
        }

        fn sha256(&self) -> &str {
            ""
        }

        fn widths(&self) -> Widths {
            Widths { pooled: 3, spatial: None, logits: None }
        }

        fn check_size(&self, _: usize, _: usize) -> Result<(), Error> {
            Ok(())
        }

        fn extract(&self, pictures: &Tensor) -> Result<Features, Error> {
            let pooled = pictures.f_view([-1, 3])?.f_to_kind(Kind::Float)?;
            Ok(Features { pooled, spatial: None, logits: None })
        }
    }

    const COUNT: usize = 2500; // three chunks

    /// Pictures of one pixel that holds their number.
    fn numbered(folder: &Path) -> Pictures {
        let path = folder.join("a.npz");
        let bytes: Vec<u8> = (0..COUNT).flat_map(|index| [(index % 256) as u8, (index / 256) as u8, 0]).collect();
        fs::write(&path, zip(&[("arr_0.npy".to_owned(), npy_of("|u1", &[COUNT, 1, 1, 3], &bytes))])).unwrap();
        Pictures::open(&path, Fit::AsIs).unwrap()
    }

    #[test]
    fn chunks_that_are_there_are_read_and_only_the_others_computed() {
        let folder = tempfile::tempdir().unwrap();
        let (pictures, cache) = (numbered(folder.path()), folder.path().join("kept"));
        let mut reports = Vec::new();
        let mut extract = || {
            reports.clear();
            let each = &mut |report: ExtractionProgress| reports.push((report.done, report.resumed));
            let set = FeatureSet::extract(&pictures, "12", &Pixels, &cache, 1000, each).unwrap();
            (set, reports.clone())
        };
        let (set, reports) = extract();
        assert_eq!(reports, [(0, 0), (1000, 0), (1024, 0), (2024, 0), (2048, 0), (2500, 0)]);
        // What stands in the first chunk's file is believed; the second is gone, the third damaged.
        let planted =
            Features { pooled: Tensor::ones([1024, 3], (Kind::Float, tch::Device::Cpu)), spatial: None, logits: None };
        set.write_chunk(0, &[planted]).unwrap();
        fs::remove_file(set.path(1)).unwrap();
        let half = fs::read(set.path(2)).unwrap();
        fs::write(set.path(2), &half[..half.len() / 2]).unwrap();
        let (set, reports) = extract();
        assert_eq!(reports, [(1024, 1024), (2024, 1024), (2048, 1024), (2500, 1024)]);
        let of = |row: i64| Vec::<f64>::try_from(set.pooled().unwrap().get(row).to_kind(Kind::Double)).unwrap();
        assert_eq!([of(0), of(1023)], [[1.0; 3]; 2]);
        assert_eq!([of(1024), of(2499)], [[0.0, 4.0, 0.0], [195.0, 9.0, 0.0]]);
        assert_eq!(extract().1, [(COUNT, COUNT)]);
    }

    #[test]
    fn some_of_the_features_are_those_of_some_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = numbered(folder.path());
        let set = FeatureSet::extract(&pictures, "12", &Pixels, &folder.path().join("kept"), 100, &mut |_| ()).unwrap();
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

    /// As many numbers for a picture as no disk has room for.
    struct Vast;

    impl FeatureNetwork for Vast {
        fn name(&self) -> &str {
            "vast"
        }

        fn sha256(&self) -> &str {
            ""
        }

        fn widths(&self) -> Widths {
            Widths { pooled: 1 << 50, spatial: None, logits: None }
        }

        fn check_size(&self, _: usize, _: usize) -> Result<(), Error> {
            Ok(())
        }

        fn extract(&self, _: &Tensor) -> Result<Features, Error> {
            panic!("there is no room for what is computed")
        }
    }

    #[test]
    fn a_disk_that_is_too_small_is_told_before_anything_is_computed() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = numbered(folder.path());
        let result = FeatureSet::extract(&pictures, "12", &Vast, &folder.path().join("kept"), 100, &mut |_| ());
        let message = result.unwrap_err().to_string();
        assert!(message.contains("take 11258999068.4 GB") && message.contains("--no-cache"), "{message}");
    }

    #[test]
    fn a_cache_that_cannot_be_is_told_before_anything_is_computed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        for cache in [file.clone(), file.join("below")] {
            let message = FeatureSet::ensure_cache(&cache).unwrap_err().to_string();
            assert!(message.contains("cannot keep features in") && message.contains("pass --cache DIR"), "{message}");
        }
        FeatureSet::ensure_cache(&folder.path().join("new/folder")).unwrap();
    }
}
