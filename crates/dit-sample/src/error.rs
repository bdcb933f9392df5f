/// What can go wrong between a request and its pictures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A class that the model does not have.
    #[error("class {class} is not one of the model's {num_classes} (0 to {})", .num_classes - 1)]
    Class {
        /// The class asked for.
        class: u32,
        /// Classes of the model.
        num_classes: usize,
    },

    /// Guidance without a null class to guide away from.
    #[error(
        "guidance needs a null class, which this model was trained without (label dropout 0)\n  help: pass --cfg-scale 1"
    )]
    NoNullClass,

    /// The codec does not decode the model's latents.
    #[error(
        "the VAE has {vae} latent channels, the model {model}\n  help: pass the VAE that the model was trained with as --vae"
    )]
    LatentChannels {
        /// Channels of the codec.
        vae: usize,
        /// Channels of the model.
        model: usize,
    },

    /// A decoded picture that is not RGB.
    #[error("the VAE decodes to {0} channels; pictures need 3")]
    PictureChannels(usize),

    /// Nothing to do.
    #[error("no image is asked for")]
    NoImages,

    /// A grid of too many pictures.
    #[error("a grid of {count} pictures is too large (at most {most})\n  help: write them with --out-dir or --npz")]
    GridTooLarge {
        /// Pictures asked for.
        count: usize,
        /// The most that a grid may show.
        most: usize,
    },

    /// Outputs that need pictures, without a codec.
    #[error("without a VAE there are no pictures\n  help: with --vae none, pass --latents FILE and no other output")]
    NoVae,

    /// A text that is not a usable recipe.
    #[error("the recipe in the PNG cannot be used: {0}")]
    Recipe(String),

    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] dit_files::WriteError),

    /// The diffusion part failed.
    #[error(transparent)]
    Diffusion(#[from] dit_diffusion::Error),

    /// A picture could not be made or written.
    #[error(transparent)]
    Image(#[from] dit_image::Error),

    /// The codec failed.
    #[error(transparent)]
    Vae(#[from] dit_vae::Error),

    /// The transformer refused its weights or input.
    #[error(transparent)]
    Model(#[from] dit_model::ModelError),

    /// A weights file could not be read or written.
    #[error(transparent)]
    Weights(#[from] dit_weights::Error),
}
