use tch::{Kind, Tensor};

use crate::tiling::{Span, Tiling};
use crate::{Error, LatentCodec, LatentScale, Moments, RawLatents};

/// A codec that takes large images tile by tile, with overlaps blended linearly: the memory of one tile beside the result.
///
/// The result is **not** that of the whole image. Group normalisation and attention see one tile at a time, and the
/// convolutions see zeros beyond its cut; blending hides the seams, not the difference. An image that fits one tile is
/// computed whole, exactly.
#[derive(Debug)]
pub struct Tiled<C> {
    codec: C,
    tiling: Tiling,
}

/// Where a tile is read and where its result goes, with the result's weights.
struct Tile {
    rows: Span,
    columns: Span,
}

impl<C: LatentCodec> Tiled<C> {
    /// `codec`, called with tiles of at most `tiling`'s side.
    pub fn new(codec: C, tiling: Tiling) -> Self {
        Self { codec, tiling }
    }

    /// The tiles of a latent of `height`×`width`; `None` where one tile holds it all.
    fn tiles(&self, height: i64, width: i64) -> Option<Vec<Tile>> {
        let (rows, columns) = (self.tiling.spans(height), self.tiling.spans(width));
        if rows.len() * columns.len() == 1 {
            return None;
        }
        let tiles = rows.iter().flat_map(|r| columns.iter().map(|c| Tile { rows: r.clone(), columns: c.clone() }));
        Some(tiles.collect())
    }
}

impl Tile {
    /// This tile's part of `x`, (N, C, height, width), whose pixels are `factor` to a latent pixel.
    fn of(&self, x: &Tensor, factor: i64) -> Tensor {
        let rows = x.narrow(2, self.rows.start * factor, self.rows.len * factor);
        rows.narrow(3, self.columns.start * factor, self.columns.len * factor) // (N, C, tile, tile)
    }

    /// Adds this tile's weighted result to its place in `canvas`, whose pixels are `factor` to a latent pixel.
    fn blend(&self, canvas: &Tensor, result: &Tensor, factor: i64) {
        let weights = |span: &Span| Tensor::from_slice(&span.weights(factor)).to_device(result.device());
        let weighted = result * weights(&self.rows).unsqueeze(1) * weights(&self.columns); // (N, C, tile, tile)
        let _ = self.of(canvas, factor).g_add_(&weighted);
    }
}

/// Zeros of (N of `like`, `channels`, `height`, `width`), fp32.
fn canvas(like: &Tensor, channels: i64, height: i64, width: i64) -> Tensor {
    Tensor::zeros([like.size()[0], channels, height, width], (Kind::Float, like.device()))
}

impl<C: LatentCodec> LatentCodec for Tiled<C> {
    fn downsampling(&self) -> usize {
        self.codec.downsampling()
    }

    fn latent_channels(&self) -> usize {
        self.codec.latent_channels()
    }

    fn scale(&self) -> LatentScale {
        self.codec.scale()
    }

    /// As the codec's; mean and log-variance are blended alike.
    fn encode(&self, images: &Tensor) -> Result<Moments, Error> {
        let factor = self.downsampling() as i64;
        let tiles = match images.size()[..] {
            [_, _, height, width] if height % factor == 0 && width % factor == 0 => {
                self.tiles(height / factor, width / factor).map(|tiles| (tiles, height / factor, width / factor))
            }
            _ => None, // for the codec to refuse
        };
        let Some((tiles, height, width)) = tiles else { return self.codec.encode(images) };
        let mut sums: Option<(Tensor, Tensor)> = None;
        for tile in &tiles {
            let (mean, logvar) = self.codec.encode(&tile.of(images, factor))?.into_parts();
            let (means, logvars) = sums.get_or_insert_with(|| {
                let channels = mean.size()[1];
                (canvas(&mean, channels, height, width), canvas(&mean, channels, height, width))
            });
            tile.blend(means, &mean, 1);
            tile.blend(logvars, &logvar, 1);
        }
        match sums {
            Some((mean, logvar)) => Moments::new(&mean, &logvar), // (N, C, h, w)
            None => self.codec.encode(images),
        }
    }

    fn decode_raw(&self, raw: &RawLatents) -> Result<Tensor, Error> {
        let latents = raw.tensor();
        let factor = self.downsampling() as i64;
        let tiles = match latents.size()[..] {
            [_, _, height, width] => self.tiles(height, width).map(|tiles| (tiles, height, width)),
            _ => None, // for the codec to refuse
        };
        let Some((tiles, height, width)) = tiles else { return self.codec.decode_raw(raw) };
        let mut sum: Option<Tensor> = None;
        for tile in &tiles {
            let images = self.codec.decode_raw(&RawLatents::new(tile.of(latents, 1)))?; // (N, 3, tile·f, tile·f)
            let sum = sum.get_or_insert_with(|| canvas(&images, images.size()[1], height * factor, width * factor));
            tile.blend(sum, &images, factor);
        }
        match sum {
            Some(images) => Ok(images), // (N, 3, H, W)
            None => self.codec.decode_raw(raw),
        }
    }
}
