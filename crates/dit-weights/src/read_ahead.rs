//! What of a mapped file is asked for from the disk before it is read.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

use memmap2::Mmap;

/// Bytes that are asked for together.
const PIECE: usize = 8 << 20;

/// Bytes that are asked for at once. Linux cuts each request to what a device takes at a time or reads ahead by itself, the larger: by
/// default no less than this.
const REQUEST: usize = 128 << 10;

/// Bytes after those that are read next that are asked for beside them: what a disk delivers while tensors of some megabytes
/// are converted or packed, and little enough to stay in memory until it is read.
const AHEAD: usize = 32 << 20;

/// The pieces of a mapped file, each of which is asked for once. Left to itself the system fetches what is touched, and threads
/// that touch a file at several places wait for each piece: a DiT-XL/2 was loaded from a disk in one and a half times the time.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    asked: Vec<AtomicBool>,
}

impl ReadAhead {
    pub(crate) fn of(map: &Mmap) -> Self {
        Self { asked: (0..map.len().div_ceil(PIECE)).map(|_| AtomicBool::new(false)).collect() }
    }

    /// Before `range` of `map` is read: asks for it and for what follows.
    pub(crate) fn ask(&self, map: &Mmap, range: &Range<usize>) {
        for (start, end) in self.due(map.len(), range) {
            #[cfg(unix)]
            for start in (start..end).step_by(REQUEST) {
                let length = REQUEST.min(end - start);
                if let Err(error) = map.advise_range(memmap2::Advice::WillNeed, start, length) {
                    tracing::debug!(%error, "mapped pages are fetched as they are touched");
                }
            }
            #[cfg(not(unix))]
            let _ = (start, end);
        }
    }

    #[cfg(test)]
    pub(crate) fn asked(&self) -> usize {
        self.asked.iter().filter(|asked| asked.load(Ordering::Relaxed)).count()
    }

    /// Where the pieces that nobody has asked for yet begin and end, of a file of `bytes`.
    fn due(&self, bytes: usize, range: &Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let first = range.start / PIECE;
        let pieces = range.end.saturating_add(AHEAD).div_ceil(PIECE).saturating_sub(first);
        let asked = self.asked.iter().enumerate().skip(first).take(pieces);
        let new = asked.filter(|(_, asked)| !asked.swap(true, Ordering::Relaxed));
        new.map(move |(piece, _)| (piece * PIECE, bytes.min((piece + 1) * PIECE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_is_asked_for_once() {
        let bytes = 10 * PIECE + 5;
        let ahead = ReadAhead { asked: (0..11).map(|_| AtomicBool::new(false)).collect() };
        let check = |range: Range<usize>, expected: &[usize]| {
            let due: Vec<(usize, usize)> = ahead.due(bytes, &range).collect();
            let expected: Vec<_> =
                expected.iter().map(|piece| (piece * PIECE, bytes.min((piece + 1) * PIECE))).collect();
            assert_eq!(due, expected, "{range:?}");
        };
        check(PIECE + 1..PIECE + 2, &[1, 2, 3, 4, 5]);
        check(PIECE + 1..PIECE + 2, &[]);
        check(8 * PIECE..9 * PIECE, &[8, 9, 10]);
        check(0..2 * PIECE, &[0]);
        check(bytes - 1..bytes, &[]);
        check(3 * PIECE..usize::MAX, &[6, 7]);
    }
}
