//! How numbers are written at ticks.

/// The texts of an axis' ticks: all with the same unit and as many decimals as tell them apart.
pub(crate) fn texts(ticks: &[f64]) -> Vec<String> {
    let most = ticks.iter().fold(0.0_f64, |most, tick| most.max(tick.abs()));
    let least = ticks.iter().filter(|tick| **tick != 0.0).fold(f64::INFINITY, |least, tick| least.min(tick.abs()));
    if least < 1e-3 || (most >= 1e4 && least < 1.0) {
        return ticks.iter().map(|tick| short(*tick)).collect();
    }
    let (unit, suffix) = match most {
        most if most >= 1e7 => (1e6, "M"),
        most if most >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let exact = |decimals: usize| {
        ticks.iter().all(|tick| {
            let written = format!("{:.decimals$}", tick / unit).parse::<f64>().unwrap_or(f64::NAN);
            (written * unit - tick).abs() <= 1e-6 * least
        })
    };
    let decimals = (0..=6).find(|decimals| exact(*decimals)).unwrap_or(6);
    let write = |tick: &f64| match *tick {
        0.0 => "0".to_owned(),
        tick => format!("{:.decimals$}{suffix}", tick / unit),
    };
    ticks.iter().map(write).collect()
}

/// As short as Rust writes it: 1e-4, 0.05, 250.
fn short(value: f64) -> String {
    if value == 0.0 || (1e-3..1e4).contains(&value.abs()) { format!("{value}") } else { format!("{value:e}") }
}
