//! Some first of sixteen lanes, for registers that have no masks of their own.

/// How many, sixteen at most.
#[derive(Clone, Copy)]
pub(crate) struct Mask(usize);

/// All lanes.
pub(crate) const ALL: Mask = Mask(16);

/// The first `count` lanes, sixteen at most.
#[inline(always)]
pub(crate) fn first(count: usize) -> Mask {
    Mask(count.min(16))
}

impl Mask {
    /// How many lanes it has, sixteen at most.
    #[inline(always)]
    pub(crate) fn count(self) -> usize {
        self.0
    }
}
