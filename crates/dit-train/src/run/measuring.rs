//! What is looked at while a run trains. All of it only reads the weights, so that what fails costs itself and nothing else.

use super::{Run, tell};
use crate::{Event, Observer, TrainError, attempt::attempt};

impl Run {
    /// What is due after a step.
    pub(super) fn measure(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let step = self.step;
        if self.recipe.validation.every.is_due(step)
            && let Some(validation) = &self.validation
        {
            match attempt(|| Ok(validation.measure(&self.trainer, step)?)) {
                Ok(report) => tell(observer, &Event::Validation(&report))?,
                Err(error) => tracing::warn!(step, %error, "no held-out loss this time; training goes on"),
            }
        }
        if self.recipe.samples.every.is_due(step) {
            match attempt(|| Ok(self.trainer.first_average()?)) {
                Ok(ema) => tell(observer, &Event::SamplesDue { step, ema: &ema })?,
                Err(error) => tracing::warn!(step, %error, "no pictures this time; training goes on"),
            }
        }
        if self.recipe.eval.every.is_due(step)
            && let Some(evaluator) = &mut self.evaluator.0
        {
            match attempt(|| evaluator.evaluate(step, &self.trainer.first_average()?)) {
                Ok(report) => tell(observer, &Event::Evaluation(&report))?,
                Err(error) => tracing::warn!(step, %error, "no evaluation this time; training goes on"),
            }
        }
        Ok(())
    }
}
