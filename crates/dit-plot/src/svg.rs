//! The picture itself.

use std::fmt::{self, Write};

use crate::{
    Chart, Error, Marks, Series,
    axis::Span,
    number,
    thin::{Spot, thin},
};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const RIGHT: f64 = 20.0;
const BOTTOM: f64 = 52.0;
/// Top of the legend's first row.
const LEGEND_TOP: f64 = 44.0;
const LEGEND_ROW: f64 = 18.0;
/// A generous estimate of a character's width at 12 pixels.
const CHARACTER: f64 = 6.8;

/// Eight colours that stay apart for colour-blind eyes (after Okabe & Ito), each for light and for dark grounds.
const COLOURS: [(&str, &str); 8] = [
    ("#0063a8", "#56b4e9"),
    ("#c44e00", "#ff9955"),
    ("#00775a", "#33c9a0"),
    ("#9e3d78", "#e59ac6"),
    ("#8a6500", "#e6b800"),
    ("#444444", "#cccccc"),
    ("#5b3fb0", "#b09cff"),
    ("#a01818", "#ff7b7b"),
];

/// The rectangle in which values are shown, and what they are shown on.
struct Field {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    x: Span,
    y: Span,
}

impl Field {
    fn at_x(&self, value: f64) -> Option<f64> {
        self.x.share(value).map(|share| self.left + share * self.width)
    }

    fn at_y(&self, value: f64) -> Option<f64> {
        // Far beyond the field is as good as anywhere beyond it, and short to write.
        self.y.share(value).map(|share| self.top + (1.0 - share.clamp(-10.0, 11.0)) * self.height)
    }
}

pub(crate) fn draw(chart: &Chart) -> Result<String, Error> {
    let (x_scale, y_scale) = (chart.x.scale(), chart.y.scale());
    let no_points = || Error::NoPoints { title: chart.title.clone() };
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let shown = || points().filter(|point| x_scale.shows(point.x) && y_scale.shows(point.y));
    if shown().next().is_none() {
        return Err(no_points());
    }
    let x = chart.x.span(shown().map(|point| point.x))?.ok_or_else(no_points)?;
    let y = chart.y.span(shown().flat_map(|point| [point.y, point.low, point.high]))?.ok_or_else(no_points)?;

    let y_texts = number::texts(&y.ticks);
    let widest = y_texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let left = 34.0 + CHARACTER * widest as f64;
    let legend = legend(chart, left);
    let top = LEGEND_TOP + LEGEND_ROW * legend.rows as f64 + 6.0;
    let field = Field { left, top, width: WIDTH - left - RIGHT, height: HEIGHT - top - BOTTOM, x, y };

    let mut svg = String::new();
    // Writing to a String does not fail.
    let _ = write_all(&mut svg, chart, &field, &y_texts, &legend);
    Ok(svg)
}

fn write_all(svg: &mut String, chart: &Chart, field: &Field, y_texts: &[String], legend: &Legend<'_>) -> fmt::Result {
    let Field { left, top, width, height, .. } = *field;
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{}">"#,
        Escaped(&chart.title)
    )?;
    write_style(svg)?;
    writeln!(
        svg,
        r#"<clipPath id="field"><rect x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"/></clipPath>"#
    )?;
    writeln!(svg, r#"<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>"#)?;
    writeln!(svg, r#"<text class="title" x="{left:.1}" y="26">{}</text>"#, Escaped(&chart.title))?;
    write_axes(svg, chart, field, y_texts)?;
    writeln!(svg, r#"<g clip-path="url(#field)">"#)?;
    for (place, series) in chart.series.iter().enumerate() {
        write_series(svg, series, colour_of(series, place), field)?;
    }
    writeln!(svg, "</g>")?;
    legend.write(svg)?;
    writeln!(svg, "</svg>")
}

fn write_style(svg: &mut String) -> fmt::Result {
    svg.push_str("<style>\ntext{font:12px system-ui,'Helvetica Neue',Arial,sans-serif;fill:#333}.title{font-size:15px;font-weight:600}\n");
    svg.push_str(".ground{fill:#fff}.grid{stroke:#e4e4e4}.axis{stroke:#888}.grid,.axis{stroke-width:1;fill:none}\n");
    svg.push_str(".l{fill:none;stroke-width:1.6;stroke-linejoin:round}.d{stroke-dasharray:6 4}.b{fill-opacity:.18;stroke:none}\n");
    for (index, (light, _)) in COLOURS.iter().enumerate() {
        writeln!(svg, ".s{index}{{stroke:{light}}}.f{index}{{fill:{light}}}")?;
    }
    svg.push_str("@media(prefers-color-scheme:dark){text{fill:#ddd}.ground{fill:#16191d}.grid{stroke:#2c3138}\n");
    for (index, (_, dark)) in COLOURS.iter().enumerate() {
        writeln!(svg, ".s{index}{{stroke:{dark}}}.f{index}{{fill:{dark}}}")?;
    }
    svg.push_str("}\n</style>\n");
    Ok(())
}

fn write_axes(svg: &mut String, chart: &Chart, field: &Field, y_texts: &[String]) -> fmt::Result {
    let Field { left, top, width, height, .. } = *field;
    let (right, bottom) = (left + width, top + height);
    for (tick, text) in field.y.ticks.iter().zip(y_texts) {
        if let Some(y) = field.at_y(*tick) {
            writeln!(svg, r#"<path class="grid" d="M{left:.1} {y:.1}H{right:.1}"/>"#)?;
            writeln!(svg, r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{text}</text>"#, left - 7.0, y + 4.0)?;
        }
    }
    for (tick, text) in field.x.ticks.iter().zip(number::texts(&field.x.ticks)) {
        if let Some(x) = field.at_x(*tick) {
            writeln!(svg, r#"<path class="grid" d="M{x:.1} {top:.1}V{bottom:.1}"/>"#)?;
            writeln!(svg, r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{text}</text>"#, bottom + 18.0)?;
        }
    }
    writeln!(svg, r#"<path class="axis" d="M{left:.1} {top:.1}V{bottom:.1}H{right:.1}"/>"#)?;
    let middle = left + width / 2.0;
    let label = Escaped(chart.x.label());
    writeln!(svg, r#"<text x="{middle:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#, bottom + 40.0)?;
    let middle = top + height / 2.0;
    let label = Escaped(chart.y.label());
    writeln!(svg, r#"<text transform="translate(16 {middle:.1}) rotate(-90)" text-anchor="middle">{label}</text>"#)
}

fn colour_of(series: &Series, place: usize) -> usize {
    series.colour.unwrap_or(place) % COLOURS.len()
}

fn write_series(svg: &mut String, series: &Series, colour: usize, field: &Field) -> fmt::Result {
    let spot = |point: &crate::Point| {
        let (x, y) = (field.at_x(point.x)?, field.at_y(point.y)?);
        Some(Spot { x, y, low: field.at_y(point.low).unwrap_or(y), high: field.at_y(point.high).unwrap_or(y) })
    };
    let spots: Vec<Option<Spot>> = series.points.iter().map(spot).collect();
    for run in spots.split(Option::is_none) {
        let run = thin(&run.iter().flatten().copied().collect::<Vec<_>>());
        if run.is_empty() {
            continue;
        }
        if series.has_band() {
            svg.push_str(r#"<path class="b f"#);
            write!(svg, r#"{colour}" d="M"#)?;
            let upper = run.iter().map(|spot| (spot.x, spot.high));
            let lower = run.iter().rev().map(|spot| (spot.x, spot.low));
            upper.chain(lower).try_for_each(|(x, y)| write!(svg, "{x:.1} {y:.1} "))?;
            svg.push_str("Z\"/>\n");
        }
        let line = matches!(series.marks, Marks::Line | Marks::Dashed | Marks::LineAndDots);
        if line && run.len() > 1 {
            let dashed = if series.marks == Marks::Dashed { " d" } else { "" };
            write!(svg, r#"<path class="l{dashed} s{colour}" d="M"#)?;
            run.iter().try_for_each(|spot| write!(svg, "{:.1} {:.1} ", spot.x, spot.y))?;
            svg.push_str("\"/>\n");
        }
        // A lone point would otherwise not be seen.
        if matches!(series.marks, Marks::Dots | Marks::LineAndDots) || run.len() == 1 {
            for spot in &run {
                writeln!(svg, r#"<circle class="f{colour}" cx="{:.1}" cy="{:.1}" r="2.8"/>"#, spot.x, spot.y)?;
            }
        }
    }
    Ok(())
}

/// The names of the series above the field, in as many rows as they need.
struct Legend<'a> {
    rows: usize,
    entries: Vec<(f64, f64, usize, &'a Series)>,
}

fn legend(chart: &Chart, left: f64) -> Legend<'_> {
    let (mut x, mut row) = (left, 0);
    let mut entries = Vec::new();
    for (place, series) in chart.series.iter().enumerate().filter(|(_, series)| !series.name.is_empty()) {
        let width = 44.0 + CHARACTER * series.name.chars().count() as f64;
        if x + width > WIDTH - RIGHT && x > left {
            (x, row) = (left, row + 1);
        }
        entries.push((x, LEGEND_TOP + LEGEND_ROW * row as f64, colour_of(series, place), series));
        x += width;
    }
    Legend { rows: if entries.is_empty() { 0 } else { row + 1 }, entries }
}

impl Legend<'_> {
    fn write(&self, svg: &mut String) -> fmt::Result {
        for (x, top, colour, series) in &self.entries {
            let y = top + 4.0;
            match series.marks {
                Marks::Dots => {
                    writeln!(svg, r#"<circle class="f{colour}" cx="{:.1}" cy="{y:.1}" r="2.8"/>"#, x + 10.0)?
                }
                Marks::Line | Marks::LineAndDots => {
                    writeln!(svg, r#"<path class="l s{colour}" d="M{x:.1} {y:.1}h20"/>"#)?;
                }
                Marks::Dashed => writeln!(svg, r#"<path class="l d s{colour}" d="M{x:.1} {y:.1}h20"/>"#)?,
            }
            if series.marks == Marks::LineAndDots {
                writeln!(svg, r#"<circle class="f{colour}" cx="{:.1}" cy="{y:.1}" r="2.8"/>"#, x + 10.0)?;
            }
            writeln!(svg, r#"<text x="{:.1}" y="{:.1}">{}</text>"#, x + 26.0, y + 4.0, Escaped(&series.name))?;
        }
        Ok(())
    }
}

/// Text that cannot end what it stands in.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                c if c.is_control() => f.write_char(' ')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
