use super::MomentsLayout;

/// Per latent channel, over records, flips and positions: Σ E\[z\] and Σ E\[z²\] of draws z from the stored posteriors,
/// in f64 and in the order of storage, so that the last bit is the same everywhere.
pub(crate) fn sums(layout: &MomentsLayout, moments: &[u8]) -> (Vec<f64>, Vec<f64>) {
    let (channels, positions) = (layout.channels(), layout.side() * layout.side());
    let plane = positions * layout.store().dtype().size();
    let (mut sums, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
    for one in moments.chunks_exact(2 * channels * plane) {
        let (means, logvars) = one.split_at(channels * plane);
        let planes = means.chunks_exact(plane).zip(logvars.chunks_exact(plane));
        for ((mean, logvar), (sum, square)) in planes.zip(sums.iter_mut().zip(&mut squares)) {
            for (mean, logvar) in layout.store().values(mean).zip(layout.store().values(logvar)) {
                let mean = f64::from(mean);
                *sum += mean;
                *square += mean * mean + libm::exp(f64::from(logvar));
            }
        }
    }
    (sums, squares)
}

/// Mean and standard deviation from sums over `count` values; zeros of none.
pub(crate) fn mean_and_std(sums: &[f64], squares: &[f64], count: f64) -> (Vec<f64>, Vec<f64>) {
    if count == 0.0 {
        return (vec![0.0; sums.len()], vec![0.0; sums.len()]);
    }
    let mean: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
    let variance = squares.iter().zip(&mean).map(|(square, mean)| (square / count - mean * mean).max(0.0));
    let std = variance.map(f64::sqrt).collect();
    (mean, std)
}
