use std::time::Duration;

use crate::{BucketLosses, Losses, SampleLoss, StepReport, WindowReport};

/// Means since the last report.
#[derive(Debug)]
pub(crate) struct Window {
    timesteps: usize,
    losses: BucketLosses,
    steps: u64,
    grad_norms: f64,
    images: usize,
    time: Duration,
    newest: Option<StepReport>,
}

impl Window {
    pub(crate) fn new(timesteps: usize) -> Self {
        let losses = BucketLosses::new(timesteps);
        Self { timesteps, losses, steps: 0, grad_norms: 0.0, images: 0, time: Duration::ZERO, newest: None }
    }

    pub(crate) fn restart(&mut self) {
        *self = Self::new(self.timesteps);
    }

    pub(crate) fn add(&mut self, report: &StepReport, samples: &[SampleLoss]) {
        samples.iter().for_each(|sample| self.losses.add(sample));
        self.steps += 1;
        self.grad_norms += report.grad_norm;
        self.images += report.images;
        self.time += report.time;
        self.newest = Some(*report);
    }

    /// What was gathered until now, when `step` steps are taken; nothing where all of them were skipped.
    pub(crate) fn close(&mut self, step: u64) -> Option<WindowReport> {
        let newest = self.newest?;
        let losses: Losses = self.losses.mean()?;
        let report = WindowReport {
            step,
            steps: self.steps,
            losses,
            by_bucket: self.losses.clone(),
            lr: newest.lr,
            grad_norm: self.grad_norms / self.steps as f64,
            images_per_second: self.images as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE),
        };
        self.restart();
        Some(report)
    }
}
