//! Workers that are threads of one process.

use std::sync::{Arc, Condvar, Mutex};

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::{Exchange, Rank};
use crate::error::{Error, Result};

/// An exchange through the memory of one process. A worker that ends early fails the others instead of leaving them waiting.
#[derive(Debug)]
pub struct Threads<B: Backend> {
    rank: Rank,
    table: Arc<Table<B>>,
}

/// Where workers lay their tensors down.
#[derive(Debug)]
struct Table<B: Backend> {
    round: Mutex<Round<B>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Round<B: Backend> {
    given: Vec<Option<Tensor<B, 1>>>,
    /// What all get, and how many still have to take it.
    all: Option<(Vec<Tensor<B, 1>>, usize)>,
    /// Whether a worker has ended.
    broken: bool,
}

impl<B: Backend> Threads<B> {
    /// The ends of so many workers, in order.
    pub fn new(count: usize) -> Vec<Self> {
        let round = Round { given: (0..count).map(|_| None).collect(), all: None, broken: false };
        let table = Arc::new(Table { round: Mutex::new(round), changed: Condvar::new() });
        (0..count).map(|number| Threads { rank: Rank { number, count }, table: table.clone() }).collect()
    }

    /// Everybody's tensors.
    fn all(&self, tensor: Tensor<B, 1>) -> Result<Vec<Tensor<B, 1>>> {
        let ended = || Error::Workers("another worker has ended".into());
        let Table { round, changed } = &*self.table;
        let wait = |round| changed.wait(round).unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut round = round.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // The last round has to be taken by all first.
        while round.all.is_some() && !round.broken {
            round = wait(round);
        }
        if round.broken {
            return Err(ended());
        }
        round.given[self.rank.number] = Some(tensor);
        if round.given.iter().all(Option::is_some) {
            let all = round.given.iter_mut().filter_map(Option::take).collect();
            round.all = Some((all, self.rank.count));
            changed.notify_all();
        }
        while round.all.is_none() && !round.broken {
            round = wait(round);
        }
        let Some((all, left)) = &mut round.all else { return Err(ended()) };
        *left -= 1;
        let (result, left) = (all.clone(), *left);
        if left == 0 {
            round.all = None;
            changed.notify_all();
        }
        Ok(result)
    }
}

impl<B: Backend> Exchange<B> for Threads<B> {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn sum(&self, tensor: Tensor<B, 1>) -> Result<Tensor<B, 1>> {
        let (device, length) = (tensor.device(), tensor.dims());
        let all = self.all(tensor)?;
        if let Some(other) = all.iter().find(|other| other.dims() != length) {
            let (expected, got) = (length[0], other.dims()[0]);
            return Err(Error::Workers(format!("expected {expected} values from each worker, got {got}")));
        }
        // In the same order for each worker.
        let sum = all.into_iter().map(|tensor| tensor.to_device(&device)).reduce(|sum, tensor| sum + tensor);
        Ok(sum.expect("there is at least this worker's"))
    }
}

impl<B: Backend> Drop for Threads<B> {
    fn drop(&mut self) {
        let mut round = self.table.round.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        round.broken = true;
        self.table.changed.notify_all();
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::backend::NdArray;

    fn on_threads<T: Send>(count: usize, work: impl Fn(Threads<NdArray>) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let work = &work;
            let workers: Vec<_> = Threads::new(count).into_iter().map(|end| scope.spawn(move || work(end))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        })
    }

    fn tensor(values: &[f32]) -> Tensor<NdArray, 1> {
        Tensor::from_floats(values, &Default::default())
    }

    fn values<const D: usize>(tensor: Tensor<NdArray, D>) -> Vec<f32> {
        tensor.into_data().into_vec().unwrap()
    }

    #[test]
    fn sums_and_lists_are_those_of_all() {
        let results = on_threads(3, |end| {
            let number = end.rank().number as f32;
            let mut all = Vec::new();
            for round in 0..50 {
                let sum = end.sum(tensor(&[number, round as f32])).unwrap();
                all.extend(values(sum));
                all.extend(values(end.gather(tensor(&[number + 10.0 * round as f32])).unwrap()));
            }
            all
        });
        assert_eq!(results[0][5 * 7..5 * 8], [3.0, 21.0, 70.0, 71.0, 72.0]);
        assert!(results.iter().all(|result| result == &results[0]));
    }

    #[test]
    fn who_waits_for_a_worker_that_has_ended_is_told() {
        let results = on_threads(3, |end| match end.rank().number {
            1 => None,
            _ => Some(end.sum(tensor(&[1.0])).unwrap_err().to_string()),
        });
        assert_eq!(results[0].as_deref(), Some("workers: another worker has ended"));
        assert_eq!(results[2], results[0]);
    }

    #[test]
    fn tensors_of_other_lengths_are_refused() {
        let results = on_threads(2, |end| {
            let length = 1 + end.rank().number;
            end.sum(tensor(&vec![0.0; length])).unwrap_err().to_string()
        });
        assert_eq!(results[0], "workers: expected 1 values from each worker, got 2");
    }
}
