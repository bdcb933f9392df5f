use std::{collections::BTreeMap, fs, path::Path};

use dit_weights::{
    Dtype, MemorySource, SafetensorsFile, TensorInfo, TensorSource, TensorView, sha256_of, write_safetensors,
};
use serde::{Deserialize, Serialize};

use super::{MomentsLayout, ShardEntry, Skipped, manifest::shard_name, statistics};
use crate::Error;

/// One window of records, encoded: what a journal keeps and a shard is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedBatch {
    pub(crate) head: BatchHead,
    pub(crate) moments: Vec<u8>,
}

/// All of a batch but its moments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchHead {
    /// The first record of the window.
    pub(crate) first: u64,
    /// Records of the window, skipped ones counted.
    pub(crate) covered: u64,
    pub(crate) keys: Vec<String>,
    pub(crate) labels: Vec<i64>,
    pub(crate) skipped: Vec<Skipped>,
}

impl EncodedBatch {
    /// The window of `keys.len() + skipped.len()` records from `first` on. `moments` is (n, flips, 2C, h, w) of those that were
    /// not skipped, in order.
    ///
    /// # Errors
    /// [`Error::LatentValue`] where a value is not finite or does not fit the element type; [`Error::Batches`] where there are
    /// not as many labels and moments as keys.
    pub fn new(
        layout: &MomentsLayout,
        first: u64,
        keys: Vec<String>,
        labels: Vec<i64>,
        skipped: Vec<Skipped>,
        moments: &[f32],
    ) -> Result<Self, Error> {
        if labels.len() != keys.len() || moments.len() != keys.len() * layout.record_len() {
            let problem = format!(
                "{} keys, {} labels and {} values of moments do not match",
                keys.len(),
                labels.len(),
                moments.len()
            );
            return Err(Error::Batches { problem });
        }
        let moments = layout.store_records(moments, &keys)?;
        let covered = (keys.len() + skipped.len()) as u64;
        Ok(Self { head: BatchHead { first, covered, keys, labels, skipped }, moments })
    }

    /// Records that were skipped in it.
    pub fn skipped(&self) -> &[Skipped] {
        &self.head.skipped
    }

    /// Records of the window, skipped ones counted.
    pub fn covered(&self) -> u64 {
        self.head.covered
    }

    /// Whether its parts fit one another and the layout.
    pub(crate) fn is_sound(&self, layout: &MomentsLayout) -> bool {
        let BatchHead { covered, keys, labels, skipped, .. } = &self.head;
        keys.len() == labels.len()
            && (keys.len() + skipped.len()) as u64 == *covered
            && self.moments.len() == keys.len() * layout.record_bytes()
    }
}

/// A shard in the making.
#[derive(Debug)]
pub struct ShardBuffer {
    index: usize,
    first: u64,
    layout: MomentsLayout,
    covered: u64,
    keys: Vec<String>,
    labels: Vec<i64>,
    skipped: Vec<Skipped>,
    moments: Vec<u8>,
}

impl ShardBuffer {
    /// An empty shard whose first record is `first`.
    pub fn new(index: usize, first: u64, layout: MomentsLayout) -> Self {
        let (keys, labels, skipped, moments) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { index, first, layout, covered: 0, keys, labels, skipped, moments }
    }

    /// Appends the next window.
    pub fn push(&mut self, batch: EncodedBatch) {
        let EncodedBatch { head, mut moments } = batch;
        self.covered += head.covered;
        self.keys.extend(head.keys);
        self.labels.extend(head.labels);
        self.skipped.extend(head.skipped);
        self.moments.append(&mut moments);
    }

    /// Its place among the shards.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The record that comes next.
    pub fn next_record(&self) -> u64 {
        self.first + self.covered
    }

    /// Records skipped so far.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Writes the shard into `folder` and says what the manifest is to say of it.
    pub(crate) fn write(self, folder: &Path) -> Result<(ShardEntry, Vec<Skipped>), Error> {
        let records = self.labels.len();
        let (sums, squares) = statistics::sums(&self.layout, &self.moments);
        let labels: Vec<u8> = self.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        let moments = TensorView::new(self.layout.store().dtype(), self.layout.shape(records), self.moments)?;
        let labels = TensorView::new(Dtype::I64, vec![records], labels)?;
        let source = MemorySource::from_iter([("moments", moments), ("labels", labels)]);
        let keys = serde_json::Value::from(self.keys).to_string();
        let metadata = BTreeMap::from([
            ("format".to_owned(), "dit-latents 1".to_owned()),
            ("first_record".to_owned(), self.first.to_string()),
            ("keys".to_owned(), keys),
        ]);
        let file = shard_name(self.index);
        let path = folder.join(&file);
        write_safetensors(&path, &source, &metadata)?;
        drop(source);
        let bytes =
            fs::metadata(&path).map_err(|source| Error::Io { action: "read", path: path.clone(), source })?.len();
        let entry = ShardEntry {
            file,
            first_record: self.first,
            records: records as u64,
            skipped: self.skipped.len() as u64,
            bytes,
            sha256: sha256_of(&[&path])?,
            sums,
            squares,
        };
        Ok((entry, self.skipped))
    }
}

/// Opens a shard; what is wrong where it is not as the manifest says. Its hash is not computed.
pub(crate) fn open_shard(folder: &Path, entry: &ShardEntry, layout: &MomentsLayout) -> Result<SafetensorsFile, String> {
    let path = folder.join(&entry.file);
    let length = fs::metadata(&path).map_err(|error| error.to_string())?.len();
    if length != entry.bytes {
        return Err(format!("it has {length} bytes, expected {}", entry.bytes));
    }
    let file = SafetensorsFile::open(&path).map_err(|error| crate::error::without_help(&error))?;
    let records = usize::try_from(entry.records).map_err(|error| error.to_string())?;
    let expected = BTreeMap::from([
        ("labels".to_owned(), TensorInfo { dtype: Dtype::I64, shape: vec![records] }),
        ("moments".to_owned(), TensorInfo { dtype: layout.store().dtype(), shape: layout.shape(records) }),
    ]);
    if *file.infos() != expected {
        return Err("its tensors are not those of the manifest".to_owned());
    }
    Ok(file)
}

/// The labels of an opened shard.
pub(crate) fn labels(file: &SafetensorsFile) -> Result<Vec<i64>, Error> {
    let view = file.read("labels")?;
    Ok(view.data().as_chunks().0.iter().map(|&label| i64::from_le_bytes(label)).collect())
}
