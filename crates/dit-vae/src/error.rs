use tch::Kind;

/// What can go wrong around an autoencoder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor whose shape does not fit; the message names the tensor and the shape it should have.
    #[error("shape: {what} is {actual:?}, expected {expected}")]
    Shape {
        /// Which tensor: "images", "latents", "noise", …
        what: &'static str,
        /// The shape it has.
        actual: Vec<i64>,
        /// The shape it should have, in words.
        expected: String,
    },
    /// Image sides that the encoder's strides do not divide.
    #[error(
        "images are {height}×{width} pixels, and a side must be a multiple of {factor}\n  help: crop or pad them to {}×{}, or {}×{}",
        .height / .factor * .factor, .width / .factor * .factor,
        .height.next_multiple_of(*.factor), .width.next_multiple_of(*.factor)
    )]
    NotDivisible {
        /// Image height in pixels.
        height: u64,
        /// Image width in pixels.
        width: u64,
        /// Image pixels per latent pixel.
        factor: u64,
    },
    /// A tensor of integers or of another kind that is not computed with.
    #[error("{what} is {actual:?}, expected {expected}")]
    Kind {
        /// Which tensor or setting.
        what: String,
        /// The kind it has.
        actual: Kind,
        /// The kinds accepted, in words.
        expected: &'static str,
    },
    /// Weights that cannot be read, are not finite, or differ from those of the configuration: every difference is listed.
    #[error(transparent)]
    Checkpoint(#[from] dit_weights::Error),
    /// Packed weights know no gradients.
    #[error(
        "a gradient is wanted of {what}, and packed weights give none\n  help: load the autoencoder with plain kernels, or hold tch::no_grad_guard()"
    )]
    Gradient {
        /// Which tensor asks for it.
        what: &'static str,
    },
    /// Only the half that encodes was loaded.
    #[error("this autoencoder was loaded without its decoder\n  help: load it with AutoencoderKl::load")]
    NoDecoder,
    /// A kernel refused.
    #[error(transparent)]
    Ops(#[from] dit_ops::OpsError),
    /// Tiles that cannot cover an image.
    #[error(
        "tiles of {tile} latent pixels with an overlap of {overlap}: expected a positive tile and an overlap of at most half of it"
    )]
    Tiling {
        /// Side of a tile, in latent pixels.
        tile: usize,
        /// Pixels that two neighbours share, in latent pixels.
        overlap: usize,
    },
}
