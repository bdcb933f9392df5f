//! Gaussian diffusion: noise schedules, respacing, parameterizations, the learned-sigma loss, guidance and samplers.
//!
//! This crate knows no network. A [`Denoiser`] is whatever maps noisy latents and a [`Timestep`] to an output; a
//! [`Parameterization`] says how that output is to be read. It never reads a file or an argument, never prints, and draws no
//! randomness but from the [`Noise`] it is handed.
//!
//! Small types meet in few places, rather than one class with many switches:
//!
//! - [`NoiseSchedule`] is what a network was trained on, in f64, without tensors. [`NoiseSchedule::respaced`] gives a
//!   [`SampleSchedule`], a view of some of its steps; each [`Step`] carries its coefficients *and* the timestep the network must
//!   see. A training timestep and a position in a sampling schedule are different types.
//! - [`Parameterization`] = [`MeanTarget`] × [`Variance`] turns an output into a [`Prediction`].
//! - [`Sampler`] is the one loop; [`Ddpm`], [`Ddim`], [`DdimReverse`], [`DpmPlusPlus`], [`SdeDpmPlusPlus`], [`UniPc`], [`Heun`] and
//!   [`EulerAncestral`] are its [`Solver`]s. For few steps take [`DpmPlusPlus::second_order`] on
//!   [`Spacing::UniformLambda`].
//! - [`ClassifierFree`] wraps a [`ConditionalDenoiser`] (a [`ClassConditional`] network, or an [`Autoguidance`] pair) and is a
//!   [`Denoiser`]; [`ClassifierGuided`] adds a classifier's gradient to any.
//! - [`Noise`] depends on the seed, the image and the step, so an image does not depend on its batch.
//! - [`NoisedBatch`] and [`Objective`] are the training loss.
//!
//! What holds tensors ([`StepTables`], [`Coefficients`], [`ReplayedNoise`], solvers with a memory) is [`Send`] and not [`Sync`], as
//! [`tch::Tensor`] is: one for each thread, or one behind a [`Mutex`](std::sync::Mutex).
//!
//! ```
//! use std::ops::ControlFlow;
//! use dit_diffusion::*;
//! use tch::Device;
//!
//! // A denoiser for data that is zero everywhere: whatever is there is noise.
//! let schedule = NoiseSchedule::linear(1000)?;
//! let training = schedule.clone();
//! let denoiser = from_fn(move |x, t| {
//!     let alpha_bar = training.alpha_bar(t).ok_or("no such timestep")?;
//!     Ok(x / (1.0 - alpha_bar).sqrt())
//! });
//!
//! let steps = schedule.respaced(&"50".parse()?)?;
//! let sampler = Sampler {
//!     schedule: &steps,
//!     parameterization: Parameterization { mean: MeanTarget::Epsilon, variance: Variance::FixedSmall },
//!     clip: ClipX0::No,
//! };
//! let source = SeededNoise::new(0);
//! let noise = BatchNoise::new(&source, &[0, 1]); // images 0 and 1
//! let start = noise.initial(LatentShape { channels: 4, height: 8, width: 8 }, Device::Cpu)?;
//! let latents = sampler.run(&denoiser, &mut Ddim::deterministic(), noise, &start, &mut |progress| {
//!     eprint!("\r{} of {}", progress.done, progress.total);
//!     ControlFlow::Continue(())
//! })?;
//! assert!(latents.abs().max().double_value(&[]) < 1e-3);
//! # Ok::<(), dit_diffusion::Error>(())
//! ```

#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod coefficients;
mod denoiser;
mod error;
mod finite;
mod guidance;
mod index;
mod likelihood;
mod loss;
mod noise;
mod parameterization;
mod sampler;
mod schedule;
mod solver;
mod spacing;
mod step;

pub use coefficients::{Coefficients, StepTables};
pub use denoiser::{Denoiser, FromFn, from_fn};
pub use dit_config::{NoiseScheduleKind, Predict, Process, Sigma, SigmaKind};
pub use error::{DenoiserError, Error, Result};
pub use guidance::{
    Autoguidance, Branches, ClassConditional, ClassifierFree, ClassifierGuided, ConditionalDenoiser, FromLogProb,
    GuidanceScale, GuidedChannels, LogProbGradient, ScaleShape, from_log_prob,
};
pub use index::{StepIndex, Timestep};
pub use loss::{LossKind, LossTerms, NoisedBatch, Objective};
pub use noise::{BatchNoise, Draw, LatentShape, Noise, ReplayedNoise, SeededNoise};
pub use parameterization::{ClipX0, MeanTarget, Parameterization, Prediction, Variance};
pub use sampler::{Progress, Sampler};
pub use schedule::NoiseSchedule;
pub use solver::{
    Ddim, DdimReverse, Ddpm, Direction, DpmPlusPlus, EulerAncestral, Heun, SdeDpmPlusPlus, Solver, StepContext,
    StepNoise, UniPc,
};
pub use spacing::Spacing;
pub use step::{SampleSchedule, Step};
