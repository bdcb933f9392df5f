//! Where tiles lie along an axis, and how their results are weighted.

use crate::Error;

/// Largest side and overlap of the tiles of [`Tiled`](crate::Tiled), in latent pixels.
///
/// Invariant: the side is positive and the overlap at most half of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    tile: usize,
    overlap: usize,
}

impl Default for Tiling {
    /// Tiles of 64 with an overlap of 16: with Stable Diffusion's autoencoder, 512 pixels with 128 shared, which is the
    /// memory of a 512-pixel image and the resolution the autoencoder was made for.
    fn default() -> Self {
        Self { tile: 64, overlap: 16 }
    }
}

impl Tiling {
    /// Tiles of side `tile` at most, of which neighbours share at least `overlap`; both in latent pixels.
    ///
    /// # Errors
    /// [`Error::Tiling`] unless the side is positive and the overlap at most half of it.
    pub fn new(tile: usize, overlap: usize) -> Result<Self, Error> {
        if tile == 0 || tile > 1 << 24 || overlap > tile / 2 {
            return Err(Error::Tiling { tile, overlap });
        }
        Ok(Self { tile, overlap })
    }

    /// The largest side of a tile, in latent pixels.
    pub fn tile(&self) -> usize {
        self.tile
    }

    /// What neighbours share at least, in latent pixels.
    pub fn overlap(&self) -> usize {
        self.overlap
    }

    /// The fewest tiles that cover an axis of `length` latent pixels, spread evenly and no larger than the overlap asks for.
    pub(crate) fn spans(&self, length: i64) -> Vec<Span> {
        let (tile, overlap) = (self.tile as i64, self.overlap as i64);
        if length <= tile {
            return vec![Span { start: 0, len: length, starts: vec![0] }];
        }
        let stride = tile - overlap; // at least tile / 2, so positive
        let count = (length - overlap + stride - 1) / stride; // at least 2
        let len = (length + (count - 1) * overlap + count - 1) / count;
        let starts: Vec<i64> = (0..count).map(|i| i * (length - len) / (count - 1)).collect();
        starts.iter().map(|&start| Span { start, len, starts: starts.clone() }).collect()
    }
}

/// One tile's extent along an axis, in latent pixels, and those of its fellows.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) start: i64,
    pub(crate) len: i64,
    starts: Vec<i64>,
}

impl Span {
    /// This tile's share of each of its pixels, `factor` to a latent pixel. Over all tiles the shares of a pixel sum to 1.
    ///
    /// A tile's weight falls linearly towards each cut over what it shares with that neighbour; the shares are the
    /// weights over their sum.
    pub(crate) fn weights(&self, factor: i64) -> Vec<f32> {
        let pixels = self.start * factor..(self.start + self.len) * factor;
        pixels
            .map(|pixel| {
                let at = (pixel as f64 + 0.5) / factor as f64; // centre of the pixel, in latent pixels
                let total: f64 = self.starts.iter().map(|&start| self.weight(start, at)).sum();
                (self.weight(self.start, at) / total) as f32
            })
            .collect()
    }

    /// Weight at `at` of the tile that starts at `start`: 0 outside of it, positive inside.
    fn weight(&self, start: i64, at: f64) -> f64 {
        let (first, end) = (start as f64, (start + self.len) as f64);
        if at <= first || at >= end {
            return 0.0;
        }
        let before = self.starts.iter().filter(|&&other| other < start).max();
        let after = self.starts.iter().filter(|&&other| other > start).min();
        let rise = before.map_or(1.0, |&other| ramp(at - first, (other + self.len) as f64 - first));
        let fall = after.map_or(1.0, |&other| ramp(end - at, end - other as f64));
        rise.min(fall)
    }
}

/// 0 to 1 over `width`, 1 beyond; 1 everywhere where the neighbours only touch.
fn ramp(distance: f64, width: f64) -> f64 {
    if width <= 0.0 { 1.0 } else { (distance / width).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tiles of `tile` and `overlap` over `length` lie from start to end as `expected`, and share every pixel fully.
    #[track_caller]
    fn check(tile: usize, overlap: usize, length: i64, expected: &[(i64, i64)]) {
        let spans = Tiling::new(tile, overlap).unwrap().spans(length);
        assert_eq!(spans.iter().map(|span| (span.start, span.start + span.len)).collect::<Vec<_>>(), expected);
        for factor in [1, 3, 8] {
            let mut shares = vec![0.0; (length * factor) as usize];
            for span in &spans {
                for (i, weight) in span.weights(factor).into_iter().enumerate() {
                    assert!(weight > 0.0, "every pixel of a tile counts");
                    shares[(span.start * factor) as usize + i] += weight;
                }
            }
            for (pixel, share) in shares.iter().enumerate() {
                assert!((share - 1.0).abs() < 1e-6, "pixel {pixel} of {length}·{factor}: {share}");
            }
        }
        for pair in spans.windows(2) {
            assert!(pair[0].start + pair[0].len - pair[1].start >= overlap as i64, "{pair:?} share too little");
        }
    }

    #[test]
    fn tiles_cover_an_axis_once() {
        check(64, 16, 64, &[(0, 64)]);
        check(64, 16, 40, &[(0, 40)]);
        check(64, 16, 65, &[(0, 41), (24, 65)]);
        check(64, 16, 112, &[(0, 64), (48, 112)]);
        check(64, 16, 128, &[(0, 54), (37, 91), (74, 128)]);
        check(64, 16, 160, &[(0, 64), (48, 112), (96, 160)]);
        check(4, 0, 12, &[(0, 4), (4, 8), (8, 12)]);
        check(4, 0, 13, &[(0, 4), (3, 7), (6, 10), (9, 13)]);
        check(4, 2, 7, &[(0, 4), (1, 5), (3, 7)]);
        check(1, 0, 3, &[(0, 1), (1, 2), (2, 3)]);
    }

    #[test]
    fn a_ramp_falls_linearly_over_what_two_tiles_share() {
        let spans = Tiling::new(4, 2).unwrap().spans(6);
        assert_eq!(spans[0].weights(1), [1.0, 1.0, 0.75, 0.25]);
        assert_eq!(spans[1].weights(1), [0.25, 0.75, 1.0, 1.0]);
    }

    #[test]
    fn impossible_tilings_are_refused() {
        for (tile, overlap) in [(0, 0), (4, 3), (1, 1), (usize::MAX, 0)] {
            assert!(matches!(Tiling::new(tile, overlap), Err(Error::Tiling { .. })), "{tile}, {overlap}");
        }
    }
}
