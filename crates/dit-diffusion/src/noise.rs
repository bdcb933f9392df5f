use tch::{Device, Kind, Tensor};

use crate::Result;

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
    pub(crate) fn sizes(self) -> [i64; 3] {
        [self.channels, self.height, self.width].map(i64::from)
    }

    fn numel(self) -> usize {
        [self.channels, self.height, self.width].into_iter().map(|side| side as usize).product()
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
    /// When the source does not hold it.
    fn draw(&self, images: &[u64], at: Draw, shape: LatentShape) -> Result<Tensor>;

    /// Whether a walk of so many noisy steps can be served: asked before it starts, so that it does not fail half-way. A source
    /// without bounds has nothing to check.
    ///
    /// # Errors
    /// When it cannot.
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
    /// When the source does not hold them.
    pub fn initial(&self, shape: LatentShape, device: Device) -> Result<Tensor> {
        Ok(self.source.draw(self.images, Draw::Initial, shape)?.to_device(device))
    }

    pub(crate) fn check(&self, steps: usize, shape: LatentShape) -> Result<()> {
        self.source.check(self.images, steps, shape)
    }

    pub(crate) fn step(&self, number: u32, shape: LatentShape, (kind, device): (Kind, Device)) -> Result<Tensor> {
        Ok(self.source.draw(self.images, Draw::Step(number), shape)?.to_device(device).to_kind(kind))
    }
}
