//! What is kept of a run that cannot go on, or whose disk refuses it.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::Duration,
};

use dit_train::{Event, Observer, ObserverError, Outcome, Remedy, StopRequest, TrainError};

use crate::support::{Latents, Place, Seen, recipe};

/// The record that overflows.
const BAD: u64 = 17;

#[test]
fn stop_keeps_the_step_before_and_what_it_advises_goes_on() {
    let place = Place::new(Latents::Overflowing(BAD));
    let skipping = recipe(&["train.seed=3", "guardian.on_non_finite=skip"]);
    let mut seen = Seen::default();
    let mut run = place.start(&recipe(&["train.seed=3"]), "parts").unwrap();
    let error = run.train(&mut seen, &StopRequest::new()).unwrap_err();
    assert!(matches!(error, TrainError::NonFinite { .. }), "{error}");
    assert!(error.to_string().contains("resumed with guardian.on_non_finite=skip"), "{error}");
    let taken = seen.steps.len() as u64;
    assert!(taken > 0 && run.newest_checkpoint().is_some_and(|path| path.ends_with(format!("step-{taken:08}"))));
    drop(run);
    let mut run = place.resume(&skipping, "parts").unwrap();
    assert_eq!(run.step(), taken);
    run.train(&mut Seen::default(), &StopRequest::new()).unwrap();
    place.train(&skipping, "whole");
    for (name, bytes) in place.checkpoint("whole", 12) {
        assert!(place.checkpoint("parts", 12)[&name] == bytes, "{name} differs");
    }
}

#[test]
fn weights_that_are_bad_themselves_are_not_kept() {
    let place = Place::new(Latents::Varied);
    // The first update is as large as the learning rate: more than fp32 holds.
    let mut run = place.start(&recipe(&["optim.lr=1e39"]), "run").unwrap();
    let error = run.train(&mut Seen::default(), &StopRequest::new()).unwrap_err();
    assert!(error.to_string().contains("beyond repair"), "{error}");
    assert_eq!(run.newest_checkpoint(), None);
}

#[test]
fn what_is_due_on_a_step_that_is_left_out_comes_all_the_same() {
    let place = Place::new(Latents::Overflowing(BAD));
    let keys = ["train.checkpoint_every=1", "train.keep_last=99", "samples.every=1", "guardian.on_non_finite=skip"];
    let seen = place.train(&recipe(&keys), "run");
    assert_eq!(seen.non_finite.iter().map(|(_, remedy)| *remedy).collect::<Vec<_>>(), [Remedy::Skipped]);
    assert_eq!(seen.steps.len(), 11);
    assert_eq!(seen.written, (1..=12).collect::<Vec<_>>());
    assert_eq!(seen.samples, (1..=12).collect::<Vec<_>>());
}

/// Panics at a step.
struct Panics(u64);

impl Observer for Panics {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        assert!(!matches!(event, Event::Step(report) if report.step == self.0), "as libtorch does without memory");
        Ok(())
    }
}

#[test]
fn a_panic_leaves_the_last_whole_step() {
    let place = Place::new(Latents::Varied);
    let recipe = recipe(&[]);
    let mut run = place.start(&recipe, "parts").unwrap();
    let result = catch_unwind(AssertUnwindSafe(|| run.train(&mut Panics(5), &StopRequest::new())));
    assert!(result.is_err());
    drop(run);
    let mut run = place.resume(&recipe, "parts").unwrap();
    assert_eq!(run.step(), 5);
    run.train(&mut Seen::default(), &StopRequest::new()).unwrap();
    place.train(&recipe, "whole");
    assert!(place.checkpoint("whole", 12) == place.checkpoint("parts", 12));
}

/// What happens when a run waits for its disk.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Waiting {
    /// Somebody makes room.
    Mended,
    /// It is asked to stop.
    Asked,
    /// Nothing.
    Left,
}

/// Stands in for a disk that refuses: a file where the checkpoints' folder is, from one step until another, or until the run waits.
struct Disk {
    seen: Seen,
    folder: PathBuf,
    refuses_at: u64,
    accepts_at: Option<u64>,
    /// The run is asked to stop at this step.
    asked_at: Option<u64>,
    waiting: Waiting,
    stop: StopRequest,
    /// How long at most it said that it waits.
    waits: Vec<Option<Duration>>,
}

impl Disk {
    fn aside(&self) -> PathBuf {
        self.folder.with_file_name("aside")
    }

    fn mend(&self) {
        fs::remove_file(&self.folder).unwrap();
        fs::rename(self.aside(), &self.folder).unwrap();
    }
}

impl Observer for Disk {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Step(report) => {
                if report.step == self.refuses_at {
                    fs::rename(&self.folder, self.aside())?;
                    fs::write(&self.folder, "")?;
                }
                if Some(report.step) == self.accepts_at {
                    self.mend();
                }
                if Some(report.step) == self.asked_at {
                    self.stop.request();
                }
            }
            Event::WaitingForRoom { at_most, .. } => {
                self.waits.push(*at_most);
                match self.waiting {
                    Waiting::Mended => self.mend(),
                    Waiting::Asked => self.stop.request(),
                    Waiting::Left => {}
                }
            }
            _ => {}
        }
        self.seen.observe(event)
    }
}

/// A run of twelve steps with a checkpoint every four, on a disk that refuses from a step on.
struct OnDisk {
    refuses_at: u64,
    accepts_at: Option<u64>,
    asked_at: Option<u64>,
    waiting: Waiting,
}

#[track_caller]
fn check_disk(case: &OnDisk, written: &[u64], failed: &[u64], waits: &[Option<Duration>]) {
    let &OnDisk { refuses_at, accepts_at, asked_at, waiting } = case;
    let place = Place::new(Latents::Varied);
    let folder = place.run_folder("run").join("checkpoints");
    let stop = StopRequest::new();
    let (seen, asked) = (Seen::default(), stop.clone());
    let mut disk = Disk { seen, folder, refuses_at, accepts_at, asked_at, waiting, stop: asked, waits: Vec::new() };
    let mut run = place.start(&recipe(&["train.checkpoint_every=4"]), "run").unwrap();
    run.retry_checkpoints_after(Duration::from_nanos(1));
    run.wait_for_room_at_most(AT_MOST);
    let result = run.train(&mut disk, &stop);
    assert_eq!(disk.seen.written, written);
    assert_eq!(disk.seen.failed.iter().map(|(step, _)| *step).collect::<Vec<_>>(), failed);
    assert_eq!(disk.waits, waits);
    match result {
        Ok(Outcome::Finished { step: 12, checkpoint }) => assert!(asked_at.is_none() && checkpoint.is_dir()),
        Ok(Outcome::Stopped { step, checkpoint }) => assert!(asked_at == Some(step) && checkpoint.is_dir()),
        Err(TrainError::Write(_)) => assert!(!waits.is_empty() && waiting != Waiting::Mended),
        other => panic!("{other:?}"),
    }
}

/// A run that is asked to stop waits so long for room.
const AT_MOST: Duration = Duration::from_millis(20);

#[test]
fn a_checkpoint_that_failed_is_tried_again_soon() {
    let case = OnDisk { refuses_at: 4, accepts_at: Some(7), asked_at: None, waiting: Waiting::Left };
    check_disk(&case, &[7, 8, 12], &[4, 5, 6], &[]);
}

#[test]
fn the_last_checkpoint_waits_for_room_until_it_is_told_not_to() {
    let case = |waiting| OnDisk { refuses_at: 12, accepts_at: None, asked_at: None, waiting };
    check_disk(&case(Waiting::Mended), &[4, 8, 12], &[], &[None]);
    check_disk(&case(Waiting::Asked), &[4, 8], &[], &[None]);
}

#[test]
fn a_place_that_is_taken_is_no_lack_of_room() {
    let place = Place::new(Latents::Varied);
    let taken = place.run_folder("run").join("checkpoints/step-00000012");
    let mut run = place.start(&recipe(&["train.checkpoint_every=4"]), "run").unwrap();
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("notes"), "somebody's").unwrap();
    // It would wait without end otherwise, or until it is told not to.
    let stop = StopRequest::new();
    let mut seen = Seen { stop_waiting: Some(stop.clone()), ..Seen::default() };
    let error = run.train(&mut seen, &stop).unwrap_err();
    assert!(matches!(error, TrainError::Taken { .. }), "{error}");
    assert!(!stop.is_requested(), "it waited for room");
    assert!(error.to_string().contains("step-00000012") && error.to_string().contains("help: move it away"), "{error}");
    assert_eq!(seen.written, [4, 8]);
    drop(run);
    // As the help says; the folder of somebody's is no checkpoint.
    fs::rename(&taken, place.run_folder("moved")).unwrap();
    let recipe = recipe(&["train.checkpoint_every=4"]);
    assert_eq!(place.resume(&recipe, "run").unwrap().step(), 8);
}

#[test]
fn a_run_that_is_stopped_waits_for_room_too() {
    let case = |waiting| OnDisk { refuses_at: 6, accepts_at: None, asked_at: Some(6), waiting };
    check_disk(&case(Waiting::Mended), &[4, 6], &[], &[Some(AT_MOST)]);
    check_disk(&case(Waiting::Asked), &[4], &[], &[Some(AT_MOST)]);
    check_disk(&case(Waiting::Left), &[4], &[], &[Some(AT_MOST)]);
}

/// Stops at a step.
struct StopAt<'a>(u64, &'a StopRequest, Seen);

impl Observer for StopAt<'_> {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        if matches!(event, Event::Step(report) if report.step == self.0) {
            self.1.request();
        }
        self.2.observe(event)
    }
}

#[test]
fn a_run_that_is_stopped_tells_of_the_window_it_was_in() {
    let place = Place::new(Latents::Varied);
    let stop = StopRequest::new();
    let mut observer = StopAt(7, &stop, Seen::default());
    place.start(&recipe(&["train.log_every=5"]), "run").unwrap().train(&mut observer, &stop).unwrap();
    let windows: Vec<(u64, u64)> = observer.2.windows.iter().map(|window| (window.step, window.steps)).collect();
    assert_eq!(windows, [(5, 5), (7, 2)]);
}

#[test]
fn held_out_latents_may_be_moved_and_not_exchanged() {
    let place = Place::new(Latents::Varied);
    let held_out = Latents::Constant.write(place.folder.path());
    let of = |folder: &str| {
        let held_out = place.folder.path().join(folder);
        recipe(&["validation.every=6", &format!("validation.held_out={{ folder = '{}' }}", held_out.display())])
    };
    let before = of(held_out.file_name().unwrap().to_str().unwrap());
    place.train(&before, "run");
    fs::rename(&held_out, place.folder.path().join("moved")).unwrap();
    assert_eq!(place.resume(&of("moved"), "run").unwrap().step(), 12);
    let other = place.resume(&of(place.latents.file_name().unwrap().to_str().unwrap()), "run");
    assert!(matches!(other, Err(TrainError::Unfit { .. })), "{other:?}");
}
