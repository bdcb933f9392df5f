//! How the classes of samples were chosen, as far as the samples tell: numbers of class-conditional samples depend on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use dit_eval::Pictures;
use dit_sample::{LabelPolicy, Recipe, Shows};

/// In words; `unknown` where nothing tells.
pub fn of(path: &Path, pictures: &Pictures) -> anyhow::Result<String> {
    if let Some(counts) = pictures.class_counts()? {
        return Ok(describe(&counts));
    }
    Ok(of_recipes(recipes_in(path), pictures.len()).unwrap_or("unknown".to_owned()))
}

fn describe(counts: &[usize]) -> String {
    let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
    match counts.len() {
        classes if least == most => format!("balanced: {classes} classes of {most}"),
        classes => format!("as they come: {classes} classes of {least} to {most}"),
    }
}

/// What the recipes of single pictures say, of `pictures` in all; none if they say nothing.
fn of_recipes(recipes: impl Iterator<Item = Recipe>, pictures: usize) -> Option<String> {
    let mut counts = BTreeMap::new();
    let mut ways = BTreeSet::new();
    for recipe in recipes {
        let Some(class) = class_of(&recipe) else { continue };
        *counts.entry(class).or_insert(0_usize) += 1;
        let policy = match recipe.labels {
            LabelPolicy::Balanced => "class after class",
            LabelPolicy::Random => "drawn at random",
        };
        ways.insert(format!("{policy}, guidance {}, seed {}", recipe.settings.cfg_scale, recipe.settings.seed));
    }
    let told: usize = counts.values().sum();
    let way = match ways.len() {
        0 => return None,
        1 => ways.first()?.clone(),
        many => format!("{many} runs that differ in policy, guidance or seed"),
    };
    let missing = match pictures.saturating_sub(told) {
        0 => String::new(),
        missing => format!("; {missing} pictures do not tell"),
    };
    let counts: Vec<usize> = counts.into_values().collect();
    Some(format!("{} (by recipe: {way}{missing})", describe(&counts)))
}

/// The class of the one picture that a recipe's file shows.
fn class_of(recipe: &Recipe) -> Option<u32> {
    let Shows::Image(image) = recipe.shows else { return None };
    let place = usize::try_from(image.checked_sub(recipe.first_image)?).ok()?;
    recipe.classes.get(place).copied()
}

/// The recipes of the pictures in a folder that this program sampled.
fn recipes_in(folder: &Path) -> impl Iterator<Item = Recipe> {
    let entries = folder.read_dir().ok().into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let named = paths.filter(|path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png")));
    named.filter_map(|path| Recipe::from_json(&dit_image::read_recipe(path).ok()?).ok())
}

#[cfg(test)]
mod tests {
    use dit_sample::{OpenedAs, Provenance, Settings, Source};

    use super::*;

    fn recipe(labels: LabelPolicy, cfg_scale: f64, classes: &[u32], shows: Shows) -> Recipe {
        let source = || Source { name: String::new(), sha256: String::new() };
        let provenance = Provenance {
            software: String::new(),
            checkpoint: source(),
            opened_as: OpenedAs::default(),
            vae: Some(source()),
            settings: Settings { cfg_scale, ..Settings::default() },
            noise: None,
            weaker: None,
            classifier: None,
            init: None,
            labels,
            device: String::new(),
            threads: 1,
            batch_size: 4,
        };
        provenance.recipe(8, classes, shows).unwrap()
    }

    #[track_caller]
    fn check(labels: LabelPolicy, scales: &[f64], classes: &[u32], pictures: usize, expected: Option<&str>) {
        let images = 8..8 + classes.len() as u64;
        let each = |image| recipe(labels, scales[image as usize % scales.len()], classes, Shows::Image(image));
        assert_eq!(of_recipes(images.map(each), pictures).as_deref(), expected);
    }

    #[test]
    fn every_recipe_counts() {
        use LabelPolicy::{Balanced, Random};
        let balanced = "balanced: 2 classes of 2 (by recipe: class after class, guidance 4, seed 0)";
        check(Balanced, &[4.0], &[3, 3, 5, 5], 4, Some(balanced));
        let random = "as they come: 2 classes of 1 to 3 (by recipe: drawn at random, guidance 1.5, seed 0)";
        check(Random, &[1.5], &[3, 5, 5, 5], 4, Some(random));
        let mixed = "balanced: 2 classes of 2 (by recipe: 2 runs that differ in policy, guidance or seed; 6 pictures do not tell)";
        check(Balanced, &[4.0, 1.0], &[3, 3, 5, 5], 10, Some(mixed));
        check(Balanced, &[4.0], &[], 4, None);
        // A grid shows all at once.
        assert_eq!(of_recipes([recipe(Balanced, 4.0, &[1, 2], Shows::Grid)].into_iter(), 1), None);
    }
}
