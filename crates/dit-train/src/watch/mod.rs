//! Observers that keep a record of a run in its folder.
//!
//! ```text
//! RUN/log.jsonl             every window of steps, validation, checkpoint and mishap, a line each: JsonLog
//! RUN/loss.svg              the curves: LossChart
//! RUN/fid.svg               FID of few samples: FidChart
//! RUN/tensorboard/          the same numbers and pictures for TensorBoard: TensorBoard
//! RUN/samples/step-….png    pictures of the first average from the same noise each time: SampleGrids
//! RUN/sessions.jsonl        what was run, where, by which program, on which data: a line each time it was started: Session
//! ```
//! A run that continues continues its record: what came after the step that it continues from is taken out first, and what a
//! process that was killed left half-written. None of this ends a run: a full disk costs the record, with a warning, and nothing else.

mod append;
mod chart;
mod expected;
mod fid_chart;
mod json_log;
mod leftovers;
mod line;
mod sampler;
mod samples;
mod session;
mod tensorboard;
mod tfrecord;
mod together;

pub use chart::LossChart;
pub use expected::{Bearing, ExpectedLoss, ReferenceLoss, TOLERANCE, expected_loss};
pub use fid_chart::FidChart;
pub use json_log::JsonLog;
pub use line::{BucketLine, Line, LossLine};
pub use sampler::AverageSampler;
pub use samples::SampleGrids;
pub use session::{DataIdentity, Machine, Program, Session};
pub use tensorboard::TensorBoard;
pub use together::Together;
