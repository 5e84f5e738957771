//! What workers on threads exchange.
#![cfg(feature = "ndarray")]

use bagssl_train::backend::NdArray;
use bagssl_train::distributed::{Collective, Threads};
use burn::tensor::Tensor;

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
fn barrier_against_all_reduce_is_refused() {
    let results = on_threads(2, |end| match end.rank().rank {
        0 => end.barrier().is_ok(),
        _ => end.all_reduce(tensor(&[1.0])).is_err(),
    });
    assert_eq!(results, [true; 2]);
}

#[test]
fn all_reduce_and_all_gather_cover_all_workers() {
    let results = on_threads(3, |end| {
        let number = end.rank().rank as f32;
        let mut all = Vec::new();
        for round in 0..50 {
            let sum = end.all_reduce(tensor(&[number, round as f32])).unwrap();
            all.extend(values(sum));
            all.extend(values(end.all_gather(tensor(&[number + 10.0 * round as f32])).unwrap()));
        }
        all
    });
    assert_eq!(results[0][5 * 7..5 * 8], [3.0, 21.0, 70.0, 71.0, 72.0]);
    assert!(results.iter().all(|result| result == &results[0]));
}

#[test]
fn waiting_for_an_exited_worker_fails() {
    let results = on_threads(3, |end| match end.rank().rank {
        1 => None,
        _ => Some(end.all_reduce(tensor(&[1.0])).unwrap_err().to_string()),
    });
    assert_eq!(results[0].as_deref(), Some("workers: another worker has exited"));
    assert_eq!(results[2], results[0]);
}

#[test]
fn tensors_of_unequal_lengths_are_refused() {
    let results = on_threads(2, |end| {
        let length = 1 + end.rank().rank;
        end.all_reduce(tensor(&vec![0.0; length])).unwrap_err().to_string()
    });
    assert_eq!(results[0], "workers: expected 1 values from each worker, got 2");
}
