//! Latent shards: the format, its writer, its reader.
//!
//! # The folder
//! ```text
//! manifest.json               what made it, and every finished shard with its SHA-256
//! shard-000000.safetensors    records 0 … shard_size − 1 of the source, without those that were skipped
//! shard-000001.safetensors    …
//! skipped.jsonl               one line a record that could not be decoded: which, and why
//! .lock                       held by the process that writes
//! .shard-000002.journal       an unfinished shard, batch by batch; gone once the shard is there
//! ```
//! A shard holds `moments` (n, flips, 2C, h, w), the mean's C channels before the log-variance's, the picture before its
//! mirror image, and `labels` (n,) i64; its metadata holds `keys`, a JSON array of the records' names in their order.
//!
//! # What keeps it sound
//! A shard is written under a temporary name, synced and renamed before the manifest mentions it, so whatever the manifest
//! lists was once whole; its hash tells whether it still is. Shard k is a function of the records k·size … and the settings
//! alone: no interruption and no number of workers shows in it.

mod batches;
mod folder;
mod journal;
mod layout;
mod manifest;
mod open;
mod permutation;
mod posterior;
mod recipe;
mod settings;
mod shard_file;
mod statistics;
mod verify;

pub use batches::{BatchOptions, FlipChoice, LatentBatch, LatentBatches, Position, PosteriorDraw, Share};
pub use folder::{FolderWriter, ShardPlan, settings_in};
pub use journal::{Journal, Journals};
pub use layout::{Flips, MomentsLayout, Store};
pub use manifest::{Manifest, ShardEntry, Skipped, Summary};
pub use open::{LatentFolder, MomentsView, PictureVersion};
pub use recipe::CropRecipe;
pub use settings::{Encoding, EncodingPrecision, Settings, SourceIdentity, VaeIdentity};
pub use shard_file::{EncodedBatch, ShardBuffer};
pub use verify::{Verified, verify};
