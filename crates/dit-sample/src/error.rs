use crate::Conflict;

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
    #[error("guidance needs a null class, which this model was trained without (label dropout 0)")]
    NoNullClass,

    /// Settings that do not go together, or one that does nothing.
    #[error(transparent)]
    Conflict(#[from] Conflict),

    /// A share of the steps that is none.
    #[error("a strength of {0}: expected a number above 0 (which keeps the picture) up to 1 (which forgets it)")]
    Strength(f64),

    /// A network beside the main one that is not of its kind.
    #[error(
        "the {which} does not go with the checkpoint: {problem}\n  help: pass one made for the same latents and classes"
    )]
    Companion {
        /// `weaker checkpoint` or `classifier`.
        which: &'static str,
        /// What differs.
        problem: String,
    },

    /// A picture to start from, of another size than the model makes.
    #[error("the picture to start from has latents of {found:?}, the model {expected:?}")]
    InitSize {
        /// Its latents' shape.
        found: Vec<i64>,
        /// The model's.
        expected: Vec<i64>,
    },

    /// Something that the settings ask for was not given to the pipeline.
    #[error("the settings ask for {0}, which the pipeline was not given")]
    NotGiven(&'static str),

    /// The codec does not decode the model's latents.
    #[error("the VAE has {vae} latent channels, the model {model}: it is not the one that the model was trained with")]
    LatentChannels {
        /// Channels of the codec.
        vae: usize,
        /// Channels of the model.
        model: usize,
    },

    /// A decoded picture that is not RGB.
    #[error("the VAE decodes to {0} channels; pictures need 3")]
    PictureChannels(usize),

    /// Nothing to do, or more than can be counted.
    #[error("{0} images are asked for; expected 1 to 100,000,000")]
    ImageCount(usize),

    /// A batch of nothing.
    #[error("a batch of 0 images is asked for; at least one has to be computed at once")]
    BatchSize,

    /// An index of the first image after which not all can be counted.
    #[error("the first image is number {0}, after which there are not enough numbers")]
    FirstImage(u64),

    /// A plan, or a provenance, of other things than it is used with.
    #[error("{what} is {found}, {with} {expected}")]
    Mismatch {
        /// Of what.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it has to fit.
        with: &'static str,
        /// What that is.
        expected: String,
    },

    /// A provenance of another plan.
    #[error("the provenance tells other settings than those of the plan")]
    OtherSettings,

    /// Outputs that were never [opened](crate::SharedOutputs::open).
    #[error("no outputs were opened for what is to be computed")]
    NotOpened,

    /// Two things in one place.
    #[error("{} would be written over another file of this run\n  help: give each output a path of its own", .0.display())]
    SamePath(std::path::PathBuf),

    /// A picture under the name of something else.
    #[error(
        "{} does not end in .png: pictures are written as PNG, animations as animated PNG\n  help: name it {}",
        .0.display(),
        .0.with_extension("png").display()
    )]
    NotPng(std::path::PathBuf),

    /// A grid of too many pictures.
    #[error("a grid of {count} pictures is too large ({mebibytes} MiB of pixels)")]
    GridTooLarge {
        /// Pictures asked for.
        count: usize,
        /// What they would take.
        mebibytes: u64,
    },

    /// The observer asked to stop.
    #[error("sampling was cancelled")]
    Cancelled,

    /// Outputs that need pictures, without a codec.
    #[error("without a VAE there are no pictures, only latents")]
    NoVae,

    /// A text that is not a usable recipe.
    #[error("the recipe in the PNG cannot be used: {0}")]
    Recipe(String),

    /// The files that pictures depend on cannot be told.
    #[error("it cannot be said what the pictures were made with: {0}")]
    Provenance(#[source] std::sync::Arc<dyn std::error::Error + Send + Sync>),

    /// A second run into outputs that one is at work on.
    #[error("another run hands its pictures to the same outputs; open others for this one")]
    SharedByRuns,

    /// The system has no thread left for writing pictures.
    #[error("cannot start the thread that writes pictures")]
    Thread(#[source] std::io::Error),

    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] dit_files::WriteError),

    /// The diffusion part failed.
    #[error(transparent)]
    Diffusion(dit_diffusion::Error),

    /// A picture could not be made or written.
    #[error(transparent)]
    Image(#[from] dit_image::Error),

    /// How CUDA multiplies cannot be chosen.
    #[error(transparent)]
    Ops(#[from] dit_ops::OpsError),

    /// The codec failed.
    #[error(transparent)]
    Vae(Box<dit_vae::Error>),
}

impl From<dit_diffusion::Error> for Error {
    fn from(error: dit_diffusion::Error) -> Self {
        match error {
            dit_diffusion::Error::Cancelled { .. } => Self::Cancelled,
            error => Self::Diffusion(error),
        }
    }
}

impl From<dit_vae::Error> for Error {
    fn from(error: dit_vae::Error) -> Self {
        Self::Vae(Box::new(error))
    }
}
