//! Features that are still to be computed.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use dit_files::{ensure_folder, free_bytes};

use crate::batches::for_each_batch;
use crate::{Error, FeatureNetwork, FeatureSet, Pictures};

const CHUNK: usize = FeatureSet::CHUNK;

/// The features of pictures, of which some may be there and some are to be computed: in two steps, so that all that can be known to
/// fail does so before any side's features are computed.
pub struct Extraction<'a> {
    pictures: &'a Pictures,
    network: &'a dyn FeatureNetwork,
    cache: PathBuf,
    set: FeatureSet,
    /// Chunks that were not there.
    missing: Vec<usize>,
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

impl<'a> Extraction<'a> {
    /// The features of `pictures`, whose hash is `sha256`, to be kept in `cache`: makes the folder, and looks what is there.
    ///
    /// # Errors
    /// [`Error::PictureSize`], [`Error::Cache`]; [`Error::NoRoom`] where the disk is too small for what is missing.
    pub fn prepare(
        pictures: &'a Pictures,
        sha256: &str,
        network: &'a dyn FeatureNetwork,
        cache: &Path,
    ) -> Result<Self, Error> {
        network.check_size(pictures.height(), pictures.width())?;
        FeatureSet::ensure_cache(cache)?;
        let set = FeatureSet::at(cache, sha256, pictures.len(), network);
        ensure_folder(set.folder()).map_err(|error| Error::Cache { folder: cache.to_owned(), source: error.into() })?;
        let missing = (0..set.chunks()).filter(|&chunk| set.read_chunk(chunk).is_err()).collect();
        let extraction = Self { pictures, network, cache: cache.to_owned(), set, missing };
        Self::ensure_room(&[&extraction])?;
        Ok(extraction)
    }

    /// Pictures whose features are missing.
    pub fn absent(&self) -> usize {
        self.missing.iter().map(|&chunk| self.set.range(chunk).len()).sum()
    }

    /// Bytes that those will take.
    pub fn bytes(&self) -> u64 {
        self.absent() as u64 * self.set.widths().bytes()
    }

    /// Where they are kept.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Sees that what is missing of all of them fits, where they share a disk.
    ///
    /// # Errors
    /// [`Error::NoRoom`].
    pub fn ensure_room(all: &[&Self]) -> Result<(), Error> {
        // The same features of the same pictures are computed once.
        let mut distinct: Vec<&Self> = Vec::new();
        for &one in all {
            if distinct.iter().all(|other| other.set.folder() != one.set.folder()) {
                distinct.push(one);
            }
        }
        let disk = |of: &Self| of.set.folder().metadata().ok().map(|metadata| metadata.dev());
        for one in &distinct {
            let beside = distinct.iter().filter(|other| disk(other) == disk(one));
            let needed = beside.map(|other| other.bytes()).sum();
            if let Some(free) = free_bytes(one.set.folder()).filter(|&free| free < needed) {
                return Err(Error::NoRoom { folder: one.cache.clone(), needed, free });
            }
        }
        Ok(())
    }

    /// Computes what is missing.
    ///
    /// Pictures are read and decoded on a thread of their own while the network computes. Every batch is of `batch_size` pictures
    /// but for the last of a chunk of 1024, so that an interrupted run gives what an uninterrupted one does.
    ///
    /// # Errors
    /// Whatever reading, computing and writing meet; [`Error::NonFinite`] for features that are not numbers.
    pub fn run(self, batch_size: usize, progress: &mut dyn FnMut(ExtractionProgress)) -> Result<FeatureSet, Error> {
        let Self { pictures, network, set, missing, .. } = self;
        // Another extraction of the same pictures may have computed them meanwhile.
        let missing: Vec<usize> = missing.into_iter().filter(|&chunk| set.read_chunk(chunk).is_err()).collect();
        let absent: usize = missing.iter().map(|&chunk| set.range(chunk).len()).sum();
        let total = set.len();
        let resumed = total - absent;
        let mut done = resumed;
        progress(ExtractionProgress { done, resumed, total });
        let ranges: Vec<_> = missing.into_iter().map(|chunk| set.range(chunk)).collect();
        let mut parts = Vec::new();
        for_each_batch(pictures, &ranges, batch_size.clamp(1, CHUNK), &mut |batch, pictures| {
            parts.push(network.extract(pictures)?);
            done += batch.len();
            progress(ExtractionProgress { done, resumed, total });
            let chunk = batch.start / CHUNK;
            if batch.end == set.range(chunk).end {
                set.write_chunk(chunk, &std::mem::take(&mut parts))?;
            }
            Ok(())
        })?;
        Ok(set)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use tch::{Kind, Tensor};

    use super::*;
    use crate::input::{npy_of, zip};
    use crate::{Features, Fit, Widths};

    /// A picture's own bytes.
    pub(crate) struct Pixels;

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

    pub(crate) const COUNT: usize = 2500; // three chunks

    /// Pictures of one pixel that holds their number.
    pub(crate) fn numbered(folder: &Path) -> Pictures {
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
            let set = Extraction::prepare(&pictures, "12", &Pixels, &cache).unwrap().run(1000, each).unwrap();
            (set, reports.clone())
        };
        let chunk = |set: &FeatureSet, chunk: u32| set.folder().join(format!("{chunk:06}.safetensors"));
        let (set, reports) = extract();
        assert_eq!(reports, [(0, 0), (1000, 0), (1024, 0), (2024, 0), (2048, 0), (2500, 0)]);
        // What stands in the first chunk's file is believed; the second is gone, the third damaged.
        let planted =
            Features { pooled: Tensor::ones([1024, 3], (Kind::Float, tch::Device::Cpu)), spatial: None, logits: None };
        set.write_chunk(0, &[planted]).unwrap();
        fs::remove_file(chunk(&set, 1)).unwrap();
        let half = fs::read(chunk(&set, 2)).unwrap();
        fs::write(chunk(&set, 2), &half[..half.len() / 2]).unwrap();
        let (set, reports) = extract();
        assert_eq!(reports, [(1024, 1024), (2024, 1024), (2048, 1024), (2500, 1024)]);
        let of = |row: i64| Vec::<f64>::try_from(set.pooled().unwrap().get(row).to_kind(Kind::Double)).unwrap();
        assert_eq!([of(0), of(1023)], [[1.0; 3]; 2]);
        assert_eq!([of(1024), of(2499)], [[0.0, 4.0, 0.0], [195.0, 9.0, 0.0]]);
        assert_eq!(extract().1, [(COUNT, COUNT)]);
    }

    /// As many numbers for a picture as no disk has room for.
    struct Vast {
        width: usize,
    }

    impl FeatureNetwork for Vast {
        fn name(&self) -> &str {
            "vast"
        }

        fn sha256(&self) -> &str {
            ""
        }

        fn widths(&self) -> Widths {
            Widths { pooled: self.width, spatial: None, logits: None }
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
        let result = Extraction::prepare(&pictures, "12", &Vast { width: 1 << 50 }, &folder.path().join("kept"));
        let message = result.err().unwrap().to_string();
        assert!(message.contains("take 11258999068.4 GB"), "{message}");
    }

    #[test]
    fn both_sides_must_fit_on_a_disk_that_they_share() {
        let folder = tempfile::tempdir().unwrap();
        let (pictures, cache) = (numbered(folder.path()), folder.path().join("kept"));
        let Some(free) = free_bytes(folder.path()) else { return };
        // Two thirds of what is free, each.
        let vast = Vast { width: free as usize / COUNT / 4 * 2 / 3 };
        let prepared = |sha256: &str| Extraction::prepare(&pictures, sha256, &vast, &cache).unwrap();
        let (one, same, other) = (prepared("12"), prepared("12"), prepared("34"));
        Extraction::ensure_room(&[&one, &same]).unwrap();
        let error = Extraction::ensure_room(&[&one, &same, &other]).unwrap_err();
        assert!(matches!(error, Error::NoRoom { needed, .. } if needed == one.bytes() + other.bytes()), "{error}");
    }
}
