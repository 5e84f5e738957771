//! Compares the operations of a network with plain loops.

use std::marker::PhantomData;

use bagssl_core::model::{BatchNormBackward, BatchNormInputs, BatchNormOutput, Kernels};
use bagssl_core::plan::Window;
use burn::backend::Autodiff;
use burn::tensor::{FloatDType, Tensor};

use super::reference::{self, Values};
use super::report::{Checks, Figure};
use super::values::{difference, flat, gradient, random, rounded, tensor};
use crate::backend::kernels::{Bf16, Cudnn, F32, Precision, Tf32};
use crate::ops::convolution::columns;
use crate::ops::run::OnCuda;

/// A precision to check, with its name and error bound.
pub(super) trait Checked: Precision {
    const NAME: &'static str;
    const BOUND: f64;
}

impl Checked for Bf16 {
    const NAME: &'static str = "bf16";
    const BOUND: f64 = 1e-2;
}

impl Checked for Tf32 {
    const NAME: &'static str = "tf32";
    const BOUND: f64 = 3e-3;
}

impl Checked for F32 {
    const NAME: &'static str = "f32";
    const BOUND: f64 = 1e-4;
}

const CONVOLUTIONS: [([usize; 5], Window); 7] = [
    ([2, 16, 24, 8, 7], Window::square(3, 1, 1)),
    ([2, 3, 64, 9, 11], Window::square(3, 1, 1)),
    ([3, 16, 32, 8, 6], Window::square(1, 2, 0)),
    ([2, 8, 16, 9, 7], Window::square(3, 2, 1)),
    ([2, 3, 16, 15, 13], Window::square(7, 2, 3)),
    ([1, 5, 7, 6, 5], Window { kernel: [3, 2], stride: [2, 1], padding: [1, 0] }),
    ([4, 64, 64, 5, 9], Window::square(3, 1, 0)),
];

/// `[images, channels, height, width]`, residual, ReLU, and an offset added to all values.
const NORMS: [([usize; 4], bool, bool, f32); 7] = [
    ([4, 64, 8, 7], false, true, 0.0),
    ([4, 128, 5, 8], true, true, 0.0),
    ([40, 2048, 1, 1], false, false, 0.0),
    ([2, 5, 7, 3], true, true, 0.0),
    ([9, 6, 1, 1], false, true, 0.0),
    ([16, 32, 33, 17], true, false, 0.0),
    // A mean that is large relative to the deviation. (In bf16 such values are coarse, but
    // represented exactly.)
    ([8, 24, 16, 9], false, false, 30.0),
];

/// The memory layout of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Contiguous,
    ChannelsLast,
    /// A slice of a larger tensor.
    Sliced,
}

pub(super) fn convolutions<B: OnCuda>(checks: &mut Checks<'_>) {
    On::<B, F32>::new().convolutions(checks);
    On::<B, Tf32>::new().convolutions(checks);
    On::<B, Bf16>::new().convolutions(checks);
}

/// Checks the fallback for passes without an exact cuDNN plan, for all f32 passes.
pub(super) fn columns<B: OnCuda>(checks: &mut Checks<'_>) {
    columns::without_cudnn(|| On::<B, F32>::new().convolutions(checks));
}

pub(super) fn norms<B: OnCuda>(checks: &mut Checks<'_>) {
    On::<B, F32>::new().norms(checks);
    // Scale and shift are f32 here too.
    On::<B, Bf16>::new().norms(checks);
}

pub(super) fn pools<B: OnCuda>(checks: &mut Checks<'_>) {
    On::<B, F32>::new().pools(checks);
    On::<B, Bf16>::new().pools(checks);
}

pub(super) fn linears<B: OnCuda>(checks: &mut Checks<'_>) {
    On::<B, F32>::new().linears(checks);
    On::<B, Tf32>::new().linears(checks);
}

/// Checks on a backend in a precision.
struct On<B: OnCuda, P> {
    device: B::Device,
    precision: PhantomData<P>,
}

impl<B: OnCuda, P: Checked> On<B, P> {
    fn new() -> Self {
        On { device: B::Device::default(), precision: PhantomData }
    }

    fn convolutions(&self, checks: &mut Checks<'_>) {
        for (case, (sizes, window)) in CONVOLUTIONS.into_iter().enumerate() {
            let layout = [Layout::Contiguous, Layout::ChannelsLast, Layout::Sliced][case % 3];
            let [n, inputs, outputs, h, w] = sizes;
            let Window { kernel, stride, padding } = window;
            let how = format!("kernel {kernel:?}, stride {stride:?}, padding {padding:?}, {layout:?}");
            let shape = format!("{:?} to {outputs}, {how}", [n, inputs, h, w]);
            checks.check(P::NAME, &shape, || self.convolution(sizes, window, layout));
        }
    }

    fn norms(&self, checks: &mut Checks<'_>) {
        for (case, norm) in NORMS.into_iter().enumerate() {
            let layout = [Layout::ChannelsLast, Layout::Contiguous, Layout::Sliced][case % 3];
            let (dims, residual, relu, offset) = norm;
            let shape = format!("{dims:?}, residual {residual}, relu {relu}, mean {offset}, {layout:?}");
            checks.check(P::NAME, &shape, || self.norm(norm, layout));
        }
    }

    fn pools(&self, checks: &mut Checks<'_>) {
        let wide = Window { kernel: [3, 2], stride: [2, 1], padding: [1, 0] };
        for (dims, window) in [([2, 24, 9, 7], Window::square(3, 2, 1)), ([2, 5, 6, 5], wide)] {
            let shape = format!("max, {dims:?}, kernel {:?}, stride {:?}", window.kernel, window.stride);
            checks.check(P::NAME, &shape, || self.max_pool(dims, window));
        }
        let dims = [3, 40, 4, 5];
        checks.check(P::NAME, &format!("global mean, {dims:?}"), || self.global_mean(dims));
    }

    fn linears(&self, checks: &mut Checks<'_>) {
        for sizes @ [rows, inputs, outputs] in [[24, 40, 16], [7, 3, 5], [1, 64, 130]] {
            checks.check(P::NAME, &format!("[{rows}, {inputs}] to {outputs}"), || self.linear(sizes));
        }
    }

    /// Returns random values that the type can represent.
    fn random(&self, seed: u64, count: usize) -> Vec<f32> {
        let values = random(seed, count);
        if P::MAPS.is_some() { values.into_iter().map(rounded).collect() } else { values }
    }

    /// Creates a tracked tensor of the type of maps.
    fn map(&self, values: &[f32], dims: [usize; 4], layout: Layout) -> Tensor<Autodiff<B>, 4> {
        let [n, c, h, w] = dims;
        let tensor = |values: &[f32], dims: [usize; 4]| -> Tensor<B, 4> {
            let tensor = tensor(values, dims, &self.device);
            match P::MAPS {
                Some(dtype) => tensor.cast(dtype),
                None => tensor,
            }
        };
        let map = match layout {
            Layout::Contiguous => tensor(values, dims),
            Layout::ChannelsLast => {
                let last: Vec<f32> = (0..values.len())
                    .map(|i| {
                        let (channel, pixel) = (i % c, i / c);
                        values[(pixel / (h * w) * c + channel) * h * w + pixel % (h * w)]
                    })
                    .collect();
                tensor(&last, [n, h, w, c]).permute([0, 3, 1, 2])
            }
            Layout::Sliced => {
                let wider: Vec<f32> =
                    values.chunks(w).flat_map(|row| [9.0].into_iter().chain(row.iter().copied())).collect();
                tensor(&wider, [n, c, h, w + 1]).narrow(3, 1, w)
            }
        };
        Tensor::from_inner(map).require_grad()
    }

    fn leaf<const D: usize>(&self, values: &[f32], dims: [usize; D]) -> Tensor<Autodiff<B>, D> {
        Tensor::from_inner(tensor::<B, D>(values, dims, &self.device)).require_grad()
    }

    fn convolution(&self, [n, inputs, outputs, h, w]: [usize; 5], window: Window, layout: Layout) -> Vec<Figure> {
        let [down, across] = window.output([h, w]).expect("the window fits");
        let (dims, weights) = ([n, inputs, h, w], [outputs, inputs, window.kernel[0], window.kernel[1]]);
        let results = [n, outputs, down, across];
        let [x, k, g] = [(1, dims), (2, weights), (3, results)].map(|(seed, d)| self.random(seed, d.iter().product()));
        let (input, weight) = (self.map(&x, dims, layout), self.leaf(&k, weights));
        let output = <Cudnn<P> as Kernels<Autodiff<B>>>::conv2d(input.clone(), weight.clone(), window);
        let gradients = self.backward(output.clone(), &g, results);
        let got = [flat(output.inner()), gradient(&input, &gradients), gradient(&weight, &gradients)];
        let [x, k, g] = [Values::new(dims, &x), Values::new(weights, &k), Values::new(results, &g)];
        let expected = reference::convolution(&x, &k, &g, window).map(|values| values.values);
        let mut figures = compare::<P, 3>(["output", "input gradient", "weight gradient"], got, expected);
        figures.push(self.fused_convolution([dims, weights, results], window, &x, &k));
        figures
    }

    /// Checks the fused convolution of inference.
    fn fused_convolution(
        &self,
        [dims, weights, results]: [[usize; 4]; 3],
        window: Window,
        x: &Values,
        k: &Values,
    ) -> Figure {
        let count = results.iter().product();
        let (bias, residual) = (random(4, results[1]), self.random(5, count));
        let floats = |values: &Values| values.values.iter().map(|&value| value as f32).collect::<Vec<_>>();
        let output = <Cudnn<P> as Kernels<B>>::conv2d_fused(
            self.map(&floats(x), dims, Layout::Contiguous).inner(),
            tensor(&floats(k), weights, &self.device),
            tensor(&bias, [results[1]], &self.device),
            window,
            Some(self.map(&residual, results, Layout::ChannelsLast).inner()),
            true,
        );
        let none = Values::new(results, &vec![0.0; count]);
        let [mut expected, ..] = reference::convolution(x, k, &none, window);
        let plane = results[2] * results[3];
        for (at, value) in expected.values.iter_mut().enumerate() {
            let bias = f64::from(bias[at / plane % results[1]]);
            *value = (*value + bias + f64::from(residual[at])).max(0.0);
        }
        figure::<P>("bias, residual, relu", &flat(output), &expected.values)
    }

    fn norm(&self, (dims, has_residual, relu, offset): ([usize; 4], bool, bool, f32), layout: Layout) -> Vec<Figure> {
        let count = dims.iter().product();
        let x: Vec<f32> = random(5, count).into_iter().map(|value| value + offset).collect();
        let x: Vec<f32> = if P::MAPS.is_some() { x.into_iter().map(rounded).collect() } else { x };
        let (r, g) = (self.random(6, count), self.random(7, count));
        let (scale, shift) = (random(8, dims[1]), random(9, dims[1]));
        let (input, residual) = (self.map(&x, dims, layout), self.map(&r, dims, Layout::Contiguous));
        let (scales, shifts) = (self.leaf(&scale, [dims[1]]), self.leaf(&shift, [dims[1]]));
        let inputs = BatchNormInputs { input: input.clone(), scale: scales.clone(), shift: shifts.clone() };
        let residual = has_residual.then_some(residual);
        let normed = <Cudnn<P> as Kernels<Autodiff<B>>>::batch_norm(inputs, residual.clone(), relu);
        let gradients = self.backward(normed.output.clone(), &g, dims);
        let values = has_residual.then(|| Values::new(dims, &r));
        let expected =
            reference::norm(&Values::new(dims, &x), [&scale, &shift], values.as_ref(), relu, &Values::new(dims, &g));
        let got = [
            flat(normed.output.inner()),
            flat(normed.mean.inner()),
            flat(normed.variance.inner()),
            gradient(&input, &gradients),
            gradient(&scales, &gradients),
            gradient(&shifts, &gradients),
        ];
        let to_residual = expected.to_residual;
        let expected = [
            expected.output,
            expected.mean,
            expected.variance,
            expected.to_input,
            expected.to_scale,
            expected.to_shift,
        ];
        let in_parts = self.norm_in_parts(
            BatchNormInputs { input: input.inner(), scale: scales.inner(), shift: shifts.inner() },
            (residual.clone().map(Tensor::inner), relu),
            self.map(&g, dims, Layout::ChannelsLast).inner(),
            expected.clone(),
        );
        let mut figures = compare::<P, 6>(NORM_FIGURES, got, expected);
        figures.extend(
            residual.map(|residual| figure::<P>("residual gradient", &gradient(&residual, &gradients), &to_residual)),
        );
        figures.extend(in_parts);
        figures
    }

    /// Checks the same norm in two passes each way, as computed by workers that share a batch.
    fn norm_in_parts(
        &self,
        inputs: BatchNormInputs<B>,
        (residual, relu): (Option<Tensor<B, 4>>, bool),
        gradient: Tensor<B, 4>,
        expected: [Vec<f64>; 6],
    ) -> Vec<Figure> {
        let [rows, _, height, width] = inputs.input.dims();
        let [mean, variance] = <Cudnn<P> as Kernels<B>>::batch_norm_stats(inputs.input.clone());
        let has_residual = residual.is_some();
        let statistics = [mean.clone(), variance.clone()];
        let output = <Cudnn<P> as Kernels<B>>::batch_norm_elemt(inputs.clone(), statistics, residual, relu);
        let normed = BatchNormOutput { output, mean, variance };
        let backward = BatchNormBackward { inputs, normed: normed.clone(), has_residual, relu, gradient };
        let sums = <Cudnn<P> as Kernels<B>>::batch_norm_backward_reduce(backward.clone());
        let count = rows * height * width;
        let (to_input, _) = <Cudnn<P> as Kernels<B>>::batch_norm_backward_elemt(backward, sums.clone(), count);
        let [to_scale, to_shift] = sums.map(flat);
        let got = [flat(normed.output), flat(normed.mean), flat(normed.variance), flat(to_input), to_scale, to_shift];
        let mut figures = compare::<P, 6>(NORM_FIGURES, got, expected);
        figures.iter_mut().for_each(|figure| figure.of.insert_str(0, "in parts, "));
        figures
    }

    fn max_pool(&self, dims: [usize; 4], window: Window) -> Vec<Figure> {
        let [down, across] = window.output([dims[2], dims[3]]).expect("the window fits");
        let results = [dims[0], dims[1], down, across];
        let (x, g) = (self.random(1, dims.iter().product()), self.random(2, results.iter().product()));
        let input = self.map(&x, dims, Layout::Contiguous);
        let output = <Cudnn<P> as Kernels<Autodiff<B>>>::max_pool2d(input.clone(), window);
        let gradients = self.backward(output.clone(), &g, results);
        let expected = reference::max_pool(&Values::new(dims, &x), &Values::new(results, &g), window);
        let got = [flat(output.inner()), gradient(&input, &gradients)];
        compare::<P, 2>(["output", "input gradient"], got, expected.map(|values| values.values))
    }

    fn global_mean(&self, dims: [usize; 4]) -> Vec<Figure> {
        let [n, c, h, w] = dims;
        let (x, g) = (self.random(1, n * c * h * w), random(2, n * c));
        let input = self.map(&x, dims, Layout::Contiguous);
        let output = <Cudnn<P> as Kernels<Autodiff<B>>>::global_mean(input.clone());
        let gradients = self.backward(output.clone(), &g, [n, c]);
        let pixels = h * w;
        let mean = |plane: &[f32]| plane.iter().map(|&value| f64::from(value)).sum::<f64>() / pixels as f64;
        let means = x.chunks(pixels).map(mean).collect();
        let shares = (0..x.len()).map(|at| f64::from(g[at / pixels]) / pixels as f64).collect();
        let got = [flat(output.inner()), gradient(&input, &gradients)];
        compare::<P, 2>(["output", "input gradient"], got, [means, shares])
    }

    /// Checks a linear layer with bias, `[rows, inputs]` to `[rows, outputs]`.
    fn linear(&self, [rows, inputs, outputs]: [usize; 3]) -> Vec<Figure> {
        let [x, k, g] = [rows * inputs, outputs * inputs, rows * outputs].map(|count| random(count as u64, count));
        let bias = random(4, outputs);
        let (input, weight) = (self.leaf(&x, [rows, inputs]), self.leaf(&k, [outputs, inputs]));
        let biases = self.leaf(&bias, [outputs]);
        let output = <Cudnn<P> as Kernels<Autodiff<B>>>::linear(input.clone(), weight.clone(), Some(biases.clone()));
        let gradients = self.backward(output.clone(), &g, [rows, outputs]);
        let [x, k, g] = [x, k, g].map(|values| values.into_iter().map(f64::from).collect::<Vec<_>>());
        let across = reference::turned(&k, [outputs, inputs]);
        let mut expected = reference::product(&x, &across, [rows, inputs, outputs]);
        expected.iter_mut().enumerate().for_each(|(at, value)| *value += f64::from(bias[at % outputs]));
        let to_input = reference::product(&g, &k, [rows, outputs, inputs]);
        let to_weight = reference::product(&reference::turned(&g, [rows, outputs]), &x, [outputs, rows, inputs]);
        let to_bias = (0..outputs).map(|o| (0..rows).map(|row| g[row * outputs + o]).sum()).collect();
        let got = [
            flat(output.inner()),
            gradient(&input, &gradients),
            gradient(&weight, &gradients),
            gradient(&biases, &gradients),
        ];
        let names = ["output", "input gradient", "weight gradient", "bias gradient"];
        compare::<P, 4>(names, got, [expected, to_input, to_weight, to_bias])
    }

    /// Returns the gradients of `sum(output * gradient)`.
    fn backward<const D: usize>(
        &self,
        output: Tensor<Autodiff<B>, D>,
        gradient: &[f32],
        dims: [usize; D],
    ) -> <Autodiff<B> as burn::tensor::backend::AutodiffBackend>::Gradients {
        let gradient = Tensor::from_inner(tensor::<B, D>(gradient, dims, &self.device));
        // Reshaped to one row: Burn sums one dimension at a time, and uses a block per value if a
        // dimension has length 1.
        (output.cast(FloatDType::F32) * gradient).reshape([-1]).sum().backward()
    }
}

const NORM_FIGURES: [&str; 6] = ["output", "mean", "variance", "input gradient", "scale gradient", "shift gradient"];

fn figure<P: Checked>(of: &str, got: &[f32], expected: &[f64]) -> Figure {
    Figure::new(of, difference(got, expected), P::BOUND)
}

fn compare<P: Checked, const N: usize>(names: [&str; N], got: [Vec<f32>; N], expected: [Vec<f64>; N]) -> Vec<Figure> {
    let pairs = got.iter().zip(&expected);
    names.into_iter().zip(pairs).map(|(name, (got, expected))| figure::<P>(name, got, expected)).collect()
}
