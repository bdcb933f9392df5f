use std::path::{Path, PathBuf};

use dit_weights::{SafetensorsFile, TensorSource};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use sha2::{Digest, Sha256};

use super::{Manifest, MomentsLayout, ShardEntry, manifest::SKIPPED, shard_file::open_shard};
use crate::Error;

/// What was found sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The folder's manifest.
    pub manifest: Manifest,
    /// Bytes hashed.
    pub bytes: u64,
}

/// Reads every byte of every shard in the manifest of `folder` and compares its SHA-256, in parallel.
///
/// # Errors
/// [`Error::Damaged`] lists every file that is not as it was; [`Error::NotLatents`], [`Error::Io`].
pub fn verify(folder: &Path) -> Result<Verified, Error> {
    let manifest = Manifest::read(folder)?;
    let not_latents = |problem| Error::NotLatents { path: folder.to_owned(), problem, help: "write to another folder" };
    let layout = manifest.settings.layout().map_err(not_latents)?;
    let problems: Vec<Option<String>> = manifest
        .shards
        .par_iter()
        .map(|entry| problem_of(folder, entry, &layout).map(|problem| format!("{}: {problem}", entry.file)))
        .collect();
    let mut problems: Vec<String> = problems.into_iter().flatten().collect();
    if let Some(summary) = &manifest.summary
        && sha256_of(&folder.join(SKIPPED)).ok().as_ref() != Some(&summary.skipped_sha256)
    {
        problems.push(format!("{SKIPPED}: its contents have changed"));
    }
    if !problems.is_empty() {
        return Err(Error::Damaged { path: folder.to_owned(), problems });
    }
    let bytes = manifest.shards.iter().map(|entry| entry.bytes).sum();
    Ok(Verified { manifest, bytes })
}

/// What is wrong with a shard, its hash included.
pub(crate) fn problem_of(folder: &Path, entry: &ShardEntry, layout: &MomentsLayout) -> Option<String> {
    let opened = open_shard(folder, entry, layout);
    let hashed = opened.and_then(|file: SafetensorsFile| {
        file.infos().keys().for_each(|name| file.release(name));
        sha256_of(&folder.join(&entry.file)).map_err(|error| error.to_string())
    });
    match hashed {
        Err(problem) => Some(problem),
        Ok(sha256) if sha256 != entry.sha256 => Some(format!("its SHA-256 is {sha256}, was {}", entry.sha256)),
        Ok(_) => None,
    }
}

/// The SHA-256 of a file.
pub(crate) fn sha256_of(path: &PathBuf) -> Result<String, dit_weights::Error> {
    dit_weights::sha256_of(&[path])
}

/// The SHA-256 of bytes.
pub(crate) fn sha256_of_bytes(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
