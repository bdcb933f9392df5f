//! Long series: no more points than can be seen.

/// A place in the picture, with the extent of the band there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spot {
    pub x: f64,
    pub y: f64,
    pub low: f64,
    pub high: f64,
}

/// The first, lowest, highest and last spot of each half pixel along x, in their order: the line looks the same.
pub(crate) fn thin(spots: &[Spot]) -> Vec<Spot> {
    let column = |spot: &Spot| (2.0 * spot.x).floor();
    let mut kept = Vec::new();
    for group in spots.chunk_by(|a, b| column(a) == column(b)) {
        let extreme = |better: fn(f64, f64) -> bool| {
            let pick = |best: usize, i: usize| if better(group[i].y, group[best].y) { i } else { best };
            (0..group.len()).fold(0, pick)
        };
        let mut places = [0, extreme(|a, b| a < b), extreme(|a, b| a > b), group.len() - 1];
        places.sort_unstable();
        let mut last = None;
        for place in places {
            if last != Some(place) {
                kept.push(group[place]);
                last = Some(place);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_and_ends_stay() {
        let spots: Vec<Spot> = (0..100_000)
            .map(|i| {
                let y = if i == 54_321 { 99.0 } else { f64::from(i % 7) };
                Spot { x: f64::from(i) / 1000.0, y, low: y, high: y }
            })
            .collect();
        let kept = thin(&spots);
        assert!(kept.len() <= 4 * 201, "{}", kept.len());
        assert!(kept.iter().any(|spot| spot.y == 99.0));
        assert_eq!((kept.first(), kept.last()), (spots.first(), spots.last()));
        assert!(kept.is_sorted_by(|a, b| a.x <= b.x));
        assert_eq!(thin(&spots[..2]).len(), 2);
    }
}
