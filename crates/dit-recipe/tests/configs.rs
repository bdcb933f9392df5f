//! The recipes of the repository.

use std::{fs, path::Path};

use dit_config::{BlockDesign, LatentSize, StandardModel};
use dit_recipe::{DataShape, Plan, Recipe};

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
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
    let plan = Plan::new(&recipe, &config);
    assert!(text.contains(&format!("{:.0} M parameters", plan.parameters as f64 / 1e6)), "{file}: parameters");
    assert!(text.contains("FID-50K after"), "{file} does not say what to expect");
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
    assert_eq!(recipe.model_config(data).unwrap().tokens(), 16);
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
