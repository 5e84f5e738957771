//! The executor against a naive network in f64, for each instruction set.

use std::prelude::v1::*;

use proptest::prelude::*;

use super::{Dense, Executor, InstructionSet, Lean, Options, Pool, Serial, Threads, Values};
use crate::error::Result;
use crate::plan::{Kind, Layer, NORM_EPSILON, Op, Plan, Window};
use crate::random::{Address, Purpose, Stream};

/// Values in [-1, 1), or in [0.5, 1.5) for variances.
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

    /// What `value` gives for each channel, row and column.
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

/// Each value of the plan for one image.
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
        let least = |relu: bool| if relu { 0.0 } else { f64::NEG_INFINITY };
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
                    let beside = residual.map_or(0.0, |value| all[value].at(output, y as isize, x as isize).unwrap());
                    (sum * norm[output][0] + norm[output][1] + beside).max(least(*relu))
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
                    (sum * factor + offset).max(least(*relu))
                })
            }
        };
        all.push(output);
    }
    all
}

/// The largest difference between executor and naive network, over the largest magnitude.
fn error(plan: &Plan, seed: u64, batch: usize, size: [usize; 2], options: Options, threads: &dyn Threads) -> f64 {
    let channels = match plan.input() {
        Kind::Map(channels) | Kind::Rows(channels) => channels,
    };
    let input = values(seed, "input", batch * channels * size[0] * size[1]);
    let executor = Executor::new(plan, &mut source(plan, seed), options).unwrap();
    let mut workspace = executor.workspace(batch, size, threads).unwrap();
    // The second run finds what the first left in memory.
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

fn tolerance(set: InstructionSet) -> f64 {
    if set.is_bf16() { 3e-2 } else { 2e-5 }
}

fn conv(index: usize, inputs: usize, outputs: usize, window: Window, residual: Option<usize>) -> Layer {
    let (conv, norm) = (format!("conv{index}"), format!("norm{index}"));
    Layer { input: index, op: Op::ConvNorm { conv, norm, inputs, outputs, window, residual, relu: index % 2 == 0 } }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two convolutions of any form, one after the other, on maps that are not square.
    #[test]
    fn convolutions_of_any_form(
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
            let options = Options { set, exact, ..Options::new(batch, [height, width]) };
            let error = error(&plan, seed, batch, [height, width], options, &pool);
            prop_assert!(error < tolerance(set), "{set:?}: {error}");
        }
    }

    /// Winograd's convolution, with residuals that are larger than the output, where few pixels would not call for it.
    #[test]
    fn winograd_at_every_edge(
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
            let options = Options { set, ..Options::new(1000, [height, width]) };
            let error = error(&plan, seed, batch, [height, width], options, &Serial);
            prop_assert!(error < tolerance(set), "{set:?}: {error}");
        }
    }
}

/// A stem with pooling, a stage with a shortcut, rows at the end: with many images, and with few, on some threads.
#[test]
fn whole_networks() {
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
                let options = Options { set, ..Options::new(batch, size) };
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
            let error = error(&plan, 2, 5, size, Options { set, ..Options::new(5, size) }, &pool);
            assert!(error < tolerance(set), "{set:?} {error}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let plan = crate::architecture::Architecture::ResNetSmall.plan();
    let options = Options::new(2, [8, 8]);
    let executor = Executor::new(&plan, &mut source(&plan, 0), options).unwrap();
    assert!(executor.workspace(0, [8, 8], &Serial).is_err());
    let mut workspace = executor.workspace(2, [8, 8], &Serial).unwrap();
    for wrong in [0, 1, 3 * 64 + 1, 3 * 3 * 64] {
        let error = executor.run(&mut workspace, &vec![0.0; wrong], &Serial).unwrap_err();
        assert!(error.to_string().contains("expected length 384"), "{error}");
    }
    assert!(executor.run(&mut workspace, &[0.0; 3 * 64], &Pool::new(2)).is_err());
    let bagnet = crate::architecture::Architecture::BagNet33.plan();
    let small = Options::new(1, [32, 33]);
    assert!(Executor::new(&bagnet, &mut source(&bagnet, 0), small).unwrap_err().to_string().contains("[32, 33]"));
    let mut short = |_: &str| Ok(vec![0.0; 3].into());
    assert!(Executor::new(&plan, &mut short, options).is_err());
}

use super::ops::{Convolution, NormGradients, Processor, View};

fn view(values: &[f32], shape: [usize; 4]) -> View<'_> {
    View::new(values, shape).unwrap()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn length(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

/// `[image, height, width, channel]` from `[image, channel, height, width]`.
fn channels_last(values: &[f32], [images, height, width, channels]: [usize; 4]) -> Vec<f32> {
    let mut moved = Vec::with_capacity(values.len());
    for image in 0..images {
        for pixel in 0..height * width {
            moved.extend((0..channels).map(|channel| values[(image * channels + channel) * height * width + pixel]));
        }
    }
    moved
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// A convolution agrees with the naive one, and its gradients are its adjoints: for any `g`,
    /// `<conv(x, w), g> = <x, input_gradient(g, w)> = <w, weight_gradient(x, g)>`.
    #[test]
    fn gradients_of_convolutions_are_adjoints(
        seed in 0u64..1000,
        size in (1usize..20, 1usize..20),
        images in 1usize..12,
        channels in (1usize..40, 1usize..70),
        kernel in (1usize..4, 1usize..4),
        stride in (1usize..4, 1usize..4),
        padding in (0usize..4, 0usize..4),
    ) {
        let window = Window { kernel: kernel.into(), stride: stride.into(), padding: padding.into() };
        let size: [usize; 2] = size.into();
        let Some(out) = window.output(size) else { return Err(TestCaseError::reject("the window does not fit")) };
        let (inputs, outputs) = channels;
        let conv = Convolution { window, inputs, outputs };
        let shape = [images, size[0], size[1], inputs];
        let plane = values(seed, "input", shape.iter().product());
        let x = channels_last(&plane, shape);
        let w = values(seed, "weight", outputs * inputs * kernel.0 * kernel.1);
        let g_shape = [images, out[0], out[1], outputs];
        let g = values(seed, "gradient", g_shape.iter().product());
        let pool = Pool::new(2);
        let (x_view, g_view) = (View::new(&x, shape).unwrap(), View::new(&g, g_shape).unwrap());
        let mut first: Option<[Vec<f32>; 3]> = None;
        for set in available().filter(|set| !set.is_bf16()) {
            let mut of_serial: Option<[Vec<f32>; 3]> = None;
            for threads in [&Serial as &dyn Threads, &pool] {
                let processor = Processor::new(set, threads).unwrap();
                let got = [
                    processor.conv2d(x_view, &w, conv, None, None, false).unwrap(),
                    processor.conv2d_input_gradient(g_view, &w, conv, size).unwrap(),
                    processor.conv2d_weight_gradient(x_view, g_view, conv).unwrap(),
                ];
                let sums = [dot(&got[0], &g), dot(&x, &got[1]), dot(&w, &got[2])];
                let scale = length(&got[0]) * length(&g) + length(&x) * length(&got[1]) + length(&w) * length(&got[2]);
                for sum in sums {
                    prop_assert!((sum - sums[0]).abs() < 1e-5 * scale.max(1e-6), "{set:?} {sums:?} {scale}");
                }
                if let Some(first) = &first {
                    for (got, first) in got.iter().zip(first) {
                        let difference: Vec<f32> = got.iter().zip(first).map(|(a, b)| a - b).collect();
                        prop_assert!(length(&difference) <= 1e-5 * length(first) + 1e-9, "{set:?}");
                    }
                } else {
                    first = Some(got.clone());
                }
                if let Some(serial) = &of_serial {
                    prop_assert!(serial == &got, "{set:?}: threads change bits");
                } else {
                    of_serial = Some(got);
                }
            }
        }
        // One output in each corner, by definition.
        let got = &first.expect("there is a portable set")[0];
        for (image, y, x_at, output) in [(0, 0, 0, 0), (images - 1, out[0] - 1, out[1] - 1, outputs - 1), (0, out[0] - 1, 0, outputs - 1)] {
            let mut sum = 0.0;
            for input in 0..inputs {
                for row in 0..kernel.0 {
                    for column in 0..kernel.1 {
                        let (from_y, from_x) = (y * stride.0 + row, x_at * stride.1 + column);
                        let (Some(from_y), Some(from_x)) = (from_y.checked_sub(padding.0), from_x.checked_sub(padding.1)) else { continue };
                        if from_y < size[0] && from_x < size[1] {
                            let value = plane[((image * inputs + input) * size[0] + from_y) * size[1] + from_x];
                            sum += f64::from(value) * f64::from(w[((output * inputs + input) * kernel.0 + row) * kernel.1 + column]);
                        }
                    }
                }
            }
            let got = f64::from(got[((image * out[0] + y) * out[1] + x_at) * outputs + output]);
            prop_assert!((got - sum).abs() < 1e-4 * (1.0 + (inputs * kernel.0 * kernel.1) as f64).sqrt(), "{got} {sum}");
        }
    }

    /// Batch norm by its definition, its gradients against differences of a function in f64.
    #[test]
    fn batch_norm_by_definition(
        seed in 0u64..1000,
        shape in (1usize..4, 1usize..6, 1usize..6, 1usize..40),
        has_residual: bool,
        relu: bool,
    ) {
        let shape: [usize; 4] = shape.into();
        let channels = shape[3];
        let count = shape.iter().product::<usize>();
        prop_assume!(count / channels > 2);
        let [x, residual, g] = ["x", "residual", "g"].map(|name| values(seed, name, count));
        let [scale, shift] = ["scale", "shift"].map(|name| values(seed, name, channels));
        // The function, and its value under the weights `g`, at inputs in f64.
        let forward = |x: &[f64], scale: &[f64], shift: &[f64], residual: &[f64]| -> Vec<f64> {
            let pixels = (count / channels) as f64;
            let of = |channel: usize| x.iter().skip(channel).step_by(channels);
            let mean: Vec<f64> = (0..channels).map(|c| of(c).sum::<f64>() / pixels).collect();
            let variance: Vec<f64> = (0..channels).map(|c| of(c).map(|v| (v - mean[c]).powi(2)).sum::<f64>() / pixels).collect();
            let one = |(index, value): (usize, &f64)| {
                let c = index % channels;
                let normed = scale[c] * (value - mean[c]) / (variance[c] + NORM_EPSILON).sqrt() + shift[c];
                let sum = normed + if has_residual { residual[index] } else { 0.0 };
                if relu { sum.max(0.0) } else { sum }
            };
            x.iter().enumerate().map(one).collect()
        };
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| f64::from(value)).collect() };
        let expected = forward(&wide(&x), &wide(&scale), &wide(&shift), &wide(&residual));
        // Where a ReLU's input is close to 0, a difference does not show the gradient.
        let smallest = expected.iter().filter(|&&value| value != 0.0).fold(f64::MAX, |least, value| least.min(value.abs()));
        prop_assume!(!relu || smallest > 1e-3);
        for set in available() {
            let processor = Processor::new(set, &Serial).unwrap();
            let beside = has_residual.then(|| view(&residual, shape));
            let normed = processor.norm(view(&x, shape), &scale, &shift, beside, relu).unwrap();
            for (got, expected) in normed.output.iter().zip(&expected) {
                prop_assert!((f64::from(*got) - expected).abs() < 2e-4, "{set:?} {got} {expected}");
            }
            let state = (view(&normed.output, shape), &normed.mean[..], &normed.variance[..]);
            let gradients = processor.norm_gradient(view(&x, shape), &scale, state, has_residual, relu, view(&g, shape)).unwrap();
            let NormGradients { input, scale: to_scale, shift: to_shift, residual: to_residual } = gradients;
            let all = [wide(&x), wide(&scale), wide(&shift), wide(&residual)];
            let got = [Some(&input), Some(&to_scale), Some(&to_shift), to_residual.as_ref()];
            for (kind, got) in got.iter().enumerate() {
                let Some(got) = got else { continue };
                // The derivative along one direction that is not the same in any two places.
                let direction: Vec<f64> = wide(&values(seed, "direction", got.len()));
                let value = |step: f64| -> f64 {
                    let mut moved = all.clone();
                    moved[kind].iter_mut().zip(&direction).for_each(|(value, direction)| *value += step * direction);
                    let out = forward(&moved[0], &moved[1], &moved[2], &moved[3]);
                    out.iter().zip(&g).map(|(out, &g)| out * f64::from(g)).sum()
                };
                let step = 1e-6;
                let expected = (value(step) - value(-step)) / (2.0 * step);
                let along: f64 = got.iter().zip(&direction).map(|(&got, direction)| f64::from(got) * direction).sum();
                let scale = got.iter().zip(&direction).map(|(&got, d)| (f64::from(got) * d).abs()).sum::<f64>();
                prop_assert!((along - expected).abs() < 2e-3 * (1.0 + scale), "{set:?} {kind}: {along} {expected}");
            }
        }
    }
}

/// A small network without padding: fields of 7 pixels, 2 apart, a shortcut past an unpadded convolution.
fn unpadded() -> Plan {
    Plan::new(
        Kind::Map(3),
        vec![
            conv(0, 3, 18, Window::square(3, 1, 0), None),
            conv(1, 18, 18, Window::square(3, 2, 0), None),
            conv(2, 18, 18, Window::square(2, 1, 0), Some(2)),
            Layer { input: 3, op: Op::GlobalMean },
        ],
    )
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// One pass over an image gives what one pass over each crop gives, for images of any size and pieces of them.
    #[test]
    fn dense_is_as_each_crop_alone(
        seed in 0u64..1000,
        (height, width) in (7u32..40, 7u32..40),
        more in 0usize..3,
    ) {
        let plan = unpadded();
        let field = plan.receptive_field().unwrap();
        prop_assert_eq!((field.side, field.stride), (7, 2));
        let side = field.side + more * field.stride;
        let options = Options::new(1, [height as usize, width as usize]);
        let dense = Dense::new(&plan, &mut source(&plan, seed), side, options).unwrap();
        let size = crate::patch::ImageSize { height, width };
        let image = values(seed, "image", (3 * height * width) as usize);
        let Ok(grid) = dense.grid(size) else {
            prop_assert!((side as u32) > height.min(width));
            return Ok(());
        };
        let rows = dense.encode(&image, size, &Serial).unwrap();
        prop_assert_eq!((rows.grid, rows.values.len()), (grid, grid[0] * grid[1] * 18));
        let executor = Executor::new(&plan, &mut source(&plan, seed), Options::new(1, [side, side])).unwrap();
        let mut workspace = executor.workspace(1, [side, side], &Serial).unwrap();
        let largest = rows.values.iter().fold(0f32, |most, value| most.max(value.abs()));
        for row in 0..grid[0] {
            for column in 0..grid[1] {
                let mut crop = Vec::new();
                for channel in 0..3 {
                    for y in 0..side {
                        let start = (channel * height as usize + row * 2 + y) * width as usize + column * 2;
                        crop.extend_from_slice(&image[start..][..side]);
                    }
                }
                let alone = executor.run(&mut workspace, &crop, &Serial).unwrap();
                let got = &rows.values[(row * grid[1] + column) * 18..][..18];
                for (got, alone) in got.iter().zip(&alone) {
                    prop_assert!((got - alone).abs() <= 1e-4 * largest, "{row} {column}: {got} {alone}");
                }
            }
        }
    }
}

/// An image of more than one piece, by the pieces' edges: fields there are those of the crops.
#[test]
fn dense_goes_on_over_the_edges_of_pieces() {
    let plan = unpadded();
    let size = crate::patch::ImageSize { height: 300, width: 530 };
    let dense = Dense::new(&plan, &mut source(&plan, 3), 7, Options::new(1, [300, 530])).unwrap();
    let image = values(3, "image", 3 * 300 * 530);
    let rows = dense.encode(&image, size, &Pool::new(2)).unwrap();
    assert_eq!(rows.grid, [147, 262]);
    let executor = Executor::new(&plan, &mut source(&plan, 3), Options::new(1, [7, 7])).unwrap();
    let mut workspace = executor.workspace(1, [7, 7], &Serial).unwrap();
    for (row, column) in [(0, 0), (124, 124), (125, 125), (124, 249), (125, 250), (146, 261), (3, 251)] {
        let mut crop = Vec::new();
        for channel in 0..3 {
            (0..7)
                .for_each(|y| crop.extend_from_slice(&image[(channel * 300 + row * 2 + y) * 530 + column * 2..][..7]));
        }
        let alone = executor.run(&mut workspace, &crop, &Serial).unwrap();
        let got = &rows.values[(row * 262 + column) * 18..][..18];
        let largest = alone.iter().fold(1e-3f32, |most, value| most.max(value.abs()));
        assert!(got.iter().zip(&alone).all(|(a, b)| (a - b).abs() <= 1e-4 * largest), "{row} {column}");
    }
}

#[test]
fn dense_refuses_padding_and_says_where() {
    let resnet = crate::architecture::Architecture::ResNetSmall.plan();
    let error = Dense::new(&resnet, &mut source(&resnet, 0), 16, Options::new(1, [16, 16])).unwrap_err().to_string();
    assert!(error.contains("layer 0: expected no padding"), "{error}");
    let plan = unpadded();
    for side in [6, 8] {
        assert!(Dense::new(&plan, &mut source(&plan, 0), side, Options::new(1, [16, 16])).is_err());
    }
}

/// The lean executor gives what the naive network gives, one input at a time, whatever its arena held before.
fn lean_error(plan: &Plan, seed: u64, size: [usize; 2]) -> f64 {
    let (Kind::Map(channels) | Kind::Rows(channels)) = plan.input();
    let input = values(seed, "input", channels * size[0] * size[1]);
    let parameters: Vec<(String, Vec<[u8; 4]>)> = plan
        .parameters()
        .iter()
        .map(|parameter| {
            let values = values(seed, &parameter.name, parameter.len());
            (parameter.name.clone(), values.iter().map(|value| value.to_le_bytes()).collect())
        })
        .collect();
    let mut source = |name: &str| {
        let (_, bytes) = parameters.iter().find(|(known, _)| known == name).expect("it is in the plan");
        Ok(crate::checkpoint::Stored::F32(bytes))
    };
    let lean = Lean::new(plan, &mut source).unwrap();
    let needed = lean.arena_len(size).unwrap();
    assert!(lean.run(&mut vec![0.0; needed - 1], &input, size).is_err(), "one value less is too few");
    let mut arena = vec![f32::NAN; needed];
    let got = lean.run(&mut arena, &input, size).unwrap();
    let image = Naive { size, values: input.iter().copied().map(f64::from).collect() };
    let expected = naive(plan, seed, image).pop().expect("a plan has a layer").values;
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-30f64, |most, value| most.max(value.abs()));
    let difference = got.iter().zip(&expected).map(|(&got, expected)| (f64::from(got) - expected).abs());
    difference.fold(0.0, |most, value| if value > most || value.is_nan() { value } else { most }) / largest
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lean_convolutions_of_any_form(
        seed in 0u64..1000,
        size in (1usize..12, 1usize..12),
        channels in (1usize..5, 1usize..6, 1usize..5),
        kernel in (1usize..4, 1usize..4),
        stride in (1usize..4, 1usize..4),
        padding in (0usize..4, 0usize..4),
    ) {
        let first = Window { kernel: kernel.into(), stride: stride.into(), padding: padding.into() };
        let plan = Plan::new(Kind::Map(channels.0), vec![
            conv(0, channels.0, channels.1, first, None),
            conv(1, channels.1, channels.2, Window::square(3, 1, 1), None),
        ]).unwrap();
        prop_assume!(plan.sizes(size.into()).is_some());
        let error = lean_error(&plan, seed, size.into());
        prop_assert!(error < 1e-5, "{error}");
    }
}

/// Shortcuts, pooling, rows; and the arena of the small network is what its largest layers need: three maps of 16
/// channels on 16x16 pixels.
#[test]
fn lean_networks() {
    use crate::architecture::{Architecture, mlp};
    let small = Architecture::ResNetSmall.plan();
    assert!(lean_error(&small, 1, [16, 16]) < 1e-5);
    assert!(lean_error(&small, 1, [21, 10]) < 1e-5);
    assert!(lean_error(&unpadded(), 1, [15, 9]) < 1e-5);
    assert!(lean_error(&mlp(20, &[33, 7]).unwrap(), 2, [1, 1]) < 1e-5);
    let pool = Window { kernel: [3, 2], stride: [2, 1], padding: [1, 0] };
    let pooled =
        vec![conv(0, 3, 5, Window::square(3, 1, 1), None), Layer { input: 1, op: Op::MaxPool { window: pool } }];
    assert!(lean_error(&Plan::new(Kind::Map(3), pooled).unwrap(), 3, [9, 7]) < 1e-5);
    let zeros = vec![[0; 4]; 1 << 16];
    let shapes = small.parameters();
    let mut source = |name: &str| {
        let length = shapes.iter().find(|parameter| parameter.name == name).unwrap().len();
        Ok(crate::checkpoint::Stored::F32(&zeros[..length]))
    };
    let lean = Lean::new(&small, &mut source).unwrap();
    assert_eq!(lean.arena_len([16, 16]).unwrap(), 3 * 16 * 16 * 16);
    let mut short = |_: &str| Ok(crate::checkpoint::Stored::F32(&zeros[..3]));
    assert!(Lean::new(&small, &mut short).is_err());
}
