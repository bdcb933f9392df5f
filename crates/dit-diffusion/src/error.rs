use crate::{Draw, LatentShape, StepIndex, Timestep};

/// What a [`Denoiser`](crate::Denoiser) may fail with: any error of whoever implements it.
pub type DenoiserError = Box<dyn std::error::Error + Send + Sync>;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong here. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A schedule needs at least one step.
    #[error("a noise schedule needs at least one step; 1000 is what DiT was trained with")]
    EmptySchedule,

    /// More training steps than tables are made for.
    #[error("{steps} training steps are more than {max}, the most this crate tabulates; DiT uses 1000")]
    ScheduleTooLong {
        /// Steps asked for.
        steps: usize,
        /// Most steps allowed.
        max: usize,
    },

    /// A beta is not a variance a Gaussian step can have.
    #[error(
        "beta[{index}] is {beta}; every beta must lie strictly between 0 and 1 and be large enough to change alpha_bar"
    )]
    Beta {
        /// Position of the offending beta.
        index: usize,
        /// Its value.
        beta: f64,
    },

    /// The scaled linear schedule would need betas of one or more.
    #[error(
        "a linear schedule of {steps} steps would end with beta {last} (0.02·1000/steps); it must stay below 1: \
         take 21 steps or more, or the cosine schedule"
    )]
    LinearTooShort {
        /// Steps asked for.
        steps: usize,
        /// The beta that would come last.
        last: f64,
    },

    /// The product of alphas underflowed.
    #[error(
        "alpha_bar[{index}] underflows to zero: the betas destroy the signal long before the last step; use smaller or fewer betas"
    )]
    SignalVanishes {
        /// First position where the product is zero.
        index: usize,
    },

    /// A spacing that is none of the known forms.
    #[error(
        "`{text}` is not a step spacing; write a count (`250`), counts of equal sections (`10,15,20`), `ddimN` (`ddim50`), \
         `trailingN`, `karrasN`, `lambdaN` (also `exponentialN`) or `all`"
    )]
    SpacingSyntax {
        /// What was given.
        text: String,
    },

    /// A spacing with no steps in it.
    #[error("`{text}` asks for zero steps; every count must be 1 or more")]
    ZeroSteps {
        /// What was given.
        text: String,
    },

    /// More steps than the schedule has.
    #[error("`{text}` asks for {count} of {train_steps} training steps; ask for {train_steps} or fewer")]
    TooManySteps {
        /// The spacing.
        text: String,
        /// Steps asked for.
        count: usize,
        /// Training steps in all.
        train_steps: usize,
    },

    /// A section cannot give that many different timesteps.
    #[error(
        "`{text}` asks for {count} steps from section {section} of {sections}, which spans {size} of the {train_steps} training \
         steps; ask for {size} or fewer there"
    )]
    SectionTooSmall {
        /// The spacing.
        text: String,
        /// Section, counted from 1.
        section: usize,
        /// Number of sections.
        sections: usize,
        /// Steps asked for in that section.
        count: usize,
        /// Training steps it spans.
        size: usize,
        /// Training steps in all.
        train_steps: usize,
    },

    /// No integer stride gives exactly that many steps.
    #[error(
        "no integer stride over {train_steps} training steps gives exactly {count} steps; the nearest are {nearest}"
    )]
    NoSuchStride {
        /// Steps asked for.
        count: usize,
        /// Training steps in all.
        train_steps: usize,
        /// The nearest spacings that exist, e.g. "`ddim63` and `ddim67`".
        nearest: String,
    },

    /// Explicit timesteps that are not a subsequence of the training steps.
    #[error("kept timesteps must rise strictly and stay below {train_steps}, but number {position} is {timestep}")]
    KeptTimesteps {
        /// Position in the list.
        position: usize,
        /// The offending timestep.
        timestep: Timestep,
        /// Training steps in all.
        train_steps: usize,
    },

    /// A step index beyond the schedule.
    #[error("step index {index} is outside the schedule's {len} steps (0 to {})", len.saturating_sub(1))]
    StepOutOfRange {
        /// The index.
        index: i64,
        /// Steps in the schedule.
        len: usize,
    },

    /// DDIM's eta outside its range.
    #[error("DDIM's eta is {eta}; it must be between 0 (deterministic) and 1 (as noisy as DDPM)")]
    Eta {
        /// The value.
        eta: f64,
    },

    /// A guidance scale that is not a number.
    #[error(
        "the guidance scale is {scale}; it must be a finite number (1 means no guidance, 4 is a usual choice for pictures)"
    )]
    GuidanceScale {
        /// The value.
        scale: f64,
    },

    /// An interval of noise levels in which there is nothing to guide.
    #[error(
        "guidance between the noise levels {low} and {high} covers no timestep: the schedule's σ goes from {least:.4} to {most:.1}; \
         give low first, and a wider interval within (0.3,5 is a usual choice)"
    )]
    GuidanceInterval {
        /// The lower end.
        low: f64,
        /// The upper end.
        high: f64,
        /// σ at the least noisy timestep.
        least: f64,
        /// σ at the noisiest.
        most: f64,
    },

    /// A share of rescaling that is none.
    #[error(
        "guidance is rescaled by a share of {share}; it must be between 0 (not at all) and 1 (0.7 is a usual choice)"
    )]
    GuidanceRescale {
        /// The value.
        share: f64,
    },

    /// A classifier's scale that is not a number.
    #[error(
        "the classifier's scale is {scale}; it must be a finite number (0 means no guidance, 1 follows the classifier)"
    )]
    ClassifierScale {
        /// The value.
        scale: f64,
    },

    /// More guided channels than the latent has.
    #[error("cannot guide the first {guided} channels of a latent with {channels}; guide 1 to {channels}, or all")]
    GuidedChannels {
        /// Channels to be guided.
        guided: i64,
        /// Channels of the latent.
        channels: i64,
    },

    /// A tensor of the wrong shape.
    #[error("the shape of {what} is {found:?}, expected {expected}")]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// What it should look like.
        expected: String,
        /// What it looks like.
        found: Vec<i64>,
    },

    /// A tensor of the wrong element type.
    #[error("the kind of {what} is {found:?}, expected {expected}")]
    Kind {
        /// Which tensor.
        what: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: tch::Kind,
    },

    /// More noise than there is memory for.
    #[error(
        "there is no memory for the noise of {images} images of {}×{}×{} latents; take smaller ones, or fewer at once",
        .shape.channels, .shape.height, .shape.width
    )]
    NoiseTooLarge {
        /// Images asked for.
        images: usize,
        /// The shape of each.
        shape: LatentShape,
    },

    /// Noise, or what else a step needs, cannot be brought to a device: it is not there, or full; libtorch's words are the error's source.
    #[error("what a step needs cannot be moved to {device:?}")]
    Device {
        /// The device.
        device: tch::Device,
        /// What libtorch says, call stack and all.
        source: tch::TchError,
    },

    /// A device did not come to the end of what it was given to compute: a GPU says only then what went wrong; libtorch's words are
    /// the error's source.
    #[error("{device:?} failed while it computed")]
    Unfinished {
        /// The device.
        device: tch::Device,
        /// What libtorch says, call stack and all.
        source: tch::TchError,
    },

    /// The network's output does not fit the parameterization.
    #[error(
        "the network gave shape {found:?} for latents {latents:?}, but {variance} variance reads {expected} output channels; \
         check whether the checkpoint was trained with learned sigma"
    )]
    OutputChannels {
        /// Shape of the output.
        found: Vec<i64>,
        /// Shape of the latents.
        latents: Vec<i64>,
        /// Channels expected.
        expected: i64,
        /// Name of the variance.
        variance: &'static str,
    },

    /// The denoiser itself failed; why is the error's source.
    #[error("the denoiser failed at step {step} (timestep {timestep})")]
    Denoiser {
        /// Step of the sampling schedule.
        step: StepIndex,
        /// Timestep the network was given.
        timestep: Timestep,
        /// Its error.
        source: DenoiserError,
    },

    /// A solver of somebody else's failed; why is the error's source.
    #[error("the solver failed")]
    Solver(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// A noise source of somebody else's failed; why is the error's source.
    #[error("the noise source failed")]
    Noise(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// A solver took noise, though its `is_stochastic` says that it takes none.
    #[error("the solver takes noise, but its is_stochastic() says that it takes none; have that return true")]
    UnannouncedNoise,

    /// The latents that a walk was to start from hold NaN or infinity.
    #[error("NaN or infinity in the latents to start from, in images {images:?}; look at what made them")]
    NonFiniteStart {
        /// Image indices that are affected.
        images: Vec<u64>,
    },

    /// The noise source gave NaN or infinity.
    #[error("NaN or infinity in the noise that was drawn ({at:?}), in images {images:?}; the noise source is at fault")]
    NonFiniteNoise {
        /// The moment it was drawn for.
        at: Draw,
        /// Image indices that are affected.
        images: Vec<u64>,
    },

    /// A solver made NaN or infinity of finite latents, predictions and noise.
    #[error(
        "NaN or infinity in what the solver made of finite predictions at step {step} (timestep {timestep}), in images {images:?}; \
         they are too large to go on with, as those of damaged weights are, or the solver is at fault"
    )]
    NonFiniteResult {
        /// Step of the sampling schedule.
        step: StepIndex,
        /// Timestep of that step.
        timestep: Timestep,
        /// Image indices that are affected.
        images: Vec<u64>,
    },

    /// The network, or a classifier, gave NaN or infinity.
    #[error(
        "NaN or infinity in {what} at step {step} (timestep {timestep}), in images {images:?}; the weights are damaged, or the \
         precision is too low for them: try fp32"
    )]
    NonFinite {
        /// Which tensor.
        what: &'static str,
        /// Step of the sampling schedule.
        step: StepIndex,
        /// Timestep the network was given.
        timestep: Timestep,
        /// Image indices that are affected.
        images: Vec<u64>,
    },

    /// The observer asked to stop.
    #[error("sampling was cancelled after {done} of {total} steps")]
    Cancelled {
        /// Steps finished.
        done: usize,
        /// Steps planned.
        total: usize,
    },

    /// Recorded noise that does not cover what is asked of it.
    #[error("recorded noise: {0}")]
    Replay(String),
}
