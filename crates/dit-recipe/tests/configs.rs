//! The recipes of the repository.

use std::{fs, path::Path};

use dit_config::{BlockDesign, DitConfig, LatentSize, StandardModel};
use dit_recipe::{DataShape, Plan, Recipe};

/// What is free on a card of 80 GB: the driver and what displays keep take 1 to 2 of its 79.6 GiB.
const FREE_OF_80_GB: u64 = 78 << 30;
/// Two for each multiply-accumulate; what the headers' times are of.
const FLOPS_OF_AN_H100: f64 = 400e12;

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The comment above a recipe's first section, as one line.
fn header(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix('#'));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// The number that stands before `unit`, and how many decimals it has.
#[track_caller]
fn stated(header: &str, unit: &str) -> (f64, usize) {
    let (before, _) = header.split_once(&format!(" {unit}")).unwrap_or_else(|| panic!("no {unit} in {header}"));
    let number = before.rsplit(' ').next().unwrap_or_default();
    let decimals = number.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    (number.parse().unwrap_or_else(|_| panic!("{number} {unit} in {header}")), decimals)
}

/// What stands before `unit` is `expected`, but for its last decimal, which the paper cuts off in places, and the 0.02 % by which the
/// paper's multiply-accumulates are others than those counted.
#[track_caller]
fn check_stated(file: &str, header: &str, unit: &str, expected: f64) {
    let (stated, decimals) = stated(header, unit);
    let tolerance = 0.1_f64.powi(decimals as i32) + 2e-4 * expected;
    assert!((stated - expected).abs() < tolerance, "{file}: {stated} {unit}, it is {expected}");
}

/// The keys that a header advises for a card of 80 GB.
#[track_caller]
fn advised(header: &str) -> Vec<String> {
    let (_, advice) = header
        .split_once("On one of 80 GB, by the plan (no GPU was at hand), add: ")
        .unwrap_or_else(|| panic!("no advice in {header}"));
    let words: Vec<&str> = advice.split(' ').collect();
    let keys = words.chunks_exact(2).map_while(|pair| (pair[0] == "--set").then(|| pair[1].to_owned()));
    keys.collect()
}

/// The cost that a header states is the plan's.
#[track_caller]
fn check_cost(file: &str, recipe: &Recipe, config: &DitConfig) {
    let (header, plan) = (header(&text(file)), Plan::new(recipe, config));
    check_stated(file, &header, "M parameters", plan.parameters as f64 / 1e6);
    check_stated(file, &header, "GMACs an image forward", plan.forward_macs as f64 / 1e9);
    assert!(header.contains("three times that in training") && plan.training_macs == 3 * plan.forward_macs, "{file}");
}

#[track_caller]
fn check_standard(file: &str, model: StandardModel, latent: usize, steps: u64) {
    let text = text(file);
    let recipe = Recipe::from_toml(&text, &[]).unwrap();
    let data = DataShape { latent: LatentSize::square(latent), channels: 4, num_classes: 1000 };
    let config = recipe.model_config(data).unwrap();
    assert_eq!(config.standard_model(), Some(model));
    // But for its name and its latents, a recipe of the paper is the original's.
    let original = Recipe::from_toml("", &[]).unwrap();
    let differing: Vec<String> = original.differences(&recipe).into_iter().map(|one| one.key).collect();
    let allowed = ["model.name", "model.latent", "model.num_classes", "train.steps"];
    assert!(differing.iter().all(|key| allowed.contains(&key.as_str())), "{differing:?}");
    assert_eq!(recipe.train.steps, steps);
    // The header says the command and the cost.
    assert!(text.contains(&format!("--config configs/{file}")), "{file} does not say its command");
    assert!(text.contains("FID-50K after"), "{file} does not say what to expect");
    check_cost(file, &recipe, &config);
    let header = header(&text);
    let plan = Plan::new(&recipe, &config);
    let hours = 2.0 * plan.training_macs as f64 * plan.images as f64 / FLOPS_OF_AN_H100 / 3600.0;
    match header.contains(" days of one H100 at 400 TFLOP/s") {
        true => check_stated(file, &header, "days of one H100", hours / 24.0),
        false => check_stated(file, &header, "hours of one H100", hours),
    }
    // What it advises is enough.
    let advised = advised(&header);
    let fits = |overrides: &[String]| {
        let recipe = Recipe::from_toml(&text, overrides).unwrap();
        Plan::new(&recipe, &config).on_gpu().check(&recipe, &config, FREE_OF_80_GB)
    };
    assert!(!advised.is_empty(), "{file} advises nothing for 80 GB");
    fits(&advised).unwrap_or_else(|error| panic!("{file}: {advised:?}: {error}"));
}

#[test]
fn the_standard_models_are_the_papers() {
    for model in StandardModel::ALL {
        let file = format!("{}.toml", model.to_string().to_lowercase().replace('/', "-"));
        check_standard(&file, model, 32, 400_000);
    }
    let xl = "DiT-XL/2".parse().unwrap();
    check_standard("dit-xl-2-512.toml", xl, 64, 3_000_000);
}

#[test]
fn the_demos_recipe_fits_its_latents() {
    let recipe = Recipe::from_toml(&text("fashion.toml"), &[]).unwrap();
    let data = DataShape { latent: LatentSize::square(8), channels: 4, num_classes: 10 };
    let config = recipe.model_config(data).unwrap();
    assert_eq!(config.tokens(), 16);
    check_cost("fashion.toml", &recipe, &config);
}

#[test]
fn the_four_blocks_differ_in_the_block_alone() {
    let read = |design: BlockDesign| Recipe::from_toml(&text(&format!("blocks/{design}.toml")), &[]).unwrap();
    let first = read(BlockDesign::InContext);
    for design in BlockDesign::ALL {
        let recipe = read(design);
        assert_eq!(recipe.model.block, design);
        assert!(first.differences(&recipe).iter().all(|one| one.key == "model.block"));
    }
}
