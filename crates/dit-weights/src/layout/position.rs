//! The frozen position table.

use dit_config::LatentSize;

/// The sine-cosine position table of a grid of patches, as the original computes and stores it: (rows · columns, hidden),
/// row-major, in f32 rounded from f64.
///
/// The *column* index fills the first half of the channels, the row index the second. Each half is [sin(p·ω), cos(p·ω)] with
/// ω_i = 10000^(−i/(hidden/4)), i = 0 .. hidden/4. `hidden` is a multiple of 4, as `DitConfig` ensures.
pub fn position_table(grid: LatentSize, hidden: usize) -> Vec<f32> {
    let columns: Vec<Vec<f32>> = (0..grid.width).map(|column| encode(column, hidden)).collect();
    let mut table = Vec::with_capacity(grid.height * grid.width * hidden);
    for row in 0..grid.height {
        let row = encode(row, hidden);
        for column in &columns {
            table.extend_from_slice(column);
            table.extend_from_slice(&row);
        }
    }
    table
}

/// The row of the position table at (`row`, `column`).
pub(crate) fn position(row: usize, column: usize, hidden: usize) -> Vec<f32> {
    let mut token = encode(column, hidden);
    token.extend(encode(row, hidden));
    token
}

/// Sines, then cosines of one coordinate: half of a token's channels.
fn encode(coordinate: usize, hidden: usize) -> Vec<f32> {
    let quarter = hidden / 4;
    let angles = || (0..quarter).map(|i| coordinate as f64 * (1.0 / 10000f64.powf(i as f64 / quarter as f64)));
    angles().map(f64::sin).chain(angles().map(f64::cos)).map(|value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_first_and_each_half_is_sines_then_cosines() {
        let table = position_table(LatentSize { height: 2, width: 3 }, 8);
        let token = &table[(3 + 2) * 8..][..8]; // row 1, column 2
        let expected = [
            2f64.sin(),
            0.02f64.sin(),
            2f64.cos(),
            0.02f64.cos(),
            1f64.sin(),
            0.01f64.sin(),
            1f64.cos(),
            0.01f64.cos(),
        ];
        assert_eq!(token, expected.map(|value| value as f32));
        assert_eq!(token, position(1, 2, 8));
        assert_eq!(table.len(), 2 * 3 * 8);
        assert_eq!(table[..8], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    }
}
