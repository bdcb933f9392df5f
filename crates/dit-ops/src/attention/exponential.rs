use std::f64::consts::LN_2;

/// ln 2ᵏ / k!, k from 6 to 0: Taylor's series of 2ᶠ, whose rest is below 1.3e-7 of it where |f| ≤ ½.
pub(super) const SERIES: [f32; 7] = {
    let x = LN_2;
    let (square, cube) = (x * x, x * x * x);
    let exact = [cube * cube / 720.0, square * cube / 120.0, square * square / 24.0, cube / 6.0, square / 2.0, x, 1.0];
    let mut rounded = [0.0; 7];
    let mut k = 0;
    while k < exact.len() {
        rounded[k] = exact[k] as f32;
        k += 1;
    }
    rounded
};
