use std::marker::PhantomData;

use crate::gemm::Line;

/// Words that begin at a cache line, of which a thread keeps room for the next task.
#[derive(Debug)]
pub(crate) struct Aligned<T> {
    lines: Vec<Line>,
    kind: PhantomData<T>,
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), kind: PhantomData }
    }
}

impl<T: Word> Aligned<T> {
    /// The first `count` words, of old contents; there is more room than before where that is needed.
    pub(crate) fn at_least(&mut self, count: usize) -> &mut [T] {
        let lines = count.div_ceil(16);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; 16]));
        }
        // SAFETY: a line is sixteen words, and any of its bits are a `T`.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), count) }
    }
}

/// What a 32-bit word is read as.
///
/// # Safety
/// Any 32 bits are one.
pub(crate) unsafe trait Word {}
// SAFETY: any 32 bits are a number, or NaN.
unsafe impl Word for f32 {}
// SAFETY: obvious.
unsafe impl Word for u32 {}
