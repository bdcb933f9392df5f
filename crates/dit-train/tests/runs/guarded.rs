//! Values that are not finite: named, and then as the recipe says.

use dit_train::{
    Event, Observer, ObserverError, Outcome, Remedy, Stage, StopRequest, TrainError,
    watch::{JsonLog, Line},
};
use dit_weights::{SafetensorsFile, find_non_finite};

use crate::support::{Latents, Place, Seen, recipe};

/// The record that overflows.
const BAD: u64 = 17;

#[track_caller]
fn assert_finite(place: &Place, name: &str, step: u64) {
    for file in ["model", "ema-0.5", "optimizer"] {
        let path = place.run_folder(name).join(format!("checkpoints/step-{step:08}/{file}.safetensors"));
        assert_eq!(find_non_finite(&SafetensorsFile::open(path).unwrap()).unwrap(), [], "{file}");
    }
}

#[test]
fn stop_names_the_record() {
    let place = Place::new(Latents::Overflowing(BAD));
    let recipe = recipe(&["train.checkpoint_every=1", "train.seed=3"]);
    let mut seen = Seen::default();
    let error = place.start(&recipe, "run").unwrap().train(&mut seen, &StopRequest::new()).unwrap_err();
    let TrainError::NonFinite { report, .. } = &error else { panic!("{error}") };
    assert_eq!((report.stage, report.place.as_str(), report.tensor.as_str()), (Stage::Data, "latents", "record 17"));
    assert!(!seen.steps.is_empty());
    assert_eq!(report.step, seen.steps.len() as u64 + 1);
    assert!(error.to_string().contains("record 17") && error.to_string().contains("help:"), "{error}");
    assert_finite(&place, "run", seen.steps.len() as u64);
}

#[test]
fn skip_leaves_the_update_out_and_goes_on() {
    let place = Place::new(Latents::Overflowing(BAD));
    // Two passes over the records: the bad one is met twice.
    let seen = place.train(&recipe(&["train.steps=24", "guardian.on_non_finite=skip"]), "run");
    assert_eq!(seen.non_finite.len(), 2, "{:?}", seen.non_finite);
    assert!(seen.non_finite.iter().all(|(report, remedy)| report.tensor == "record 17" && *remedy == Remedy::Skipped));
    assert_eq!(seen.steps.len(), 22);
    assert_finite(&place, "run", 24);
}

#[test]
fn roll_back_goes_back_and_past_the_batch() {
    let place = Place::new(Latents::Overflowing(BAD));
    let keys = ["train.steps=12", "train.checkpoint_every=3", "guardian.on_non_finite=roll-back"];
    let seen = place.train(&recipe(&keys), "run");
    let [(report, Remedy::RolledBack { to })] = seen.non_finite.as_slice() else { panic!("{:?}", seen.non_finite) };
    assert_eq!(*to, (report.step - 1) / 3 * 3);
    let steps: Vec<u64> = seen.steps.iter().map(|step| step.step).collect();
    let expected: Vec<u64> = (1..report.step).chain(to + 1..=12).collect();
    assert_eq!(steps, expected);
    assert_finite(&place, "run", 12);
}

/// Asks the run to stop at a step.
struct StopAt<'a>(u64, &'a StopRequest);

impl Observer for StopAt<'_> {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        if matches!(event, Event::Step(report) if report.step == self.0) {
            self.1.request();
        }
        Ok(())
    }
}

#[test]
fn roll_back_goes_where_a_run_that_was_not_interrupted_goes() {
    let place = Place::new(Latents::Overflowing(BAD));
    // Of the checkpoints that are due, only the newest is kept.
    let keys = [
        "train.steps=24",
        "train.seed=3",
        "train.checkpoint_every=4",
        "train.keep_last=1",
        "guardian.on_non_finite=roll-back",
    ];
    let recipe = recipe(&keys);
    let whole = place.train(&recipe, "whole");
    let (report, _) = &whole.non_finite[0];
    let due = (report.step - 1) / 4 * 4;
    assert!(due + 2 < report.step, "step {}: there is no room for an interruption after step {due}", report.step);
    let mut run = place.start(&recipe, "parts").unwrap();
    for step in [due + 1, due + 2] {
        let stop = StopRequest::new();
        let outcome = run.train(&mut StopAt(step, &stop), &stop).unwrap();
        assert!(matches!(outcome, Outcome::Stopped { .. }), "{outcome:?}");
        drop(run);
        run = place.resume(&recipe, "parts").unwrap();
        assert_eq!(run.step(), step);
    }
    let mut seen = Seen::default();
    run.train(&mut seen, &StopRequest::new()).unwrap();
    assert_eq!(seen.non_finite, whole.non_finite);
    assert_eq!(seen.non_finite[0].1, Remedy::RolledBack { to: due });
    assert!(place.checkpoint("parts", 24) == place.checkpoint("whole", 24));
}

/// Keeps the log, and is killed when something was not finite.
struct KilledAtNonFinite(JsonLog);

impl Observer for KilledAtNonFinite {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        self.0.observe(event)?;
        if matches!(event, Event::NonFinite { .. }) { Err("killed".into()) } else { Ok(()) }
    }
}

#[test]
fn a_skipped_step_is_logged_once_with_its_own_number() {
    let place = Place::new(Latents::Overflowing(BAD));
    let recipe = recipe(&["train.seed=3", "train.checkpoint_every=1", "guardian.on_non_finite=skip"]);
    let folder = place.run_folder("run");
    let result =
        place.start(&recipe, "run").unwrap().train(&mut KilledAtNonFinite(JsonLog::new(&folder)), &StopRequest::new());
    assert!(matches!(result, Err(TrainError::Observer(_))), "{result:?}");
    let mut run = place.resume(&recipe, "run").unwrap();
    let before = run.step();
    run.train(&mut JsonLog::new(&folder), &StopRequest::new()).unwrap();
    let lines = JsonLog::read(&folder).unwrap();
    let skipped: Vec<u64> =
        lines.iter().filter(|line| matches!(line, Line::NonFinite { .. })).map(Line::step).collect();
    assert_eq!(skipped, [before + 1]);
}

#[track_caller]
fn check_divergence(policy: &str, says: &str) {
    let place = Place::new(Latents::Varied);
    let policy = format!("guardian.on_non_finite={policy}");
    let keys = ["optim.lr=1e30", "train.steps=40", "train.checkpoint_every=1", policy.as_str()];
    let mut seen = Seen::default();
    let result = place.start(&recipe(&keys), "run").unwrap().train(&mut seen, &StopRequest::new());
    let Err(error @ TrainError::NonFinite { .. }) = result else { panic!("{policy}: {result:?}") };
    assert!(error.to_string().contains(says), "{policy}: {error}");
    let TrainError::NonFinite { report, .. } = error else { return };
    assert!(matches!(report.stage, Stage::Forward | Stage::Weights | Stage::Loss | Stage::Gradient), "{report}");
    let place = if report.stage == Stage::Loss { "though the network's outputs are not" } else { "first in " };
    assert!(report.to_string().contains(&format!("is NaN or infinite, {place}")), "{report}");
}

#[test]
fn a_run_that_diverges_is_given_up_whatever_the_policy() {
    check_divergence("stop", "is NaN or infinite");
    check_divergence("skip", "after 10 skipped steps in a row");
    check_divergence("roll-back", "after going back 3 times");
}

#[test]
fn averages_that_lag_are_told() {
    let place = Place::new(Latents::Varied);
    let seen = place.train(&recipe(&["ema.decays=[0.5, 0.9999, 0.9]"]), "run");
    assert_eq!(seen.lagging, [0.9999, 0.9]);
}
