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

/// Pixels to a latent pixel, of what is read and of what comes out.
#[derive(Clone, Copy)]
struct Factors {
    read: i64,
    written: i64,
}

impl<C: LatentCodec> Tiled<C> {
    /// `codec`, called with tiles of at most `tiling`'s side.
    pub fn new(codec: C, tiling: Tiling) -> Self {
        Self { codec, tiling }
    }

    /// `compute` of every tile of `x`, (N, C, height, width), blended; `None` where one tile holds it all, or where `x` is no
    /// whole number of latent pixels, for the codec to refuse.
    fn blended(
        &self,
        x: &Tensor,
        factors: Factors,
        compute: impl Fn(&Tensor) -> Result<Tensor, Error>,
    ) -> Result<Option<Tensor>, Error> {
        let Factors { read, written } = factors;
        let (height, width) = match x.size()[..] {
            [_, _, height, width] if height % read == 0 && width % read == 0 => (height / read, width / read),
            _ => return Ok(None),
        };
        let (rows, columns) = (self.tiling.spans(height), self.tiling.spans(width));
        if rows.len() * columns.len() == 1 {
            return Ok(None);
        }
        let mut canvas = None;
        for tile in rows.iter().flat_map(|r| columns.iter().map(|c| Tile { rows: r.clone(), columns: c.clone() })) {
            let result = compute(&tile.of(x, read))?; // (N, C', tile, tile)
            let canvas = canvas.get_or_insert_with(|| {
                let shape = [result.size()[0], result.size()[1], height * written, width * written];
                Tensor::zeros(shape, (Kind::Float, result.device()))
            });
            tile.blend(canvas, &result, written);
        }
        Ok(canvas) // (N, C', height', width')
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
        let factors = Factors { read: self.downsampling() as i64, written: 1 };
        let both = self.blended(images, factors, |tile| {
            let (mean, logvar) = self.codec.encode(tile)?.into_parts();
            Ok(Tensor::cat(&[mean, logvar], 1)) // (N, 2·C, h, w)
        })?;
        let Some(both) = both else { return self.codec.encode(images) };
        let channels = both.size()[1] / 2;
        Moments::new(&both.narrow(1, 0, channels), &both.narrow(1, channels, channels)) // (N, C, h, w)
    }

    fn decode_raw(&self, raw: &RawLatents) -> Result<Tensor, Error> {
        let factors = Factors { read: 1, written: self.downsampling() as i64 };
        let images = self.blended(raw.tensor(), factors, |tile| {
            self.codec.decode_raw(&RawLatents::new(tile.shallow_clone())) // (N, 3, tile·f, tile·f)
        })?;
        match images {
            Some(images) => Ok(images), // (N, 3, H, W)
            None => self.codec.decode_raw(raw),
        }
    }
}
