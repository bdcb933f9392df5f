//! What is in a chart's SVG.

use dit_plot::{Axis, Chart, Error, Marks, Point, Series};

fn chart(x: Axis, y: Axis, points: &[(f64, f64)]) -> Chart {
    Chart::new("a chart", x, y).with(Series::line("a", points.iter().copied()))
}

/// The texts of the picture, in order.
fn texts(svg: &str) -> Vec<String> {
    let inner = |part: &str| {
        part.split_once('>').and_then(|(_, rest)| rest.split_once("</text>")).map(|(text, _)| text.to_owned())
    };
    svg.split("<text").skip(1).filter_map(inner).collect()
}

#[track_caller]
fn check_ticks(x: Axis, points: &[(f64, f64)], expected: &[&str]) {
    let svg = chart(x, Axis::linear("y").between(0.0, 0.5), points).to_svg().unwrap();
    // The title, six ticks of y, then those of x, the two labels and the legend.
    let all = texts(&svg);
    assert_eq!(all[7..all.len() - 3], *expected);
}

#[test]
fn ticks_are_round_numbers() {
    let over = |from: f64, to: f64| [(from, 0.1), (to, 0.2)];
    check_ticks(Axis::linear("x"), &over(0.0, 10.0), &["0", "2", "4", "6", "8", "10"]);
    check_ticks(Axis::linear("x"), &over(0.0, 400_000.0), &["0", "100k", "200k", "300k", "400k"]);
    check_ticks(Axis::linear("x"), &over(-0.1, 0.2), &["-0.10", "-0.05", "0", "0.05", "0.10", "0.15", "0.20"]);
    check_ticks(Axis::linear("x"), &over(3.0, 3.0), &["1.5", "2.0", "2.5", "3.0", "3.5", "4.0", "4.5"]);
    check_ticks(Axis::linear("x"), &over(1e7, 6e7), &["10M", "20M", "30M", "40M", "50M", "60M"]);
    check_ticks(Axis::log("x"), &over(1.0, 1000.0), &["1", "2", "5", "10", "20", "50", "100", "200", "500", "1000"]);
    check_ticks(
        Axis::log("x"),
        &over(1e-5, 1.0),
        &["1e-5", "1e-4", "1e-3", "0.01", "0.1", "1"].map(|t| if t == "1e-3" { "0.001" } else { t }),
    );
    check_ticks(Axis::log("x"), &over(0.14, 0.19), &["0.14", "0.15", "0.16", "0.17", "0.18", "0.19"]);
}

#[track_caller]
fn check_refused(chart: &Chart, expected: &str) {
    let error = chart.to_svg().unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let (x, y) = (Axis::linear("x"), Axis::linear("y"));
    check_refused(&Chart::new("empty", x.clone(), y.clone()), "\"empty\" has no point");
    check_refused(&chart(x.clone(), y.clone(), &[(f64::NAN, 1.0), (1.0, f64::INFINITY)]), "has no point");
    check_refused(&chart(x.clone(), Axis::log("y"), &[(1.0, 0.0), (2.0, -1.0)]), "above 0 on a logarithmic axis");
    check_refused(&chart(x.clone(), y.clone().between(2.0, 1.0), &[(1.0, 1.0)]), "enclose nothing");
    check_refused(&chart(x, Axis::log("y").between(0.0, 1.0), &[(1.0, 1.0)]), "logarithmic scale");
}

#[test]
fn a_point_without_a_place_breaks_the_line() {
    let lines = |points: &[(f64, f64)]| {
        let svg = chart(Axis::linear("x"), Axis::log("y"), points).to_svg().unwrap();
        // The legend has a line too.
        svg.matches(r#"<path class="l s0""#).count() - 1
    };
    assert_eq!(lines(&[(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]), 1);
    assert_eq!(lines(&[(0.0, 1.0), (1.0, 2.0), (1.5, 0.0), (2.0, 3.0), (3.0, 4.0)]), 2);
    assert_eq!(lines(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0), (3.0, 4.0)]), 1);
}

#[test]
fn names_are_escaped_and_every_element_is_closed() {
    let band = (1..5).map(|i| Point { x: f64::from(i), y: 2.0, low: 1.0, high: 3.0 });
    let svg = Chart::new("a < b & \"c\"", Axis::linear("<x>"), Axis::linear("y"))
        .with(Series::band("</text><script>", band))
        .with(Series::line("dots", [(1.0, 1.0)]).drawn_as(Marks::Dots))
        .to_svg()
        .unwrap();
    assert!(svg.contains("a &lt; b &amp; &quot;c&quot;") && !svg.contains("<script>"));
    assert!(svg.contains(r#"class="b f0""#));
    for element in ["svg", "text", "g", "style", "clipPath"] {
        let opened = svg.matches(&format!("<{element}>")).count() + svg.matches(&format!("<{element} ")).count();
        assert_eq!(opened, svg.matches(&format!("</{element}>")).count(), "{element}");
    }
}

#[test]
fn long_series_stay_small_and_equal_charts_are_equal_bytes() {
    let points: Vec<(f64, f64)> = (0..200_000).map(|i| (f64::from(i), f64::from(i % 100))).collect();
    let draw = || chart(Axis::linear("x"), Axis::linear("y"), &points).to_svg();
    let svg = draw().unwrap();
    assert!(svg.len() < 100_000, "{}", svg.len());
    assert_eq!(Ok(svg), draw());
}

#[test]
fn errors_tell_charts_apart() {
    let error = Chart::new("t", Axis::linear("x"), Axis::linear("y")).to_svg().unwrap_err();
    assert_eq!(error, Error::NoPoints { title: "t".to_owned() });
}
