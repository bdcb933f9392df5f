//! The charts and the tables.

use std::fmt::Write;

use anyhow::Result;
use dit_plot::{Axis, Chart, Marks, Point as Mark, Series};

use super::{Point, WALKS, Walk};
use crate::measured::Quality;

fn mark(x: f64, quality: &Quality) -> Mark {
    Mark { x, y: quality.fid.value, low: quality.fid.low, high: quality.fid.high }
}

/// FID over the guidance scale, with its interval.
pub fn guidance_chart(guided: &[Point], samples: u64) -> Result<String> {
    let title = format!("The demo's FID of {samples} samples (demo features) over guidance");
    let points = guided.iter().map(|point| mark(point.cfg_scale, &point.quality));
    let fid = Series::band("dpmpp-2m, 20 steps", points).drawn_as(Marks::LineAndDots);
    Ok(Chart::new(title, Axis::linear("guidance scale (1 is none)"), Axis::linear("FID")).with(fid).to_svg()?)
}

/// FID over the number of steps, a line a sampler.
pub fn steps_chart(plain: &[Point], samples: u64) -> Result<String> {
    let title = format!("The demo's FID of {samples} samples (demo features) over steps, no guidance");
    let mut chart = Chart::new(title, Axis::log("steps"), Axis::log("FID"));
    for Walk { sampler, .. } in WALKS {
        let of = plain.iter().filter(|point| point.sampler == sampler);
        let points: Vec<Mark> = of.map(|point| mark(f64::from(point.steps), &point.quality)).collect();
        if !points.is_empty() {
            chart = chart.with(Series::band(sampler, points).drawn_as(Marks::LineAndDots));
        }
    }
    Ok(chart.to_svg()?)
}

/// What no sample can be better than.
pub struct Floor {
    /// Of the test pictures: what perfect samples would have.
    pub pictures: Quality,
    /// Of what the codec makes of them: what a perfect transformer's would have, where it was measured.
    pub reconstructions: Option<Quality>,
}

/// Both tables, and what they are of.
pub fn tables(guided: &[Point], plain: &[Point], floor: &Floor, samples: u64, sha256: &str) -> Result<String> {
    let mut text = format!(
        "{samples} samples a point, of the checkpoint with SHA-256 `{}…`.\n\n",
        sha256.chars().take(12).collect::<String>()
    );
    let head = "FID | KID · 10³ | precision | recall |\n";
    writeln!(text, "| guidance | {head}|---|---|---|---|---|")?;
    for point in guided {
        writeln!(text, "| {} | {} |", point.cfg_scale, numbers(&point.quality))?;
    }
    if let Some(reconstructions) = &floor.reconstructions {
        writeln!(text, "| the 10,000 test pictures, encoded and decoded | {} |", numbers(reconstructions))?;
    }
    writeln!(text, "| the 10,000 test pictures | {} |\n", numbers(&floor.pictures))?;
    writeln!(text, "| sampler | steps | {head}|---|---|---|---|---|---|")?;
    for Walk { sampler, spacing, .. } in WALKS {
        for point in plain.iter().filter(|point| point.sampler == sampler) {
            writeln!(text, "| {sampler} | {spacing}{} | {} |", point.steps, numbers(&point.quality))?;
        }
    }
    Ok(text)
}

fn numbers(quality: &Quality) -> String {
    let Quality { fid, kid, precision, recall } = quality;
    [fid.text(1.0, 3), kid.text(1e3, 2), precision.text(1.0, 3), recall.text(1.0, 3)].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measured::Estimate;

    fn point(sampler: &'static str, steps: u32, cfg_scale: f64, fid: f64) -> Point {
        let of = |value: f64| Estimate { value, low: value - 0.1, high: value + 0.1 };
        Point {
            sampler,
            steps,
            cfg_scale,
            quality: Quality { fid: of(fid), kid: of(0.01), precision: of(0.7), recall: of(0.6) },
        }
    }

    #[test]
    fn every_point_is_in_its_table_and_its_chart() {
        let guided = [point("dpmpp-2m", 20, 1.0, 9.0), point("dpmpp-2m", 20, 2.0, 7.0)];
        let plain = [point("ddim", 10, 1.0, 19.0), point("unipc", 10, 1.0, 12.0), point("ddim", 50, 1.0, 11.0)];
        let [reconstructions, pictures] = [0.4, 0.1].map(|fid| point("", 0, 1.0, fid).quality);
        let floor = Floor { pictures, reconstructions: Some(reconstructions) };
        let text = tables(&guided, &plain, &floor, 500, "0123456789abcdef").unwrap();
        for expected in [
            "500 samples a point, of the checkpoint with SHA-256 `0123456789ab…`",
            "| 2 | 7.000 ± 0.100 | 10.00 ± 100.00 | 0.700 ± 0.100 | 0.600 ± 0.100 |",
            "| the 10,000 test pictures, encoded and decoded | 0.400 ± 0.100 |",
            "| the 10,000 test pictures | 0.100 ± 0.100 |",
            "| ddim | 10 | 19.000 ± 0.100 |",
            "| ddim | 50 | 11.000 ± 0.100 |",
            "| unipc | lambda10 | 12.000 ± 0.100 |",
        ] {
            assert!(text.contains(expected), "no {expected} in\n{text}");
        }
        let svg = steps_chart(&plain, 500).unwrap();
        assert!(svg.contains("ddim") && svg.contains("unipc") && !svg.contains("ddpm"));
        assert!(guidance_chart(&guided, 500).unwrap().contains("guidance scale"));
    }
}
