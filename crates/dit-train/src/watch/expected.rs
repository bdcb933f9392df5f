use std::fmt;

use dit_config::{BlockDesign, DitConfig, LatentSize, Size, StandardModel};
use dit_plot::Point;
use dit_recipe::{Recipe, Sections};

/// How far a run's loss may lie from a published one, as a share of it: the published ones are read off curves.
pub const TOLERANCE: f64 = 0.05;

/// Points into which the way from one known loss to the next is divided.
const PARTS: i32 = 16;

/// What the training loss of a published model was at a step, about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpectedLoss {
    /// Steps taken.
    pub step: u64,
    /// The loss, squared error plus bound, averaged over many batches.
    pub loss: f64,
}

/// What is known of a published model's training loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReferenceLoss {
    /// The model's name.
    pub model: &'static str,
    /// What it says of the run's.
    pub bearing: Bearing,
    /// At known steps, in their order.
    pub known: &'static [ExpectedLoss],
    /// What it came down to after many more steps.
    pub late: Option<f64>,
}

/// What a published model's loss says of a run's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearing {
    /// The run trains that model.
    Same,
    /// It is a smaller model's: the run's should be below.
    Above,
    /// It is a larger model's: the run's should be above.
    Below,
}

const S8: ReferenceLoss = ReferenceLoss {
    model: "DiT-S/8",
    bearing: Bearing::Same,
    known: &[ExpectedLoss { step: 5_000, loss: 0.19 }, ExpectedLoss { step: 100_000, loss: 0.17 }],
    late: None,
};
const XL2: ReferenceLoss = ReferenceLoss {
    model: "DiT-XL/2",
    bearing: Bearing::Same,
    known: &[ExpectedLoss { step: 2_500, loss: 0.175 }],
    late: Some(0.14),
};

/// The losses that the original's recipe is known to give on ImageNet at 256 pixels. They are known of DiT-S/8 and DiT-XL/2, between
/// which the other standard models lie. Empty for other models and data, and for a recipe whose loss is another or comes down
/// otherwise.
pub fn expected_loss(recipe: &Recipe, config: &DitConfig) -> &'static [ReferenceLoss] {
    let original = Sections::default();
    let data = config.latent == LatentSize::square(32) && config.num_classes == 1000 && config.in_channels == 4;
    let model = config.block == BlockDesign::AdaLnZero && config.mlp_ratio == 4.0;
    let learned = recipe.diffusion == original.diffusion && recipe.data == original.data;
    let steps = recipe.train.batch_size == original.train.batch_size && recipe.optim == original.optim;
    if !(data && model && learned && steps) {
        return &[];
    }
    match config.standard_model() {
        None => &[],
        Some(StandardModel { size: Size::S, patch: 8 }) => &[S8],
        Some(StandardModel { size: Size::XL, patch: 2 }) => &[XL2],
        Some(_) => &[ReferenceLoss { bearing: Bearing::Above, ..S8 }, ReferenceLoss { bearing: Bearing::Below, ..XL2 }],
    }
}

impl ReferenceLoss {
    /// Its name beside a curve.
    pub fn label(&self) -> String {
        let model = self.model;
        match self.bearing {
            Bearing::Same => format!("{model} as published, ±{:.0} %", 100.0 * TOLERANCE),
            Bearing::Above => format!("upper bound: {model}, ±{:.0} %", 100.0 * TOLERANCE),
            Bearing::Below => format!("lower bound: {model}, ±{:.0} %", 100.0 * TOLERANCE),
        }
    }

    /// From the first known step to the last, or to `reached`: the loss, taken as straight over the logarithm of the step between
    /// known ones, and its tolerance.
    pub(crate) fn band(&self, reached: u64) -> Vec<Point> {
        let mut points = Vec::new();
        for pair in self.known.windows(2) {
            let [from, to] = pair else { continue };
            points.extend((0..PARTS).map(|part| {
                let share = f64::from(part) / f64::from(PARTS);
                let step = from.step as f64 * (to.step as f64 / from.step as f64).powf(share);
                around(step, from.loss + share * (to.loss - from.loss))
            }));
        }
        points.extend(self.known.last().map(|last| around(last.step as f64, last.loss)));
        points.retain(|point| point.x <= reached as f64);
        points
    }

    /// From the last known step on: somewhere between what it was there and what it came down to, as losses fall.
    pub(crate) fn late_band(&self, reached: u64) -> Vec<Point> {
        match (self.known.last(), self.late) {
            (Some(last), Some(late)) if reached > last.step => {
                let high = around(last.step as f64, last.loss).high;
                [last.step, reached].map(|step| Point { high, ..around(step as f64, late) }).to_vec()
            }
            _ => Vec::new(),
        }
    }
}

/// A loss within its tolerance.
fn around(step: f64, loss: f64) -> Point {
    Point { x: step, y: loss, low: loss * (1.0 - TOLERANCE), high: loss * (1.0 + TOLERANCE) }
}

/// What is known, without what it says of the run.
impl fmt::Display for ReferenceLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} about", self.model)?;
        for (place, ExpectedLoss { step, loss }) in self.known.iter().enumerate() {
            write!(f, "{} {loss} at step {step}", if place == 0 { "" } else { "," })?;
        }
        match self.late {
            Some(late) => write!(f, ", {late} late"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reference: &ReferenceLoss, reached: u64, ends: Option<(f64, f64)>, late: Option<(f64, f64, f64)>) {
        let band = reference.band(reached);
        let found = band.last().map(|point| (point.x, point.y));
        let close = |(a, b): (f64, f64), (c, d): (f64, f64)| (a - c).abs() < 1e-6 * c && (b - d).abs() < 1e-9;
        assert!(found.zip(ends).map_or(found == ends, |(found, ends)| close(found, ends)), "{found:?}, not {ends:?}");
        assert!(band.iter().all(|point| (point.high / point.low - 1.05 / 0.95).abs() < 1e-9));
        assert!(band.windows(2).all(|pair| pair[0].x < pair[1].x && pair[0].y > pair[1].y));
        let found = reference.late_band(reached).last().map(|point| (point.x, point.low, point.high));
        let bound = |(x, low, high): (f64, f64, f64)| (x, (low * 1e6).round(), (high * 1e6).round());
        assert_eq!(found.map(bound), late.map(bound));
    }

    #[test]
    fn bands_end_where_the_run_is_or_nothing_more_is_known() {
        check(&S8, 4_999, None, None);
        check(&S8, 5_000, Some((5_000.0, 0.19)), None);
        // The middle between 5,000 and 100,000 in logarithms.
        check(&S8, 22_361, Some((22_360.68, 0.18)), None);
        check(&S8, 400_000, Some((100_000.0, 0.17)), None);
        check(&XL2, 2_500, Some((2_500.0, 0.175)), None);
        check(&XL2, 9_000, Some((2_500.0, 0.175)), Some((9_000.0, 0.133, 0.18375)));
    }

    #[test]
    fn what_is_known_is_said() {
        assert_eq!(S8.to_string(), "DiT-S/8 about 0.19 at step 5000, 0.17 at step 100000");
        assert_eq!(XL2.to_string(), "DiT-XL/2 about 0.175 at step 2500, 0.14 late");
    }
}
