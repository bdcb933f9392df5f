//! How often and how soon to try again.

use std::time::Duration;

/// Bounded exponential back-off with jitter. An attempt that brought the file forward starts the count anew.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Attempts without progress before an address is given up.
    pub attempts: u32,
    /// Wait before the second attempt; doubled each time.
    pub first_delay: Duration,
    /// The longest wait, also when the server asks for more.
    pub longest_delay: Duration,
    /// Bytes that count as progress.
    pub progress_bytes: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            attempts: 5,
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(60),
            progress_bytes: 64 * 1024,
        }
    }
}

/// The policy at work on one address.
pub(crate) struct Retry<'a> {
    policy: &'a RetryPolicy,
    failures: u32,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(policy: &'a RetryPolicy) -> Self {
        Retry { policy, failures: 0 }
    }

    /// What to do after a failed attempt that brought `gained` bytes: wait this long and try again, or give up.
    /// `asked` is the server's Retry-After; `jitter` is uniform in [0, 1).
    pub(crate) fn after_failure(&mut self, gained: u64, asked: Option<Duration>, jitter: f64) -> Option<Duration> {
        if gained >= self.policy.progress_bytes {
            self.failures = 0;
        }
        self.failures += 1;
        if self.failures >= self.policy.attempts {
            return None;
        }
        let doubled = self.policy.first_delay.saturating_mul(1 << (self.failures - 1).min(16));
        let delay = doubled.min(self.policy.longest_delay);
        // Half fixed, half random: many clients that failed together do not come back together.
        let jittered = delay.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
        Some(jittered.max(asked.unwrap_or_default().min(self.policy.longest_delay)))
    }

    /// Which attempt comes next, and of how many.
    pub(crate) fn attempt(&self) -> (u32, u32) {
        (self.failures + 1, self.policy.attempts)
    }
}

/// Uniform in [0, 1), from the standard library's random hasher keys: enough to spread retries.
pub(crate) fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            attempts: 4,
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(3),
            progress_bytes: 100,
        }
    }

    #[test]
    fn delays_double_to_a_bound_and_then_it_gives_up() {
        let policy = policy();
        let mut retry = Retry::new(&policy);
        let delays: Vec<_> = std::iter::from_fn(|| retry.after_failure(0, None, 1.0)).collect();
        assert_eq!(delays, [1, 2, 3].map(Duration::from_secs));
        assert_eq!(Retry::new(&policy).after_failure(0, None, 0.0), Some(Duration::from_millis(500)));
    }

    #[test]
    fn progress_starts_anew() {
        let policy = policy();
        let mut retry = Retry::new(&policy);
        for _ in 0..50 {
            assert!(retry.after_failure(100, None, 0.5).is_some());
        }
        assert_eq!(std::iter::from_fn(|| retry.after_failure(99, None, 0.5)).count(), 2);
    }

    #[test]
    fn the_server_may_ask_for_more_time_within_bounds() {
        let policy = policy();
        let ask = |s| Retry::new(&policy).after_failure(0, Some(Duration::from_secs(s)), 0.0);
        assert_eq!(ask(2), Some(Duration::from_secs(2)));
        assert_eq!(ask(3600), Some(Duration::from_secs(3)));
        assert_eq!(ask(0), Some(Duration::from_millis(500)));
    }

    #[test]
    fn jitter_is_in_range() {
        assert!((0..1000).map(|_| jitter()).all(|j| (0.0..1.0).contains(&j)));
    }
}
