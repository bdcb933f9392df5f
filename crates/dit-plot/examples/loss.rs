//! Draws a chart with a band, a reference line and dots: `cargo run -p dit-plot --example loss > loss.svg`

use dit_plot::{Axis, Chart, Error, Marks, Point, Series};

fn main() -> Result<(), Error> {
    let value = |step: f64| 0.15 + 0.85 / (1.0 + step / 300.0);
    let wobble = |i: u32| 0.02 * f64::from(i * 7919 % 100) / 100.0;
    let steps = || (0..=3000_u32).map(|i| (i, f64::from(i) * 10.0));
    let training = steps().map(|(i, x)| {
        let y = value(x) + wobble(i);
        Point { x, y, low: y - 0.03, high: y + 0.03 }
    });
    let validation = (1..=10).map(|i| (f64::from(i) * 3000.0, value(f64::from(i) * 3000.0) + 0.03));
    let chart = Chart::new("Loss of a model & its <reference>", Axis::linear("step"), Axis::log("loss"))
        .with(Series::band("training", training))
        .with(Series::line("validation", validation).drawn_as(Marks::LineAndDots))
        .with(Series::line("expected", [(0.0, 0.17), (30000.0, 0.17)]).drawn_as(Marks::Dashed));
    print!("{}", chart.to_svg()?);
    Ok(())
}
