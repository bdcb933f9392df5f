use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Where threads that run ahead leave their results, and one thread takes them in order.
///
/// Invariant: claimed indices lie in a window of `capacity` that begins at the next one to be taken, so that at most so many
/// results exist, and the one that is waited for is always being made.
pub(crate) struct Window<T> {
    state: Mutex<State<T>>,
    /// Signalled when the window moves on, or closes.
    room: Condvar,
    /// Signalled when the first result of the window is there.
    ready: Condvar,
    capacity: usize,
    total: u64,
}

struct State<T> {
    claimed: u64,
    taken: u64,
    /// Results from index `taken` on.
    results: VecDeque<Option<T>>,
    closed: bool,
}

impl<T> Window<T> {
    /// For indices 0 … total − 1.
    pub(crate) fn new(capacity: usize, total: u64) -> Self {
        let state = State { claimed: 0, taken: 0, results: VecDeque::new(), closed: false };
        Self { state: Mutex::new(state), room: Condvar::new(), ready: Condvar::new(), capacity: capacity.max(1), total }
    }

    /// The next index to be made, once the window has room for it; none when all are claimed, or nobody takes any more.
    pub(crate) fn claim(&self) -> Option<u64> {
        let mut state = self.lock();
        while !state.closed && state.claimed < self.total && state.claimed >= state.taken + self.capacity as u64 {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed || state.claimed >= self.total {
            return None;
        }
        state.claimed += 1;
        Some(state.claimed - 1)
    }

    /// Leaves the result of a claimed index.
    pub(crate) fn put(&self, index: u64, result: T) {
        let mut state = self.lock();
        let place = (index - state.taken) as usize;
        if state.results.len() <= place {
            state.results.resize_with(place + 1, || None);
        }
        state.results[place] = Some(result);
        if place == 0 {
            self.ready.notify_one();
        }
    }

    /// The next result in order, once it is there. Must not be called more than `total` times.
    pub(crate) fn take(&self) -> T {
        let mut state = self.lock();
        loop {
            match state.results.front_mut().and_then(Option::take) {
                Some(result) => {
                    state.results.pop_front();
                    state.taken += 1;
                    self.room.notify_all();
                    return result;
                }
                None => state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Nothing more will be taken: no index is claimed any more. Returned by dropping, so that it happens on every way out.
    pub(crate) fn close_on_drop(&self) -> CloseOnDrop<'_, T> {
        CloseOnDrop(self)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct CloseOnDrop<'a, T>(&'a Window<T>);

impl<T> Drop for CloseOnDrop<'_, T> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    #[track_caller]
    fn check(capacity: usize, workers: usize, total: u64) {
        let window = Window::new(capacity, total);
        let (alive, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let taken: Vec<u64> = thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(index) = window.claim() {
                        most.fetch_max(alive.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::sleep(Duration::from_micros(index * 7919 % 300));
                        window.put(index, index);
                    }
                });
            }
            let take = |_| {
                let index = window.take();
                alive.fetch_sub(1, Ordering::SeqCst);
                index
            };
            (0..total).map(take).collect()
        });
        assert_eq!(taken, (0..total).collect::<Vec<_>>());
        // One more may be claimed between a take and the count of it.
        assert!(most.into_inner() <= capacity + 1);
    }

    #[test]
    fn results_come_in_order_and_no_more_than_fit_exist() {
        for (capacity, workers) in [(1, 1), (1, 4), (3, 2), (8, 3), (100, 4)] {
            check(capacity, workers, 200);
        }
        check(4, 2, 0);
    }

    #[test]
    fn closing_lets_waiting_threads_go() {
        let window = Window::new(2, 100);
        thread::scope(|scope| {
            let _close = window.close_on_drop();
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some(index) = window.claim() {
                        window.put(index, ());
                    }
                });
            }
            window.take();
        });
    }
}
