//! Batches made by several threads and returned in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use bagssl_core::batch::{PatchBatch, SourceError};

/// How batches are made: image by image, then joined.
pub(crate) trait Job: Send + Sync + 'static {
    /// The working memory of a thread.
    type Scratch;

    /// Creates working memory.
    fn scratch(&self) -> Self::Scratch;

    /// Returns the number of images in a batch, which is at least one.
    fn images(&self, batch: usize) -> usize;

    /// Returns the values of all patches of the image at a position in a batch.
    fn values(&self, batch: usize, position: usize, scratch: &mut Self::Scratch) -> Values;

    /// Creates the batch from the concatenated values of all its images. Returns `None` if no image
    /// is left.
    fn join(&self, batch: usize, values: Vec<f32>) -> Option<PatchBatch>;

    /// Called when the consumer receives a batch, or an error instead of it.
    fn delivered(&self, _batch: usize) {}
}

/// The values of an image's patches, or the error.
pub(crate) type Values = Result<Vec<f32>, SourceError>;
type BatchResult = Result<PatchBatch, SourceError>;
type OptionalBatchResult = Result<Option<PatchBatch>, SourceError>;

/// An iterator over a range of batches. Threads process one image at a time, and start no batch
/// more than [`window`] ahead of the consumer. The iteration ends after an error.
pub(crate) struct PrefetchedBatches<J: Job> {
    shared: Arc<Shared<J>>,
    threads: Vec<JoinHandle<()>>,
}

/// Returns the maximum number of batches in memory besides the consumer's: a finished one, one in
/// progress, and more if a batch has fewer images than there are threads.
fn window(threads: usize, images: usize) -> usize {
    2 + threads.div_ceil(images)
}

struct Shared<J> {
    job: J,
    window: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The batches in progress or finished. The first one has index `next`.
    open: VecDeque<OpenBatch>,
    next: usize,
    /// The next image to process: its batch and its position in it.
    task: (usize, usize),
    end: usize,
}

/// A batch in progress.
struct OpenBatch {
    parts: Vec<Option<Values>>,
    missing: usize,
    batch_result: Option<OptionalBatchResult>,
}

impl<J: Job> PrefetchedBatches<J> {
    pub(crate) fn new(batches: Range<usize>, threads: usize, job: J) -> Self {
        let (next, end) = (batches.start, batches.end);
        let images: usize = batches.take(cores_if_zero(threads)).map(|batch| job.images(batch)).sum();
        let threads = cores_if_zero(threads).min(images);
        let window = if threads == 0 { 0 } else { window(threads, job.images(next)) };
        let state = Mutex::new(State { open: VecDeque::new(), next, task: (next, 0), end });
        let shared = Arc::new(Shared { job, window, state, changed: Condvar::new() });
        let work = |shared: Arc<Shared<J>>| std::thread::spawn(move || shared.run_worker());
        PrefetchedBatches { threads: (0..threads).map(|_| work(shared.clone())).collect(), shared }
    }
}

/// Returns `threads`, or the number of cores if it is 0.
pub(crate) fn cores_if_zero(threads: usize) -> usize {
    if threads > 0 { threads } else { std::thread::available_parallelism().map_or(1, |cores| cores.get()) }
}

impl<J: Job> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements, even after a panic of another thread.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn run_worker(&self) {
        let mut scratch = self.job.scratch();
        while let Some((batch, position)) = self.next_task() {
            let values = catch_unwind(AssertUnwindSafe(|| self.job.values(batch, position, &mut scratch)));
            let values = values.unwrap_or_else(|_| {
                scratch = self.job.scratch();
                Err(format!("batch {batch}: expected image {position} to decode, got a panic").into())
            });
            let Some(parts) = self.store_values(batch, position, values) else { continue };
            let batch_result = self.join(batch, parts);
            let mut state = self.lock();
            if let Some(open) = state.open(batch) {
                open.batch_result = Some(batch_result);
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Returns the next image to process, or `None` at the end.
    fn next_task(&self) -> Option<(usize, usize)> {
        let mut state = self.lock();
        while state.task.0 < state.end && state.task.0 >= state.next + self.window {
            state = self.wait(state);
        }
        let (batch, position) = state.task;
        if batch >= state.end {
            return None;
        }
        let images = self.job.images(batch);
        if position == 0 {
            let parts = (0..images).map(|_| None).collect();
            state.open.push_back(OpenBatch { parts, missing: images, batch_result: None });
        }
        state.task = if position + 1 < images { (batch, position + 1) } else { (batch + 1, 0) };
        Some((batch, position))
    }

    /// Stores the values of an image. After the last image of a batch, returns the values of all of
    /// them.
    fn store_values(&self, batch: usize, position: usize, values: Values) -> Option<Vec<Option<Values>>> {
        let mut state = self.lock();
        let open = state.open(batch)?;
        open.parts[position] = Some(values);
        open.missing -= 1;
        (open.missing == 0).then(|| std::mem::take(&mut open.parts))
    }

    /// Joins the images of a batch. If several failed, returns the error of the first image.
    fn join(&self, batch: usize, parts: Vec<Option<Values>>) -> OptionalBatchResult {
        let parts = parts.into_iter().flatten().collect::<Result<Vec<_>, _>>()?;
        let mut values = Vec::with_capacity(parts.iter().map(Vec::len).sum());
        // Each part is freed once it is copied, so that memory does not contain the batch twice.
        parts.into_iter().for_each(|part| values.extend(part));
        Ok(self.job.join(batch, values))
    }
}

impl State {
    /// Returns an open batch, or `None` if it is no longer needed.
    fn open(&mut self, batch: usize) -> Option<&mut OpenBatch> {
        self.open.get_mut(batch.checked_sub(self.next)?)
    }

    /// Ends the iteration and drops all open batches.
    fn finish(&mut self) {
        self.end = 0;
        self.open.clear();
    }
}

impl<J: Job> Iterator for PrefetchedBatches<J> {
    type Item = BatchResult;

    fn next(&mut self) -> Option<BatchResult> {
        let mut state = self.shared.lock();
        while state.next < state.end {
            if let Some(batch_result) = state.open.front_mut().and_then(|open| open.batch_result.take()) {
                state.open.pop_front();
                let batch = state.next;
                state.next += 1;
                if batch_result.is_err() {
                    state.finish();
                }
                self.shared.changed.notify_all();
                self.shared.job.delivered(batch);
                match batch_result.transpose() {
                    Some(batch_result) => return Some(batch_result),
                    None => continue,
                }
            }
            state = self.shared.wait(state);
        }
        None
    }
}

impl<J: Job> Drop for PrefetchedBatches<J> {
    fn drop(&mut self) {
        self.shared.lock().finish();
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // The thread cannot have panicked: panics of the job are caught.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::batch::BatchShape;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Batches of three images, except for batch 2, which has one. The value of an image is 100
    /// times its batch plus its position.
    struct Numbers<F>(F);

    impl<F: Fn(usize, usize) -> Result<(), SourceError> + Send + Sync + 'static> Job for Numbers<F> {
        type Scratch = ();

        fn scratch(&self) {}

        fn images(&self, batch: usize) -> usize {
            if batch == 2 { 1 } else { 3 }
        }

        fn values(&self, batch: usize, position: usize, (): &mut ()) -> Values {
            (self.0)(batch, position)?;
            Ok(vec![(100 * batch + position) as f32])
        }

        fn join(&self, batch: usize, values: Vec<f32>) -> Option<PatchBatch> {
            let images = self.images(batch);
            let shape = BatchShape { images, patches: 1, channels: 1, height: 1, width: 1 };
            Some(PatchBatch::new(shape, values, vec![batch as u32; images], vec![0; images]).unwrap())
        }
    }

    fn values(batches: impl Iterator<Item = BatchResult>) -> Vec<Vec<f32>> {
        batches.map(|batch_result| batch_result.unwrap().into_data()).collect()
    }

    #[test]
    fn batches_arrive_in_order() {
        for threads in [1, 2, 7] {
            let slow = |batch, position| {
                std::thread::sleep(std::time::Duration::from_micros((batch + position) as u64 % 3 * 200));
                Ok(())
            };
            let all = values(PrefetchedBatches::new(1..20, threads, Numbers(slow)));
            assert_eq!(all.len(), 19);
            assert_eq!(all[..3], [vec![100.0, 101.0, 102.0], vec![200.0], vec![300.0, 301.0, 302.0]]);
            assert_eq!(all[18], [1900.0, 1901.0, 1902.0]);
        }
    }

    #[test]
    fn prefetch_is_bounded() {
        let furthest = Arc::new(AtomicUsize::new(0));
        let visited = furthest.clone();
        let mut batches = PrefetchedBatches::new(
            10..100,
            7,
            Numbers(move |batch, _| {
                visited.fetch_max(batch, Ordering::SeqCst);
                Ok(())
            }),
        );
        batches.next().unwrap().unwrap();
        // 7 threads need 3 batches of 3 images. With two more, the window has 5 batches, starting
        // at batch 11.
        while furthest.load(Ordering::SeqCst) < 15 {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(furthest.load(Ordering::SeqCst), 15);
    }

    #[test]
    fn errors_and_panics_end_the_batches() {
        let run = |fail: fn(usize, usize) -> Result<(), SourceError>| -> Vec<Result<f32, String>> {
            let first = |batch: PatchBatch| batch.data()[0];
            let batches = PrefetchedBatches::new(0..9, 2, Numbers(fail));
            batches.map(|batch_result| batch_result.map(first).map_err(|error| error.to_string())).collect()
        };
        let refused = run(
            |batch, position| if batch == 1 && position > 0 { Err(format!("no {position}").into()) } else { Ok(()) },
        );
        assert_eq!(refused, [Ok(0.0), Err("no 1".into())]);
        let panicked = run(|batch, position| {
            assert!(batch != 1 || position != 2, "expected in this test");
            Ok(())
        });
        assert_eq!(panicked.len(), 2);
        assert!(panicked[1].as_ref().unwrap_err().starts_with("batch 1: expected image 2"), "{panicked:?}");
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges, reason = "it is what is tested")]
    fn no_batches() {
        assert!(PrefetchedBatches::new(5..5, 4, Numbers(|_, _| Ok(()))).next().is_none());
        assert!(PrefetchedBatches::new(6..5, 4, Numbers(|_, _| Ok(()))).next().is_none());
    }

    proptest! {
        #[test]
        fn any_range_may_be_taken(first in 0usize..6, count in 0usize..9, taken in 0usize..12, threads in 1usize..9) {
            let all = values(PrefetchedBatches::new(first..first + count, threads, Numbers(|_, _| Ok(()))).take(taken));
            prop_assert_eq!(all.len(), taken.min(count));
            prop_assert!(all.iter().zip(first..).all(|(batch, number)| batch[0] == (100 * number) as f32));
        }
    }
}
