use std::fmt;

/// A timestep of the *training* schedule: what the network is told, 0 (almost clean) to T − 1 (almost noise).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestep(pub u32);

/// A position in a [`SampleSchedule`](crate::SampleSchedule): 0 is the least noisy step, the one that ends in x₀.
///
/// Never what the network is told: after respacing, step 1 of 250 is [`Timestep`] 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepIndex(pub usize);

impl fmt::Display for Timestep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for StepIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
