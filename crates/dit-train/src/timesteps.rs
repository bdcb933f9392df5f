//! Which timestep each training sample is noised to.

use dit_recipe::Timesteps;

use crate::SampleLoss;

/// How many of a timestep's last losses are remembered: Nichol & Dhariwal 2021, section 3.3.
const HISTORY: usize = 10;
/// The share of draws that stay uniform, so that no timestep is forgotten.
const UNIFORM_SHARE: f64 = 0.001;

/// A drawn timestep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Drawn {
    pub timestep: usize,
    /// 1 / (T · probability): keeps the expected loss that of uniform draws.
    pub weight: f64,
}

/// Random numbers from which one timestep is drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lot {
    /// In [0, 1).
    pub unit: f64,
    /// Standard normal.
    pub normal: f64,
}

/// Draws timesteps, and learns from their losses where the recipe says so.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TimestepSampler {
    Uniform {
        count: usize,
    },
    /// t = ⌊T·σ(mean + std·z)⌋, without weights: it is a weighting of the loss. Esser et al. 2024, section 3.1.
    LogitNormal {
        count: usize,
        mean: f64,
        std: f64,
    },
    LossSecondMoment(LossHistory),
}

impl TimestepSampler {
    pub(crate) fn new(timesteps: Timesteps, count: usize) -> Self {
        match timesteps {
            Timesteps::Uniform => Self::Uniform { count },
            Timesteps::LogitNormal(normal) => Self::LogitNormal { count, mean: normal.mean, std: normal.std },
            Timesteps::LossSecondMoment => Self::LossSecondMoment(LossHistory::new(count)),
        }
    }

    pub(crate) fn draw(&self, lots: &[Lot]) -> Vec<Drawn> {
        let scaled = |unit: f64, count: usize| ((unit * count as f64) as usize).min(count - 1);
        match self {
            Self::Uniform { count } => {
                lots.iter().map(|lot| Drawn { timestep: scaled(lot.unit, *count), weight: 1.0 }).collect()
            }
            Self::LogitNormal { count, mean, std } => {
                let logistic = |x: f64| 1.0 / (1.0 + libm::exp(-x));
                let timestep = |lot: &Lot| scaled(logistic(mean + std * lot.normal), *count);
                lots.iter().map(|lot| Drawn { timestep: timestep(lot), weight: 1.0 }).collect()
            }
            Self::LossSecondMoment(history) => history.draw(lots),
        }
    }

    pub(crate) fn learn(&mut self, samples: &[SampleLoss]) {
        if let Self::LossSecondMoment(history) = self {
            samples.iter().for_each(|sample| history.add(sample.timestep as usize, sample.total));
        }
    }
}

/// The last losses at every timestep. Probabilities are in proportion to the root of their mean square, once every timestep has
/// its history, and uniform before: Nichol & Dhariwal 2021, section 3.3.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LossHistory {
    /// (T, HISTORY), the oldest first; the first `counts[t]` are there.
    losses: Vec<f64>,
    counts: Vec<i64>,
}

impl LossHistory {
    pub(crate) fn new(count: usize) -> Self {
        Self { losses: vec![0.0; count * HISTORY], counts: vec![0; count] }
    }

    /// Losses (T·HISTORY) and how many of each timestep's are there (T), as [`parts`](Self::parts) gave them.
    pub(crate) fn from_parts(losses: Vec<f64>, counts: Vec<i64>) -> Option<Self> {
        let full = counts.iter().all(|count| (0..=HISTORY as i64).contains(count));
        (full && !counts.is_empty() && losses.len() == counts.len() * HISTORY).then_some(Self { losses, counts })
    }

    pub(crate) fn parts(&self) -> (&[f64], &[i64]) {
        (&self.losses, &self.counts)
    }

    fn add(&mut self, timestep: usize, loss: f64) {
        let row = self.losses.chunks_exact_mut(HISTORY).nth(timestep);
        if let (Some(row), Some(count)) = (row, self.counts.get_mut(timestep)) {
            match usize::try_from(*count).ok().and_then(|count| row.get_mut(count)) {
                Some(free) => {
                    *free = loss;
                    *count += 1;
                }
                None => {
                    row.rotate_left(1);
                    row[HISTORY - 1] = loss;
                }
            }
        }
    }

    fn probabilities(&self) -> Vec<f64> {
        let uniform = 1.0 / self.counts.len() as f64;
        if self.counts.iter().any(|&count| count < HISTORY as i64) {
            return vec![uniform; self.counts.len()];
        }
        let root = |row: &[f64]| (row.iter().map(|loss| loss * loss).sum::<f64>() / HISTORY as f64).sqrt();
        let roots: Vec<f64> = self.losses.chunks_exact(HISTORY).map(root).collect();
        let sum: f64 = roots.iter().sum();
        if !(sum > 0.0 && sum.is_finite()) {
            return vec![uniform; self.counts.len()];
        }
        roots.iter().map(|root| root / sum * (1.0 - UNIFORM_SHARE) + UNIFORM_SHARE * uniform).collect()
    }

    fn draw(&self, lots: &[Lot]) -> Vec<Drawn> {
        let probabilities = self.probabilities();
        let mut sum = 0.0;
        let cumulated: Vec<f64> = probabilities.iter().map(|p| (sum += p, sum).1).collect();
        let count = probabilities.len();
        let one = |lot: &Lot| {
            let timestep = cumulated.partition_point(|&up_to| up_to <= lot.unit * sum).min(count - 1);
            Drawn { timestep, weight: 1.0 / (count as f64 * probabilities[timestep]) }
        };
        lots.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use dit_recipe::LogitNormal;

    use super::*;
    use crate::random::{self, Moment, Purpose};

    fn lots(count: usize) -> Vec<Lot> {
        let mut rng = random::generator(Moment { seed: 0, step: 0, rollbacks: 0 }, Purpose::Timesteps);
        let mut lot = || Lot { unit: random::unit(&mut rng), normal: random::normal_pair(&mut rng)[0] };
        (0..count).map(|_| lot()).collect()
    }

    fn loss(timestep: usize, total: f64) -> SampleLoss {
        SampleLoss { timestep: timestep as u32, weight: 1.0, total, mse: None, vb: None }
    }

    /// The share of draws in each of `parts` equal ranges.
    fn shares(sampler: &TimestepSampler, count: usize, parts: usize) -> Vec<f64> {
        let mut shares = vec![0.0; parts];
        let lots = lots(100_000);
        sampler.draw(&lots).iter().for_each(|drawn| shares[drawn.timestep * parts / count] += 1.0 / lots.len() as f64);
        shares
    }

    #[track_caller]
    fn check(timesteps: Timesteps, expected: [f64; 4]) {
        let found = shares(&TimestepSampler::new(timesteps, 1000), 1000, 4);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 0.007, "{timesteps:?}: {found}, expected {expected}");
        }
    }

    #[test]
    fn draws_follow_their_distribution() {
        check(Timesteps::Uniform, [0.25; 4]);
        check(Timesteps::LossSecondMoment, [0.25; 4]); // without history
        // P(σ(z) < ¼) = Φ(−ln 3) = 0.1360.
        check(Timesteps::LogitNormal(LogitNormal { mean: 0.0, std: 1.0 }), [0.136, 0.364, 0.364, 0.136]);
        // Φ((−ln 3 − 1)/2) = 0.147, Φ(−½) = 0.3085, Φ((ln 3 − 1)/2) = 0.5197.
        check(Timesteps::LogitNormal(LogitNormal { mean: 1.0, std: 2.0 }), [0.147, 0.1615, 0.2112, 0.4803]);
    }

    #[test]
    fn frequent_timesteps_weigh_less_so_that_the_mean_stays() {
        let count = 8;
        let mut sampler = TimestepSampler::new(Timesteps::LossSecondMoment, count);
        // Losses are older than the history, then a known one: timestep t's root mean square is t + 1.
        for _ in 0..3 {
            (0..count).for_each(|t| sampler.learn(&[loss(t, 100.0)]));
        }
        for round in 0..HISTORY {
            let sign = if round % 2 == 0 { 1.0 } else { -1.0 };
            (0..count).for_each(|t| sampler.learn(&[loss(t, sign * (t + 1) as f64)]));
        }
        let shares = shares(&sampler, count, count);
        for (t, share) in shares.iter().enumerate() {
            let expected = (t + 1) as f64 / 36.0 * 0.999 + 0.001 / 8.0;
            assert!((share - expected).abs() < 0.006, "timestep {t}: {share}, expected {expected}");
        }
        // Importance sampling is unbiased: the weighted mean of any function is its plain mean, here 3.5.
        let drawn = sampler.draw(&lots(100_000));
        let mean = drawn.iter().map(|drawn| drawn.weight * drawn.timestep as f64).sum::<f64>() / drawn.len() as f64;
        assert!((mean - 3.5).abs() < 0.05, "{mean}");
    }

    #[test]
    fn a_history_survives_its_parts_and_refuses_others() {
        let mut history = LossHistory::new(3);
        (0..25).for_each(|i| history.add(i % 2, i as f64));
        let (losses, counts) = history.parts();
        assert_eq!(LossHistory::from_parts(losses.to_vec(), counts.to_vec()), Some(history.clone()));
        assert_eq!(LossHistory::from_parts(losses[1..].to_vec(), counts.to_vec()), None);
        assert_eq!(LossHistory::from_parts(losses.to_vec(), vec![11, 0, 0]), None);
        assert_eq!(LossHistory::from_parts(vec![], vec![]), None);
    }
}
