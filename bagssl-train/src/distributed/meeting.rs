//! An all-gather between threads.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Rank;
use crate::error::{Error, Result};

/// A worker's handle for exchanging values with the other workers of a group. Dropping a handle
/// makes the others' calls fail instead of blocking forever.
#[derive(Debug)]
pub struct Meeting<T> {
    rank: Rank,
    table: Arc<Table<T>>,
}

#[derive(Debug)]
struct Table<T> {
    round: Mutex<Round<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Round<T> {
    given: Vec<Option<T>>,
    /// The values of all workers, and the number of workers that have yet to take them.
    all: Option<(Vec<T>, usize)>,
    /// Whether a worker has exited.
    broken: bool,
}

impl<T> Table<T> {
    fn lock(&self) -> MutexGuard<'_, Round<T>> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, round: MutexGuard<'a, Round<T>>) -> MutexGuard<'a, Round<T>> {
        self.changed.wait(round).unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Meeting<T> {
    /// Creates the handles of `count` workers, ordered by rank.
    pub fn new(count: usize) -> Vec<Self> {
        let round = Round { given: (0..count).map(|_| None).collect(), all: None, broken: false };
        let table = Arc::new(Table { round: Mutex::new(round), changed: Condvar::new() });
        (0..count)
            .map(|number| Meeting { rank: Rank { rank: number, world_size: count }, table: table.clone() })
            .collect()
    }

    /// Returns the worker's rank.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// Contributes `own` and returns the values of all workers, ordered by rank.
    ///
    /// # Errors
    /// [`Error::Workers`] if a worker has exited.
    pub fn all(&self, own: T) -> Result<Vec<T>> {
        let ended = || Error::Workers("another worker has exited".into());
        let Meeting { rank, table } = self;
        let mut round = table.lock();
        // All workers must take the previous round's values first.
        while round.all.is_some() && !round.broken {
            round = table.wait(round);
        }
        if round.broken {
            return Err(ended());
        }
        round.given[rank.rank] = Some(own);
        if round.given.iter().all(Option::is_some) {
            let all = round.given.iter_mut().filter_map(Option::take).collect();
            round.all = Some((all, rank.world_size));
            table.changed.notify_all();
        }
        while round.all.is_none() && !round.broken {
            round = table.wait(round);
        }
        let Some((all, left)) = &mut round.all else { return Err(ended()) };
        *left -= 1;
        let (result, left) = (all.clone(), *left);
        if left == 0 {
            round.all = None;
            table.changed.notify_all();
        }
        Ok(result)
    }
}

impl<T> Drop for Meeting<T> {
    fn drop(&mut self) {
        self.table.lock().broken = true;
        self.table.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_get_what_all_lay_down_round_by_round() {
        let results = std::thread::scope(|scope| {
            let seats: Vec<_> = Meeting::new(3).into_iter().collect();
            let work = |seat: Meeting<usize>| (0..50).map(|r| seat.all(10 * r + seat.rank().rank).unwrap()).collect();
            let workers: Vec<_> = seats.into_iter().map(|seat| scope.spawn(move || work(seat))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<Vec<Vec<usize>>>>()
        });
        for result in results {
            assert!(result.iter().enumerate().all(|(r, all)| all == &[10 * r, 10 * r + 1, 10 * r + 2]));
        }
    }
}
