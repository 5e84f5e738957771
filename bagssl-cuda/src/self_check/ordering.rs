//! Checks that work on our stream and on Burn's is ordered, from one thread and from several.

use bagssl_core::model::Kernels;
use bagssl_core::plan::Window;
use burn::tensor::{FloatDType, Tensor};

use super::report::{Checks, Figure};
use super::values::{flat, random, tensor};
use crate::backend::kernels::{Cudnn, F32};
use crate::ops::run::OnCuda;
use crate::runtime::driver::Ordering;
use crate::runtime::job::with_ordering;

const RUNS: usize = 4;
const THREADS: u64 = 3;
const DIMS: [usize; 4] = [64, 64, 32, 32];

/// The side of the matrices of [`Late::Ours`], and the number of products queued before Burn reads
/// the last.
///
/// Each product takes `2 * 4096^3` = 1.4e11 f32 operations. At the 67e12 operations per second of
/// an H100's data sheet this takes at least 2.1 ms. The 12 products run for at least 25 ms, and
/// longer on most other GPUs. Queueing takes the host about 10 microseconds per product, and
/// nothing between them and the read blocks.
const SIDE: usize = 4096;
const PRODUCTS: usize = 12;

/// The number of values of [`Late::Burns`], and the number of Burn's operations queued before ours
/// reads the last.
///
/// Each operation reads and writes `4 * 2^26` bytes, 0.54 GB in total. At the 3.35e12 bytes per
/// second of an H100's data sheet this takes at least 0.16 ms. The 150 operations run for at least
/// 24 ms.
const VALUES: usize = 1 << 26;
const STEPS: usize = 150;

/// The number of values read to the host: the last ones, which long work writes last.
const READ: usize = 1 << 16;

/// Long work, and its reader.
#[derive(Debug, Clone, Copy)]
enum Late {
    /// Runs on our stream, read by Burn.
    Ours,
    /// Runs on Burn's stream, read by ours.
    Burns,
}

/// Checks that runs ordered by events are bitwise equal to runs that synchronize on the host. Runs
/// without any ordering must differ (the negative control), or this check would prove nothing.
pub(super) fn ordering<B: OnCuda>(checks: &mut Checks<'_>) {
    for threads in [1, THREADS] {
        checks.check("bf16", &format!("convolutions between Burn's operations, {DIMS:?}, {threads} threads"), || {
            // The first run finds the plans.
            run_chains::<B>(Ordering::Host, threads);
            let expected = run_chains::<B>(Ordering::Host, threads);
            let differing = (0..RUNS).filter(|_| run_chains::<B>(Ordering::Events, threads) != expected).count();
            vec![figure("by events, runs that differ", differing)]
        });
    }
    for late in [Late::Ours, Late::Burns] {
        let shape = match late {
            Late::Ours => format!("{PRODUCTS} products of side {SIDE} on our stream, then Burn's read"),
            Late::Burns => format!("{STEPS} operations of Burn's on {VALUES} values, then our read"),
        };
        checks.check("f32", &shape, || lates::<B>(late));
    }
}

/// Before each run, a run with another seed fills the memory, so that a read that comes too early
/// sees its values.
fn lates<B: OnCuda>(late: Late) -> Vec<Figure> {
    let device = B::Device::default();
    // The factor's values are in [-1, 1), with a mean square of 1/3. With this scaling, products
    // keep their size.
    let factor = tensor::<B, 2>(&random(3, SIDE * SIDE), [SIDE, SIDE], &device) * (3.0 / SIDE as f32).sqrt();
    settle(&factor);
    let run = |ordering, seed| with_ordering(ordering, || late.run(seed, &factor));
    let other = run(Ordering::Host, 2);
    let expected = run(Ordering::Host, 1);
    let differs = |ordering| {
        run(Ordering::Host, 2);
        let got = run(ordering, 1);
        got.len() != READ || got != expected
    };
    let by_events = (0..RUNS).filter(|_| differs(Ordering::Events)).count();
    let as_if_ordered = (0..RUNS).filter(|_| !differs(Ordering::None)).count();
    // Waits for the work that the last unordered run left.
    run(Ordering::Host, 2);
    let note = "negative control: each run must differ (not with CUDA_LAUNCH_BLOCKING=1)";
    vec![
        figure("seeds that give the same", usize::from(other == expected)),
        figure("by events, runs that differ", by_events),
        Figure { note: note.into(), ..figure("not ordered, runs that do not", as_if_ordered) },
    ]
}

fn figure(of: &str, runs: usize) -> Figure {
    Figure::new(of, runs as f64, 0.0)
}

impl Late {
    /// Returns the bits of the last [`READ`] values.
    fn run<B: OnCuda>(self, seed: u64, factor: &Tensor<B, 2>) -> Vec<u32> {
        let row = tensor::<B, 2>(&random(seed, SIDE), [1, SIDE], &factor.device());
        let multiplied = |rows| <Cudnn<F32> as Kernels<B>>::linear(rows, factor.clone(), None);
        let last_rows = |rows: Tensor<B, 2>| {
            let [count, _] = rows.dims();
            rows.narrow(0, count - READ / SIDE, READ / SIDE)
        };
        match self {
            Late::Ours => {
                let rows = row.repeat_dim(0, SIDE);
                settle(&rows);
                bits(last_rows((0..PRODUCTS).fold(rows, |rows, _| multiplied(rows))) * 1.5)
            }
            Late::Burns => {
                let rows = row.repeat_dim(0, VALUES / SIDE);
                settle(&rows);
                bits(multiplied(last_rows((0..STEPS).fold(rows, |rows, _| rows * 0.999))))
            }
        }
    }
}

/// Waits until a tensor of Burn's is computed.
fn settle<B: OnCuda>(tensor: &Tensor<B, 2>) {
    let _ = bits(tensor.clone().narrow(0, 0, 1));
}

/// Returns the results of `threads` concurrent chains.
fn run_chains<B: OnCuda>(ordering: Ordering, threads: u64) -> Vec<Vec<u32>> {
    with_ordering(ordering, || {
        std::thread::scope(|scope| {
            let chains: Vec<_> = (1..=threads).map(|seed| scope.spawn(move || chain::<B>(seed))).collect();
            chains.into_iter().map(|chain| chain.join().unwrap_or_default()).collect()
        })
    })
}

/// Runs convolutions between Burn's operations of similar duration. Returns the bits of the result.
fn chain<B: OnCuda>(seed: u64) -> Vec<u32> {
    let device = B::Device::default();
    let window = Window::square(3, 1, 1);
    let weight = tensor::<B, 4>(&random(2, 64 * 64 * 9), [64, 64, 3, 3], &device) * 0.04;
    let mut map = tensor::<B, 4>(&random(seed, DIMS.iter().product()), DIMS, &device).cast(FloatDType::BF16);
    let conv = |map: Tensor<B, 4>| <Cudnn as Kernels<B>>::conv2d(map, weight.clone(), window);
    for _ in 0..40 {
        let first = conv(map.clone() * 1.5);
        let second = conv((first + map) * 0.5);
        map = (second * 0.7).tanh() * 1.1 + 0.01;
    }
    bits(map)
}

fn bits<B: OnCuda, const D: usize>(tensor: Tensor<B, D>) -> Vec<u32> {
    flat(tensor).into_iter().map(f32::to_bits).collect()
}
