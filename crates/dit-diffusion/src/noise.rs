use dit_config::DitConfig;
use dit_torch::bring;
use tch::{Device, Kind, Tensor};

use crate::{Error, Result, finite::check_finite};

mod replayed;
mod seeded;

pub use replayed::ReplayedNoise;
pub use seeded::SeededNoise;

/// The shape of one image's latent: (C, H, W).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LatentShape {
    /// Channels.
    pub channels: u32,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

impl LatentShape {
    /// That of a transformer's latents.
    pub fn of(config: &DitConfig) -> Self {
        // A configuration's extents are far below u32::MAX.
        let [channels, height, width] =
            [config.in_channels, config.latent.height, config.latent.width].map(|extent| extent as u32);
        Self { channels, height, width }
    }

    pub(crate) fn sizes(self) -> [i64; 3] {
        [self.channels, self.height, self.width].map(i64::from)
    }

    /// Elements of one image; none where a computer cannot count them.
    fn numel(self) -> Option<usize> {
        (self.channels as usize).checked_mul(self.height as usize)?.checked_mul(self.width as usize)
    }
}

/// The moment noise is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Draw {
    /// The latent a walk starts from.
    Initial,
    /// What the n-th step of a walk adds, counted from 0 in sampling order.
    Step(u32),
}

/// A source of standard normal noise. What it gives depends on the image and the moment, never on the batch or on earlier
/// calls; so a picture is the same in whatever batch it is sampled.
pub trait Noise {
    /// The noise of these images at this moment.
    ///
    /// # Shapes
    /// (number of images, C, H, W), fp32, on the CPU.
    ///
    /// # Errors
    /// When the source does not hold it. Errors of an implementation's own go into [`Error::Noise`].
    fn draw(&self, images: &[u64], at: Draw, shape: LatentShape) -> Result<Tensor>;

    /// Whether a walk of so many noisy steps can be served: asked before it starts, so that it does not fail half-way. A source
    /// without bounds has nothing to check.
    ///
    /// # Errors
    /// When it cannot. Errors of an implementation's own go into [`Error::Noise`].
    fn check(&self, _images: &[u64], _steps: usize, _shape: LatentShape) -> Result<()> {
        Ok(())
    }
}

/// The noise of one batch: a source, and which image each of the batch's samples is.
#[derive(Clone, Copy)]
pub struct BatchNoise<'a> {
    source: &'a dyn Noise,
    images: &'a [u64],
}

impl std::fmt::Debug for BatchNoise<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { source: _, images } = self;
        f.debug_struct("BatchNoise").field("images", images).finish_non_exhaustive()
    }
}

impl<'a> BatchNoise<'a> {
    /// Sample i of the batch is image `images[i]`.
    pub fn new(source: &'a dyn Noise, images: &'a [u64]) -> Self {
        Self { source, images }
    }

    /// The image indices, in the batch's order.
    pub fn images(&self) -> &'a [u64] {
        self.images
    }

    /// The latents a walk starts from: (N, C, H, W), fp32.
    ///
    /// # Errors
    /// When the source does not hold them, or gives another shape or kind, or NaN; [`Error::Device`] where there is no such device.
    pub fn initial(&self, shape: LatentShape, device: Device) -> Result<Tensor> {
        moved(&self.draw(Draw::Initial, shape)?, device)
    }

    pub(crate) fn check(&self, steps: usize, shape: LatentShape) -> Result<()> {
        self.source.check(self.images, steps, shape)
    }

    pub(crate) fn step(&self, number: u32, shape: LatentShape, (kind, device): (Kind, Device)) -> Result<Tensor> {
        Ok(moved(&self.draw(Draw::Step(number), shape)?, device)?.to_kind(kind))
    }

    /// What the source gives, if it is what [`Noise::draw`] promises: arithmetic would broadcast another shape.
    fn draw(&self, at: Draw, shape: LatentShape) -> Result<Tensor> {
        let noise = self.source.draw(self.images, at, shape)?;
        let [channels, height, width] = shape.sizes();
        let expected = [self.images.len() as i64, channels, height, width];
        let found = noise.size();
        if found != expected {
            let expected = format!("{expected:?}, one latent for each image");
            return Err(Error::Shape { what: "the drawn noise", expected, found });
        }
        match noise.kind() {
            Kind::Float => {}
            found => return Err(Error::Kind { what: "the drawn noise", expected: "Float", found }),
        }
        check_finite(&noise, self.images, |images| Error::NonFiniteNoise { at, images })?;
        Ok(noise)
    }
}

/// What a step needs, on `device`.
pub(crate) fn moved(tensor: &Tensor, device: Device) -> Result<Tensor> {
    bring(tensor, device).map_err(|source| Error::Device { device, source })
}
