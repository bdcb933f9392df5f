//! CUDA graphs; see `capture.cpp`.

use std::{
    cell::Cell,
    ffi::{c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{Mutex, PoisonError},
};

use tch::{Device, TchError, Tensor};

use crate::crossing::{adopt, outcome, text_of};

unsafe extern "C" {
    fn dit_torch_has_graphs() -> bool;
    #[cfg(test)]
    fn dit_torch_graphs_are_written_for(version: u64) -> bool;
    fn dit_torch_begin_recording(gpu: i64, result: *mut *mut c_void) -> *mut c_char;
    fn dit_torch_end_recording(recording: *mut c_void, output: *const c_void, result: *mut *mut c_void) -> *mut c_char;
    fn dit_torch_replay(graph: *mut c_void, result: *mut *mut c_void) -> *mut c_char;
    fn dit_torch_drop_graph(graph: *mut c_void);
}

/// What a GPU was given once, operator by operator, to be given again in one launch: a CUDA graph.
///
/// It reads and writes the memory that it was recorded with. So what goes in is copied into tensors that `work` was recorded over; they
/// and all else that it reads must stay, in their places, as long as it is replayed. What it allocates is in memory that all graphs of a GPU
/// share; what comes out is copied from there at once.
///
/// Everything is given to the GPU's default stream, which is every thread's, as tch has no other.
#[derive(Debug)]
pub struct Graph(*mut c_void);

// SAFETY: CUDA's graphs belong to no thread; what may not happen at once, `alone` keeps apart.
unsafe impl Send for Graph {}

impl Graph {
    /// Whether what `device` is given can be recorded: on a GPU, with the version of libtorch that this was written for, where no
    /// recording has failed so that libtorch has no way back.
    pub fn is_supported(device: Device) -> bool {
        // SAFETY: it looks symbols up, once.
        device.is_cuda() && tch::Cuda::is_available() && unsafe { dit_torch_has_graphs() }
    }

    /// Records what `work` gives `device`. None of it is computed: what it returns, and all other tensors that it makes, hold anything.
    ///
    /// `work` must have run before in this thread, as libraries set themselves up the first time, which cannot be recorded. It must not wait for
    /// the device, nor bring anything there from the host. Nothing is recorded for a gradient.
    ///
    /// # Errors
    /// Where it is not [supported](Self::is_supported), and in a recording; a panic of `work`, as what cannot be recorded makes of tch's methods;
    /// libtorch's reason, as where there is no memory. What is computed later goes on as before; but after a recording that CUDA refuses to begin or to end, as
    /// one that has waited for the device, there are no more of them in this process, libtorch may refuse to draw random numbers on a GPU, and it no
    /// longer gives back memory that it holds in reserve before it says that there is none.
    pub fn record(device: Device, work: impl FnOnce() -> Tensor) -> Result<Self, TchError> {
        let Device::Cuda(gpu) = device else { return Err(refused("no CUDA graphs but on a GPU")) };
        if !Self::is_supported(device) {
            return Err(refused("this libtorch records no CUDA graphs, or one has failed"));
        }
        if is_recording() {
            return Err(refused("one recording in another"));
        }
        alone(|| {
            let _no_grad = tch::no_grad_guard();
            let mut recording = ptr::null_mut();
            // SAFETY: there are graphs; `recording` is a place for one.
            outcome(unsafe { dit_torch_begin_recording(gpu as i64, &mut recording) })?;
            RECORDS.set(true);
            let output = catch_unwind(AssertUnwindSafe(work));
            RECORDS.set(false);
            let handle = output.as_ref().map_or(ptr::null(), |output| output.as_ptr().cast());
            let mut graph = ptr::null_mut();
            // SAFETY: the recording was begun by this thread, and is ended here alone; the output is live, or there is none.
            let ended = outcome(unsafe { dit_torch_end_recording(recording, handle, &mut graph) });
            match output {
                // It is also why a recording does not end.
                Err(panic) => Err(refused(of_tch(text_of(&*panic)))),
                Ok(_output) => ended.map(|()| Self(graph)),
            }
        })
    }

    /// Gives the GPU all of it, and a copy of what comes out.
    ///
    /// # Errors
    /// In a recording; libtorch's reason.
    pub fn replay(&self) -> Result<Tensor, TchError> {
        if is_recording() {
            return Err(refused("a replay in a recording"));
        }
        alone(|| {
            let mut result = ptr::null_mut();
            // SAFETY: the graph is live; `result` is a place for a new tensor.
            outcome(unsafe { dit_torch_replay(self.0, &mut result) })?;
            // SAFETY: there was no message.
            Ok(unsafe { adopt(result) })
        })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nobody has it any more.
        let forget = || unsafe { dit_torch_drop_graph(self.0) };
        // A recording of this thread keeps others out already.
        if is_recording() { forget() } else { alone(forget) }
    }
}

thread_local! {
    static RECORDS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread records a [`Graph`]: a panic ends the recording and nothing else. A program's panic hook asks.
pub fn is_recording() -> bool {
    RECORDS.get()
}

/// Graphs share a pool of memory and the stream that they are recorded on.
fn alone<T>(work: impl FnOnce() -> T) -> T {
    static ALL: Mutex<()> = Mutex::new(());
    let _alone = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    work()
}

fn refused(why: &str) -> TchError {
    TchError::Torch(why.to_owned())
}

/// What libtorch said in a panic of one of tch's methods: without `unwrap`'s words, in which line breaks are two characters, and without the call
/// stack that libtorch appends. Any other text as it is.
fn of_tch(panic: &str) -> &str {
    const BEGIN: &str = "called `Result::unwrap()` on an `Err` value: Torch(\"";
    let Some(said) = panic.strip_prefix(BEGIN) else { return panic };
    let end = ["\\nException raised from ", "\\nframe #"].iter().filter_map(|stack| said.find(stack)).min();
    said[..end.unwrap_or(said.len())].trim_end_matches("\")")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_libtorch_for_cpus_records_nothing() {
        for device in [Device::Cpu, Device::Cuda(0)] {
            let is_there = tch::Cuda::is_available() && device.is_cuda();
            assert_eq!(Graph::is_supported(device), is_there, "{device:?}");
        }
        let mut has_run = false;
        let recorded = Graph::record(Device::Cpu, || {
            has_run = true;
            Tensor::from(0.0)
        });
        assert!(recorded.is_err() && !has_run && !is_recording());
    }

    #[test]
    fn a_panic_of_tch_is_told_as_libtorch_said_it() {
        let _no_grad = tch::no_grad_guard();
        let panic = catch_unwind(|| {
            Tensor::zeros([2], (tch::Kind::Float, Device::Cpu)) + Tensor::zeros([3], (tch::Kind::Float, Device::Cpu))
        });
        let panic = panic.unwrap_err();
        let said = of_tch(text_of(&*panic));
        assert!(said.starts_with("The size of tensor a") && said.len() < 150 && !said.contains("Exception"), "{said}");
        assert_eq!(of_tch("as it is"), "as it is");
    }

    #[test]
    fn other_versions_are_left_alone() {
        let packed = |[major, minor, patch]: [u8; 3]| u64::from_be_bytes([major, minor, patch, 0, 0, 0, 0, 0]);
        for (version, known) in
            [([2, 11, 0], true), ([2, 11, 1], true), ([2, 10, 0], false), ([2, 12, 0], false), ([3, 11, 0], false)]
        {
            // SAFETY: it compares numbers.
            assert_eq!(unsafe { dit_torch_graphs_are_written_for(packed(version)) }, known, "{version:?}");
        }
    }
}
