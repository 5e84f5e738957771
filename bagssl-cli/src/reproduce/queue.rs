//! Runs jobs in parallel.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::terminal::progress::Several;

/// Runs all stages in order, `jobs` in parallel, and reports each finished stage. After a failure,
/// running stages complete, and no other stage starts.
pub(super) fn all<S: Sync>(
    stages: &[S],
    jobs: usize,
    label: impl Fn(&S) -> String + Sync,
    one: impl Fn(&S, &Several) -> Result<()> + Sync,
) -> Result<()> {
    let (next, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failure: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let bars = Several::new();
    let worker = || {
        while let Some(stage) = stages.get(next.fetch_add(1, Ordering::SeqCst)) {
            let started = Instant::now();
            if let Err(error) = one(stage, &bars).with_context(|| label(stage)) {
                next.store(stages.len(), Ordering::SeqCst);
                failure.lock().expect("no worker panics with it").get_or_insert(error);
                return;
            }
            let count = finished.fetch_add(1, Ordering::SeqCst) + 1;
            let line = format!("[{count}/{}] {}: {:.0} s", stages.len(), label(stage), started.elapsed().as_secs_f64());
            bars.report(&line);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(stages.len()) {
            scope.spawn(worker);
        }
    });
    match failure.into_inner().expect("no worker panics with it") {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_runs_each_stage_once_and_names_failures() {
        let done = Mutex::new(vec![]);
        let one = |stage: &u32, _: &Several| {
            done.lock().unwrap().push(*stage);
            anyhow::ensure!(*stage != 7, "no");
            Ok(())
        };
        all(&[1, 2, 3], 2, u32::to_string, one).unwrap();
        done.lock().unwrap().sort_unstable();
        assert_eq!(*done.lock().unwrap(), [1, 2, 3]);
        done.lock().unwrap().clear();
        let error = all(&[6, 7, 8], 1, u32::to_string, one).unwrap_err();
        assert_eq!((format!("{error:#}"), done.lock().unwrap().clone()), ("7: no".into(), vec![6, 7]));
    }
}
