//! The bytes of a file of tensors: mapped, or in memory already.

use std::{
    fs::File,
    ops::{Deref, Range},
};

use memmap2::Mmap;

use crate::read_ahead::ReadAhead;

/// A file's bytes.
#[derive(Debug)]
pub(crate) enum FileBytes {
    Mapped { map: Mmap, ahead: ReadAhead },
    Owned(Vec<u8>),
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped { map, .. } => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl FileBytes {
    /// Maps a file, which is not empty.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Safety
    /// Nobody shortens the file while the map lives: the system ends a program that reads mapped bytes which are no longer there.
    pub(crate) unsafe fn map(file: &File) -> std::io::Result<Self> {
        // SAFETY: the map is only read, as plain bytes, for which every content is valid; the rest is the caller's promise.
        let map = unsafe { Mmap::map(file) }?;
        let ahead = ReadAhead::of(&map);
        Ok(Self::Mapped { map, ahead })
    }

    /// Tells the system that all of these bytes are about to be read, and then probably those that follow.
    pub(crate) fn prefetch(&self, range: &Range<usize>) {
        if let Self::Mapped { map, ahead } = self {
            ahead.ask(map, range);
        }
    }

    /// Pieces that were asked for.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> usize {
        match self {
            Self::Mapped { ahead, .. } => ahead.asked(),
            Self::Owned(_) => 0,
        }
    }

    /// Tells the system that these bytes are not needed soon.
    pub(crate) fn release(&self, range: &Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped { map, .. } = self
            && !range.is_empty()
        {
            // SAFETY: the map is of a file and never written to, so that dropped pages come back from the file with the
            // same content when they are next read; views that still borrow them see no difference.
            let dropped =
                unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
            if let Err(error) = dropped {
                tracing::debug!(%error, "mapped pages stay in memory");
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}
