//! What is looked at while a run trains. All of it only reads the weights, so that what fails costs itself and nothing else.

use super::{Run, tell};
use crate::{Event, Measurement, Observer, StopRequest, TrainError, attempt::attempt, checkpoint};

impl Run {
    /// What the recipe has measured after this step.
    pub(super) fn due(&self) -> Vec<Measurement> {
        let all = [
            (Measurement::Validation, self.recipe.validation.every),
            (Measurement::Samples, self.recipe.samples.every),
            (Measurement::Evaluation, self.recipe.eval.every),
        ];
        all.into_iter().filter(|(_, every)| every.is_due(self.step)).map(|(measurement, _)| measurement).collect()
    }

    /// Measures what is owed after this step. Where `stop` is requested meanwhile, the rest stays owed.
    pub(super) fn measure(&mut self, observer: &mut dyn Observer, stop: &StopRequest) -> Result<(), TrainError> {
        let owed = self.owed.len();
        while let Some(&measurement) = self.owed.first() {
            if stop.is_requested() || !self.measure_one(measurement, observer, stop)? {
                break;
            }
            self.owed.remove(0);
        }
        if self.owed.len() < owed && self.saved == Some(self.step) {
            let path = self.checkpoints.at(self.step);
            if let Err(error) = checkpoint::settle(&path, &self.owed) {
                let again = "a run that continues from this checkpoint measures again what it has measured";
                tracing::warn!(path = %path.display(), %error, "{again}");
            }
        }
        Ok(())
    }

    /// Whether it is done with, successfully or not, rather than left because `stop` was requested.
    fn measure_one(
        &mut self,
        measurement: Measurement,
        observer: &mut dyn Observer,
        stop: &StopRequest,
    ) -> Result<bool, TrainError> {
        let step = self.step;
        match measurement {
            Measurement::Validation => {
                let Some(validation) = &self.validation else { return Ok(true) };
                match attempt(|| Ok(validation.measure(&self.trainer, step, &|| stop.is_requested())?)) {
                    Ok(Some(report)) => tell(observer, &Event::Validation(&report))?,
                    Ok(None) => return Ok(!stop.is_requested()),
                    Err(error) => tracing::warn!(step, %error, "no held-out loss this time; training goes on"),
                }
            }
            Measurement::Samples => match attempt(|| Ok(self.trainer.first_average()?)) {
                Ok(ema) => {
                    tell(observer, &Event::SamplesDue { step, ema: &ema, stop })?;
                    // Whether they were all drawn by then, nobody says; drawn again, they are the same.
                    return Ok(!stop.is_requested());
                }
                Err(error) => tracing::warn!(step, %error, "no pictures this time; training goes on"),
            },
            Measurement::Evaluation => {
                let Some(evaluator) = &mut self.evaluator.0 else { return Ok(true) };
                match attempt(|| evaluator.evaluate(step, &self.trainer.first_average()?, stop)) {
                    Ok(Some(report)) => tell(observer, &Event::Evaluation(&report))?,
                    Ok(None) => return Ok(!stop.is_requested()),
                    Err(error) => tracing::warn!(step, %error, "no evaluation this time; training goes on"),
                }
            }
        }
        Ok(true)
    }
}
