//! A run that was interrupted ends in the bytes of one that was not.

use dit_train::{Event, Observer, ObserverError, Outcome, StopRequest, TrainError, ValidationReport};

use crate::support::{Latents, Place, recipe};

/// How a run is interrupted.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    /// Asked to stop: it leaves a checkpoint.
    Asked,
    /// Ended at once: it goes on from the last checkpoint.
    Killed,
}

/// Interrupts at a step.
struct Interrupter<'a> {
    at: Option<u64>,
    how: How,
    stop: &'a StopRequest,
    validations: &'a mut Vec<ValidationReport>,
}

impl Observer for Interrupter<'_> {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Step(report) if Some(report.step) == self.at => match self.how {
                How::Asked => self.stop.request(),
                How::Killed => return Err("killed".into()),
            },
            Event::Validation(report) => self.validations.push((*report).clone()),
            _ => {}
        }
        Ok(())
    }
}

const STEPS: u64 = 60;
/// Twenty steps without a pattern.
const INTERRUPTED: [u64; 20] = [1, 2, 5, 6, 9, 13, 14, 19, 22, 23, 27, 31, 34, 35, 36, 41, 44, 50, 57, 59];

#[track_caller]
fn check(keys: &[&str]) {
    let place = Place::new(Latents::Varied);
    let all = [&["train.steps=60", "train.checkpoint_every=4", "train.keep_last=1"][..], keys].concat();
    let recipe = recipe(&all);
    let whole = place.train(&recipe, "whole");

    let mut validations = Vec::new();
    let mut begun = false;
    for (index, at) in INTERRUPTED.into_iter().map(Some).chain([None]).enumerate() {
        let how = if index % 2 == 0 { How::Asked } else { How::Killed };
        let mut run = match begun {
            // Killed before its first checkpoint, a run begins again.
            false => place.start(&recipe, "parts").unwrap(),
            true => place.resume(&recipe, "parts").unwrap(),
        };
        let stop = StopRequest::new();
        let mut observer = Interrupter { at, how, stop: &stop, validations: &mut validations };
        match (run.train(&mut observer, &stop), at, how) {
            (Ok(Outcome::Stopped { step, .. }), Some(at), How::Asked) => assert_eq!(step, at),
            (Err(TrainError::Observer(_)), Some(_), How::Killed) => {}
            (Ok(Outcome::Finished { step, .. }), None, _) => assert_eq!(step, STEPS),
            (other, ..) => panic!("interrupted at {at:?}, {how:?}: {other:?}"),
        }
        begun = run.newest_checkpoint().is_some();
    }
    let (whole_files, parts) = (place.checkpoint("whole", STEPS), place.checkpoint("parts", STEPS));
    assert!(whole_files.keys().eq(parts.keys()), "{:?}", parts.keys());
    for (name, bytes) in &whole_files {
        assert!(parts[name] == *bytes, "{keys:?}: {name} differs");
    }
    // Those after the last checkpoint before a kill are measured twice, alike.
    validations.dedup();
    validations.sort_by_key(|report| report.step);
    validations.dedup();
    assert_eq!(validations, whole.validations, "{keys:?}");
}

#[test]
fn the_original_s_recipe() {
    check(&[]);
}

#[test]
fn everything_that_has_a_state() {
    check(&[
        "diffusion.timesteps=loss-second-moment",
        "ema.decays=[0.9, 0.99]",
        "optim.schedule=cosine",
        "optim.warmup_steps=10",
        "optim.clip_grad_norm=0.5",
        "optim.weight_decay=0.1",
        "train.accumulate=2",
        "validation.held_out={ fraction = 0.25 }",
        "validation.every=15",
    ]);
}

#[test]
fn bf16_with_recomputed_activations() {
    check(&[
        "train.precision=bf16",
        "train.checkpoint_activations=true",
        "train.accumulate=2",
        "model.block=in-context",
    ]);
}

#[test]
fn a_longer_run_goes_on_from_a_shorter_one() {
    let place = Place::new(Latents::Varied);
    place.train(&recipe(&["train.steps=20"]), "whole");
    place.train(&recipe(&["train.steps=8"]), "parts");
    place
        .resume(&recipe(&["train.steps=20"]), "parts")
        .unwrap()
        .train(&mut dit_train::Unobserved, &StopRequest::new())
        .unwrap();
    for (name, bytes) in place.checkpoint("whole", 20) {
        assert!(place.checkpoint("parts", 20)[&name] == bytes, "{name} differs");
    }
}
