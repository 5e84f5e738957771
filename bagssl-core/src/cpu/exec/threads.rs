//! Threads that run the parts of a computation.

#![allow(unsafe_code, reason = "kernels rely on how jobs are run")]

/// Runs jobs on several threads.
///
/// Kernels split their work into jobs, and this trait distributes them. Results do not depend on
/// the distribution.
///
/// # Safety
/// Jobs write to memory that belongs to their index or worker alone. Implementations must therefore
/// guarantee:
///
/// - Each index below `jobs` runs at most once.
/// - No two concurrent jobs have the same worker.
/// - Each worker is below [`Threads::count`], which never changes.
/// - `each` does not return while a job is running, not even by a panic.
pub unsafe trait Threads: Sync {
    /// Returns the maximum number of concurrent jobs, at least 1.
    fn count(&self) -> usize;

    /// Runs `job(index, worker)` for each `index` below `jobs`, and returns when all are done.
    /// `worker` is below [`Threads::count`], and no two concurrent jobs have the same worker. A job
    /// must not call `each` on the threads that run it. Inside the jobs of a [`Pool`],
    /// [`with_threads`] gives [`Serial`].
    fn each(&self, jobs: usize, job: &(dyn Fn(usize, usize) + Sync));
}

/// No threads: runs jobs one after the other on the calling thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Serial;

// SAFETY: runs one job after the other, on the calling thread.
unsafe impl Threads for Serial {
    fn count(&self) -> usize {
        1
    }

    fn each(&self, jobs: usize, job: &(dyn Fn(usize, usize) + Sync)) {
        (0..jobs).for_each(|index| job(index, 0));
    }
}

/// A single worker of other threads, for nested jobs.
pub(crate) struct Worker(pub(crate) usize);

// SAFETY: runs one job after the other, on the thread of this worker.
unsafe impl Threads for Worker {
    fn count(&self) -> usize {
        1
    }

    fn each(&self, jobs: usize, job: &(dyn Fn(usize, usize) + Sync)) {
        (0..jobs).for_each(|index| job(index, self.0));
    }
}

/// Rayon's threads: the current pool, or else rayon's global pool.
#[cfg(feature = "rayon")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Rayon;

// SAFETY: rayon runs each index once and waits for all of them. A thread runs one job at a time
// unless a job calls rayon, and kernels do not.
#[cfg(feature = "rayon")]
unsafe impl Threads for Rayon {
    fn count(&self) -> usize {
        rayon::current_num_threads()
    }

    fn each(&self, jobs: usize, job: &(dyn Fn(usize, usize) + Sync)) {
        use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
        let worker = || rayon::current_thread_index().unwrap_or(0);
        (0..jobs).into_par_iter().with_max_len(1).for_each(|index| job(index, worker()));
    }
}

#[cfg(feature = "std")]
pub use pool::{Pool, serially};

/// Calls `operation` with the threads to use on this thread: [`Pool::global`], or [`Serial`] within
/// [`serially`].
#[cfg(feature = "std")]
pub fn with_threads<T>(operation: impl FnOnce(&dyn Threads) -> T) -> T {
    if pool::is_serial() { operation(&Serial) } else { operation(Pool::global()) }
}

/// Calls `operation` with the threads to use on this thread: [`Serial`] without the standard library.
#[cfg(not(feature = "std"))]
pub fn with_threads<T>(operation: impl FnOnce(&dyn Threads) -> T) -> T {
    operation(&Serial)
}

#[cfg(feature = "std")]
mod pool {
    #![allow(unsafe_code, reason = "jobs that borrow are lent to threads that outlive them")]

    use std::prelude::v1::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
    use std::thread::JoinHandle;

    use super::Threads;

    /// A pool of threads that wait for work. They spin for some microseconds before they sleep.
    pub struct Pool {
        shared: Arc<Shared>,
        helpers: Vec<JoinHandle<()>>,
        /// Only one computation runs at a time.
        turn: Mutex<()>,
    }

    struct Shared {
        /// Counts the calls in steps of two. Odd values shut the pool down.
        call: AtomicUsize,
        /// The job of this call and the number of its indices.
        task: Mutex<Option<Task>>,
        wake: Condvar,
        next: AtomicUsize,
        /// Number of helpers that have finished this call.
        done: AtomicUsize,
        panicked: AtomicUsize,
    }

    #[derive(Clone, Copy)]
    struct Task {
        job: *const (dyn Fn(usize, usize) + Sync),
        jobs: usize,
    }
    // SAFETY: the job is `Sync`, and `each` does not return before all helpers have released it.
    unsafe impl Send for Task {}

    /// An index beyond all jobs. Each thread may increment it without wrapping around to 0.
    const NO_MORE: usize = usize::MAX / 2;

    /// Number of spins before a thread sleeps or yields: about 50 microseconds.
    const SPINS: usize = 2000;

    impl core::fmt::Debug for Pool {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            write!(f, "Pool({})", self.count())
        }
    }

    impl Pool {
        /// Creates a pool of `threads` threads, including the calling one. 0 means one per core.
        ///
        /// # Panics
        /// If the system cannot create a thread.
        pub fn new(threads: usize) -> Self {
            let threads = match threads {
                0 => std::thread::available_parallelism().map_or(1, core::num::NonZero::get),
                some => some,
            };
            let shared = Arc::new(Shared {
                call: AtomicUsize::new(0),
                task: Mutex::new(None),
                wake: Condvar::new(),
                next: AtomicUsize::new(0),
                done: AtomicUsize::new(0),
                panicked: AtomicUsize::new(0),
            });
            let helpers = (1..threads)
                .map(|worker| {
                    let shared = shared.clone();
                    let name = format!("bagssl-{worker}");
                    let thread = std::thread::Builder::new().name(name).spawn(move || help(&shared, worker));
                    thread.expect("the system gives a thread")
                })
                .collect();
            Pool { shared, helpers, turn: Mutex::new(()) }
        }

        /// Returns the pool of this process. It has one thread per core unless [`Pool::set_global`]
        /// was called first.
        pub fn global() -> &'static Pool {
            GLOBAL.get_or_init(|| Pool::new(0))
        }

        /// Creates the pool of this process with this number of threads. Returns `false` if the
        /// pool already exists.
        pub fn set_global(threads: usize) -> bool {
            let mut first = false;
            GLOBAL.get_or_init(|| {
                first = true;
                Pool::new(threads)
            });
            first
        }
    }

    static GLOBAL: OnceLock<Pool> = OnceLock::new();

    std::thread_local! {
        static SERIAL: core::cell::Cell<bool> = const { core::cell::Cell::new(false) };
    }

    pub(crate) fn is_serial() -> bool {
        SERIAL.get()
    }

    /// Runs `operation` with serial kernels: kernels that use [`with_threads`](super::with_threads) stay
    /// on this thread. Use it in programs that run several computations in parallel.
    pub fn serially<T>(operation: impl FnOnce() -> T) -> T {
        struct Restore(bool);
        impl Drop for Restore {
            fn drop(&mut self) {
                SERIAL.set(self.0);
            }
        }
        let _restore = Restore(SERIAL.replace(true));
        operation()
    }

    // SAFETY: `next` hands out each index once, each thread has its own worker number, and `Finish`
    // waits for all of them.
    unsafe impl Threads for Pool {
        fn count(&self) -> usize {
            self.helpers.len() + 1
        }

        fn each(&self, jobs: usize, job: &(dyn Fn(usize, usize) + Sync)) {
            if self.helpers.is_empty() || jobs <= 1 {
                serially(|| (0..jobs).for_each(|index| job(index, 0)));
                return;
            }
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let shared = &*self.shared;
            // SAFETY: only the lifetime changes. The job outlives this call, and no helper uses it
            // afterwards (`Finish`).
            let job: *const (dyn Fn(usize, usize) + Sync) = unsafe {
                core::mem::transmute::<&(dyn Fn(usize, usize) + Sync), &'static (dyn Fn(usize, usize) + Sync)>(job)
            };
            {
                let mut task = lock(&shared.task);
                *task = Some(Task { job, jobs });
                shared.next.store(0, Ordering::Relaxed);
                shared.done.store(0, Ordering::Relaxed);
                // Left over if the last caller's own job panicked.
                shared.panicked.store(0, Ordering::Relaxed);
                shared.call.fetch_add(2, Ordering::Release);
            }
            shared.wake.notify_all();
            let finish = Finish { shared, helpers: self.helpers.len() };
            run(shared, Task { job, jobs }, 0);
            drop(finish);
            assert!(shared.panicked.swap(0, Ordering::Relaxed) == 0, "a job of the pool panicked");
        }
    }

    /// Waits for the helpers, even if this thread's own job panics.
    struct Finish<'a> {
        shared: &'a Shared,
        helpers: usize,
    }

    impl Drop for Finish<'_> {
        fn drop(&mut self) {
            // Start no further jobs, in case this thread panicked.
            self.shared.next.store(NO_MORE, Ordering::Relaxed);
            let mut spins = 0;
            while self.shared.done.load(Ordering::Acquire) < self.helpers {
                pause(&mut spins);
            }
            *lock(&self.shared.task) = None;
        }
    }

    impl Drop for Pool {
        fn drop(&mut self) {
            {
                let _work = lock(&self.shared.task);
                self.shared.call.fetch_add(1, Ordering::Release);
            }
            self.shared.wake.notify_all();
            for helper in self.helpers.drain(..) {
                // Panics in helpers were caught.
                let _ = helper.join();
            }
        }
    }

    fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(spins: &mut usize) {
        *spins += 1;
        if *spins < SPINS { core::hint::spin_loop() } else { std::thread::yield_now() }
    }

    fn run(shared: &Shared, task: Task, worker: usize) {
        loop {
            let index = shared.next.fetch_add(1, Ordering::Relaxed);
            if index >= task.jobs {
                return;
            }
            // SAFETY: `each` waits for all threads that run a job of its call.
            let job = unsafe { &*task.job };
            serially(|| job(index, worker));
        }
    }

    fn help(shared: &Shared, worker: usize) {
        let mut seen = 0;
        loop {
            let mut spins = 0;
            while shared.call.load(Ordering::Acquire) == seen && spins < SPINS {
                spins += 1;
                core::hint::spin_loop();
            }
            let task = {
                let mut task = lock(&shared.task);
                while shared.call.load(Ordering::Acquire) == seen {
                    task = shared.wake.wait(task).unwrap_or_else(PoisonError::into_inner);
                }
                *task
            };
            seen = shared.call.load(Ordering::Acquire);
            if seen % 2 == 1 {
                return;
            }
            if let Some(task) = task {
                let outcome = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| run(shared, task, worker)));
                if outcome.is_err() {
                    shared.panicked.fetch_add(1, Ordering::Relaxed);
                    shared.next.store(NO_MORE, Ordering::Relaxed);
                }
            }
            shared.done.fetch_add(1, Ordering::Release);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn pool_runs_each_job_once_on_distinct_workers() {
            for threads in [1, 2, 5] {
                let pool = Pool::new(threads);
                for jobs in [0, 1, 2, 100] {
                    let runs: Vec<AtomicUsize> = (0..jobs).map(|_| AtomicUsize::new(0)).collect();
                    let busy: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
                    pool.each(jobs, &|index, worker| {
                        assert_eq!(busy[worker].fetch_add(1, Ordering::SeqCst), 0);
                        runs[index].fetch_add(1, Ordering::SeqCst);
                        busy[worker].fetch_sub(1, Ordering::SeqCst);
                    });
                    assert!(runs.iter().all(|count| count.load(Ordering::SeqCst) == 1), "{threads} {jobs}");
                }
            }
        }

        #[test]
        fn pool_survives_a_panic() {
            let pool = Pool::new(3);
            let broken = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
                pool.each(30, &|index, _| assert!(index != 7, "job 7"));
            }));
            assert!(broken.is_err());
            let sum = AtomicUsize::new(0);
            pool.each(10, &|index, _| {
                sum.fetch_add(index, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        }

        /// A panicking job stops the others. No job runs twice, however many panic.
        #[test]
        fn pool_runs_no_job_twice_after_a_panic() {
            for all in [false, true] {
                let pool = Pool::new(4);
                let runs: Vec<AtomicUsize> = (0..200).map(|_| AtomicUsize::new(0)).collect();
                let broken = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
                    pool.each(runs.len(), &|index, _| {
                        runs[index].fetch_add(1, Ordering::SeqCst);
                        assert!(index != 1 && !all, "job {index}");
                        std::thread::sleep(core::time::Duration::from_micros(300));
                    });
                }));
                assert!(broken.is_err());
                assert!(runs.iter().all(|count| count.load(Ordering::SeqCst) <= 1));
                // The next call is not affected.
                let sum = AtomicUsize::new(0);
                pool.each(10, &|index, _| {
                    sum.fetch_add(index, Ordering::Relaxed);
                });
                assert_eq!(sum.into_inner(), 45);
            }
        }

        #[test]
        fn nested_pool_runs_serially() {
            for (threads, jobs) in [(1, 5), (3, 1)] {
                let nobody = |_, _| super::super::with_threads(|threads| assert_eq!(threads.count(), 1));
                Pool::new(threads).each(jobs, &nobody);
            }
            let pool = Pool::new(3);
            pool.each(20, &|_, _| super::super::with_threads(|threads| assert_eq!(threads.count(), 1)));
            super::super::with_threads(|threads| assert_eq!(threads.count(), Pool::global().count()));
        }

        #[test]
        fn pool_serves_concurrent_callers() {
            let pool = Pool::new(2);
            let sum = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..100 {
                            pool.each(7, &|_, _| {
                                sum.fetch_add(1, Ordering::Relaxed);
                            });
                        }
                    });
                }
            });
            assert_eq!(sum.into_inner(), 2800);
        }
    }
}
