use dit_config::DitConfig;
use tch::Tensor;

/// The fixed position table: sine and cosine of each patch's column and row (the two-dimensional form of Vaswani et al.
/// 2017, section 3.5).
///
/// Per patch: sin(col·ω), cos(col·ω), sin(row·ω), cos(row·ω), with ωᵢ = 10000^(−i/(D/4)), i = 0..D/4. The *column* comes
/// first, as in the published weights. Computed in float64, rounded once.
///
/// # Shapes
/// → (1, T, D), fp32, on the CPU; patches row by row.
pub fn position_table(config: &DitConfig) -> Tensor {
    let quarter = config.hidden / 4;
    let omega: Vec<f64> = (0..quarter).map(|i| 1.0 / 10_000_f64.powf(i as f64 / quarter as f64)).collect();
    let grid = config.grid();
    let mut table = Vec::with_capacity(config.tokens() * config.hidden);
    for row in 0..grid.height {
        for column in 0..grid.width {
            for position in [column as f64, row as f64] {
                table.extend(omega.iter().map(|w| (position * w).sin() as f32));
                table.extend(omega.iter().map(|w| (position * w).cos() as f32));
            }
        }
    }
    Tensor::from_slice(&table).view([1, config.tokens() as i64, config.hidden as i64])
}
