//! Eight colour wheels: one PNG sheet with a recipe, one archive for NumPy.
//!
//! `cargo run -p dit-image --example sheet [FOLDER]`

use std::path::PathBuf;

use dit_files::ensure_folder;
use dit_image::{Caption, GRID_COLUMNS, NpzWriter, Picture, grid, read_recipe, write_png};

const SIDE: u32 = 64;

/// A disc whose hue turns with the angle, in [−1, 1], (3, SIDE, SIDE).
fn wheel(turn: f32) -> Vec<f32> {
    let centre = (SIDE as f32 - 1.0) / 2.0;
    let mut values = Vec::new();
    for channel in 0..3 {
        for at in 0..SIDE * SIDE {
            let (x, y) = ((at % SIDE) as f32 - centre, (at / SIDE) as f32 - centre);
            let angle = y.atan2(x) + turn + std::f32::consts::TAU * channel as f32 / 3.0;
            let inside = x.hypot(y) < centre;
            values.push(if inside { angle.cos() } else { -1.0 });
        }
    }
    values
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    ensure_folder(&folder)?;

    let pictures =
        (0..8).map(|index| Picture::from_chw(&wheel(index as f32 * 0.8), SIDE, SIDE)).collect::<Result<Vec<_>, _>>()?;

    let sheet = folder.join("sheet.png");
    let caption = Caption::default()
        .with_software("dit-image example")
        .with_description("eight colour wheels")
        .with_recipe(r#"{"wheels":8,"turn":0.8}"#);
    write_png(&sheet, &grid(&pictures, GRID_COLUMNS)?, &caption)?;
    println!("{}: {}", sheet.display(), read_recipe(&sheet)?);

    let archive = folder.join("wheels.npz");
    let mut npz = NpzWriter::create(&archive, pictures.len() as u64, SIDE, SIDE)?;
    for picture in &pictures {
        npz.push(picture)?;
    }
    npz.finish()?;
    println!("{}: arr_0 ({}, {SIDE}, {SIDE}, 3)", archive.display(), pictures.len());
    Ok(())
}
