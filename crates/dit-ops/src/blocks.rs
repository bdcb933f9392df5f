//! Many rows by panels, where registers hold six rows' sums by sixteen columns. Factors are copied first to where registers reach them fastest: a
//! stretch of a lane to lines that follow one another in the first-level cache, that of the rows to six rows' words beside each other in the
//! second-level one. What is narrower than the products is widened on the way, once for all that it is multiplied by.
//!
//! In a profile of DiT-S/2's Linears with AVX2 copying takes an eighth of the time, and the inner loop what the products take in registers;
//! [`avx2::tile`](crate::avx2::tile)'s, which reads the factors where they lie, takes a quarter more.

use std::cell::RefCell;

use crate::{aligned::Aligned, gemm::Line, memory::prefetch_far};

/// Rows of a tile.
pub(crate) const ROWS: usize = 6;
/// Words of the inner dimension at a time, once widened: a lane's are half of a first-level cache (a quarter of Neoverse's).
pub(crate) const STRETCH: usize = 256;
/// Most words that rows are copied by at once.
pub(crate) const MOST_AT_ONCE: usize = 8;

thread_local! {
    /// A lane's copy, then the rows'.
    pub(crate) static COPIES: RefCell<Aligned<u32>> = RefCell::default();
}

/// `multiply`, in a module that has for its instructions and kind of words:
///
/// - `PLANES`: words that one becomes when it is copied, and `MULTIPLE`: what copied words come in multiples of, 1 or 2;
/// - `copy_rows(left, stride, rows, words, place)`: the words of up to [`ROWS`] rows to the place of a tile, zeros for rows that are not there
///   and for words up to the multiple. Up to [`MOST_AT_ONCE`] words of each row may be overwritten behind them;
/// - `copy_lane::<LANES>(lines, words, place)`: the lines of a lane, `LANES` apart, to a place that begins at a cache line, likewise;
/// - `add_products::<ROWS, 1>(tile, lane, depth, (sums, stride), goes_on)`: the products of so many copied words are added to the sums if it
///   `goes_on`, or become them.
macro_rules! blocks {
    ($features:literal) => {
        /// Multiplies `rows` rows, `stride` words apart, with `count` panels of 16·`LANES` columns that follow one another; row r's sums
        /// (bits of fp32, or int32) by panel p go to `sums + p·sums_apart + r·sums_stride`.
        ///
        /// # Safety
        /// The CPU has the features; each row has `depth` words, each panel `depth` times `LANES` lines; 16·`LANES` words from
        /// each row's places in `sums` are writable, and nobody else's, also those of the rows up to the next multiple of
        /// [`ROWS`](crate::blocks::ROWS).
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn multiply<const LANES: usize>(
            left: *const u32,
            stride: usize,
            rows: usize,
            (panels, count): (*const crate::gemm::Line, usize),
            depth: usize,
            sums: *mut u32,
            (sums_apart, sums_stride): (usize, usize),
        ) {
            use crate::blocks::{COPIES, MOST_AT_ONCE, ROWS, STRETCH, ask_for_part};
            /// Words of a stretch, before they are widened.
            const WORDS: usize = STRETCH / PLANES;
            const { assert!(WORDS.is_multiple_of(MULTIPLE)) };
            COPIES.with_borrow_mut(|copies| {
                let tiles = rows.div_ceil(ROWS);
                let room = 16 * STRETCH + ROWS * (tiles * STRETCH + MOST_AT_ONCE * PLANES);
                let of_lane = copies.at_least(room).as_mut_ptr();
                let of_rows = of_lane.wrapping_add(16 * STRETCH);
                let mut done = 0;
                while done == 0 || done < depth {
                    let words = WORDS.min(depth - done);
                    let copied = words.next_multiple_of(MULTIPLE) * PLANES;
                    let of_tile = |tile: usize| of_rows.wrapping_add(tile * ROWS * copied);
                    // SAFETY: the rows' words and the lane's lines from `done` on, and the sums, are there, as the caller promises.
                    // The copies have room; what one of a tile spills, the next one's overwrites, and behind the last there is room
                    // for it. A cache line is where each copy of a lane begins.
                    unsafe {
                        for tile in 0..tiles {
                            let first = tile * ROWS;
                            let rows = ROWS.min(rows - first);
                            copy_rows(left.add(first * stride + done), stride, rows, words, of_tile(tile));
                        }
                        let lane_at = |lane: usize, done: usize| {
                            panels.wrapping_add((lane / LANES * depth + done) * LANES + lane % LANES)
                        };
                        for lane in 0..count * LANES {
                            copy_lane::<LANES>(lane_at(lane, done), words, of_lane);
                            let next = if lane + 1 < count * LANES {
                                lane_at(lane + 1, done)
                            } else {
                                lane_at(0, done + WORDS) // or what follows it, after the last stretch
                            };
                            let place = sums.add(lane / LANES * sums_apart + lane % LANES * 16);
                            for tile in 0..tiles {
                                ask_for_part::<LANES>(next, words, tile, tiles);
                                let sums = (place.add(tile * ROWS * sums_stride), sums_stride);
                                add_products::<ROWS, 1>(of_tile(tile), of_lane, copied, sums, done > 0);
                            }
                        }
                    }
                    done += WORDS;
                }
            });
        }
    };
}
pub(crate) use blocks;

/// Asks for one of `parts` parts of a lane, whose turn is next: the CPU does not foresee lines that lie apart.
#[inline]
pub(crate) fn ask_for_part<const LANES: usize>(lines: *const Line, words: usize, part: usize, parts: usize) {
    let share = words.div_ceil(parts);
    for word in part * share..words.min((part + 1) * share) {
        prefetch_far(lines.wrapping_add(word * LANES));
    }
}
