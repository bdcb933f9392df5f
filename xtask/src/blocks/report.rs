//! The chart and the table.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use dit_config::{BlockDesign, DitConfig, DitSpec, LatentSize, Numerics, Sigma};
use dit_plot::{Axis, Chart, Point, Series};

use super::Trained;

/// Between these lines of the page, the table is replaced.
const BEGIN: &str = "<!-- written by cargo xtask blocks -->";
const END: &str = "<!-- end -->";

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
pub fn chart(all: &[Trained]) -> Result<String> {
    let losses = || all.iter().flat_map(|trained| &trained.curves).flat_map(|curve| &curve.validation);
    let lowest = losses().fold(f64::INFINITY, |lowest, (_, loss)| lowest.min(*loss));
    // The first steps, which every design takes alike, would flatten the rest.
    let loss = Axis::linear("loss of the averaged weights").between(0.99 * lowest, 1.15 * lowest);
    let mut chart = Chart::new("Block designs: loss on held-out records, two seeds each", Axis::linear("step"), loss);
    for Trained { design, curves } in all {
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

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The table, in the order of the paper's.
pub fn table(all: &[Trained]) -> Result<String> {
    let final_loss = |trained: &Trained| mean(&trained.curves.iter().map(super::Curve::last).collect::<Vec<_>>());
    let rank = |values: &[f64], value: f64| 1 + values.iter().filter(|other| **other < value).count();
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

/// `page` with its table replaced.
pub fn with_table(page: &str, table: &str) -> Result<String> {
    let missing = || format!("the page has no line `{BEGIN}` with `{END}` below");
    let (before, rest) = page.split_once(BEGIN).with_context(missing)?;
    let (old, after) = rest.split_once(END).with_context(missing)?;
    ensure!(!old.contains("\n#"), "a heading stands between `{BEGIN}` and `{END}`");
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Curve;

    fn trained(design: BlockDesign, losses: [f64; 2]) -> Trained {
        let curve = |loss: f64| Curve { validation: vec![(250, 2.0 * loss), (500, loss)] };
        Trained { design, curves: losses.map(curve).into() }
    }

    #[test]
    fn designs_are_ranked_by_their_mean_loss() {
        let all = [
            trained(BlockDesign::InContext, [0.25, 0.23]),
            trained(BlockDesign::CrossAttention, [0.22, 0.2]),
            trained(BlockDesign::AdaLn, [0.21, 0.23]),
            trained(BlockDesign::AdaLnZero, [0.19, 0.2]),
        ];
        let table = table(&all).unwrap();
        let ranks: Vec<&str> = table.lines().skip(2).filter_map(|line| line.split(" | ").nth(5)).collect();
        assert_eq!(ranks, ["4", "2", "3", "1"]);
        assert!(table.contains("0.25000, 0.23000 | 0.24000 | 4 | 4 (35.24) |"), "{table}");
        let svg = chart(&all).unwrap();
        assert!(BlockDesign::ALL.iter().all(|design| svg.contains(design.name())));
    }

    #[test]
    fn only_the_table_is_replaced() {
        let page = format!("# Blocks\n\n{BEGIN}\nold\n{END}\nand more\n");
        let changed = with_table(&page, "| new |\n").unwrap();
        assert_eq!(changed, format!("# Blocks\n\n{BEGIN}\n| new |\n{END}\nand more\n"));
        assert_eq!(with_table(&changed, "| new |\n").unwrap(), changed);
        assert!(with_table("# Blocks\n", "").is_err());
        assert!(with_table(&format!("{BEGIN}\n# A heading\n{END}"), "").is_err());
    }
}
