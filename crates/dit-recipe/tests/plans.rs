//! What runs cost, and what helps where they do not fit.

use dit_config::{DitConfig, LatentSize, VaeConfig, VaeSpec};
use dit_recipe::{DataShape, Plan, Recipe};

const GIB: u64 = 1 << 30;

fn planned(overrides: &[&str]) -> (Recipe, DitConfig, Plan) {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let recipe = Recipe::from_toml("", &overrides).unwrap();
    let data = DataShape { latent: LatentSize::square(32), channels: 4, num_classes: 1000 };
    let config = recipe.model_config(data).unwrap();
    let plan = Plan::new(&recipe, &config);
    (recipe, config, plan)
}

#[test]
fn what_belongs_to_parameters_is_exact() {
    let (_, config, plan) = planned(&["ema.decays=[0.99, 0.999]", "train.steps=10"]);
    let bytes = 4 * config.parameters();
    assert_eq!((plan.memory.weights, plan.memory.gradients, plan.memory.moments), (bytes, bytes, 2 * bytes));
    assert_eq!(plan.memory.averages, 2 * bytes);
    assert_eq!(plan.images, 2560);
    assert_eq!(plan.training_macs, 3 * config.macs());
    let (_, _, recomputed) = planned(&["train.checkpoint_activations=true"]);
    assert_eq!(recomputed.training_macs, 4 * config.macs());
    assert!(recomputed.memory.activations * 8 < plan.memory.activations);
}

#[test]
fn gradients_in_bf16_are_kept_in_fp32_too() {
    for (accumulate, bytes) in [(1, 6), (4, 10)] {
        let (_, config, plan) = planned(&["train.precision=bf16", &format!("train.accumulate={accumulate}")]);
        assert_eq!(plan.memory.weights, 6 * config.parameters());
        assert_eq!(plan.memory.gradients, bytes * config.parameters(), "{accumulate}");
    }
}

#[test]
fn a_gpu_holds_more_than_the_run() {
    let (recipe, config, plan) = planned(&[]);
    let on_gpu = plan.clone().on_gpu();
    let more = on_gpu.memory.total() - plan.memory.total();
    assert!(more > 0 && more == on_gpu.memory_otherwise.total() - plan.memory_otherwise.total());
    let just_enough = plan.memory.total();
    assert!(plan.check(&recipe, &config, just_enough).is_ok());
    assert!(on_gpu.check(&recipe, &config, just_enough).is_err());
}

#[test]
fn what_watches_a_run_is_counted() {
    let codec = VaeConfig::new(VaeSpec::default()).unwrap();
    let watching = |keys: &[&str]| {
        let (recipe, config, plan) = planned(keys);
        plan.with_codec(&recipe, &codec, &config).memory.watching
    };
    let (_, config, _) = planned(&[]);
    let network = 4 * config.parameters();
    assert_eq!(watching(&[]), 0);
    assert_eq!(watching(&["validation.every=9", "validation.held_out={ fraction = 0.1 }"]), network);
    assert!(watching(&["samples.every=9"]) > network + 4 * codec.parameters());
    let bf16 = watching(&["train.precision=bf16", "validation.every=9", "validation.held_out={ fraction = 0.1 }"]);
    assert_eq!(bf16, network / 2);
}

#[test]
fn held_out_records_are_counted_where_they_are_kept() {
    let check = |keys: &[&str], records: u64, expected: u64| {
        let (recipe, config, plan) = planned(keys);
        let with = plan.clone().with_held_out(&recipe, &config, records);
        for (with, without) in [(with.memory, plan.memory), (with.memory_otherwise, plan.memory_otherwise)] {
            // 4 × 32 × 32 values of latents, and as many of noise.
            assert_eq!(with.watching - without.watching, expected * 2 * 4 * 4096, "{keys:?}");
        }
    };
    let fraction = ["validation.every=9", "validation.held_out={ fraction = 0.1 }"];
    let folder = ["validation.every=9", "validation.held_out={ folder = 'a' }", "validation.records=50000"];
    check(&[], 1_000_000, 0);
    check(&fraction, 1_000_000, 2048);
    check(&fraction, 1001, 101);
    check(&folder, 1000, 50_000);
}

#[track_caller]
fn check_fit(overrides: &[&str], available: u64, expected: Result<(), &[&str]>) {
    let (recipe, config, plan) = planned(overrides);
    match (plan.check(&recipe, &config, available), expected) {
        (Ok(()), Ok(())) => {}
        (Err(error), Err(expected)) => {
            let error = error.to_string();
            assert!(expected.iter().all(|expected| error.contains(expected)), "{error}");
        }
        (found, expected) => panic!("{found:?}, expected {expected:?}"),
    }
}

#[test]
fn the_key_that_helps_is_named_with_a_value_that_fits() {
    check_fit(&[], 230 * GIB, Ok(()));
    check_fit(&[], 130 * GIB, Err(&["130.0 GiB are free", "train.accumulate=2", "checkpoint_activations=true"]));
    check_fit(&["train.accumulate=2"], 130 * GIB, Ok(()));
    check_fit(&["train.checkpoint_activations=true"], 100 * GIB, Ok(()));
    check_fit(&[], 15 * GIB, Err(&["train.checkpoint_activations=true and train.accumulate="]));
    check_fit(&[], 10 * GIB, Err(&["nothing makes it fit", "smaller model"]));
}

#[test]
fn recomputing_is_not_recommended_where_it_saves_nothing() {
    let geometry = ["model.hidden=1152", "model.depth=1", "model.heads=16", "model.patch=2"];
    let (recipe, config, plan) = planned(&geometry);
    assert!(plan.memory_otherwise.activations >= plan.memory.activations);
    let error = plan.check(&recipe, &config, plan.memory.total() - 1).unwrap_err().to_string();
    assert!(error.contains("train.accumulate=2") && !error.contains("checkpoint_activations"), "{error}");
}
