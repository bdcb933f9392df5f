//! Each option of a recipe does what it says.

use std::{cell::RefCell, rc::Rc};

use dit_model::Dit;
use dit_train::{BUCKETS, EvaluationReport, Evaluator, ObserverError, StopRequest};
use dit_weights::{Checkpoint, OpenOptions, SafetensorsFile, TensorSource};

use crate::support::{Latents, Place, SCALE, Seen, evaluation, recipe};

/// A run's reports, and its place.
fn train(latents: Latents, keys: &[&str]) -> (Place, Seen) {
    let place = Place::new(latents);
    let seen = place.train(&recipe(keys), "run");
    (place, seen)
}

fn tensors(place: &Place, file: &str, step: u64) -> SafetensorsFile {
    let path = place.run_folder("run").join(format!("checkpoints/step-{step:08}/{file}.safetensors"));
    SafetensorsFile::open(path).unwrap()
}

fn values(file: &SafetensorsFile, name: &str) -> Vec<f32> {
    file.read(name).unwrap().to_f32().unwrap()
}

fn all_values(file: &SafetensorsFile, prefix: &str) -> Vec<f32> {
    let names = file.infos().keys().filter(|name| name.starts_with(prefix));
    names.flat_map(|name| values(file, name)).collect()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// The first step's loss of a network that still says zero: the mean square of what it is to estimate.
#[track_caller]
fn check_first_loss(keys: &[&str], mse: f64, tolerance: f64, has_vb: bool) {
    let keys = [&["train.steps=1", "train.batch_size=96", "data.posterior=mean"][..], keys].concat();
    let (_, seen) = train(Latents::Constant, &keys);
    let losses = seen.steps[0].losses;
    let found = losses.mse.unwrap();
    assert!((found - mse).abs() < tolerance, "{keys:?}: {found}, expected {mse}");
    assert_eq!(losses.vb.is_some(), has_vb, "{keys:?}");
    let sum = found + losses.vb.unwrap_or(0.0);
    assert!((losses.total - sum).abs() < 1e-6 * sum, "{keys:?}");
}

#[test]
fn what_is_estimated_and_from_what() {
    // Raw latents of 2, of 4 in mirror images.
    let (as_is, mirrored) = ((2.0 * SCALE).powi(2), (4.0 * SCALE).powi(2));
    check_first_loss(&["diffusion.predict=epsilon"], 1.0, 0.06, true);
    check_first_loss(&["diffusion.predict=x0", "data.flip=never"], as_is, 1e-5, true);
    check_first_loss(&["diffusion.predict=x0"], (as_is + mirrored) / 2.0, 0.3, true);
    // √ᾱ ε − √(1 − ᾱ) x₀ with x₀² = 1.
    check_first_loss(&["diffusion.predict=v", "data.flip=never"], 1.0, 0.06, true);
    check_first_loss(&["diffusion.predict=x0", "data.flip=never", "diffusion.sigma=fixed-small"], as_is, 1e-5, false);
    check_first_loss(&["diffusion.predict=x0", "data.flip=never", "diffusion.sigma=fixed-large"], as_is, 1e-5, false);
}

#[test]
fn kl_losses_have_no_squared_error_and_rescaling_scales() {
    let loss = |kind: &str| train(Latents::Varied, &["train.steps=1", kind]).1.steps[0].losses;
    let (mse, rescaled) = (loss("diffusion.loss=mse"), loss("diffusion.loss=rescaled-mse"));
    let (kl, rescaled_kl) = (loss("diffusion.loss=kl"), loss("diffusion.loss=rescaled-kl"));
    let close = |a: f64, b: f64| (a - b).abs() < 1e-5 * b.abs();
    assert!(close(rescaled.vb.unwrap(), mse.vb.unwrap() * 21.0 / 1000.0) && rescaled.mse == mse.mse);
    assert!(kl.mse.is_none() && rescaled_kl.mse.is_none());
    assert!(close(kl.vb.unwrap(), mse.vb.unwrap()) && close(rescaled_kl.total, kl.total * 21.0));
}

#[test]
fn weighting_changes_what_is_minimised_but_not_what_is_reported() {
    let loss = |keys: &[&str]| {
        train(Latents::Varied, &[&["train.steps=1", "diffusion.sigma=fixed-small"][..], keys].concat()).1.steps[0]
            .losses
    };
    let (plain, weighted) = (loss(&[]), loss(&["diffusion.weighting={ min-snr = 5.0 }"]));
    assert_eq!(plain.mse, weighted.mse);
    // Weights of ε are at most 1, and below it wherever the SNR is above 5.
    assert!(weighted.total < plain.total && weighted.total > 0.0, "{weighted:?}, {plain:?}");
}

#[test]
fn timesteps_are_drawn_as_the_recipe_says() {
    let counts = |timesteps: &str| -> Vec<bool> {
        let (_, seen) = train(Latents::Varied, &["diffusion.steps=1000", "train.log_every=12", timesteps]);
        seen.windows[0].by_bucket.buckets().map(|(_, losses)| losses.is_some()).collect()
    };
    assert_eq!(counts("diffusion.timesteps=uniform"), [true; BUCKETS]);
    let mut last_two = [false; BUCKETS];
    last_two[BUCKETS - 1] = true;
    // The logistic function of 5 is 0.993.
    assert_eq!(counts("diffusion.timesteps={ logit-normal = { mean = 5.0, std = 0.1 } }"), last_two);
}

#[test]
fn learning_rates_rise_and_fall() {
    let keys = ["train.steps=8", "optim.lr=0.5e-3", "optim.warmup_steps=4", "optim.schedule=cosine"];
    let (_, seen) = train(Latents::Varied, &keys);
    let found: Vec<f64> = seen.steps.iter().map(|step| step.lr / 0.5e-3).collect();
    let half = std::f64::consts::FRAC_1_SQRT_2 / 2.0;
    let expected = [0.25, 0.5, 0.75, 1.0, 1.0, 0.5 + half, 0.5, 0.5 - half];
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
}

#[test]
fn gradients_are_clipped_after_their_norm_is_told() {
    let (_, plain) = train(Latents::Varied, &["train.steps=1"]);
    let (place, clipped) = train(Latents::Varied, &["train.steps=1", "optim.clip_grad_norm=1e-3"]);
    assert_eq!(plain.steps[0].grad_norm, clipped.steps[0].grad_norm);
    assert!(plain.steps[0].grad_norm > 0.1);
    // The first moment is a tenth of the first gradient.
    let moment = norm(&all_values(&tensors(&place, "optimizer", 1), "exp_avg."));
    assert!((moment / 1e-4 - 1.0).abs() < 1e-3, "{moment}");
}

#[test]
fn averages_follow_their_decay() {
    let (place, _) = train(Latents::Varied, &["train.steps=1", "ema.decays=[0.0, 0.75]"]);
    let start = Place::new(Latents::Varied);
    // A roll-back policy leaves a checkpoint of the beginning.
    start.train(&recipe(&["train.steps=1", "guardian.on_non_finite=roll-back", "ema.decays=[0.0, 0.75]"]), "run");
    let before = tensors(&start, "model", 0);
    let (after, zero, slow) =
        (tensors(&place, "model", 1), tensors(&place, "ema-0", 1), tensors(&place, "ema-0.75", 1));
    let mut moved = 0;
    for name in after.infos().keys() {
        let (before, after) = (values(&before, name), values(&after, name));
        assert_eq!(values(&zero, name), after, "{name}");
        for ((slow, before), after) in values(&slow, name).iter().zip(&before).zip(&after) {
            assert!((slow - (0.75 * before + 0.25 * after)).abs() < 1e-7, "{name}");
            moved += usize::from(before != after);
        }
    }
    assert!(moved > 100, "{moved}");
}

/// The largest difference of two runs' weights after 12 steps of a thousandth each.
fn apart(keys: &[&str]) -> f32 {
    let (plain, _) = train(Latents::Varied, &[]);
    let (other, _) = train(Latents::Varied, keys);
    let (plain, other) = (tensors(&plain, "model", 12), tensors(&other, "model", 12));
    // AdamW turns the rounding errors that are a key bias' whole gradient into steps.
    let names = plain.infos().keys().filter(|name| !name.ends_with("qkv.bias"));
    let differences =
        names.flat_map(|name| values(&plain, name).into_iter().zip(values(&other, name)).map(|(a, b)| (a - b).abs()));
    differences.fold(0.0, f32::max)
}

#[test]
fn memory_is_saved_without_another_result() {
    assert_eq!(apart(&[]), 0.0, "a run repeats itself");
    for keys in [&["train.accumulate=4"][..], &["train.checkpoint_activations=true"]] {
        let apart = apart(keys);
        assert!(apart < 2e-4, "{keys:?}: {apart}");
    }
}

#[test]
fn bf16_is_near_and_keeps_fp32_weights() {
    let apart = apart(&["train.precision=bf16"]);
    assert!(apart > 0.0 && apart < 0.02, "{apart}");
    let (place, _) = train(Latents::Varied, &["train.precision=bf16", "train.steps=2"]);
    for file in ["model", "ema-0.5", "optimizer"] {
        let file = tensors(&place, file, 2);
        assert!(file.infos().values().all(|info| info.dtype == dit_weights::Dtype::F32));
        // Values that bf16 does not have: the update was not rounded away.
        let exact = all_values(&file, "").into_iter().filter(|value| value.to_bits() & 0xffff != 0).count();
        assert!(exact > 1000, "{exact}");
    }
}

#[test]
fn seeds_make_other_runs() {
    assert!(apart(&["train.seed=1"]) > 1e-2);
}

/// The network that a recipe makes, from its checkpoint alone.
#[track_caller]
fn check_network(keys: &[&str], rows: usize, channels: usize) {
    let (place, _) = train(Latents::Varied, &[&["train.steps=2"][..], keys].concat());
    let path = place.run_folder("run").join("checkpoints/step-00000002/ema-0.5.safetensors");
    let checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
    let config = checkpoint.config();
    assert_eq!((config.label_rows(), config.out_channels()), (rows, channels), "{keys:?}");
    assert_eq!(checkpoint.metadata().step, Some(2));
    let named = checkpoint.class_names().is_some();
    assert_eq!(named, config.num_classes == 3, "{keys:?}");
}

#[test]
fn checkpoints_say_what_they_are_in_every_design() {
    check_network(&[], 4, 8);
    check_network(&["data.label_dropout=0.0"], 3, 8);
    check_network(&["model.unconditional=true"], 1, 8);
    check_network(&["model.num_classes=10"], 11, 8);
    check_network(&["diffusion.sigma=fixed-small"], 4, 4);
    for block in ["in-context", "cross-attention", "adaln"] {
        check_network(&[&format!("model.block={block}")], 4, 8);
    }
}

#[test]
fn labels_are_dropped_only_where_that_is_asked() {
    let null_row_moved = |keys: &[&str]| {
        let (place, _) = train(Latents::Varied, keys);
        let file = tensors(&place, "optimizer", 12);
        let moments = values(&file, "exp_avg_sq.y_embedder.embedding_table.weight");
        moments[3 * 16..].iter().any(|&moment| moment > 0.0)
    };
    assert!(null_row_moved(&["data.label_dropout=0.5"]));
    assert!(!null_row_moved(&["data.label_dropout=1e-9"]));
}

#[test]
fn what_is_due_comes_when_it_is() {
    let keys = [
        "train.steps=10",
        "train.checkpoint_every=3",
        "train.keep_last=1",
        "train.keep_every=6",
        "train.log_every=4",
        "validation.held_out={ fraction = 0.3 }",
        "validation.every=5",
        "samples.every=4",
    ];
    let (place, seen) = train(Latents::Varied, &keys);
    assert_eq!(seen.written, [3, 6, 9, 10]);
    assert_eq!(seen.samples, [4, 8]);
    assert_eq!(seen.validations.iter().map(|report| report.step).collect::<Vec<_>>(), [5, 10]);
    let windows: Vec<(u64, u64)> = seen.windows.iter().map(|window| (window.step, window.steps)).collect();
    assert_eq!(windows, [(4, 4), (8, 4), (10, 2)]);
    let kept = std::fs::read_dir(place.run_folder("run").join("checkpoints")).unwrap().count();
    assert_eq!(kept, 2, "the sixth step's for good, the tenth's as the last");
}

#[test]
fn validation_is_the_loss_of_both_weights_on_records_held_out() {
    let place = Place::new(Latents::Varied);
    let other = Latents::Constant.write(place.folder.path());
    let folder = format!("validation.held_out={{ folder = '{}' }}", other.display());
    for held_out in ["validation.held_out={ fraction = 0.3 }", &folder] {
        let keys = ["train.steps=12", "validation.every=12", "validation.records=16", "ema.decays=[0.0]", held_out];
        let seen = place.train(&recipe(&keys), &format!("run{}", held_out.len()));
        let [report] = seen.validations.as_slice() else { panic!("{:?}", seen.validations) };
        assert_eq!(report.images, 16);
        assert_eq!(report.raw, report.ema, "an average without memory is the weights");
        let mean = report.raw.mean().unwrap();
        assert!(mean.mse.unwrap() > 0.0 && mean.vb.is_some());
    }
}

/// Fails at its second call, and panics at its third.
struct Counter(Rc<RefCell<Vec<u64>>>);

impl Evaluator for Counter {
    fn evaluate(&mut self, step: u64, ema: &Dit, _: &StopRequest) -> Result<Option<EvaluationReport>, ObserverError> {
        assert!(!ema.pos_embed().requires_grad());
        self.0.borrow_mut().push(step);
        let calls = self.0.borrow().len();
        if calls == 2 {
            return Err("no memory".into());
        }
        assert!(calls != 3, "as libtorch does without memory");
        Ok(Some(evaluation(step)))
    }
}

#[test]
fn samples_are_measured_when_the_recipe_says_and_a_failure_costs_one_measurement() {
    let place = Place::new(Latents::Varied);
    let recipe = recipe(&["eval.every=3", "eval.reference=somewhere"]);
    let asked = Rc::new(RefCell::new(Vec::new()));
    let mut run = place.start(&recipe, "run").unwrap();
    run.evaluate_with(Box::new(Counter(asked.clone())));
    let mut seen = Seen::default();
    run.train(&mut seen, &StopRequest::new()).unwrap();
    assert_eq!(*asked.borrow(), [3, 6, 9, 12]);
    assert_eq!(seen.evaluations, [3, 12]);
    assert_eq!(seen.steps.len(), 12);
    place.train(&crate::support::recipe(&[]), "plain");
    let weights = |name: &str| place.checkpoint(name, 12).remove("model.safetensors");
    assert!(weights("run") == weights("plain"), "what failed has left a trace");
}

#[test]
fn a_batch_in_parts_is_measured_on_the_same_records_and_noise() {
    let measured = |accumulate: usize| {
        let accumulate = format!("train.accumulate={accumulate}");
        // 24 records: three batches, or 24 of one.
        let held_out = "validation.held_out={ fraction = 0.3 }";
        let (_, seen) = train(Latents::Varied, &["train.steps=1", held_out, "validation.every=1", &accumulate]);
        let [report] = &seen.validations[..] else { panic!("{} measurements", seen.validations.len()) };
        report.clone()
    };
    let whole = measured(1);
    assert!(whole.images >= 16, "{}", whole.images);
    for accumulate in [2, 8] {
        let parts = measured(accumulate);
        assert_eq!(parts.images, whole.images);
        for (one, other) in [(&parts.raw, &whole.raw), (&parts.ema, &whole.ema)] {
            let (one, other) = (one.mean().unwrap().total, other.mean().unwrap().total);
            assert!((one / other - 1.0).abs() < 1e-5, "{accumulate}: {one} and {other}");
        }
    }
}
