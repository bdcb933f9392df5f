use std::marker::PhantomData;

use super::{MOST_COLUMNS, Registers};
use crate::{attention::heads::Head, element::Element, memory::prefetch, simd::multiversion};

/// A head's values of a tensor that has `parts` for each token: of `qkv` query, key and value, of results one.
#[derive(Clone, Copy)]
pub(super) struct Part<'a, E> {
    pub all: &'a [E],
    pub parts: usize,
    pub part: usize,
    pub head: Head,
}

impl<'a, E: Element> Part<'a, E> {
    /// Those of one token.
    #[inline(always)]
    pub(super) fn row(self, token: usize) -> &'a [E] {
        self.head.row(self.all, self.parts, self.part, token)
    }

    /// Of `count` tokens from `first` on, none from `end` on.
    pub(super) fn rows(self, first: usize, count: usize, end: usize) -> Rows<'a, E> {
        Rows { part: self, first, count, end }
    }

    /// Rows that lie apart are not foreseen by the CPU: a token's are asked for before it is their turn.
    #[inline(always)]
    fn ask_for(self, token: usize) {
        let start = self.all.as_ptr().wrapping_add(self.head.start(self.parts, self.part, token)).cast::<i8>();
        for line in 0..(self.head.shape.head * size_of::<E>()).div_ceil(64) {
            prefetch(start.wrapping_add(64 * line));
        }
    }
}

/// Tokens' values.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, E> {
    part: Part<'a, E>,
    first: usize,
    count: usize,
    /// The first token that is not there.
    end: usize,
}

multiversion! {
    /// The words of `rows`, [`Layout::stride`] apart: zeros past a row's, and for rows that are not there.
    pub(super) fn gather<R: Registers>(layout: Layout<R>, rows: Rows<'_, R::Element>, place: &mut [u32]) {
        /// Tokens between one that is asked for and the one whose turn it is.
        const AHEAD: usize = 12;
        let Rows { part, first, count, end } = rows;
        assert!(place.len() >= count * layout.stride);
        for (at, place) in place.chunks_exact_mut(layout.stride).enumerate().take(count) {
            let token = first + at;
            let mut there = 0;
            if token < end {
                part.ask_for(token + AHEAD);
                let row = part.row(token);
                there = row.len() / R::PER_WORD;
                if R::PER_WORD == 1 {
                    for (place, value) in place.iter_mut().zip(row) {
                        *place = value.to_f32().to_bits();
                    }
                } else {
                    assert!(size_of::<R::Element>() * R::PER_WORD == size_of::<u32>() && there <= place.len());
                    // SAFETY: so many words are as many bytes as so many times that many elements, any of which are a word.
                    unsafe {
                        std::ptr::copy_nonoverlapping(row.as_ptr().cast::<u8>(), place.as_mut_ptr().cast(), 4 * there);
                    }
                }
            }
            place[there..].fill(0);
        }
    }
}

/// How a head's values lie for some registers.
#[derive(Clone, Copy)]
pub(crate) struct Layout<R> {
    /// Values of a row.
    pub(super) head: usize,
    /// Words of them.
    pub(super) words: usize,
    /// Words from one gathered row to the next: whole lines of a lane when they are split.
    pub(super) stride: usize,
    /// Tiles and lanes that a row's values are, as rows and columns of a product.
    pub(super) tiles: usize,
    pub(super) lanes: usize,
    registers: PhantomData<R>,
}

impl<R: Registers> Layout<R> {
    pub(super) fn of(head: usize) -> Self {
        const {
            assert!(R::ROWS.is_multiple_of(2) && R::QUERIES.is_multiple_of(R::ROWS));
            assert!(R::COLUMNS.is_multiple_of(16) && R::COLUMNS <= MOST_COLUMNS);
        }
        let words = head.div_ceil(R::PER_WORD);
        Self {
            head,
            words,
            stride: words.next_multiple_of(R::COLUMNS / R::PER_WORD),
            tiles: head.div_ceil(R::ROWS),
            lanes: head.div_ceil(R::COLUMNS),
            registers: PhantomData,
        }
    }

    /// Words of so many gathered rows, and of those that AVX2 and NEON read with the last one's.
    pub(super) fn gathered(self, count: usize) -> usize {
        count * self.stride + 16
    }

    /// Words of a tile's rows side by side.
    pub(super) fn tile(self) -> usize {
        R::ROWS * self.stride
    }

    /// Words of a lane's rows as columns.
    pub(super) fn lane(self) -> usize {
        R::COLUMNS * self.stride
    }

    /// Words of one group of values of so many tiles of rows, split by tiles.
    pub(super) fn by_tiles(self, tiles: usize) -> usize {
        tiles * R::ROWS / R::PER_WORD * R::ROWS
    }

    /// Words of one group of values of a lane's rows, split by lanes.
    pub(super) fn group(self) -> usize {
        R::COLUMNS / R::PER_WORD * R::COLUMNS
    }

    /// Words of a product whose rows are a row's values: whole tiles, and whole registers when it is turned back.
    pub(super) fn turned(self) -> usize {
        (self.tiles * R::ROWS).max(self.head.next_multiple_of(16)) * R::COLUMNS
    }

    /// From one row of sums to the next, values of whole lanes.
    pub(super) fn row(self) -> usize {
        self.lanes * R::COLUMNS
    }
}
