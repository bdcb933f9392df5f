//! The AVX-512 kernels.

use std::{arch::x86_64::*, cell::RefCell, ops::Range};

use super::{
    Call, Convolution, Input, Products,
    direct::PIXELS,
    packed::{Line, WIDTH},
    winograd::{Block, POINTS, padded},
};

/// Channels that are gathered and transformed at a time: a block's pixels of so many stay in the second-level cache.
const GATHERED: usize = 64;
/// Panels whose results are held at a time.
const PANELS: usize = 2;
/// Words after each row of a factor: rows of 2 KB and more would else fall on the same few sets of the first-level cache.
const GAP: usize = 16;

/// What a thread keeps between tasks, so that memory is asked for once.
#[derive(Default)]
struct Scratch {
    pixels: Vec<f32>,
    left: Vec<u32>,
    sums: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The first `len` of `buffer`, which grows as needed; contents are old.
fn at_least<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}

/// Pixels of one image with their channels' map, as gathering sees them.
#[derive(Clone, Copy)]
struct Image<'a> {
    x: &'a [f32],
    height: usize,
    width: usize,
    channels: usize,
    map: Option<Map<'a>>,
}

#[derive(Clone, Copy)]
struct Map<'a> {
    scale: &'a [f32],
    shift: &'a [f32],
    silu: bool,
}

impl<'a> Image<'a> {
    fn new(convolution: &Convolution, call: &Call<'a>, image: usize) -> Self {
        let (height, width, channels) = (call.sizes.height, call.sizes.width, convolution.inputs);
        let len = height * width * channels;
        let map = match call.input {
            Input::Plain | Input::Doubled => None,
            Input::Normalized(map) => Some(Map {
                scale: &map.scale[image * channels..][..channels],
                shift: &map.shift[image * channels..][..channels],
                silu: map.silu,
            }),
        };
        Self { x: &call.x[image * len..][..len], height, width, channels, map }
    }

    /// Sixteen channels from `channel` on of a pixel, mapped; those past the last are 0.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(&self, row: usize, column: usize, channel: usize) -> __m512 {
        let mask = lanes(self.channels - channel);
        let pixel = &self.x[(row * self.width + column) * self.channels..][..self.channels];
        // SAFETY: the mask keeps the loads within the pixel, and within the maps, which are as long.
        unsafe {
            let x = _mm512_maskz_loadu_ps(mask, pixel.as_ptr().add(channel));
            let Some(map) = &self.map else { return x };
            let scale = _mm512_maskz_loadu_ps(mask, map.scale.as_ptr().add(channel));
            let shift = _mm512_maskz_loadu_ps(mask, map.shift.as_ptr().add(channel));
            let x = _mm512_fmadd_ps(x, scale, shift);
            if map.silu { silu(x) } else { x }
        }
    }
}

/// The first `count` lanes, sixteen at most.
#[inline]
fn lanes(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1 << count) - 1 }
}

/// x·σ(x) = x / (1 + e⁻ˣ).
#[target_feature(enable = "avx512f")]
#[inline]
fn silu(x: __m512) -> __m512 {
    // e⁻ˣ = 2ⁿ·eʳ, |r| ≤ ln 2 / 2, with Taylor's series of eʳ to the seventh power. Beyond ±87 the result no longer changes.
    let y = _mm512_min_ps(
        _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), x), _mm512_set1_ps(-87.0)),
        _mm512_set1_ps(87.0),
    );
    let n = _mm512_roundscale_ps::<0>(_mm512_mul_ps(y, _mm512_set1_ps(std::f32::consts::LOG2_E)));
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), y);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm512_set1_ps(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
    }
    _mm512_div_ps(x, _mm512_add_ps(_mm512_scalef_ps(p, n), _mm512_set1_ps(1.0)))
}

/// One block of a convolution by Winograd's method; of a doubled input where `DOUBLED`.
///
/// # Safety
/// The CPU has the instructions of the convolution's products; the block lies within the result, and nobody else writes to it.
pub(super) unsafe fn winograd<const DOUBLED: bool>(convolution: &Convolution, call: &Call<'_>, block: Block) {
    SCRATCH.with_borrow_mut(|scratch| {
        // SAFETY: the caller's promises.
        unsafe {
            match convolution.products {
                Products::Fp32 => fp32::winograd::<DOUBLED>(convolution, call, block, scratch),
                Products::Bf16 => bf16::winograd::<DOUBLED>(convolution, call, block, scratch),
            }
        }
    });
}

/// Some result pixels of an image, in rows one after the other.
///
/// # Safety
/// As [`winograd`].
pub(super) unsafe fn direct(convolution: &Convolution, call: &Call<'_>, image: usize, pixels: Range<usize>) {
    SCRATCH.with_borrow_mut(|scratch| {
        // SAFETY: the caller's promises.
        unsafe {
            match convolution.products {
                Products::Fp32 => fp32::direct(convolution, call, image, pixels, scratch),
                Products::Bf16 => bf16::direct(convolution, call, image, pixels, scratch),
            }
        }
    });
}

/// Whether a point's products vanish for a doubled input: Bᵀ·d has in its third row the difference of two equal pixels.
const fn vanishes(doubled: bool, point: usize) -> bool {
    doubled && (point / 4 == 2 || point % 4 == 2)
}

/// Gathers the pixels under a block, [`GATHERED`] channels from `channel` on: (2·rows + 2, 2·columns + 2, GATHERED).
#[target_feature(enable = "avx512f")]
fn gather<const DOUBLED: bool>(image: &Image<'_>, block: &Block, channel: usize, pixels: &mut [f32]) {
    let count = (padded(image.channels) - channel).min(GATHERED);
    let times = if DOUBLED { 2 } else { 1 };
    let (rows, columns) = (2 * block.rows + 2, 2 * block.columns + 2);
    let mut places = pixels.chunks_exact_mut(GATHERED);
    for row in 0..rows {
        // In pixels of the padded input, whose first row is one of zeros.
        let y = (2 * block.top + row).wrapping_sub(1);
        for column in 0..columns {
            let x = (2 * block.left + column).wrapping_sub(1);
            let Some(place) = places.next() else { return };
            if y >= times * image.height || x >= times * image.width {
                place[..count].fill(0.0);
                continue;
            }
            for at in (0..count).step_by(16) {
                let values = image.load(y / times, x / times, channel + at);
                // SAFETY: `count` is a multiple of 16, and no more than the place has.
                unsafe { _mm512_storeu_ps(place.as_mut_ptr().add(at), values) };
            }
        }
    }
}

/// Results of a block: Aᵀ·m·A of the sums, plus bias and skip.
///
/// # Safety
/// As [`winograd`]; `sums` holds [`POINTS`] times `plane` numbers.
#[target_feature(enable = "avx512f")]
unsafe fn finish<const DOUBLED: bool>(
    convolution: &Convolution,
    call: &Call<'_>,
    block: &Block,
    first_panel: usize,
    panels: usize,
    sums: &[f32],
    plane: usize,
) {
    let (height, width, channels) = (call.sizes.out_height, call.sizes.out_width, convolution.outputs);
    let stride = PANELS * WIDTH;
    for tile in 0..block.rows * block.columns {
        let (row, column) = (2 * (block.top + tile / block.columns), 2 * (block.left + tile % block.columns));
        for at in (0..panels * WIDTH).step_by(16) {
            let channel = first_panel * WIDTH + at;
            if channel >= channels {
                break;
            }
            let mask = lanes(channels - channel);
            // SAFETY: tile and channel lie within a plane; masked accesses within a pixel of the result.
            unsafe {
                let mut m = [[_mm512_setzero_ps(); 4]; 4];
                for (point, m) in m.as_flattened_mut().iter_mut().enumerate() {
                    if !vanishes(DOUBLED, point) {
                        *m = _mm512_loadu_ps(sums.as_ptr().add(point * plane + tile * stride + at));
                    }
                }
                let mut halves = [[_mm512_setzero_ps(); 4]; 2];
                for i in 0..4 {
                    halves[0][i] = _mm512_add_ps(_mm512_add_ps(m[0][i], m[1][i]), m[2][i]);
                    halves[1][i] = _mm512_sub_ps(_mm512_sub_ps(m[1][i], m[2][i]), m[3][i]);
                }
                let bias = _mm512_maskz_loadu_ps(mask, convolution.bias.as_ptr().add(channel));
                for (i, half) in halves.into_iter().enumerate() {
                    let results = [
                        _mm512_add_ps(_mm512_add_ps(half[0], half[1]), half[2]),
                        _mm512_sub_ps(_mm512_sub_ps(half[1], half[2]), half[3]),
                    ];
                    for (j, result) in results.into_iter().enumerate() {
                        if row + i < height && column + j < width {
                            let pixel = (block.image * height + row + i) * width + column + j;
                            put(call, pixel * channels + channel, mask, _mm512_add_ps(result, bias));
                        }
                    }
                }
            }
        }
    }
}

/// Writes sixteen results, plus what the skip connection has there.
///
/// # Safety
/// `start` and the lanes of `mask` after it lie within the result, and nobody else touches them.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn put(call: &Call<'_>, start: usize, mask: __mmask16, result: __m512) {
    // SAFETY: the caller's promise; a skip connection is as long as the result.
    unsafe {
        let result = match call.skip {
            None => result,
            Some(skip) => _mm512_add_ps(result, _mm512_maskz_loadu_ps(mask, skip.as_ptr().add(start))),
        };
        _mm512_mask_storeu_ps(call.out.slice(start, 1).as_mut_ptr(), mask, result);
    }
}

/// One module for each kind of word.
macro_rules! kernel {
    ($module:ident, $features:literal, $dot:ident, $store:ident) => {
        mod $module {
            use super::*;

            /// # Safety
            /// As [`super::winograd`].
            #[target_feature(enable = $features)]
            pub(super) unsafe fn winograd<const DOUBLED: bool>(
                convolution: &Convolution,
                call: &Call<'_>,
                block: Block,
                scratch: &mut Scratch,
            ) {
                let image = Image::new(convolution, call, block.image);
                let weights = &convolution.weights;
                let tiles = block.rows * block.columns;
                let rows = tiles.next_multiple_of(4); // of the factors: those past the last tile are old numbers, and not read
                let stride = weights.depth + GAP;
                let plane = rows * stride + GAP;
                let left = at_least(&mut scratch.left, POINTS * plane);
                let pixels = at_least(&mut scratch.pixels, (2 * block.rows + 2) * (2 * block.columns + 2) * GATHERED);
                for channel in (0..image.channels).step_by(GATHERED) {
                    gather::<DOUBLED>(&image, &block, channel, pixels);
                    let count = (padded(image.channels) - channel).min(GATHERED);
                    // SAFETY: `pixels` and `left` are as large as the block asks for.
                    unsafe { transform::<DOUBLED>(&block, pixels, count, left.as_mut_ptr(), plane, stride, channel) };
                }
                let sums_stride = PANELS * WIDTH;
                let sums_plane = rows * sums_stride + GAP;
                let sums = at_least(&mut scratch.sums, POINTS * sums_plane);
                let mut first = block.panels.0;
                while first < block.panels.1 {
                    let panels = PANELS.min(block.panels.1 - first);
                    for point in (0..POINTS).filter(|&point| !vanishes(DOUBLED, point)) {
                        for panel in 0..panels {
                            let left = left[point * plane..].as_ptr();
                            let sums = sums[point * sums_plane + panel * WIDTH..].as_mut_ptr();
                            let panel = weights.panel(point, first + panel);
                            // SAFETY: a plane has `rows` rows of `depth` words and more, and as many rows of sums.
                            unsafe { multiply(left, stride, rows, panel, weights.depth, sums, sums_stride) };
                        }
                    }
                    // SAFETY: the caller's promises.
                    unsafe { finish::<DOUBLED>(convolution, call, &block, first, panels, sums, sums_plane) };
                    first += panels;
                }
            }

            /// Bᵀ·d·B of each tile, `count` channels of it, to the sixteen planes of the left factor.
            ///
            /// # Safety
            /// `pixels` holds the block's pixels; `left` has [`POINTS`] planes of a row of `stride` words for each tile, and
            /// `channel + count` elements fit in a row.
            #[target_feature(enable = $features)]
            unsafe fn transform<const DOUBLED: bool>(
                block: &Block,
                pixels: &[f32],
                count: usize,
                left: *mut u32,
                plane: usize,
                stride: usize,
                channel: usize,
            ) {
                let columns = 2 * block.columns + 2;
                for tile in 0..block.rows * block.columns {
                    let corner = 2 * (tile / block.columns) * columns + 2 * (tile % block.columns);
                    for at in (0..count).step_by(16) {
                        // SAFETY: the caller's promise.
                        unsafe {
                            let d = |row: usize, column: usize| {
                                _mm512_loadu_ps(pixels.as_ptr().add((corner + row * columns + column) * GATHERED + at))
                            };
                            let mut rows = [[_mm512_setzero_ps(); 4]; 4];
                            for i in 0..4 {
                                let d = [d(0, i), d(1, i), d(2, i), d(3, i)];
                                for (row, value) in spread(d).into_iter().enumerate() {
                                    rows[row][i] = value;
                                }
                            }
                            for (row, values) in rows.into_iter().enumerate() {
                                for (column, value) in spread(values).into_iter().enumerate() {
                                    let point = 4 * row + column;
                                    if !vanishes(DOUBLED, point) {
                                        $store(left.add(point * plane + tile * stride), channel + at, !0, value);
                                    }
                                }
                            }
                        }
                    }
                }
            }

            /// # Safety
            /// As [`super::direct`].
            #[target_feature(enable = $features)]
            pub(super) unsafe fn direct(
                convolution: &Convolution,
                call: &Call<'_>,
                image: usize,
                pixels: Range<usize>,
                scratch: &mut Scratch,
            ) {
                let source = Image::new(convolution, call, image);
                let (weights, geometry, kernel) = (&convolution.weights, convolution.geometry, convolution.kernel);
                let stride = weights.depth + GAP;
                let left = at_least(&mut scratch.left, PIXELS * stride);
                for (row, pixel) in pixels.clone().enumerate() {
                    let words = &mut left[row * stride..][..stride];
                    words[weights.depth - 1] = 0; // whose second half may be padding
                    let (y, x) = (
                        pixel / call.sizes.out_width * geometry.stride,
                        pixel % call.sizes.out_width * geometry.stride,
                    );
                    for place in 0..kernel * kernel {
                        let y = (y + place / kernel).wrapping_sub(geometry.before);
                        let x = (x + place % kernel).wrapping_sub(geometry.before);
                        let inside = y < source.height && x < source.width;
                        for channel in (0..source.channels).step_by(16) {
                            let values = if inside { source.load(y, x, channel) } else { _mm512_setzero_ps() };
                            let mask = lanes(source.channels - channel);
                            // SAFETY: the window's elements fit in a row of the factor.
                            unsafe { $store(words.as_mut_ptr(), place * source.channels + channel, mask, values) };
                        }
                    }
                }
                let channels = convolution.outputs;
                let sums = at_least(&mut scratch.sums, PIXELS * WIDTH);
                let rows = pixels.len().next_multiple_of(4);
                let first = image * call.sizes.out_height * call.sizes.out_width + pixels.start;
                for panel in 0..weights.panels {
                    // SAFETY: the factor has PIXELS rows, a multiple of 4; those past the last pixel are old numbers.
                    unsafe {
                        let panel = weights.panel(0, panel);
                        multiply(left.as_ptr(), stride, rows, panel, weights.depth, sums.as_mut_ptr(), WIDTH);
                    }
                    for channel in (panel * WIDTH..channels.min((panel + 1) * WIDTH)).step_by(16) {
                        let mask = lanes(channels - channel);
                        for row in 0..pixels.len() {
                            // SAFETY: masked accesses lie within the bias and within a pixel of the result.
                            unsafe {
                                let bias = _mm512_maskz_loadu_ps(mask, convolution.bias.as_ptr().add(channel));
                                let sum = _mm512_loadu_ps(sums.as_ptr().add(row * WIDTH + channel % WIDTH));
                                put(call, (first + row) * channels + channel, mask, _mm512_add_ps(sum, bias));
                            }
                        }
                    }
                }
            }

            /// Sums of `rows` rows, a multiple of 4, by one panel.
            ///
            /// # Safety
            /// `left` has `rows` rows of `depth` words, `stride` apart; `sums` has as many of [`WIDTH`], `sums_stride` apart;
            /// the panel has `depth` words of each column.
            #[target_feature(enable = $features)]
            unsafe fn multiply(
                left: *const u32,
                stride: usize,
                rows: usize,
                panel: &[Line],
                depth: usize,
                sums: *mut f32,
                sums_stride: usize,
            ) {
                let mut row = 0;
                while row < rows {
                    // SAFETY: the caller's promises.
                    unsafe {
                        let (left, sums) = (left.add(row * stride), sums.add(row * sums_stride));
                        match rows - row {
                            12.. => tile::<12>(left, stride, panel.as_ptr(), depth, sums, sums_stride),
                            8.. => tile::<8>(left, stride, panel.as_ptr(), depth, sums, sums_stride),
                            _ => tile::<4>(left, stride, panel.as_ptr(), depth, sums, sums_stride),
                        }
                        row += match rows - row {
                            12.. => 12,
                            8.. => 8,
                            _ => 4,
                        };
                    }
                }
            }

            /// Sums of `R` rows, a multiple of 4, by one panel: 2·R registers of sums, 2 of weights, and a broadcast word.
            ///
            /// # Safety
            /// As [`multiply`].
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn tile<const R: usize>(
                left: *const u32,
                stride: usize,
                panel: *const Line,
                depth: usize,
                sums: *mut f32,
                sums_stride: usize,
            ) {
                // SAFETY: the caller's promises.
                unsafe {
                    let mut accumulators = [[_mm512_setzero_ps(); 2]; R];
                    for word in 0..depth {
                        let weights = panel.add(2 * word);
                        let weights = [_mm512_load_si512(weights.cast()), _mm512_load_si512(weights.add(1).cast())];
                        for (row, accumulators) in accumulators.iter_mut().enumerate() {
                            let pixel = _mm512_set1_epi32((*left.add(row * stride + word)).cast_signed());
                            accumulators[0] = $dot(accumulators[0], pixel, weights[0]);
                            accumulators[1] = $dot(accumulators[1], pixel, weights[1]);
                        }
                    }
                    for (row, accumulators) in accumulators.into_iter().enumerate() {
                        _mm512_storeu_ps(sums.add(row * sums_stride), accumulators[0]);
                        _mm512_storeu_ps(sums.add(row * sums_stride + 16), accumulators[1]);
                    }
                }
            }
        }
    };
}

/// Bᵀ·d.
#[target_feature(enable = "avx512f")]
#[inline]
fn spread(d: [__m512; 4]) -> [__m512; 4] {
    [_mm512_sub_ps(d[0], d[2]), _mm512_add_ps(d[1], d[2]), _mm512_sub_ps(d[2], d[1]), _mm512_sub_ps(d[1], d[3])]
}

#[target_feature(enable = "avx512f")]
#[inline]
fn dot_fp32(sum: __m512, pixel: __m512i, weight: __m512i) -> __m512 {
    _mm512_fmadd_ps(_mm512_castsi512_ps(pixel), _mm512_castsi512_ps(weight), sum)
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn dot_bf16(sum: __m512, pixel: __m512i, weight: __m512i) -> __m512 {
    // SAFETY: both are 512 bits; pairs of bf16 are what the words are.
    let [pixel, weight] = unsafe { std::mem::transmute::<[__m512i; 2], [__m512bh; 2]>([pixel, weight]) };
    _mm512_dpbf16_ps(sum, pixel, weight)
}

/// Writes the masked elements from `element` on of a row of words.
///
/// # Safety
/// They lie within the row.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn store_fp32(row: *mut u32, element: usize, mask: __mmask16, values: __m512) {
    // SAFETY: the caller's promise.
    unsafe { _mm512_mask_storeu_ps(row.cast::<f32>().add(element), mask, values) };
}

/// The same, rounded to bf16.
///
/// # Safety
/// They lie within the row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
unsafe fn store_bf16(row: *mut u32, element: usize, mask: __mmask16, values: __m512) {
    // SAFETY: the caller's promise; both are 256 bits.
    unsafe {
        let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(values));
        _mm256_mask_storeu_epi16(row.cast::<i16>().add(element), mask, rounded);
    }
}

kernel!(fp32, "avx512f,avx512bw,avx512dq,avx512vl", dot_fp32, store_fp32);
kernel!(bf16, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", dot_bf16, store_bf16);
