//! What a run keeps where the hashes of its files are late, or cannot be found.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use dit_diffusion::SeededNoise;
use dit_image::read_recipe;
use dit_sample::{Error, HashError, OutputPaths, Provenance, SourceHashes, run};

use crate::support::{go_on, open, pipeline, plan};

/// Hashes that never come.
struct Failing {
    /// How often nothing is known of that.
    hidden: AtomicUsize,
}

impl SourceHashes for Failing {
    fn fill(&self, _: &mut Provenance) -> Result<(), HashError> {
        Err("the disk is gone".into())
    }

    fn check(&self) -> Result<(), HashError> {
        let left = self.hidden.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| "the disk is gone".into())
    }
}

/// A run whose hashes fail, after `hidden` looks at them, finishes `pictures` and keeps them.
#[track_caller]
fn check_failing(hidden: usize, with_dir: bool, pictures: usize) {
    let (folder, pipeline) = (tempfile::tempdir().unwrap(), pipeline());
    let (plan, at) = (plan(&pipeline), |name: &str| folder.path().join(name));
    let paths = OutputPaths {
        png: Some(at("grid.png")),
        npz: Some(at("all.npz")),
        latents: Some(at("z.safetensors")),
        dir: with_dir.then(|| at("each")),
        ..OutputPaths::default()
    };
    let outputs = open(&paths, &plan, Failing { hidden: hidden.into() });
    let error = run(&pipeline, &plan, &SeededNoise::new(0), &outputs, &mut go_on).unwrap_err();
    assert!(matches!(error, Error::Provenance(_)), "{error}");
    let kept = outputs.finish_early().unwrap();
    assert_eq!((kept.pictures, kept.of), (pictures, 6));
    assert!(kept.files.iter().all(|path| path.is_file()), "{kept:?}");
    if pictures == 0 {
        assert!(kept.files.is_empty(), "{kept:?}");
        return;
    }
    // Nothing that would claim to be made by a recipe.
    assert!(at("grid.png").is_file() && read_recipe(at("grid.png")).is_err());
    let each = (0..6).filter(|image| at(&format!("each/{image:06}.png")).is_file()).count();
    assert_eq!(each, if with_dir { pictures } else { 0 });
    let parts = ["all.npz.interrupted", "z.safetensors.interrupted"].map(at);
    let whole = [&paths.npz, &paths.latents].map(|path| path.clone().unwrap());
    if pictures == 6 {
        assert!(kept.parts.is_empty() && whole.iter().all(|path| kept.files.contains(path)), "{kept:?}");
    } else {
        assert_eq!(kept.parts, parts);
    }
}

#[test]
fn hashes_that_fail_cost_no_finished_picture() {
    check_failing(0, true, 0); // known before the first step
    check_failing(1, false, 2); // known between batches
    check_failing(2, false, 4);
    check_failing(9, true, 2); // found out where the first picture is written
    check_failing(9, false, 6); // found out where the grid is written
}

/// Hashes that nobody should ask for.
struct Unwanted;

impl SourceHashes for Unwanted {
    fn fill(&self, _: &mut Provenance) -> Result<(), HashError> {
        Err("asked for".into())
    }
}

#[test]
fn arrays_and_animations_need_no_hashes() {
    let (folder, pipeline) = (tempfile::tempdir().unwrap(), pipeline());
    let (plan, at) = (plan(&pipeline), |name: &str| Some(folder.path().join(name)));
    let paths = OutputPaths {
        npz: at("all.npz"),
        latents: at("z.safetensors"),
        animation: at("all.png"),
        ..OutputPaths::default()
    };
    assert!(!paths.needs_hashes());
    let outputs = open(&paths, &plan, Unwanted);
    run(&pipeline, &plan, &SeededNoise::new(0), &outputs, &mut go_on).unwrap();
    let kept = outputs.finish().unwrap();
    assert!(kept.files.len() == 3 && kept.failure.is_none(), "{kept:?}");
    for paths in [
        OutputPaths { png: at("grid.png"), ..OutputPaths::default() },
        OutputPaths { dir: at("each"), ..OutputPaths::default() },
        OutputPaths { trajectory: at("walks.png"), ..OutputPaths::default() },
    ] {
        assert!(paths.needs_hashes());
        let outputs = open(&paths, &plan, Unwanted);
        let error = run(&pipeline, &plan, &SeededNoise::new(0), &outputs, &mut go_on).unwrap_err();
        assert!(error.to_string().contains("asked for"), "{error}");
        // Whoever does not ask before is told at the end, when all is written.
        let kept = outputs.finish().unwrap();
        assert!(matches!(kept.failure, Some(Error::Provenance(_))), "{kept:?}");
    }
}

/// Hashes that come once they are let go.
struct Late {
    begun: Sender<()>,
    go: Mutex<Receiver<()>>,
    were_let_go: Arc<AtomicUsize>,
}

impl SourceHashes for Late {
    fn fill(&self, _: &mut Provenance) -> Result<(), HashError> {
        self.begun.send(())?;
        // Nobody can let them go who waits for the outputs: after a while that is told, not waited for.
        if self.go.lock().unwrap().recv_timeout(Duration::from_secs(60)).is_ok() {
            self.were_let_go.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[track_caller]
fn check_late(paths: &OutputPaths) {
    let pipeline = pipeline();
    let plan = plan(&pipeline);
    let ((begun, has_begun), (let_go, go)) = (channel(), channel());
    let were_let_go = Arc::new(AtomicUsize::new(0));
    let outputs = open(paths, &plan, Late { begun, go: Mutex::new(go), were_let_go: Arc::clone(&were_let_go) });
    let other = outputs.clone();
    let waiting = thread::spawn(move || {
        has_begun.recv().unwrap();
        other.found(); // locks them
        let _ = let_go.send(());
    });
    run(&pipeline, &plan, &SeededNoise::new(0), &outputs, &mut go_on).unwrap();
    waiting.join().unwrap();
    assert_eq!(were_let_go.load(Ordering::Relaxed), 1, "hashes were waited for with the outputs locked");
    let files = outputs.finish().unwrap().files;
    assert!(files.iter().all(|path| read_recipe(path).is_ok()), "{files:?}");
}

#[test]
fn outputs_can_be_completed_while_hashes_are_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (png, dir) = (Some(folder.path().join("grid.png")), Some(folder.path().join("each")));
    check_late(&OutputPaths { png, ..OutputPaths::default() });
    let each = OutputPaths { dir, ..OutputPaths::default() };
    check_late(&each);
    check_late(&each); // which are there now, and are compared
}
