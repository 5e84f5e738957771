//! Batches made by several threads, given out in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use bagssl_core::batch::{PatchBatch, SourceError};

/// How batches are made: image by image, then joined.
pub(crate) trait Job: Send + Sync + 'static {
    /// Working memory of a thread.
    type Scratch;

    /// New working memory.
    fn scratch(&self) -> Self::Scratch;

    /// Images in a batch: at least one.
    fn images(&self, batch: usize) -> usize;

    /// The values of the patches of the image at a place in a batch.
    fn values(&self, batch: usize, place: usize, scratch: &mut Self::Scratch) -> Values;

    /// The batch, from the values of all its images one after the other; `None` if no image is left of it.
    fn join(&self, batch: usize, values: Vec<f32>) -> Option<PatchBatch>;

    /// Told of each batch when the consumer gets it, or the error instead of it.
    fn given_out(&self, _batch: usize) {}
}

/// The values of an image's patches, or why there are none.
pub(crate) type Values = Result<Vec<f32>, SourceError>;
type Made = Result<PatchBatch, SourceError>;
type MaybeMade = Result<Option<PatchBatch>, SourceError>;

/// An iterator over a range of batches. Threads take one image after the other, and begin none of a batch that is more than
/// [`window`] ahead of the consumer. After an error there are no more batches.
pub(crate) struct Ordered<J: Job> {
    shared: Arc<Shared<J>>,
    threads: Vec<JoinHandle<()>>,
}

/// Batches that may be in memory besides the consumer's: one that is ready, one that is being made, and more if a batch
/// has too few images for all threads.
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
    /// The batches that are begun and not given out; the first of them is number `next`.
    open: VecDeque<Open>,
    next: usize,
    /// The image to be taken next: a batch and a place in it.
    task: (usize, usize),
    end: usize,
}

/// A batch that is begun.
struct Open {
    parts: Vec<Option<Values>>,
    missing: usize,
    made: Option<MaybeMade>,
}

impl<J: Job> Ordered<J> {
    pub(crate) fn new(batches: Range<usize>, threads: usize, job: J) -> Self {
        let (next, end) = (batches.start, batches.end);
        let images: usize = batches.take(cores_if_zero(threads)).map(|batch| job.images(batch)).sum();
        let threads = cores_if_zero(threads).min(images);
        let window = if threads == 0 { 0 } else { window(threads, job.images(next)) };
        let state = Mutex::new(State { open: VecDeque::new(), next, task: (next, 0), end });
        let shared = Arc::new(Shared { job, window, state, changed: Condvar::new() });
        let work = |shared: Arc<Shared<J>>| std::thread::spawn(move || shared.work());
        Ordered { threads: (0..threads).map(|_| work(shared.clone())).collect(), shared }
    }
}

/// As many threads as there are cores, if none are asked for.
pub(crate) fn cores_if_zero(threads: usize) -> usize {
    if threads > 0 { threads } else { std::thread::available_parallelism().map_or(1, |cores| cores.get()) }
}

impl<J: Job> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements, whatever a thread that panicked was doing.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn work(&self) {
        let mut scratch = self.job.scratch();
        while let Some((batch, place)) = self.take() {
            let values = catch_unwind(AssertUnwindSafe(|| self.job.values(batch, place, &mut scratch)));
            let values = values.unwrap_or_else(|_| {
                scratch = self.job.scratch();
                Err(format!("batch {batch}: expected image {place} to decode or be refused, got a panic").into())
            });
            let Some(parts) = self.put(batch, place, values) else { continue };
            let made = self.join(batch, parts);
            let mut state = self.lock();
            if let Some(open) = state.open(batch) {
                open.made = Some(made);
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The next image to be made; `None` at the end.
    fn take(&self) -> Option<(usize, usize)> {
        let mut state = self.lock();
        while state.task.0 < state.end && state.task.0 >= state.next + self.window {
            state = self.wait(state);
        }
        let (batch, place) = state.task;
        if batch >= state.end {
            return None;
        }
        let images = self.job.images(batch);
        if place == 0 {
            let parts = (0..images).map(|_| None).collect();
            state.open.push_back(Open { parts, missing: images, made: None });
        }
        state.task = if place + 1 < images { (batch, place + 1) } else { (batch + 1, 0) };
        Some((batch, place))
    }

    /// Puts an image's values in their place. The last of a batch gets all of it.
    fn put(&self, batch: usize, place: usize, values: Values) -> Option<Vec<Option<Values>>> {
        let mut state = self.lock();
        let open = state.open(batch)?;
        open.parts[place] = Some(values);
        open.missing -= 1;
        (open.missing == 0).then(|| std::mem::take(&mut open.parts))
    }

    /// Joins the images of a batch. Of several errors, the first image's counts.
    fn join(&self, batch: usize, parts: Vec<Option<Values>>) -> MaybeMade {
        let parts = parts.into_iter().flatten().collect::<Result<Vec<_>, _>>()?;
        let mut values = Vec::with_capacity(parts.iter().map(Vec::len).sum());
        // Each part is freed once it is copied, so that the batch is not in memory twice.
        parts.into_iter().for_each(|part| values.extend(part));
        Ok(self.job.join(batch, values))
    }
}

impl State {
    /// A batch that is begun; `None` if nobody wants it any more.
    fn open(&mut self, batch: usize) -> Option<&mut Open> {
        self.open.get_mut(batch.checked_sub(self.next)?)
    }

    /// Lets go of everything: there will be no more batches.
    fn finish(&mut self) {
        self.end = 0;
        self.open.clear();
    }
}

impl<J: Job> Iterator for Ordered<J> {
    type Item = Made;

    fn next(&mut self) -> Option<Made> {
        let mut state = self.shared.lock();
        while state.next < state.end {
            if let Some(made) = state.open.front_mut().and_then(|open| open.made.take()) {
                state.open.pop_front();
                let batch = state.next;
                state.next += 1;
                if made.is_err() {
                    state.finish();
                }
                self.shared.changed.notify_all();
                self.shared.job.given_out(batch);
                match made.transpose() {
                    Some(made) => return Some(made),
                    None => continue,
                }
            }
            state = self.shared.wait(state);
        }
        None
    }
}

impl<J: Job> Drop for Ordered<J> {
    fn drop(&mut self) {
        self.shared.lock().finish();
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
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Batches of three images, but one in batch 2; each image's value is a hundred times its batch, and its place.
    struct Numbers<F>(F);

    impl<F: Fn(usize, usize) -> Result<(), SourceError> + Send + Sync + 'static> Job for Numbers<F> {
        type Scratch = ();

        fn scratch(&self) {}

        fn images(&self, batch: usize) -> usize {
            if batch == 2 { 1 } else { 3 }
        }

        fn values(&self, batch: usize, place: usize, (): &mut ()) -> Values {
            (self.0)(batch, place)?;
            Ok(vec![(100 * batch + place) as f32])
        }

        fn join(&self, batch: usize, values: Vec<f32>) -> Option<PatchBatch> {
            let images = self.images(batch);
            let shape = BatchShape { images, patches: 1, channels: 1, height: 1, width: 1 };
            Some(PatchBatch::new(shape, values, vec![batch as u32; images], vec![0; images]).unwrap())
        }
    }

    fn values(batches: impl Iterator<Item = Made>) -> Vec<Vec<f32>> {
        batches.map(|made| made.unwrap().into_data()).collect()
    }

    #[test]
    fn batches_come_in_order_whoever_makes_them() {
        for threads in [1, 2, 7] {
            let slow = |batch, place| {
                std::thread::sleep(std::time::Duration::from_micros((batch + place) as u64 % 3 * 200));
                Ok(())
            };
            let all = values(Ordered::new(1..20, threads, Numbers(slow)));
            assert_eq!(all.len(), 19);
            assert_eq!(all[..3], [vec![100.0, 101.0, 102.0], vec![200.0], vec![300.0, 301.0, 302.0]]);
            assert_eq!(all[18], [1900.0, 1901.0, 1902.0]);
        }
    }

    #[test]
    fn nobody_runs_far_ahead_of_a_slow_consumer() {
        let furthest = Arc::new(AtomicUsize::new(0));
        let seen = furthest.clone();
        let mut batches = Ordered::new(
            10..100,
            7,
            Numbers(move |batch, _| {
                seen.fetch_max(batch, Ordering::SeqCst);
                Ok(())
            }),
        );
        batches.next().unwrap().unwrap();
        // 7 threads need 3 batches of 3 images; two more make the window, of which the first is 11.
        while furthest.load(Ordering::SeqCst) < 15 {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(furthest.load(Ordering::SeqCst), 15);
    }

    #[test]
    fn an_error_is_the_last_and_a_panic_is_an_error() {
        let run = |fail: fn(usize, usize) -> Result<(), SourceError>| -> Vec<Result<f32, String>> {
            let first = |batch: PatchBatch| batch.data()[0];
            let batches = Ordered::new(0..9, 2, Numbers(fail));
            batches.map(|made| made.map(first).map_err(|error| error.to_string())).collect()
        };
        let refused =
            run(|batch, place| if batch == 1 && place > 0 { Err(format!("no {place}").into()) } else { Ok(()) });
        assert_eq!(refused, [Ok(0.0), Err("no 1".into())]);
        let panicked = run(|batch, place| {
            assert!(batch != 1 || place != 2, "expected in this test");
            Ok(())
        });
        assert_eq!(panicked.len(), 2);
        assert!(panicked[1].as_ref().unwrap_err().starts_with("batch 1: expected image 2"), "{panicked:?}");
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges, reason = "it is what is tested")]
    fn no_batches_end_at_once() {
        assert!(Ordered::new(5..5, 4, Numbers(|_, _| Ok(()))).next().is_none());
        assert!(Ordered::new(6..5, 4, Numbers(|_, _| Ok(()))).next().is_none());
    }

    proptest! {
        #[test]
        fn any_part_of_any_range_may_be_taken(first in 0usize..6, count in 0usize..9, taken in 0usize..12, threads in 1usize..9) {
            let all = values(Ordered::new(first..first + count, threads, Numbers(|_, _| Ok(()))).take(taken));
            prop_assert_eq!(all.len(), taken.min(count));
            prop_assert!(all.iter().zip(first..).all(|(batch, number)| batch[0] == (100 * number) as f32));
        }
    }
}
