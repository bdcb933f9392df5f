use std::path::PathBuf;

use super::Store;
use super::file::Files;
use super::tar::Member;
use crate::{Encoded, Error};

/// Pictures that are members of archives.
pub(super) struct MemberStore {
    files: Files,
    /// Archive, offset and size of each.
    places: Vec<(u32, u64, u64)>,
}

impl MemberStore {
    pub(super) fn new(archives: Vec<PathBuf>) -> Self {
        Self { files: Files::new(archives), places: Vec::new() }
    }

    /// Adds `member` of the archive at that index.
    pub(super) fn push(&mut self, archive: u32, member: &Member) {
        self.places.push((archive, member.offset, member.size));
    }
}

impl Store for MemberStore {
    fn read(&self, index: usize, key: &str) -> Result<Encoded, Error> {
        let (archive, offset, size) = self.places[index];
        self.files.get(archive as usize)?.picture(key, offset, size)
    }

    fn size(&self, index: usize) -> u64 {
        self.places[index].2
    }
}
