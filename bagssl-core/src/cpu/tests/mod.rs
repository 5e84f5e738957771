//! Tests the executor against a naive network in f64, for each instruction set.

use std::prelude::v1::*;

use proptest::prelude::*;

use super::{Executor, ExecutorOptions, InstructionSet, Pool, Serial, Threads, Values};
use crate::error::Result;
use crate::plan::{Kind, Layer, NORM_EPSILON, Op, Plan, Window};
use crate::random::{Address, Purpose, Stream};

mod small;
mod training;

/// Values in [-1, 1), or in [1, 2) for variances.
fn values(seed: u64, name: &str, count: usize) -> Vec<f32> {
    let image = name.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let mut stream: Stream = Address { seed, image, ..Address::default() }.stream(Purpose::Weights);
    let shift = if name.ends_with("running_var") { 1.5 } else { 0.0 };
    let scale = if name.ends_with("running_var") { 0.5 } else { 1.0 };
    (0..count).map(|_| scale * stream.uniform(-1.0, 1.0) + shift).collect()
}

fn source(plan: &Plan, seed: u64) -> impl FnMut(&str) -> Result<Values<'static>> + use<> {
    let parameters = plan.parameters();
    move |name| {
        let parameter = parameters.iter().find(|parameter| parameter.name == name).expect("it is in the plan");
        Ok(values(seed, name, parameter.len()).into())
    }
}

/// A map `[channel, height, width]` in f64.
#[derive(Clone)]
struct Naive {
    size: [usize; 2],
    values: Vec<f64>,
}

impl Naive {
    fn at(&self, channel: usize, y: isize, x: isize) -> Option<f64> {
        let [height, width] = self.size;
        let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x);
        inside.then(|| self.values[(channel * height + y as usize) * width + x as usize])
    }

    fn channels(&self) -> usize {
        self.values.len() / (self.size[0] * self.size[1])
    }

    /// Creates a map from a function of channel, row and column.
    fn from_fn(channels: usize, size: [usize; 2], value: impl Fn(usize, usize, usize) -> f64) -> Self {
        let mut values = Vec::new();
        for channel in 0..channels {
            for y in 0..size[0] {
                values.extend((0..size[1]).map(|x| value(channel, y, x)));
            }
        }
        Naive { size, values }
    }
}

/// Computes each value of the plan for one image.
fn naive(plan: &Plan, seed: u64, input: Naive) -> Vec<Naive> {
    let sizes = plan.sizes(input.size).expect("it fits");
    let mut all = vec![input];
    for (index, layer) in plan.layers().iter().enumerate() {
        let from = all[layer.input].clone();
        let of = |name: &str, part: &str, count: usize| -> Vec<f64> {
            let name = format!("{name}.{part}");
            values(seed, &name, count).into_iter().map(f64::from).collect()
        };
        let norm = |name: &str, outputs: usize| -> Vec<[f64; 2]> {
            let [scale, shift, mean, variance] =
                ["weight", "bias", "running_mean", "running_var"].map(|part| of(name, part, outputs));
            let factor = |output: usize| scale[output] / (variance[output] + NORM_EPSILON).sqrt();
            (0..outputs).map(|output| [factor(output), shift[output] - mean[output] * factor(output)]).collect()
        };
        let lower_bound = |relu: bool| if relu { 0.0 } else { f64::NEG_INFINITY };
        let taps = |window: &Window| {
            let [rows, columns] = window.kernel;
            (0..rows).flat_map(move |y| (0..columns).map(move |x| (y, x))).collect::<Vec<_>>()
        };
        let place = |window: &Window, y: usize, x: usize, tap: (usize, usize)| {
            let along = |axis: usize, at: usize, tap: usize| {
                (at * window.stride[axis] + tap) as isize - window.padding[axis] as isize
            };
            (along(0, y, tap.0), along(1, x, tap.1))
        };
        let output = match &layer.op {
            Op::ConvNorm { conv, norm: name, inputs, outputs, window, residual, relu } => {
                let taps = taps(window);
                let weights = of(conv, "weight", outputs * inputs * taps.len());
                let norm = norm(name, *outputs);
                Naive::from_fn(*outputs, sizes[index + 1], |output, y, x| {
                    let mut sum = 0.0;
                    for input in 0..*inputs {
                        for (number, &tap) in taps.iter().enumerate() {
                            let (from_y, from_x) = place(window, y, x, tap);
                            let weight = weights[(output * inputs + input) * taps.len() + number];
                            sum += weight * from.at(input, from_y, from_x).unwrap_or(0.0);
                        }
                    }
                    let residual_value =
                        residual.map_or(0.0, |value| all[value].at(output, y as isize, x as isize).unwrap());
                    (sum * norm[output][0] + norm[output][1] + residual_value).max(lower_bound(*relu))
                })
            }
            Op::MaxPool { window } => Naive::from_fn(from.channels(), sizes[index + 1], |channel, y, x| {
                let seen = taps(window).into_iter().filter_map(|tap| {
                    let (from_y, from_x) = place(window, y, x, tap);
                    from.at(channel, from_y, from_x)
                });
                seen.fold(f64::NEG_INFINITY, f64::max)
            }),
            Op::GlobalMean => {
                let pixels = from.size[0] * from.size[1];
                Naive::from_fn(from.channels(), [1, 1], |channel, _, _| {
                    from.values[channel * pixels..][..pixels].iter().sum::<f64>() / pixels as f64
                })
            }
            Op::Linear { name, inputs, outputs, bias, norm: norm_name, relu } => {
                let weights = of(name, "weight", outputs * inputs);
                let bias = if *bias { of(name, "bias", *outputs) } else { vec![0.0; *outputs] };
                let norm = norm_name.as_ref().map(|name| norm(name, *outputs));
                Naive::from_fn(*outputs, [1, 1], |output, _, _| {
                    let products = weights[output * inputs..][..*inputs].iter().zip(&from.values);
                    let sum = products.map(|(weight, value)| weight * value).sum::<f64>() + bias[output];
                    let [factor, offset] = norm.as_ref().map_or([1.0, 0.0], |norm| norm[output]);
                    (sum * factor + offset).max(lower_bound(*relu))
                })
            }
        };
        all.push(output);
    }
    all
}

/// The largest difference between executor and naive network, relative to the largest magnitude.
fn error(
    plan: &Plan,
    seed: u64,
    batch: usize,
    size: [usize; 2],
    options: ExecutorOptions,
    threads: &dyn Threads,
) -> f64 {
    let channels = match plan.input() {
        Kind::Map(channels) | Kind::Rows(channels) => channels,
    };
    let input = values(seed, "input", batch * channels * size[0] * size[1]);
    let executor = Executor::new(plan, &mut source(plan, seed), options).unwrap();
    let mut workspace = executor.workspace(batch, size, threads).unwrap();
    // The first run leaves large values in memory, which must not affect the second.
    let poison = vec![1e30; input.len()];
    executor.run(&mut workspace, &poison, threads).unwrap();
    let got = executor.run(&mut workspace, &input, threads).unwrap();
    let mut expected = Vec::new();
    for image in input.chunks(input.len() / batch) {
        let image = Naive { size, values: image.iter().copied().map(f64::from).collect() };
        let last = naive(plan, seed, image).pop().expect("a plan has a layer");
        let pixels = last.size[0] * last.size[1];
        for pixel in 0..pixels {
            expected.extend((0..last.channels()).map(|channel| last.values[channel * pixels + pixel]));
        }
    }
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-30f64, |most, value| most.max(value.abs()));
    let difference = got.iter().zip(&expected).map(|(&got, expected)| (f64::from(got) - expected).abs());
    difference.fold(0.0, |most, value| if value > most || value.is_nan() { value } else { most }) / largest
}

fn available() -> impl Iterator<Item = InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|set| set.is_available())
}

/// The tolerance for two layers with random values. Winograd's transform of a map adds up to four
/// values of 8 bits each; an error of 0.032 has been observed.
fn tolerance(set: InstructionSet) -> f64 {
    if set.is_bf16() { 6e-2 } else { 2e-5 }
}

fn conv(index: usize, inputs: usize, outputs: usize, window: Window, residual: Option<usize>) -> Layer {
    let (conv, norm) = (format!("conv{index}"), format!("norm{index}"));
    Layer {
        input: index,
        op: Op::ConvNorm { conv, norm, inputs, outputs, window, residual, relu: index.is_multiple_of(2) },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two consecutive convolutions with arbitrary windows, on maps that are not square.
    #[test]
    fn convolution_of_any_shape_matches_naive(
        seed in 0u64..1000,
        (height, width) in (1usize..20, 1usize..20),
        batch in 1usize..5,
        channels in (1usize..40, 1usize..70, 1usize..40),
        kernel in (1usize..4, 1usize..4),
        stride in (1usize..4, 1usize..4),
        padding in (0usize..4, 0usize..4),
        exact: bool,
    ) {
        let first = Window { kernel: kernel.into(), stride: stride.into(), padding: padding.into() };
        let plan = Plan::new(Kind::Map(channels.0), vec![
            conv(0, channels.0, channels.1, first, None),
            conv(1, channels.1, channels.2, Window::square(3, 1, 1), None),
        ]).unwrap();
        prop_assume!(plan.sizes([height, width]).is_some());
        let pool = Pool::new(2);
        for set in available() {
            let options = ExecutorOptions { set, exact, ..ExecutorOptions::new(batch, [height, width]) };
            let error = error(&plan, seed, batch, [height, width], options, &pool);
            prop_assert!(error < tolerance(set), "{set:?}: {error}");
        }
    }

    /// Winograd's convolution with residuals that are larger than the output, on small maps that
    /// would not select it.
    #[test]
    fn winograd_at_all_border_sizes(
        seed in 0u64..1000,
        (height, width) in (3usize..14, 3usize..14),
        channels in prop::sample::select(vec![16usize, 17, 48, 96]),
        padding in 0usize..3,
        batch in 1usize..4,
    ) {
        let plan = Plan::new(Kind::Map(channels), vec![
            conv(0, channels, channels, Window::square(3, 1, padding.max(1)), None),
            conv(1, channels, channels, Window::square(3, 1, padding.min(1)), Some(1)),
        ]).unwrap();
        for set in available() {
            // A large nominal batch selects Winograd.
            let options = ExecutorOptions { set, ..ExecutorOptions::new(1000, [height, width]) };
            let error = error(&plan, seed, batch, [height, width], options, &Serial);
            prop_assert!(error < tolerance(set), "{set:?}: {error}");
        }
    }
}

/// A stem with pooling, a stage with a shortcut, final rows: with many and with few images, on one
/// and several threads.
#[test]
fn networks_match_naive() {
    use crate::architecture::{Architecture, mlp};
    let pool = Pool::new(3);
    for set in available() {
        for (architecture, batch, size) in [
            (Architecture::ResNetSmall, 1, [16, 16]),
            (Architecture::ResNetSmall, 40, [16, 16]),
            (Architecture::ResNetSmall, 3, [21, 10]),
        ] {
            let plan = architecture.plan();
            for threads in [&Serial as &dyn Threads, &pool] {
                let options = ExecutorOptions { set, ..ExecutorOptions::new(batch, size) };
                let error = error(&plan, 1, batch, size, options, threads);
                assert!(error < tolerance(set), "{set:?} {architecture:?} {batch} {size:?}: {error}");
            }
        }
        let pooled = Plan::new(
            Kind::Map(3),
            vec![
                conv(0, 3, 20, Window { kernel: [7, 5], stride: [2, 1], padding: [3, 2] }, None),
                Layer {
                    input: 1,
                    op: Op::MaxPool { window: Window { kernel: [3, 2], stride: [2, 1], padding: [1, 0] } },
                },
                Layer { input: 2, op: Op::GlobalMean },
            ],
        );
        let rows = mlp(20, &[33, 7]).unwrap();
        for (plan, size) in [(pooled.unwrap(), [17, 9]), (rows, [1, 1])] {
            let error = error(&plan, 2, 5, size, ExecutorOptions { set, ..ExecutorOptions::new(5, size) }, &pool);
            assert!(error < tolerance(set), "{set:?} {error}");
        }
    }
}

/// Results on a rayon pool and on one thread are bitwise identical.
#[cfg(feature = "rayon")]
#[test]
fn executor_on_rayon_threads() {
    let plan = crate::architecture::Architecture::ResNetSmall.plan();
    let input = values(5, "input", 24 * 3 * 16 * 16);
    let executor = Executor::new(&plan, &mut source(&plan, 5), ExecutorOptions::new(24, [16, 16])).unwrap();
    let run = |threads: &dyn Threads| {
        let mut workspace = executor.workspace(24, [16, 16], threads).unwrap();
        executor.run(&mut workspace, &input, threads).unwrap()
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let on_rayon = pool.install(|| {
        assert_eq!(super::Rayon.count(), 3);
        run(&super::Rayon)
    });
    assert!(on_rayon == run(&Serial));
}

#[test]
fn mismatches_are_refused() {
    let plan = crate::architecture::Architecture::ResNetSmall.plan();
    let options = ExecutorOptions::new(2, [8, 8]);
    let executor = Executor::new(&plan, &mut source(&plan, 0), options).unwrap();
    assert!(executor.workspace(0, [8, 8], &Serial).is_err());
    let mut workspace = executor.workspace(2, [8, 8], &Serial).unwrap();
    for wrong in [0, 1, 3 * 64 + 1, 3 * 3 * 64] {
        let error = executor.run(&mut workspace, &vec![0.0; wrong], &Serial).unwrap_err();
        assert!(error.to_string().contains("expected length 384"), "{error}");
    }
    assert!(executor.run(&mut workspace, &[0.0; 3 * 64], &Pool::new(2)).is_err());
    let bagnet = crate::architecture::Architecture::BagNet33.plan();
    let small = ExecutorOptions::new(1, [32, 33]);
    assert!(Executor::new(&bagnet, &mut source(&bagnet, 0), small).unwrap_err().to_string().contains("[32, 33]"));
    let mut short = |_: &str| Ok(vec![0.0; 3].into());
    assert!(Executor::new(&plan, &mut short, options).is_err());
}

/// An executor rejects the workspace of another executor.
#[test]
fn workspace_of_another_executor_is_refused() {
    let conv = |outputs| Plan::new(Kind::Map(16), vec![conv(0, 16, outputs, Window::square(3, 1, 1), None)]).unwrap();
    let executor = |plan: &Plan, exact| {
        let options = ExecutorOptions { exact, ..ExecutorOptions::new(4, [17, 19]) };
        Executor::new(plan, &mut source(plan, 3), options).unwrap()
    };
    let (narrow, wide) = (conv(16), conv(64));
    let input = values(1, "input", 4 * 16 * 17 * 19);
    let mut space = executor(&narrow, false).workspace(4, [17, 19], &Serial).unwrap();
    assert!(executor(&narrow, false).run(&mut space, &input, &Serial).is_ok());
    for other in [executor(&wide, false), executor(&narrow, true)] {
        let error = other.run(&mut space, &input, &Serial).unwrap_err().to_string();
        assert!(error.contains("expected one created by this executor"), "{error}");
    }
    // So many images that the number of bytes overflows: rejected instead of allocating too little.
    let mean = Plan::new(Kind::Map(16), vec![Layer { input: 0, op: Op::GlobalMean }]).unwrap();
    let mean = Executor::new(&mean, &mut source(&mean, 0), ExecutorOptions::new(1, [16, 16])).unwrap();
    assert!(
        mean.workspace(1 << 60, [16, 16], &Serial).unwrap_err().to_string().contains("that fit in the address space")
    );
}

/// A ReLU would hide NaN as 0.
#[test]
fn non_finite_norms_are_refused() {
    let plan = Plan::new(Kind::Map(3), vec![conv(0, 3, 8, Window::square(1, 1, 0), None)]).unwrap();
    for (part, value, words) in [
        ("running_var", -1.0, "at least 0, got -1"),
        ("weight", f32::NAN, "got NaN"),
        ("bias", f32::INFINITY, "got inf"),
    ] {
        let mut good = source(&plan, 0);
        let mut broken = |name: &str| match name == format!("norm0.{part}") {
            true => Ok(vec![value; 8].into()),
            false => good(name),
        };
        let error = Executor::new(&plan, &mut broken, ExecutorOptions::new(1, [4, 4])).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("norm0"), "{error}");
    }
}

/// Early layers process several images at once, each thread its own. The results are bitwise
/// identical to those of one thread, also for a partial batch.
#[test]
fn large_batch_on_several_threads() {
    let plan = crate::architecture::Architecture::ResNetSmall.plan();
    let executor = Executor::new(&plan, &mut source(&plan, 5), ExecutorOptions::new(100, [16, 16])).unwrap();
    let input = values(5, "input", 100 * 3 * 16 * 16);
    let pool = Pool::new(3);
    for rows in [100, 37] {
        let run = |threads: &dyn Threads| {
            let mut workspace = executor.workspace(100, [16, 16], threads).unwrap();
            executor.run(&mut workspace, &input[..rows * 3 * 16 * 16], threads).unwrap()
        };
        assert!(run(&pool) == run(&Serial));
    }
}
