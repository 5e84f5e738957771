//! An all-gather between threads.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Rank;
use crate::error::{Error, Result};

/// A worker's handle for exchanging values with the other workers of a group. Dropping a handle
/// makes the others' calls fail instead of blocking forever.
#[derive(Debug)]
pub struct Rendezvous<T> {
    rank: Rank,
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    round: Mutex<Round<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Round<T> {
    values: Vec<Option<T>>,
    /// The values of all workers, and the number of workers that have yet to take them.
    gathered: Option<(Vec<T>, usize)>,
    /// Whether a worker has exited.
    broken: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Round<T>> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, round: MutexGuard<'a, Round<T>>) -> MutexGuard<'a, Round<T>> {
        self.changed.wait(round).unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Rendezvous<T> {
    /// Creates the handles of `count` workers, ordered by rank.
    pub fn new(count: usize) -> Vec<Self> {
        let round = Round { values: (0..count).map(|_| None).collect(), gathered: None, broken: false };
        let shared = Arc::new(Shared { round: Mutex::new(round), changed: Condvar::new() });
        (0..count)
            .map(|number| Rendezvous { rank: Rank { rank: number, world_size: count }, shared: shared.clone() })
            .collect()
    }

    /// Returns the worker's rank.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// Contributes `value` and returns the values of all workers, ordered by rank.
    ///
    /// # Errors
    /// [`Error::Workers`] if a worker has exited.
    pub fn all_gather(&self, value: T) -> Result<Vec<T>> {
        let ended = || Error::Workers("another worker has exited".into());
        let Rendezvous { rank, shared } = self;
        let mut round = shared.lock();
        // All workers must take the previous round's values first.
        while round.gathered.is_some() && !round.broken {
            round = shared.wait(round);
        }
        if round.broken {
            return Err(ended());
        }
        round.values[rank.rank] = Some(value);
        if round.values.iter().all(Option::is_some) {
            let gathered = round.values.iter_mut().filter_map(Option::take).collect();
            round.gathered = Some((gathered, rank.world_size));
            shared.changed.notify_all();
        }
        while round.gathered.is_none() && !round.broken {
            round = shared.wait(round);
        }
        let Some((gathered, remaining)) = &mut round.gathered else { return Err(ended()) };
        *remaining -= 1;
        let (result, remaining) = (gathered.clone(), *remaining);
        if remaining == 0 {
            round.gathered = None;
            shared.changed.notify_all();
        }
        Ok(result)
    }
}

impl<T> Drop for Rendezvous<T> {
    fn drop(&mut self) {
        self.shared.lock().broken = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_gather_by_rank_for_many_rounds() {
        let results = std::thread::scope(|scope| {
            let handles: Vec<_> = Rendezvous::new(3).into_iter().collect();
            let gather = |handle: Rendezvous<usize>| {
                (0..50).map(|r| handle.all_gather(10 * r + handle.rank().rank).unwrap()).collect()
            };
            let workers: Vec<_> = handles.into_iter().map(|handle| scope.spawn(move || gather(handle))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<Vec<Vec<usize>>>>()
        });
        for result in results {
            assert!(result.iter().enumerate().all(|(r, all)| all == &[10 * r, 10 * r + 1, 10 * r + 2]));
        }
    }
}
