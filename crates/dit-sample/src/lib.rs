//! From a sampling request to latents and pictures: the pipeline over model, diffusion and VAE.
//!
//! [`Plan`] checks a request against a model, [`Pipeline`] computes batches, [`Outputs`] writes what comes, [`SharedOutputs`] lets Ctrl-C complete them, [`run`] is the loop
//! over all of it, and a [`Recipe`] in every PNG says how to make that PNG again. Nothing here parses arguments or prints.
//!
//! ```
//! use dit_sample::{Pipeline, Plan, SamplerKind, Settings, Spacing};
//! use dit_model::{Dit, DitConfig, Initialization};
//! # use std::ops::ControlFlow;
//!
//! let config = "DiT-S/8".parse::<DitConfig>()?.with(|spec| spec.depth = 1)?;
//! let store = tch::nn::VarStore::new(tch::Device::Cpu);
//! let pipeline = Pipeline::new(Dit::new(&store.root(), &config, Initialization::Reference { seed: 0 }), None)?;
//! let settings = Settings {
//!     sampler: SamplerKind::Ddim { eta: 0.0 },
//!     steps: Spacing::even(5),
//!     process: None, // the original's; of a checkpoint, `Some(checkpoint.process())`
//!     ..Settings::default()
//! };
//! let plan = Plan::new(&config, settings, 0, vec![207, 360], 2)?;
//! for batch in plan.batches() {
//!     let latents = pipeline.sample(&plan, &batch, &plan.noise(), &mut |_| ControlFlow::Continue(()))?;
//!     assert_eq!(latents.tensor().size(), [2, 4, 32, 32]);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod blend;
mod cache;
mod captions;
mod conflict;
mod editing;
mod error;
mod folder;
mod guidance;
mod labels;
mod latents_file;
mod leftovers;
mod memory;
mod network;
mod outputs;
mod own_files;
mod pipeline;
mod plan;
mod provenance;
mod recipe;
mod run;
mod settings;
mod shared;
mod writer;

pub use cache::CacheReport;
pub use conflict::{Conflict, GuidedBy};
pub use dit_classifier::Classifier;
pub use dit_config::Process;
pub use dit_diffusion::{Progress, Spacing};
pub use editing::{Interpolation, Start};
pub use error::Error;
pub use folder::Others;
pub use guidance::{CfgChannels, CfgSchedule, Guidance};
pub use labels::LabelPolicy;
pub use memory::{batch_size_that_fits, bytes_per_picture};
pub use outputs::{Kept, OutputPaths, Outputs};
pub use pipeline::Pipeline;
pub use plan::{Batch, MOST_IMAGES, Plan};
pub use provenance::{HashError, LateProvenance, SourceHashes};
pub use recipe::{OpenedAs, Provenance, Recipe, Shows, Source};
pub use run::{RunProgress, Timings, run};
pub use settings::{Precision, SamplerKind, Settings};
pub use shared::SharedOutputs;
