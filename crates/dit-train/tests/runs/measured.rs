//! What is measured of a run that is interrupted meanwhile: as often as of one that is not, and the same.

use std::{cell::RefCell, rc::Rc};

use dit_model::Dit;
use dit_train::{
    EvaluationReport, Evaluator, Event, Observer, ObserverError, Outcome, Run, StopRequest, TrainError,
    watch::{JsonLog, Line},
};

use crate::support::{Latents, Place, Seen, evaluation, recipe};

/// Everything is measured at steps 6 and 12; the checkpoint of step 6 is due before.
const KEYS: [&str; 7] = [
    "train.checkpoint_every=6",
    "train.keep_last=9",
    "validation.held_out={ fraction = 0.25 }",
    "validation.every=6",
    "samples.every=6",
    "eval.every=6",
    "eval.reference=somewhere",
];

/// A moment of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Step,
    Checkpoint,
    Validation,
    Samples,
    /// While it is measured.
    Evaluating,
    Evaluation,
}

/// What becomes of the run then.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Asked,
    Killed,
}

/// Interrupts at a moment of a step.
#[derive(Debug, Clone, Copy)]
struct Interruption {
    step: u64,
    at: At,
    how: How,
}

/// Says what it is asked for, and asks the run to stop, if it is to, when it is half done.
struct Half {
    interruption: Option<Interruption>,
    stop: StopRequest,
    begun: Rc<RefCell<Vec<u64>>>,
}

impl Evaluator for Half {
    fn evaluate(&mut self, step: u64, _: &Dit, stop: &StopRequest) -> Result<Option<EvaluationReport>, ObserverError> {
        self.begun.borrow_mut().push(step);
        if self.interruption.is_some_and(|at| (at.step, at.at) == (step, At::Evaluating)) {
            self.stop.request();
        }
        Ok(if stop.is_requested() { None } else { Some(evaluation(step)) })
    }
}

struct Interrupter {
    interruption: Option<Interruption>,
    stop: StopRequest,
    seen: Seen,
    log: JsonLog,
}

impl Observer for Interrupter {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        self.seen.observe(event)?;
        self.log.observe(event)?;
        let now = match event {
            Event::Step(report) => (report.step, At::Step),
            Event::CheckpointWritten { step, .. } => (*step, At::Checkpoint),
            Event::Validation(report) => (report.step, At::Validation),
            Event::SamplesDue { step, .. } => (*step, At::Samples),
            Event::Evaluation(report) => (report.step, At::Evaluation),
            _ => return Ok(()),
        };
        match self.interruption {
            Some(Interruption { step, at, how }) if now == (step, at) => match how {
                How::Asked => self.stop.request(),
                How::Killed => return Err("killed".into()),
            },
            _ => {}
        }
        Ok(())
    }
}

/// Trains until the interruption, or to the end.
fn train(
    place: &Place,
    mut run: Run,
    name: &str,
    interruption: Option<Interruption>,
) -> (Result<Outcome, TrainError>, Seen, Vec<u64>) {
    let (stop, begun) = (StopRequest::new(), Rc::new(RefCell::new(Vec::new())));
    run.evaluate_with(Box::new(Half { interruption, stop: stop.clone(), begun: begun.clone() }));
    let log = JsonLog::new(&place.run_folder(name));
    let mut observer = Interrupter { interruption, stop: stop.clone(), seen: Seen::default(), log };
    let result = run.train(&mut observer, &stop);
    drop(run);
    (result, observer.seen, begun.take())
}

/// What the log says was measured, in its order.
fn logged(place: &Place, name: &str) -> Vec<Line> {
    let lines = JsonLog::read(&place.run_folder(name)).unwrap().into_iter();
    lines.filter(|line| matches!(line, Line::Validation { .. } | Line::Evaluation { .. })).collect()
}

#[track_caller]
fn check(step: u64, at: At, how: How, resumes_at: u64) {
    let place = Place::new(Latents::Varied);
    let recipe = recipe(&KEYS);
    let (result, whole, _) = train(&place, place.start(&recipe, "whole").unwrap(), "whole", None);
    assert!(matches!(result, Ok(Outcome::Finished { step: 12, .. })), "{result:?}");
    assert_eq!((whole.validations.len(), &whole.samples[..], &whole.evaluations[..]), (2, &[6, 12][..], &[6, 12][..]));

    let interruption = Interruption { step, at, how };
    let (result, first, begun) = train(&place, place.start(&recipe, "parts").unwrap(), "parts", Some(interruption));
    match (how, result) {
        (How::Asked, Ok(Outcome::Stopped { step: stopped, .. })) => assert_eq!(stopped, step),
        (How::Killed, Err(TrainError::Observer(_))) => {}
        other => panic!("{interruption:?}: {other:?}"),
    }
    // Nothing else is begun once it is asked to stop.
    if at == At::Step && how == How::Asked {
        assert!(!first.samples.contains(&step) && !first.evaluations.contains(&step) && !begun.contains(&step));
        assert!(first.validations.iter().all(|report| report.step < step));
    }
    let run = place.resume(&recipe, "parts").unwrap();
    assert_eq!(run.step(), resumes_at, "{interruption:?}");
    let (result, second, _) = train(&place, run, "parts", None);
    assert!(matches!(result, Ok(Outcome::Finished { step: 12, .. })), "{interruption:?}: {result:?}");

    assert_eq!(logged(&place, "parts"), logged(&place, "whole"), "{interruption:?}");
    let mut samples = [first.samples, second.samples].concat();
    samples.dedup();
    assert_eq!(samples, whole.samples, "{interruption:?}");
    for step in [6, 12] {
        assert!(place.checkpoint("parts", step) == place.checkpoint("whole", step), "{interruption:?}: step {step}");
    }
}

#[test]
fn a_run_that_is_asked_to_stop_measures_the_rest_when_it_continues() {
    for step in [6, 12] {
        for at in [At::Step, At::Checkpoint, At::Validation, At::Samples, At::Evaluating] {
            check(step, at, How::Asked, step);
        }
    }
}

#[test]
fn a_run_that_is_killed_while_it_measures_has_its_checkpoint() {
    for step in [6, 12] {
        for at in [At::Checkpoint, At::Validation, At::Samples, At::Evaluation] {
            check(step, at, How::Killed, step);
        }
    }
}

#[test]
fn what_is_no_longer_asked_for_is_not_owed() {
    let place = Place::new(Latents::Varied);
    let interruption = Interruption { step: 6, at: At::Step, how: How::Asked };
    let run = place.start(&recipe(&KEYS), "run").unwrap();
    train(&place, run, "run", Some(interruption)).0.unwrap();
    let fewer = [&KEYS[..], &["samples.every=never", "eval.every=5"]].concat();
    let run = place.resume(&recipe(&fewer), "run").unwrap();
    let (result, seen, _) = train(&place, run, "run", None);
    result.unwrap();
    assert_eq!(seen.validations.iter().map(|report| report.step).collect::<Vec<_>>(), [6, 12]);
    assert_eq!((&seen.samples[..], &seen.evaluations[..]), (&[][..], &[10][..]));
}
