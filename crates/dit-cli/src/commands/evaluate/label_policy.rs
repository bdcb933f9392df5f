//! How the classes of samples were chosen, as far as the samples tell: numbers of class-conditional samples depend on it.

use std::path::Path;

use dit_eval::Pictures;
use dit_sample::Recipe;

/// In words; `unknown` where nothing tells.
pub fn of(path: &Path, pictures: &Pictures) -> anyhow::Result<String> {
    if let Some(counts) = pictures.class_counts()? {
        return Ok(describe(&counts));
    }
    Ok(recipe_of(path).map_or("unknown".to_owned(), |recipe| {
        let mut classes = recipe.classes.clone();
        classes.sort_unstable();
        classes.dedup();
        let guidance = recipe.settings.cfg_scale;
        format!("by recipe: {} classes in its batch, guidance {guidance}, seed {}", classes.len(), recipe.settings.seed)
    }))
}

fn describe(counts: &[usize]) -> String {
    let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
    match counts.len() {
        classes if least == most => format!("balanced: {classes} classes of {most}"),
        classes => format!("as they come: {classes} classes of {least} to {most}"),
    }
}

/// The recipe of the first picture in a folder, if it was sampled by this program.
fn recipe_of(folder: &Path) -> Option<Recipe> {
    let mut names: Vec<_> = folder.read_dir().ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    names.retain(|path| path.extension().is_some_and(|ending| ending == "png"));
    names.sort();
    let text = dit_image::read_recipe(names.first()?).ok()?;
    Recipe::from_json(&text).ok()
}
