//! F(2×2, 3×3): Y = Aᵀ·[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]·A over tiles of 4×4 pixels that advance by two.

use super::{Call, Convolution, Input, Products, Sizes, packed::Packed};
use crate::parallel;

/// Products of a tile, and so factors of a packed weight.
pub(super) const POINTS: usize = 16;
/// Tiles of a block at most: with 512 channels its transformed pixels take 3 MB in fp32, which stays in the last-level cache.
const TILES: usize = 96;
/// Tiles of a block beside each other.
const ACROSS: usize = 16;

/// Weights (C_out, C_in, 3, 3) as sixteen factors G·g·Gᵀ.
pub(super) fn pack(weight: &[f32], outputs: usize, inputs: usize, products: Products) -> Packed {
    let transformed = |output: usize, input: usize| {
        let mut points = [0.0; POINTS];
        if input < inputs {
            let g: [f64; 9] = std::array::from_fn(|i| f64::from(weight[(output * inputs + input) * 9 + i]));
            let rows: [[f64; 4]; 3] = std::array::from_fn(|i| filter_transform_1d([g[i], g[3 + i], g[6 + i]]));
            for i in 0..4 {
                for (j, value) in filter_transform_1d([rows[0][i], rows[1][i], rows[2][i]]).into_iter().enumerate() {
                    points[4 * i + j] = value as f32;
                }
            }
        }
        points
    };
    Packed::new((padded(inputs), outputs), products, &transformed)
}

/// G·g: the filter transform (Lavin & Gray 2015, section 4.1) of one column, or of one row of what it made of the columns.
fn filter_transform_1d([a, b, c]: [f64; 3]) -> [f64; 4] {
    [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c]
}

/// Whole registers of channels.
pub(super) fn padded(channels: usize) -> usize {
    channels.next_multiple_of(16)
}

/// Tiles that one task computes, in tiles from the image's corner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) image: usize,
    pub(super) top: usize,
    pub(super) left: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Panels of results.
    pub(super) panels: (usize, usize),
    /// Of the statistics, the part that its first row of tiles is.
    pub(super) part: usize,
    /// From a row's part to the next row's.
    pub(super) part_stride: usize,
}

/// Pixels of the parts of statistics: each row of tiles of each column of blocks is one, so that they depend neither on
/// threads nor on the number of images.
pub(super) fn part_sizes(sizes: &Sizes) -> Vec<u32> {
    let (tile_rows, tile_columns) = (sizes.out_height.div_ceil(2), sizes.out_width.div_ceil(2));
    let height = |row: usize| 2.min(sizes.out_height - 2 * row);
    let width = |column: usize| (2 * ACROSS).min(sizes.out_width - 2 * column);
    let columns = || (0..tile_columns).step_by(ACROSS);
    (0..tile_rows).flat_map(|row| columns().map(move |column| (height(row) * width(column)) as u32)).collect()
}

pub(super) fn run(convolution: &Convolution, call: &Call<'_>) {
    let sizes = call.sizes;
    let (tile_rows, tile_columns) = (sizes.out_height.div_ceil(2), sizes.out_width.div_ceil(2));
    let threads = parallel::threads();
    let across = tile_columns.min(ACROSS);
    let column_blocks = tile_columns.div_ceil(across);
    // Rows of a block: as many as fit, fewer where threads would be left without work. Sums do not depend on it.
    let mut row_blocks = tile_rows.div_ceil((TILES / across).max(1));
    while row_blocks * column_blocks * sizes.images < 2 * threads && row_blocks < tile_rows {
        row_blocks += 1;
    }
    let down = tile_rows.div_ceil(row_blocks);
    let row_blocks = tile_rows.div_ceil(down);
    let blocks = sizes.images * row_blocks * column_blocks;
    // More threads than blocks share a block's results.
    let shares = threads.div_ceil(blocks).min(convolution.weights.panels);
    let panels = convolution.weights.panels.div_ceil(shares);
    parallel::for_each(blocks * shares, &|task| {
        let (block, share) = (task / shares, task % shares);
        let (rest, column) = (block / column_blocks, block % column_blocks);
        let (image, row) = (rest / row_blocks, rest % row_blocks);
        let (top, left) = (row * down, column * across);
        let block = Block {
            image,
            top,
            left,
            rows: down.min(tile_rows - top),
            columns: across.min(tile_columns - left),
            panels: (share * panels, convolution.weights.panels.min((share + 1) * panels)),
            part: top * column_blocks + column,
            part_stride: column_blocks,
        };
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        // SAFETY: a convolution exists only where the CPU has the instructions; blocks and shares are disjoint, and lie within
        // the image.
        unsafe {
            match call.input {
                Input::Doubled => super::kernels::winograd::<true>(convolution, call, block),
                Input::Plain | Input::Normalized(_) => super::kernels::winograd::<false>(convolution, call, block),
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = (block, Input::Plain);
    });
}
