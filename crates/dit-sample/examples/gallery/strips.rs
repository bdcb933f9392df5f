//! One picture file for each thing that can be seen.

use std::path::Path;

use dit_image::write_animation;
use dit_sample::{CfgSchedule, Guidance, Interpolation, SamplerKind, Settings, Spacing, Start};

use crate::{
    Result,
    studio::{Studio, quick, write_rows},
};

const CLASSES: [u32; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

pub fn make(studio: &Studio, images: &Path) -> Result<()> {
    solvers(studio, images)?;
    guidance(studio, images)?;
    interpolation(studio, images)?;
    editing(studio, images)
}

fn solvers(studio: &Studio, images: &Path) -> Result<()> {
    let rows = [
        (SamplerKind::Ddpm, "250"),
        (SamplerKind::Ddim { eta: 0.0 }, "20"),
        (SamplerKind::DpmPlusPlus2M, "lambda20"),
        (SamplerKind::DpmPlusPlus3M, "lambda20"),
        (SamplerKind::DpmPlusPlus2MSde, "lambda20"),
        (SamplerKind::UniPc, "lambda10"),
        (SamplerKind::Heun, "lambda10"),
        (SamplerKind::EulerAncestral, "50"),
    ];
    let mut pictures = Vec::new();
    for (sampler, steps) in rows {
        pictures.extend(studio.pictures(Settings { sampler, steps: steps.parse()?, ..quick() }, &CLASSES)?);
    }
    let what = "a row each: ddpm 250, ddim 20, dpmpp-2m, -3m and -2m-sde lambda20, unipc lambda10, heun lambda10, euler-ancestral 50";
    write_rows(&images.join("solvers.png"), &pictures, CLASSES.len(), what)
}

fn guidance(studio: &Studio, images: &Path) -> Result<()> {
    let with = |cfg_scale, guidance| Settings { cfg_scale, guidance, ..quick() };
    let none = Guidance::default;
    let rows = [
        with(1.0, none()),
        with(4.0, none()),
        with(4.0, Guidance { interval: Some([0.3, 5.0]), ..none() }),
        with(4.0, Guidance { schedule: CfgSchedule::Cosine, ..none() }),
        with(4.0, Guidance { rescale: 0.7, ..none() }),
        with(4.0, Guidance { negative_class: Some(6), ..none() }),
        with(1.0, Guidance { classifier_scale: Some(4.0), ..none() }),
    ];
    let mut pictures = Vec::new();
    for settings in rows {
        pictures.extend(studio.pictures(settings, &CLASSES)?);
    }
    let what = "a row each: none, cfg 4, cfg 4 for sigma 0.3 to 5, cfg 4 cosine, cfg 4 rescaled by 0.7, cfg 4 away from Shirt, classifier 4";
    write_rows(&images.join("guidance.png"), &pictures, CLASSES.len(), what)
}

fn interpolation(studio: &Studio, images: &Path) -> Result<()> {
    let frames = 9;
    let classes = Settings { interpolate: Some(Interpolation::Classes { from: 7, to: 9, frames }), ..quick() };
    let seeds = Settings { interpolate: Some(Interpolation::Seeds { to: 1, frames }), ..quick() };
    let first = studio.pictures(classes, &[7; 9])?;
    let mut pictures = first.clone();
    pictures.extend(studio.pictures(seeds, &[8; 9])?);
    let what = "above from class 7 to 9, below from seed 0 to 1 of class 8";
    write_rows(&images.join("interpolation.png"), &pictures, frames as usize, what)?;
    let there_and_back: Vec<_> = first.iter().chain(first.iter().rev()).cloned().collect();
    write_animation(images.join("interpolation-animated.png"), &there_and_back, 150)?;
    Ok(())
}

fn editing(studio: &Studio, images: &Path) -> Result<()> {
    let start = studio.pictures(quick(), &[7])?;
    let shoe = start.first().ok_or("no picture")?;
    let weights = std::env::args_os().nth(1).ok_or("no weights")?;
    let studio = Studio::starting_from(weights.as_ref(), shoe)?;
    let settings = |start| Settings {
        sampler: SamplerKind::Ddim { eta: 0.0 },
        steps: Spacing::even(100),
        seed: 5,
        start,
        ..quick()
    };
    let mut pictures = vec![shoe.clone()];
    for strength in [0.2, 0.4, 0.6, 0.8, 1.0] {
        pictures.extend(studio.pictures(settings(Start::Noised { strength }), &[9])?);
    }
    let inverted = Start::Inverted { strength: 1.0, class: Some(7) };
    pictures.extend(studio.pictures(Settings { cfg_scale: 1.0, ..settings(inverted) }, &[7])?);
    pictures.extend(studio.pictures(settings(inverted), &[9])?);
    let what = "a sneaker; as a boot at strength 0.2, 0.4, 0.6, 0.8, 1; inverted and back as a sneaker, as a boot";
    let count = pictures.len();
    write_rows(&images.join("editing.png"), &pictures, count, what)
}
