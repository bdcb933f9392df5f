//! How near solvers come to the exact flow.

use std::{fmt::Write, fs, path::Path};

use dit_image::Picture;
use dit_plot::{Axis, Chart, Marks, Series};
use dit_sample::{SamplerKind, Settings, Spacing};

use crate::{
    Result,
    studio::{Studio, quick},
};

/// Two pictures of each class.
const CLASSES: [u32; 20] = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9];

pub fn make(studio: &Studio, docs: &Path) -> Result<()> {
    let ddim = SamplerKind::Ddim { eta: 0.0 };
    let sample = |sampler, steps| studio.pictures(Settings { sampler, steps, ..quick() }, &CLASSES);
    let exact = sample(ddim, Spacing::All)?;
    let curves = [
        ("ddim", ddim, "", &[5, 10, 20, 50, 100, 250][..], 1),
        ("dpmpp-2m, even", SamplerKind::DpmPlusPlus2M, "", &[5, 10, 20, 50], 1),
        ("dpmpp-2m, karras", SamplerKind::DpmPlusPlus2M, "karras", &[5, 10, 20, 50], 1),
        ("dpmpp-2m, lambda", SamplerKind::DpmPlusPlus2M, "lambda", &[5, 10, 20, 50], 1),
        ("dpmpp-3m, lambda", SamplerKind::DpmPlusPlus3M, "lambda", &[5, 10, 20, 50], 1),
        ("unipc, lambda", SamplerKind::UniPc, "lambda", &[5, 10, 20, 50], 1),
        ("heun, lambda", SamplerKind::Heun, "lambda", &[5, 10, 20], 2),
    ];
    let mut table = "| sampler | steps | network calls | PSNR |\n|---|---|---|---|\n".to_owned();
    let title = "Likeness to 1,000 steps of DDIM, demo model";
    let mut chart = Chart::new(title, Axis::log("network calls"), Axis::linear("PSNR, dB"));
    for (name, sampler, spacing, counts, calls) in curves {
        let mut points = Vec::new();
        for &count in counts {
            let psnr = psnr(&sample(sampler, format!("{spacing}{count}").parse()?)?, &exact);
            let passes = if calls == 2 { 2 * count - 1 } else { count };
            writeln!(table, "| {sampler} | {spacing}{count} | {passes} | {psnr:.1} dB |")?;
            println!("{name} {count}: {psnr:.1} dB");
            points.push((f64::from(passes), psnr));
        }
        chart = chart.with(Series::line(name, points).drawn_as(Marks::LineAndDots));
    }
    fs::write(docs.join("images/samplers.svg"), chart.to_svg()?)?;
    fs::write(docs.join("samplers-table.md"), table)?;
    Ok(())
}

/// Over all bytes of all pictures.
fn psnr(pictures: &[Picture], exact: &[Picture]) -> f64 {
    let bytes = |pictures: &[Picture]| pictures.iter().flat_map(|picture| picture.rgb().to_vec()).collect::<Vec<u8>>();
    let (a, b) = (bytes(pictures), bytes(exact));
    let squares: f64 = a.iter().zip(&b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 * a.len() as f64 / squares).log10()
}
