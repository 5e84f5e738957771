//! Batches made by several threads, given out in order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use bagssl_core::batch::{PatchBatch, SourceError};

type Made = std::result::Result<PatchBatch, SourceError>;
type Make = dyn Fn(usize) -> Made + Send + Sync;

/// An iterator over batches `first..end`. A thread makes a whole batch; none begins one that is `2 * threads` ahead of the
/// consumer, which bounds the batches in memory to that number. After an error there are no more.
pub(crate) struct Ordered {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    end: usize,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    make: Box<Make>,
    ahead: usize,
}

struct State {
    next_to_make: usize,
    next_to_give: usize,
    end: usize,
    made: BTreeMap<usize, Made>,
}

impl Ordered {
    pub(crate) fn new(
        batches: std::ops::Range<usize>,
        threads: usize,
        make: impl Fn(usize) -> Made + Send + Sync + 'static,
    ) -> Self {
        let threads = cores_if_zero(threads);
        let (first, end) = (batches.start, batches.end);
        let state = State { next_to_make: first, next_to_give: first, end, made: BTreeMap::new() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            make: Box::new(make),
            ahead: 2 * threads,
        });
        let threads = (0..threads.min(batches.len()))
            .map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || shared.work())
            })
            .collect();
        Ordered { shared, threads, end }
    }
}

/// As many threads as there are cores, if none are asked for.
pub(crate) fn cores_if_zero(threads: usize) -> usize {
    if threads > 0 { threads } else { std::thread::available_parallelism().map_or(1, |cores| cores.get()) }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements, whatever a thread that panicked was doing.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            while state.next_to_make < state.end && state.next_to_make >= state.next_to_give + self.ahead {
                state = self.wait(state);
            }
            if state.next_to_make >= state.end {
                return;
            }
            let number = state.next_to_make;
            state.next_to_make += 1;
            drop(state);
            let made = catch_unwind(AssertUnwindSafe(|| (self.make)(number)));
            let made = made.unwrap_or_else(|_| Err(format!("batch {number}: a decoder failed on an image").into()));
            self.lock().made.insert(number, made);
            self.changed.notify_all();
        }
    }
}

impl Iterator for Ordered {
    type Item = Made;

    fn next(&mut self) -> Option<Made> {
        let mut state = self.shared.lock();
        let number = state.next_to_give;
        if number >= self.end {
            return None;
        }
        while !state.made.contains_key(&number) {
            state = self.shared.wait(state);
        }
        let made = state.made.remove(&number);
        state.next_to_give += 1;
        if matches!(made, Some(Err(_))) {
            self.end = 0;
            state.end = 0;
        }
        drop(state);
        self.shared.changed.notify_all();
        made
    }
}

impl Drop for Ordered {
    fn drop(&mut self) {
        self.shared.lock().end = 0;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // It cannot have panicked: what it does is caught.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::batch::BatchShape;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn batch(number: usize) -> PatchBatch {
        let shape = BatchShape { images: 1, patches: 1, channels: 1, height: 1, width: 1 };
        PatchBatch::new(shape, vec![number as f32], vec![number as u32], vec![0]).unwrap()
    }

    #[test]
    fn batches_come_in_order_whoever_makes_them() {
        for threads in [1, 2, 7] {
            let numbers: Vec<u32> = Ordered::new(3..40, threads, |number| {
                std::thread::sleep(std::time::Duration::from_micros((number % 3) as u64 * 200));
                Ok(batch(number))
            })
            .map(|made| made.unwrap().images()[0])
            .collect();
            assert!(numbers.into_iter().eq(3..40));
        }
    }

    #[test]
    fn nobody_runs_far_ahead_of_a_slow_consumer() {
        let begun = Arc::new(AtomicUsize::new(0));
        let count = begun.clone();
        let mut batches = Ordered::new(0..100, 3, move |number| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(batch(number))
        });
        batches.next().unwrap().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(begun.load(Ordering::SeqCst) <= 7, "one given out, and six ahead");
        drop(batches);
    }

    #[test]
    fn an_error_is_the_last_and_a_panic_is_an_error() {
        let run =
            |fail: fn(usize) -> Made| -> Vec<bool> { Ordered::new(0..9, 2, fail).map(|made| made.is_ok()).collect() };
        assert_eq!(run(|number| if number == 2 { Err("no".into()) } else { Ok(batch(number)) }), [true, true, false]);
        assert_eq!(
            run(|number| if number == 1 { panic!("expected in this test") } else { Ok(batch(number)) }),
            [true, false]
        );
    }

    #[test]
    fn no_batches_end_at_once() {
        assert!(Ordered::new(5..5, 4, |number| Ok(batch(number))).next().is_none());
    }
}
