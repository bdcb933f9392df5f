//! What is written of a run beside what computes, and what of that goes wrong.

use std::{fs, io, ops::ControlFlow, path::Path, thread, time::Duration};

use dit_diffusion::SeededNoise;
use dit_image::read_png;
use dit_sample::{Error, HashError, OutputPaths, Provenance, RunProgress, SharedOutputs, SourceHashes, run};

use crate::support::{go_on, open, pipeline, plan};

struct Known;

impl SourceHashes for Known {
    fn fill(&self, _: &mut Provenance) -> Result<(), HashError> {
        Ok(())
    }
}

fn folder(at: &Path) -> OutputPaths {
    OutputPaths { dir: Some(at.to_owned()), ..OutputPaths::default() }
}

/// A run into `paths` that `observe` sees.
fn outcome(
    paths: &OutputPaths,
    mut observe: impl FnMut(RunProgress) -> ControlFlow<()>,
) -> (SharedOutputs, Result<(), Error>) {
    let pipeline = pipeline();
    let plan = plan(&pipeline);
    let outputs = open(paths, &plan, Known);
    let result = run(&pipeline, &plan, &SeededNoise::new(0), &outputs, &mut observe).map(drop);
    (outputs, result)
}

#[test]
fn every_output_has_the_same_pictures_in_the_same_order() {
    let at = tempfile::tempdir().unwrap();
    let (each, npz) = (at.path().join("each"), at.path().join("all.npz"));
    let paths = OutputPaths { npz: Some(npz.clone()), ..folder(&each) };
    // The second time half of them are there: taken over between those that are computed.
    for there in [0, 4] {
        for image in there..6 {
            let _gone = fs::remove_file(each.join(format!("{image:06}.png")));
        }
        let (outputs, result) = outcome(&paths, go_on);
        result.unwrap();
        assert_eq!(outputs.found(), there);
        assert!(outputs.finish().unwrap().failure.is_none());
        let pictures: Vec<u8> =
            (0..6).flat_map(|image| read_png(each.join(format!("{image:06}.png"))).unwrap().rgb().to_vec()).collect();
        let bytes = fs::read(&npz).unwrap();
        assert!(bytes.windows(pictures.len()).any(|window| window == pictures), "{there} were there");
    }
}

fn is_png(file: &io::Result<fs::DirEntry>) -> bool {
    file.as_ref().is_ok_and(|file| file.path().extension().is_some_and(|extension| extension == "png"))
}

#[test]
fn what_cannot_be_written_is_the_error_and_the_others_are_kept() {
    let at = tempfile::tempdir().unwrap();
    let each = at.path().join("each");
    let (outputs, result) = outcome(&folder(&each), |progress| {
        if progress.steps_done == 3 && each.is_dir() {
            // Those of the first batch may still be on their way.
            let arrived = || fs::read_dir(&each).unwrap().filter(is_png).count() == 2;
            assert!((0..12_000).any(|_| arrived() || {
                thread::sleep(Duration::from_millis(5));
                false
            }));
            fs::rename(&each, at.path().join("moved")).unwrap();
            fs::write(&each, "in the way").unwrap();
        }
        ControlFlow::Continue(())
    });
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Image(_) | Error::Write(_)), "{error:?}");
    assert!(error.to_string().contains("each"), "{error}");
    // The third is finished, and has no place; the fourth may be.
    let kept = outputs.finish_early().unwrap();
    assert!((3..=4).contains(&kept.pictures), "{kept:?}");
    assert_eq!(kept.files.len(), 2);
    assert_eq!(fs::read_dir(at.path().join("moved")).unwrap().count(), 2);
}

#[test]
fn nothing_more_is_computed_for_outputs_that_were_completed() {
    let at = tempfile::tempdir().unwrap();
    for paths in [
        folder(&at.path().join("each")),
        OutputPaths { latents: Some(at.path().join("z.safetensors")), ..OutputPaths::default() },
    ] {
        let pipeline = pipeline();
        let plan = plan(&pipeline);
        let outputs = open(&paths, &plan, Known);
        let mut steps = 0;
        let result = run(&pipeline, &plan, &SeededNoise::new(0), &outputs, &mut |progress| {
            steps = progress.steps_done;
            if steps == 3 {
                let _kept = outputs.finish_early();
            }
            ControlFlow::Continue(())
        });
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        assert_eq!(steps, 4, "no batch after the one at hand");
    }
}

#[test]
fn two_runs_do_not_share_outputs() {
    let at = tempfile::tempdir().unwrap();
    let pipeline = pipeline();
    let plan = plan(&pipeline);
    let outputs = open(&folder(at.path()), &plan, Known);
    let noise = SeededNoise::new(0);
    let mut refused = 0;
    run(&pipeline, &plan, &noise, &outputs, &mut |_| {
        let second = run(&pipeline, &plan, &noise, &outputs, &mut |_| ControlFlow::Continue(()));
        refused += usize::from(matches!(second, Err(Error::SharedByRuns)));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(refused > 6);
    assert_eq!(outputs.finish().unwrap().pictures, 6);
}

#[test]
fn who_stops_keeps_all_that_was_finished() {
    for stop_at in 1..=6 {
        let at = tempfile::tempdir().unwrap();
        let (outputs, result) = outcome(&folder(at.path()), |progress| match progress.images_done {
            done if done == stop_at => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        assert_eq!(outputs.finish_early().unwrap().pictures, stop_at);
        assert_eq!(fs::read_dir(at.path()).unwrap().count(), stop_at);
    }
}
