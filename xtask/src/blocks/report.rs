//! The charts and the tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use anyhow::Result;
use dit_config::{BlockDesign, DitConfig, DitSpec, LatentSize, Numerics, Sigma};
use dit_plot::{Axis, Chart, Point, Series};

use super::{Trained, quality};
use crate::measured::{Estimate, Quality};

/// FID-50K of XL/2 after 400,000 steps without guidance: Peebles & Xie 2023, table 4.
fn paper_fid(design: BlockDesign) -> f64 {
    match design {
        BlockDesign::InContext => 35.24,
        BlockDesign::CrossAttention => 26.14,
        BlockDesign::AdaLn => 25.21,
        BlockDesign::AdaLnZero => 19.47,
    }
}

/// The network of configs/blocks on the demo's latents.
fn network(design: BlockDesign) -> Result<DitConfig> {
    Ok(DitConfig::new(DitSpec {
        block: design,
        hidden: 128,
        depth: 4,
        heads: 4,
        patch: 2,
        mlp_ratio: 4.0,
        in_channels: 4,
        latent: LatentSize::square(8),
        num_classes: 10,
        label_dropout: 0.1,
        sigma: Sigma::Learned,
        numerics: Numerics::Original,
    })?)
}

/// Every design's validation loss, its mean over the seeds in a band from the lowest to the highest.
pub fn loss_chart(all: &[Trained]) -> Result<String> {
    let losses = || all.iter().flat_map(|trained| &trained.curves).flat_map(|curve| &curve.validation);
    let lowest = losses().fold(f64::INFINITY, |lowest, (_, loss)| lowest.min(*loss));
    // The first steps, which every design takes alike, would flatten the rest.
    let loss = Axis::linear("loss of the averaged weights").between(0.99 * lowest, 1.15 * lowest);
    let title = format!("Block designs: loss on held-out records, {}", seeds(all.iter().map(|of| of.curves.len())));
    let mut chart = Chart::new(title, Axis::linear("step"), loss);
    for Trained { design, curves, .. } in all {
        let steps = curves.first().map_or(&[][..], |curve| &curve.validation);
        let point = |(at, (step, _)): (usize, &(u64, f64))| {
            let losses: Vec<f64> = curves.iter().filter_map(|curve| Some(curve.validation.get(at)?.1)).collect();
            let y = mean(&losses);
            let (low, high) = losses.iter().fold((y, y), |(low, high), loss| (low.min(*loss), high.max(*loss)));
            Point { x: *step as f64, y, low, high }
        };
        chart = chart.with(Series::band(design.name(), steps.iter().enumerate().map(point)));
    }
    Ok(chart.to_svg()?)
}

/// Of how many seeds points are, in words.
fn seeds(counts: impl Iterator<Item = usize>) -> String {
    let counts: BTreeSet<usize> = counts.collect();
    let word = |count: &usize| match count {
        1 => "one".to_owned(),
        2 => "two".to_owned(),
        more => more.to_string(),
    };
    match (counts.first(), counts.last()) {
        (Some(1), Some(1)) => "one seed each".to_owned(),
        (Some(least), Some(most)) if least == most => format!("{} seeds each", word(most)),
        (Some(least), Some(most)) => format!("{} to {} seeds each", word(least), word(most)),
        _ => "no seed".to_owned(),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The losses, in the order of the paper's table.
pub fn loss_table(all: &[Trained]) -> Result<String> {
    let final_loss = |trained: &Trained| mean(&trained.curves.iter().map(super::Curve::last).collect::<Vec<_>>());
    let ours: Vec<f64> = all.iter().map(final_loss).collect();
    let papers: Vec<f64> = all.iter().map(|trained| paper_fid(trained.design)).collect();
    let steps = all.iter().flat_map(|trained| &trained.curves).map(super::Curve::steps).max().unwrap_or(0);
    let mut text = format!(
        "| design | parameters | MMACs an image | held-out loss after {steps} steps, each seed | mean | our order | the paper's order (FID) |\n|---|---|---|---|---|---|---|\n"
    );
    for (trained, loss) in all.iter().zip(&ours) {
        let config = network(trained.design)?;
        let each: Vec<String> = trained.curves.iter().map(|curve| format!("{:.5}", curve.last())).collect();
        let fid = paper_fid(trained.design);
        writeln!(
            text,
            "| {} | {:.2} M | {:.1} | {} | {loss:.5} | {} | {} ({fid}) |",
            trained.design,
            config.parameters() as f64 / 1e6,
            config.macs() as f64 / 1e6,
            each.join(", "),
            rank(&ours, *loss),
            rank(&papers, fid),
        )?;
    }
    Ok(text)
}

/// The FID of every kept checkpoint, its mean over the seeds in a band from the lowest to the highest.
pub fn fid_chart(all: &[Trained]) -> Result<String> {
    let (_, few) = quality::counts();
    let mut fids = Vec::new();
    for Trained { design, qualities, .. } in all {
        // A run may have kept fewer checkpoints than another.
        let mut by_step = BTreeMap::<u64, Vec<f64>>::new();
        for (step, quality) in qualities.iter().flat_map(|run| &run.over_training) {
            by_step.entry(*step).or_default().push(quality.fid.value);
        }
        fids.push((design, by_step));
    }
    let of = seeds(fids.iter().flat_map(|(_, by_step)| by_step.values().map(Vec::len)));
    let title = format!("Block designs: FID of {few} samples in the demo's features, {of}");
    let mut chart = Chart::new(title, Axis::linear("step"), Axis::log("FID, no guidance"));
    for (design, by_step) in &fids {
        let point = |(step, fids): (&u64, &Vec<f64>)| {
            let y = mean(fids);
            let (low, high) = fids.iter().fold((y, y), |(low, high), fid| (low.min(*fid), high.max(*fid)));
            Point { x: *step as f64, y, low, high }
        };
        chart = chart.with(Series::band(design.name(), by_step.iter().map(point)));
    }
    Ok(chart.to_svg()?)
}

/// What was measured of the last checkpoints' samples, and of the test pictures.
pub fn quality_table(all: &[Trained], floor: &Quality) -> Result<String> {
    let (many, _) = quality::counts();
    let mut text = format!(
        "| {many} samples of | guidance | FID, each seed | KID · 10³ | precision | recall | our order (FID) | the paper's order (FID) |\n|---|---|---|---|---|---|---|---|\n"
    );
    let papers: Vec<f64> = all.iter().map(|trained| paper_fid(trained.design)).collect();
    for (at, scale) in quality::GUIDANCE.iter().enumerate() {
        let of = |trained: &Trained| -> Vec<Quality> {
            trained.qualities.iter().filter_map(|run| run.last.get(at).copied()).collect()
        };
        let mean_fid = |trained: &Trained| mean(&of(trained).iter().map(|each| each.fid.value).collect::<Vec<_>>());
        let fids: Vec<f64> = all.iter().map(mean_fid).collect();
        for (trained, fid) in all.iter().zip(&fids) {
            let each = |pick: fn(&Quality) -> Estimate, scale: f64, digits: usize| -> String {
                let texts: Vec<String> = of(trained).iter().map(|each| pick(each).text(scale, digits)).collect();
                texts.join(", ")
            };
            let paper = paper_fid(trained.design);
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                trained.design,
                if *scale == 1.0 { "none".to_owned() } else { format!("{scale:.1}") },
                each(|of| of.fid, 1.0, 3),
                each(|of| of.kid, 1e3, 2),
                each(|of| of.precision, 1.0, 3),
                each(|of| of.recall, 1.0, 3),
                rank(&fids, *fid),
                if *scale == 1.0 { format!("{} ({paper})", rank(&papers, paper)) } else { "–".to_owned() },
            )?;
        }
    }
    writeln!(
        text,
        "| the test set | – | {} | {} | {} | {} | – | – |",
        floor.fid.text(1.0, 3),
        floor.kid.text(1e3, 2),
        floor.precision.text(1.0, 3),
        floor.recall.text(1.0, 3),
    )?;
    Ok(text)
}

fn rank(values: &[f64], value: f64) -> usize {
    1 + values.iter().filter(|other| **other < value).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::{Curve, quality::RunQuality};

    fn quality(fid: f64) -> Quality {
        let of = |value: f64| Estimate { value, low: value - 0.1, high: value + 0.1 };
        Quality { fid: of(fid), kid: of(0.01), precision: of(0.7), recall: of(0.6) }
    }

    fn trained(design: BlockDesign, losses: [f64; 2], fids: [f64; 2]) -> Trained {
        let curve = |loss: f64| Curve { validation: vec![(250, 2.0 * loss), (500, loss)] };
        let run = |fid: f64| RunQuality {
            last: vec![quality(fid), quality(100.0 - fid)],
            over_training: vec![(250, quality(2.0 * fid)), (500, quality(fid))],
        };
        Trained { design, curves: losses.map(curve).into(), qualities: fids.map(run).into() }
    }

    fn all() -> [Trained; 4] {
        [
            trained(BlockDesign::InContext, [0.25, 0.23], [30.0, 31.0]),
            trained(BlockDesign::CrossAttention, [0.22, 0.2], [20.0, 21.0]),
            trained(BlockDesign::AdaLn, [0.21, 0.23], [19.0, 21.0]),
            trained(BlockDesign::AdaLnZero, [0.19, 0.2], [12.0, 13.0]),
        ]
    }

    fn column(table: &str, at: usize) -> Vec<&str> {
        table.lines().skip(2).filter_map(|line| line.split(" | ").nth(at)).collect()
    }

    #[test]
    fn designs_are_ranked_by_their_mean_loss() {
        let table = loss_table(&all()).unwrap();
        assert_eq!(column(&table, 5), ["4", "2", "3", "1"]);
        assert!(table.contains("0.25000, 0.23000 | 0.24000 | 4 | 4 (35.24) |"), "{table}");
    }

    #[test]
    fn designs_are_ranked_by_their_mean_fid_for_each_guidance() {
        let table = quality_table(&all(), &quality(1.5)).unwrap();
        assert_eq!(column(&table, 6), ["4", "3", "2", "1", "1", "2", "3", "4", "–"]);
        assert!(table.contains("| none | 30.000 ± 0.100, 31.000 ± 0.100 | 10.00 ± 100.00, "), "{table}");
        assert!(table.contains("| the test set | – | 1.500 ± 0.100 |"), "{table}");
    }

    #[track_caller]
    fn check_title(all: &[Trained], loss: &str, fid: &str) {
        for (svg, expected) in [(loss_chart(all).unwrap(), loss), (fid_chart(all).unwrap(), fid)] {
            assert!(svg.contains(&format!(", {expected}</text>")), "no {expected} in {}", &svg[..300]);
        }
    }

    #[test]
    fn titles_say_of_how_many_seeds_points_are() {
        let mut all = all();
        check_title(&all, "two seeds each", "two seeds each");
        // Of one run, a checkpoint was not kept.
        all[2].qualities[1].over_training.remove(0);
        check_title(&all, "two seeds each", "one to two seeds each");
        for trained in &mut all {
            trained.curves.truncate(1);
            trained.qualities.truncate(1);
        }
        check_title(&all, "one seed each", "one seed each");
    }

    #[test]
    fn every_design_has_its_line() {
        for svg in [loss_chart(&all()).unwrap(), fid_chart(&all()).unwrap()] {
            assert!(BlockDesign::ALL.iter().all(|design| svg.contains(design.name())));
        }
    }
}
