//! Work spread over libtorch's own threads.
//!
//! A pool of ours beside OpenMP's would compete with it for the cores: OpenMP's threads keep spinning for a while after each
//! parallel region. libtorch's C interface lends its `at::parallel_for`, so both take turns on the same threads, and
//! `tch::set_num_threads` holds for both.

use std::{
    ffi::c_void,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::symbols::lookup;

/// `void (*)(int64_t begin, int64_t end, void* context)`.
type Body = extern "C" fn(i64, i64, *mut c_void);
/// `AOTITorchError torch_parallel_for(begin, end, grain_size, body, context)`.
type ParallelFor = unsafe extern "C" fn(i64, i64, i64, Body, *mut c_void) -> i32;

/// Threads of libtorch's that work is spread over.
pub(crate) fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

struct Shared<'a> {
    next: AtomicUsize,
    tasks: usize,
    work: &'a (dyn Fn(usize) + Sync),
}

impl Shared<'_> {
    /// Takes tasks until none is left. Taking instead of being dealt keeps all threads busy to the end where one is slower.
    fn drain(&self) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= self.tasks {
                return;
            }
            (self.work)(task);
        }
    }
}

/// Calls `work` with each of `0..tasks`, on as many threads as libtorch uses. Tasks are begun in order. `work` must not panic. It may call
/// this function itself; the inner tasks then run on the same thread, so that it must not hold what they borrow of a thread's own.
pub(crate) fn for_each(tasks: usize, work: &(dyn Fn(usize) + Sync)) {
    let threads = threads().min(tasks);
    let shared = Shared { next: AtomicUsize::new(0), tasks, work };
    if threads > 1
        && let Some(parallel_for) = parallel_for()
    {
        // SAFETY: `shared` outlives the call, which returns when every thread is done, and `Shared` may be shared: its work is
        // `Sync`. The body reads it as what it is.
        unsafe { parallel_for(0, threads as i64, 1, body, (&raw const shared).cast_mut().cast()) };
    }
    // What is left: all, where libtorch lends no threads.
    shared.drain();
}

extern "C" fn body(begin: i64, end: i64, context: *mut c_void) {
    if begin < end {
        // SAFETY: `for_each` passes a `Shared` that outlives the parallel region.
        let shared = unsafe { &*context.cast::<Shared<'_>>() };
        shared.drain();
    }
}

fn parallel_for() -> Option<ParallelFor> {
    static FUNCTION: OnceLock<Option<ParallelFor>> = OnceLock::new();
    *FUNCTION.get_or_init(|| {
        let address = lookup(c"torch_parallel_for")?;
        // SAFETY: libtorch's header torch/csrc/stable/c/shim.h declares the symbol with this signature.
        Some(unsafe { std::mem::transmute::<*mut c_void, ParallelFor>(address) })
    })
}

/// A pointer that threads of [`for_each`] share, each writing to places of its own.
#[derive(Clone, Copy)]
pub(crate) struct Destination<T>(*mut T);

// SAFETY: only the pointer is shared; whoever writes through it proves that the places are its own.
unsafe impl<T: Send> Sync for Destination<T> {}

impl<T> Destination<T> {
    pub(crate) fn new(start: *mut T) -> Self {
        Self(start)
    }

    /// Where element `index` is.
    ///
    /// # Safety
    /// It lies in the memory behind the pointer, or right after it.
    #[inline]
    pub(crate) unsafe fn at(self, index: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(index) }
    }

    /// The same of any `index`; what is not [`at`](Self::at) a place must not be accessed.
    #[inline]
    pub(crate) fn wrapping_at(self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }

    /// # Safety
    /// `start..start + len` lies in the memory behind the pointer, which outlives the slice, and nobody else touches it while the
    /// slice lives. The elements are initialised: where they are not yet, `T` is a [`MaybeUninit`](std::mem::MaybeUninit).
    pub(crate) unsafe fn slice<'a>(self, start: usize, len: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}
