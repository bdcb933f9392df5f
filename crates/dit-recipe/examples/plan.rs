//! What a recipe costs on ImageNet's latents: `cargo run -p dit-recipe --example plan -- configs/dit-b-4.toml`

use dit_config::LatentSize;
use dit_recipe::{DataShape, Plan, Recipe};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text = match std::env::args().nth(1) {
        Some(path) => std::fs::read_to_string(path)?,
        None => "[model]\nname = \"DiT-S/2\"".to_owned(),
    };
    let recipe = Recipe::from_toml(&text, &[])?;
    let side = recipe.model.latent.unwrap_or(LatentSize::square(32));
    let config = recipe.model_config(DataShape { latent: side, channels: 4, num_classes: 1000 })?;
    let plan = Plan::new(&recipe, &config);
    println!("{config}: {} parameters, {:.2} GMACs an image", plan.parameters, plan.forward_macs as f64 / 1e9);
    println!("memory: {:.1} GiB, of which activations {:.1}", gib(plan.memory.total()), gib(plan.memory.activations));
    println!("recomputing blocks: {:.1} GiB", gib(plan.memory_otherwise.total()));
    println!("at 100 TMAC/s: {:.0} images/s", plan.images_per_second(1e14));
    Ok(())
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
