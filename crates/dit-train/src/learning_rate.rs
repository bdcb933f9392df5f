use dit_recipe::{LrSchedule, OptimSection};

/// The learning rate of the step after `taken` of `steps` steps: a linear rise over the warm-up, then constant or half a cosine
/// down to 0 after the last step (Loshchilov & Hutter 2017, equation 5, without restarts).
pub(crate) fn learning_rate(optim: &OptimSection, taken: u64, steps: u64) -> f64 {
    let warmup = optim.warmup_steps;
    if taken < warmup {
        return optim.lr * (taken + 1) as f64 / warmup as f64;
    }
    match optim.schedule {
        LrSchedule::Constant => optim.lr,
        LrSchedule::Cosine => {
            let progress = (taken - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
            optim.lr * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress.min(1.0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(warmup_steps: u64, schedule: LrSchedule, expected: &[(u64, f64)]) {
        let optim = OptimSection { lr: 2.0, warmup_steps, schedule, ..OptimSection::default() };
        for &(taken, expected) in expected {
            let found = learning_rate(&optim, taken, 110);
            assert!((found - expected).abs() < 1e-12, "after {taken} steps: {found}, expected {expected}");
        }
    }

    #[test]
    fn it_rises_and_falls() {
        check(0, LrSchedule::Constant, &[(0, 2.0), (109, 2.0)]);
        check(10, LrSchedule::Constant, &[(0, 0.2), (4, 1.0), (9, 2.0), (10, 2.0), (109, 2.0)]);
        check(10, LrSchedule::Cosine, &[(0, 0.2), (9, 2.0), (10, 2.0), (60, 1.0), (110, 0.0), (500, 0.0)]);
    }
}
