//! Where ticks go: at round numbers, between four and ten of them.

/// Multiples of 1, 2 or 5 times a power of ten.
pub(crate) fn linear(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 6.0;
    if !(rough > 0.0 && rough.is_finite()) {
        return Vec::new();
    }
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= 0.75 * rough);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    // Recomputed from the power, so that 3 × 0.1 is the number written 0.3.
    (first..=last).map(|index| round_to(index as f64 * step, step)).collect()
}

/// `value` without the digits below a thousandth of `step`.
fn round_to(value: f64, step: f64) -> f64 {
    let digits = (3.0 - step.log10().floor()).clamp(0.0, 300.0) as usize;
    format!("{value:.digits$}").parse().unwrap_or(value)
}

/// Powers of ten; with multiples between them where the range has few; as on a linear axis where it has none.
pub(crate) fn log(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let decades = high.log10() - low.log10();
    let digits: &[f64] = match decades {
        decades if decades > 4.0 => &[1.0],
        decades if decades > 1.3 => &[1.0, 2.0, 5.0],
        _ => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
    };
    let stride = ((f64::from(last - first) / 8.0).ceil() as i32).max(1);
    let within = |value: &f64| (low..=high).contains(value);
    let powers = (first..=last).filter(|power| power.rem_euclid(stride) == 0);
    let ticks: Vec<f64> =
        powers.flat_map(|power| digits.iter().map(move |digit| scaled(*digit, power))).filter(within).collect();
    if ticks.len() >= 3 { ticks } else { linear(low, high).into_iter().filter(|tick| *tick > 0.0).collect() }
}

/// digit · 10^power, the number nearest to what is written so.
fn scaled(digit: f64, power: i32) -> f64 {
    format!("{digit}e{power}").parse().unwrap_or(digit * 10_f64.powi(power))
}
