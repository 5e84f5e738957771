//! Whether work on our stream and on Burn's is ordered, from one thread and from several.

use bagssl_core::model::Kernels;
use bagssl_core::plan::Window;
use burn::tensor::{FloatDType, Tensor};

use super::super::driver::Ordering;
use super::super::job::with_ordering;
use super::super::kernels::Cudnn;
use super::super::run::Plain;
use super::{Row, random, tensor};

const RUNS: usize = 4;
const THREADS: u64 = 3;
const DIMS: [usize; 4] = [64, 64, 32, 32];

/// Runs with events give the bits of runs that wait on the host; runs without any ordering do not, or this test would show
/// nothing.
pub(super) fn rows() -> Vec<Row> {
    let device = Default::default();
    let one = |ordering| with_ordering(ordering, || chain(1, &device));
    let many = |ordering| {
        with_ordering(ordering, || {
            std::thread::scope(|scope| {
                let chains: Vec<_> =
                    (1..=THREADS).map(|seed| scope.spawn(move || chain(seed, &Default::default()))).collect();
                chains.into_iter().flat_map(|chain| chain.join().unwrap_or_default()).collect::<Vec<u32>>()
            })
        })
    };
    // Twice: the first run finds the plans.
    one(Ordering::Host);
    let expected = [one(Ordering::Host), many(Ordering::Host)];
    let differing = |ordering, threads: bool| {
        let run = || if threads { many(ordering) } else { one(ordering) };
        (0..RUNS).filter(|_| run() != expected[usize::from(threads)]).count()
    };
    let row = |name: &str, threads: bool, differing: usize, pass: bool, note: &str| Row {
        operation: format!("ordering, {name}"),
        shape: format!("{DIMS:?}, {} threads", if threads { THREADS } else { 1 }),
        dtype: "bf16",
        error: differing as f64,
        bound: 0.0,
        pass,
        note: note.into(),
    };
    let mut rows = Vec::new();
    for threads in [false, true] {
        let count = differing(Ordering::Events, threads);
        rows.push(row("by events", threads, count, count == 0, "runs of 4 that differ from waiting on the host"));
    }
    let count = differing(Ordering::None, false);
    rows.push(row("none", false, count, count > 0, "negative control: some of the 4 runs must differ"));
    rows
}

/// Convolutions between operations of Burn's that take about as long; the bits of what comes out.
fn chain(seed: u64, device: &cubecl::cuda::CudaDevice) -> Vec<u32> {
    let window = Window::square(3, 1, 1);
    let weight = tensor::<Plain, 4>(&random(2, 64 * 64 * 9), [64, 64, 3, 3], device) * 0.04;
    let mut map = tensor::<Plain, 4>(&random(seed, DIMS.iter().product()), DIMS, device).cast(FloatDType::BF16);
    let conv = |map: Tensor<Plain, 4>| <Cudnn as Kernels<Plain>>::conv2d(map, weight.clone(), window);
    for _ in 0..40 {
        let first = conv(map.clone() * 1.5);
        let second = conv((first + map) * 0.5);
        map = (second * 0.7).tanh() * 1.1 + 0.01;
    }
    let values = map.cast(FloatDType::F32).into_data().into_vec::<f32>().unwrap_or_default();
    values.into_iter().map(f32::to_bits).collect()
}
