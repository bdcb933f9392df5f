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
    let table = dit_weights::position_table(config.grid(), config.hidden);
    Tensor::from_slice(&table).view([1, config.tokens() as i64, config.hidden as i64])
}
