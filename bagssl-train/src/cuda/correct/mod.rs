//! Each operation on this machine's GPU against plain loops on the CPU.

#[cfg(feature = "ndarray")]
mod losses;
#[cfg(feature = "ndarray")]
mod network;
mod ordering;
mod reference;

use std::fmt;

use bagssl_core::model::{Change, Kernels, NormBackward, Normed, NormedInputs};
use bagssl_core::plan::{Parameter, Role, Window};
use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor, TensorData};

use super::kernels::{Bf16, Cudnn, F32, Precision, Tf32};
use super::run::{OnCuda, Plain};
use super::together::FusedStep;
use super::{check, probe};
use crate::backend::Cuda;
use crate::error::Result;
use crate::optimiser::{Optimiser, OptimiserConfig, Trust};
use reference::Values;

/// A line of the table: how far an operation is from what it should give.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The operation, and what of it.
    pub operation: String,
    /// The shapes, and how the tensors lie in memory.
    pub shape: String,
    /// What it computes in.
    pub dtype: &'static str,
    /// The largest difference, over the largest value that it should give.
    pub error: f64,
    /// How large that may be.
    pub bound: f64,
    /// Whether it is not larger.
    pub pass: bool,
    /// What else there is to say: an error of the GPU.
    pub note: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { operation, shape, dtype, error, bound, pass, note } = self;
        let verdict = if *pass { "ok" } else { "FAILED" };
        write!(f, "{verdict:<6} {operation:<44} {dtype:<5} {error:>9.1e} <= {bound:.0e}  {shape}")?;
        if note.is_empty() { Ok(()) } else { write!(f, "  ({note})") }
    }
}

/// Runs every operation with odd shapes, strides, paddings and layouts, with fusion and without, in bf16, TF32 and f32, and the
/// test of the ordering with its negative control. With the feature `ndarray` whole networks and losses are compared as well.
///
/// # Errors
/// [`Error::Cuda`](crate::Error::Cuda) if something of CUDA is missing; what goes wrong on the GPU is a row that fails.
pub fn correct() -> Result<Vec<Row>> {
    probe::require()?;
    // An error from before is not one of these operations.
    let _ = check();
    let mut rows = Vec::new();
    on_backend::<Plain>("", &mut rows);
    on_backend::<Cuda>("fused: ", &mut rows);
    rows.extend(ordering::rows());
    Ok(rows)
}

/// The types that are checked, as one type computes.
trait Checked: Precision {
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

fn on_backend<B: OnCuda>(prefix: &'static str, rows: &mut Vec<Row>) {
    in_precision::<B, F32>(prefix, rows);
    in_precision::<B, Tf32>(prefix, rows);
    in_precision::<B, Bf16>(prefix, rows);
    #[cfg(feature = "ndarray")]
    rows.extend(losses::rows::<B>(prefix));
    steps::<B>(prefix, rows);
}

fn in_precision<B: OnCuda, P: Checked>(prefix: &'static str, rows: &mut Vec<Row>) {
    let checks = Checks::<B, P> { prefix, device: B::Device::default(), rows, precision: std::marker::PhantomData };
    checks.all();
    #[cfg(feature = "ndarray")]
    rows.extend(network::rows::<B, P>(prefix));
}

/// How a tensor lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Contiguous,
    ChannelsLast,
    /// A part of a larger tensor.
    Sliced,
}

/// The checks of one backend and precision.
struct Checks<'a, B: OnCuda, P> {
    prefix: &'static str,
    device: B::Device,
    rows: &'a mut Vec<Row>,
    precision: std::marker::PhantomData<P>,
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

/// `[images, channels, height, width]`, residual, ReLU, and what is added to all values.
const NORMS: [([usize; 4], bool, bool, f32); 7] = [
    ([4, 64, 8, 7], false, true, 0.0),
    ([4, 128, 5, 8], true, true, 0.0),
    ([40, 2048, 1, 1], false, false, 0.0),
    ([2, 5, 7, 3], true, true, 0.0),
    ([9, 6, 1, 1], false, true, 0.0),
    ([16, 32, 33, 17], true, false, 0.0),
    // A mean that is large beside the deviation. (In bf16 such values are coarse, but exactly what they are.)
    ([8, 24, 16, 9], false, false, 30.0),
];

impl<B: OnCuda, P: Checked> Checks<'_, B, P> {
    fn all(mut self) {
        for (case, (sizes, window)) in CONVOLUTIONS.into_iter().enumerate() {
            let layout = [Layout::Contiguous, Layout::ChannelsLast, Layout::Sliced][case % 3];
            self.convolution(sizes, window, layout);
        }
        for (case, (dims, residual, relu, offset)) in NORMS.into_iter().enumerate() {
            let layout = [Layout::ChannelsLast, Layout::Contiguous, Layout::Sliced][case % 3];
            self.norm(dims, (residual, relu), offset, layout);
        }
        self.max_pool([2, 24, 9, 7], Window::square(3, 2, 1));
        self.max_pool([2, 5, 6, 5], Window { kernel: [3, 2], stride: [2, 1], padding: [1, 0] });
        self.global_mean([3, 40, 4, 5]);
        for sizes in [[24, 40, 16], [7, 3, 5], [1, 64, 130]] {
            self.linear(sizes);
        }
    }

    /// Values that the type can hold.
    fn random(&self, seed: u64, count: usize) -> Vec<f32> {
        let values = random(seed, count);
        if P::MAPS.is_some() { values.into_iter().map(rounded).collect() } else { values }
    }

    /// A tracked tensor of the type that maps have.
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

    fn convolution(&mut self, [n, inputs, outputs, h, w]: [usize; 5], window: Window, layout: Layout) {
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
        let shape = format!(
            "{dims:?} to {outputs}, kernel {:?}, stride {:?}, padding {:?}, {layout:?}",
            window.kernel, window.stride, window.padding
        );
        self.compare("convolution", ["", ", input", ", weight"], &shape, got, expected);
        self.fused_convolution([dims, weights, results], window, &x, &k);
    }

    /// The convolution of inference.
    fn fused_convolution(&mut self, [dims, weights, results]: [[usize; 4]; 3], window: Window, x: &Values, k: &Values) {
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
        let shape = format!("{dims:?} to {}, kernel {:?}", results[1], window.kernel);
        self.compare("convolution, bias, residual, relu", [""], &shape, [flat(output)], [expected.values]);
    }

    fn norm(&mut self, dims: [usize; 4], (has_residual, relu): (bool, bool), offset: f32, layout: Layout) {
        let count = dims.iter().product();
        let x: Vec<f32> = random(5, count).into_iter().map(|value| value + offset).collect();
        let x: Vec<f32> = if P::MAPS.is_some() { x.into_iter().map(rounded).collect() } else { x };
        let (r, g) = (self.random(6, count), self.random(7, count));
        let (scale, shift) = (random(8, dims[1]), random(9, dims[1]));
        let (input, residual) = (self.map(&x, dims, layout), self.map(&r, dims, Layout::Contiguous));
        let (scales, shifts) = (self.leaf(&scale, [dims[1]]), self.leaf(&shift, [dims[1]]));
        let inputs = NormedInputs { input: input.clone(), scale: scales.clone(), shift: shifts.clone() };
        let residual = has_residual.then_some(residual);
        let normed = <Cudnn<P> as Kernels<Autodiff<B>>>::norm(inputs, residual.clone(), relu);
        let gradients = self.backward(normed.output.clone(), &g, dims);
        let values = has_residual.then(|| Values::new(dims, &r));
        let expected =
            reference::norm(&Values::new(dims, &x), [&scale, &shift], values.as_ref(), relu, &Values::new(dims, &g));
        let shape = format!("{dims:?}, residual {has_residual}, relu {relu}, mean {offset}, {layout:?}");
        let got = [
            flat(normed.output.inner()),
            flat(normed.mean.inner()),
            flat(normed.variance.inner()),
            gradient(&input, &gradients),
            gradient(&scales, &gradients),
            gradient(&shifts, &gradients),
        ];
        let names = ["", ", mean", ", variance", ", input", ", scale", ", shift"];
        let to_residual = expected.to_residual;
        let expected = [
            expected.output,
            expected.mean,
            expected.variance,
            expected.to_input,
            expected.to_scale,
            expected.to_shift,
        ];
        self.norm_in_parts(
            NormedInputs { input: input.inner(), scale: scales.inner(), shift: shifts.inner() },
            (residual.clone().map(Tensor::inner), relu),
            self.map(&g, dims, Layout::ChannelsLast).inner(),
            (&shape, expected.clone()),
        );
        self.compare("batch norm", names, &shape, got, expected);
        if let Some(residual) = residual {
            self.compare("batch norm", [", residual"], &shape, [gradient(&residual, &gradients)], [to_residual]);
        }
    }

    /// The same norm as workers make it that share a batch, in two passes each way.
    fn norm_in_parts(
        &mut self,
        inputs: NormedInputs<B>,
        (residual, relu): (Option<Tensor<B, 4>>, bool),
        gradient: Tensor<B, 4>,
        (shape, expected): (&str, [Vec<f64>; 6]),
    ) {
        let [rows, _, height, width] = inputs.input.dims();
        let [mean, variance] = <Cudnn<P> as Kernels<B>>::norm_statistics(inputs.input.clone());
        let has_residual = residual.is_some();
        let statistics = [mean.clone(), variance.clone()];
        let output = <Cudnn<P> as Kernels<B>>::norm_with(inputs.clone(), statistics, residual, relu);
        let normed = Normed { output, mean, variance };
        let backward = NormBackward { inputs, normed: normed.clone(), has_residual, relu, gradient };
        let sums = <Cudnn<P> as Kernels<B>>::norm_sums(backward.clone());
        let count = rows * height * width;
        let (to_input, _) = <Cudnn<P> as Kernels<B>>::norm_gradient_with(backward, sums.clone(), count);
        let [to_scale, to_shift] = sums.map(flat);
        let got = [flat(normed.output), flat(normed.mean), flat(normed.variance), flat(to_input), to_scale, to_shift];
        let names = ["", ", mean", ", variance", ", input", ", scale", ", shift"];
        self.compare("batch norm in parts", names, shape, got, expected);
    }

    fn max_pool(&mut self, dims: [usize; 4], window: Window) {
        let [down, across] = window.output([dims[2], dims[3]]).expect("the window fits");
        let results = [dims[0], dims[1], down, across];
        let (x, g) = (self.random(1, dims.iter().product()), self.random(2, results.iter().product()));
        let input = self.map(&x, dims, Layout::Contiguous);
        let output = <Cudnn<P> as Kernels<Autodiff<B>>>::max_pool2d(input.clone(), window);
        let gradients = self.backward(output.clone(), &g, results);
        let expected = reference::max_pool(&Values::new(dims, &x), &Values::new(results, &g), window);
        let got = [flat(output.inner()), gradient(&input, &gradients)];
        let shape = format!("{dims:?}, kernel {:?}, stride {:?}", window.kernel, window.stride);
        self.compare("max pool", ["", ", input"], &shape, got, expected.map(|values| values.values));
    }

    fn global_mean(&mut self, dims: [usize; 4]) {
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
        self.compare("global mean", ["", ", input"], &format!("{dims:?}"), got, [means, shares]);
    }

    /// `[rows, inputs]` to `[rows, outputs]`, with bias.
    fn linear(&mut self, [rows, inputs, outputs]: [usize; 3]) {
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
        let names = ["", ", input", ", weight", ", bias"];
        let shape = format!("[{rows}, {inputs}] to {outputs}");
        self.compare("linear", names, &shape, got, [expected, to_input, to_weight, to_bias]);
    }

    /// The gradients of `sum(output * gradient)`.
    fn backward<const D: usize>(
        &self,
        output: Tensor<Autodiff<B>, D>,
        gradient: &[f32],
        dims: [usize; D],
    ) -> <Autodiff<B> as burn::tensor::backend::AutodiffBackend>::Gradients {
        let gradient = Tensor::from_inner(tensor::<B, D>(gradient, dims, &self.device));
        (output.cast(FloatDType::F32) * gradient).sum().backward()
    }

    fn compare<const N: usize>(
        &mut self,
        operation: &str,
        parts: [&str; N],
        shape: &str,
        got: [Vec<f32>; N],
        expected: [Vec<f64>; N],
    ) {
        let failed = check().err().map(|error| error.to_string()).unwrap_or_default();
        for ((part, got), expected) in parts.iter().zip(got).zip(expected) {
            let name = format!("{}{operation}{part}", self.prefix);
            self.rows.push(row(name, shape, (P::NAME, P::BOUND), difference(&got, &expected), &failed));
        }
    }
}

fn row(operation: String, shape: &str, (dtype, bound): (&'static str, f64), error: f64, failed: &str) -> Row {
    let pass = failed.is_empty() && error <= bound;
    Row { operation, shape: shape.into(), dtype, error, bound, pass, note: failed.into() }
}

/// The step of all parameters at once against that of each in Burn's operations, over some steps.
fn steps<B: OnCuda>(prefix: &'static str, rows: &mut Vec<Row>) {
    let (rate, momentum, decay) = (0.1, 0.9, 1e-2);
    let lars = |trust, nesterov| OptimiserConfig::Lars { rate, momentum, nesterov, decay, eta: 0.02, trust };
    let sgd = |momentum, nesterov| OptimiserConfig::Sgd { rate, momentum, nesterov, decay, decay_vectors: false };
    let betas = (0.9, 0.99);
    let configs = [
        ("sgd", sgd(0.0, false)),
        ("sgd, momentum", sgd(momentum, false)),
        ("sgd, nesterov", sgd(momentum, true)),
        ("adamw", OptimiserConfig::AdamW { rate: 0.01, betas, epsilon: 1e-8, decay, decay_vectors: false }),
        ("lars, clipped", lars(Trust::Clipped, true)),
        ("lars, plain", lars(Trust::Plain, false)),
    ];
    for (name, config) in configs {
        let error = steps_differ::<B>(config).unwrap_or(f64::INFINITY);
        let failed = check().err().map(|error| error.to_string()).unwrap_or_default();
        let operation = format!("{prefix}step of {name}");
        rows.push(row(operation, "43 parameters of 1 to 70001 values, 3 steps", ("f32", 1e-5), error, &failed));
    }
}

fn steps_differ<B: OnCuda>(config: OptimiserConfig) -> Result<f64> {
    let device = B::Device::default();
    let (mut each, mut together) = (Optimiser::<B>::new(config)?, Optimiser::<B>::new(config)?);
    together.set_together(Box::new(FusedStep));
    // More than one launch takes, matrices and vectors, one of them zeros.
    let length = |index: usize| if index == 7 { 70001 } else { 1 + 37 * index };
    let parameter = |index: usize| {
        let shape = if index.is_multiple_of(3) { vec![length(index)] } else { vec![length(index), 1] };
        Parameter { name: format!("p{index}"), shape, role: Role::Weight }
    };
    let first = |index: usize| {
        let values = random(index as u64 + 1, length(index));
        if index == 4 { vec![0.0; values.len()] } else { values }
    };
    let mut now: Vec<Tensor<B, 1>> = (0..43).map(|index| tensor(&first(index), [length(index)], &device)).collect();
    let mut worst = 0.0_f64;
    for step in 0..3 {
        let changes = || -> Vec<Change<B>> {
            let change = |(index, value): (usize, &Tensor<B, 1>)| {
                let gradient =
                    tensor(&random(100 * (step + 1) + index as u64, length(index)), [length(index)], &device);
                Change { parameter: parameter(index), value: value.clone(), gradient }
            };
            now.iter().enumerate().map(change).collect()
        };
        each.begin_step();
        together.begin_step();
        let expected = each.update_together(changes(), 0.5);
        let got = together.update_together(changes(), 0.5);
        for (got, expected) in got.into_iter().zip(&expected) {
            let expected: Vec<f64> = flat(expected.clone()).into_iter().map(f64::from).collect();
            worst = worst.max(difference(&flat(got), &expected));
        }
        now = expected;
    }
    Ok(worst)
}

/// The largest difference over the largest expected value; infinite for what is not a number, or not as long.
fn difference(got: &[f32], expected: &[f64]) -> f64 {
    if got.len() != expected.len() {
        return f64::INFINITY;
    }
    let largest = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    let off = got.iter().zip(expected).map(|(&got, &expected)| (f64::from(got) - expected).abs());
    let off = off.fold(0.0, |most: f64, off| if off.is_nan() { f64::INFINITY } else { most.max(off) });
    off / largest.max(f64::MIN_POSITIVE)
}

/// Values in `[-1, 1)`, the same for the same seed (SplitMix64, Steele, Lea, Flood 2014).
fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) >> 40
    };
    (0..count).map(|_| next() as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// To the nearest bf16, ties to even.
fn rounded(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}

fn tensor<B: Backend, const D: usize>(values: &[f32], dims: [usize; D], device: &B::Device) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values.to_vec(), dims), device)
}

/// A tensor's values; none if they cannot be read.
fn flat<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.cast(FloatDType::F32).into_data().into_vec().unwrap_or_default()
}

/// A leaf's gradient; no values if there is none.
fn gradient<B: OnCuda, const D: usize>(
    leaf: &Tensor<Autodiff<B>, D>,
    gradients: &<Autodiff<B> as burn::tensor::backend::AutodiffBackend>::Gradients,
) -> Vec<f32> {
    leaf.grad(gradients).map(flat).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_of_the_largest_value_and_sees_what_is_no_number() {
        assert_eq!(difference(&[1.0, 4.0], &[1.0, 8.0]), 0.5);
        assert_eq!(difference(&[f32::NAN, 8.0], &[1.0, 8.0]), f64::INFINITY);
        assert_eq!(difference(&[8.0, f32::NAN], &[8.0, 1.0]), f64::INFINITY);
        assert_eq!(difference(&[1.0], &[1.0, 8.0]), f64::INFINITY);
        assert_eq!(difference(&[0.0], &[0.0]), 0.0);
        assert!(difference(&[1e-3], &[0.0]) > 1.0);
    }

    #[test]
    fn random_values_differ_and_are_rounded_as_bf16() {
        let values = random(3, 1000);
        assert_eq!(values, random(3, 1000));
        assert_ne!(values, random(4, 1000));
        assert!(values.iter().all(|value| (-1.0..1.0).contains(value)));
        assert!(values.iter().sum::<f32>().abs() < 60.0);
        assert_eq!([1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0].map(rounded), [1.0, 1.0, 1.0 + 4.0 / 256.0]);
        assert_eq!(rounded(-1.002), -1.0);
    }

    #[test]
    fn a_failure_of_the_gpu_fails_the_row() {
        let failed = row("linear".into(), "", ("f32", 1e-4), 0.0, "cuda: gone");
        assert!(!failed.pass && failed.to_string().ends_with("(cuda: gone)"));
        assert!(row("linear".into(), "", ("f32", 1e-4), 1e-4, "").pass);
        assert!(!row("linear".into(), "", ("f32", 1e-4), 2e-4, "").pass);
    }

    #[test]
    fn without_cuda_it_says_what_is_missing() {
        if !probe::probe().is_complete() {
            assert!(correct().unwrap_err().to_string().starts_with("cuda: "));
        }
    }
}
