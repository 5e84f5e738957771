//! Runs the operations on tensors of Burn's CUDA backend.

use std::array::from_fn;

use bagssl_core::model::Reading;
use bagssl_core::plan::Window;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, TensorMetadata};
use burn_cubecl::CubeBackend;
use cubecl::cuda::CudaRuntime;

use super::convolution::{Key, Pass};
use super::form::{Form, Math};
use super::gemm::Product;
use super::map::{Map, Padding, arguments, dims, grid};
use super::norm::{self, Tiles, WRITING, names};
use super::operation::Operation;
use super::{matrices, step, vectors};
use crate::runtime::context::Context;
use crate::runtime::driver::Outcome;
use crate::runtime::job::{Cube, Job};
use crate::runtime::transfer;

/// A tensor of a backend.
pub(crate) type Raw<B> = <B as burn::tensor::backend::BackendTypes>::FloatTensorPrimitive;

/// A backend with tensors on NVIDIA GPUs. Only Burn's CUDA backend implements it, with and without
/// fusion.
#[allow(private_interfaces, reason = "nobody outside implements or calls it")]
pub trait OnCuda: Backend {
    /// Queues an operation.
    ///
    /// # Panics
    /// If the inputs do not fit the operation.
    #[doc(hidden)]
    fn run(operation: Operation, inputs: Vec<Raw<Self>>) -> Vec<Raw<Self>>;

    /// Queues a copy of values from pinned memory to a new tensor.
    #[doc(hidden)]
    fn upload(values: Vec<f32>, dims: [usize; 4], device: &Self::Device) -> Raw<Self>;

    /// Queues a copy of f32 values to the host, after all work that produces them.
    #[doc(hidden)]
    fn read_later(values: Raw<Self>) -> Reading;
}

/// Returns the shapes and types of an operation's outputs.
///
/// # Panics
/// If the inputs do not fit the operation.
pub(crate) fn outputs<T: TensorMetadata>(operation: &Operation, inputs: &[T]) -> Vec<Form> {
    let form = |tensor: &T| Form::new(tensor.shape().iter().copied().collect::<Vec<_>>(), tensor.dtype());
    let forms: Vec<Form> = inputs.iter().map(form).collect();
    operation.outputs(&forms).unwrap_or_else(|error| panic!("{error}"))
}

/// Burn's CUDA backend without fusion.
pub type Plain = CubeBackend<CudaRuntime, f32, i32, u8>;

#[allow(private_interfaces, reason = "nobody outside implements or calls it")]
impl OnCuda for Plain {
    fn run(operation: Operation, inputs: Vec<Cube>) -> Vec<Cube> {
        let forms = outputs(&operation, &inputs);
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next().expect("as many as have been counted");
        match operation {
            Operation::Conv { window, math } => {
                let [output, ..] = convolve(next(), next(), window, math, &forms[0]);
                vec![output]
            }
            Operation::ConvFilling { window, math } => {
                let [output, filled, _] = convolve(next(), next(), window, math, &forms[0]);
                vec![output, filled]
            }
            Operation::ConvPacking { window, math } => {
                let [output, _, packed] = convolve(next(), next(), window, math, &forms[0]);
                vec![output, packed]
            }
            Operation::ConvInputGradient { window, math, .. } => {
                vec![input_gradient(next(), next(), window, math, &forms[0])]
            }
            Operation::ConvWeightGradient { window, math, .. } => {
                vec![weight_gradient(next(), next(), window, math, &forms[0])]
            }
            Operation::Finish { relu } => {
                let (input, bias) = (next(), next());
                vec![finish("bias, residual and relu", input, Some(bias), inputs.next(), relu)]
            }
            Operation::Sum => {
                let left = next();
                vec![finish("sum of gradients", left, None, Some(next()), false)]
            }
            Operation::Norm { relu } => norm::norm(from_fn(|_| next()), inputs.next(), relu),
            Operation::NormStatistics => norm::statistics(next()),
            Operation::NormWith { relu } => vec![norm::norm_with(from_fn(|_| next()), inputs.next(), relu)],
            Operation::NormGradient { relu, residual } => norm::gradient(from_fn(|_| next()), relu, residual),
            Operation::NormSums { relu, residual } => norm::sums(from_fn(|_| next()), relu, residual),
            Operation::NormGradientWith { relu, residual, count } => {
                norm::gradient_with(from_fn(|_| next()), from_fn(|_| next()), relu, residual, count)
            }
            Operation::MaxPool { window } => max_pool(next(), window, &forms[0]),
            Operation::MaxPoolGradient { window, .. } => vec![max_pool_gradient(next(), next(), window, &forms[0])],
            Operation::GlobalMean => vec![global_mean(next(), &forms[0])],
            Operation::GlobalMeanGradient { .. } => vec![global_mean_gradient(next(), &forms[0])],
            Operation::Product { transposed, math } => {
                vec![product(next(), next(), inputs.next(), transposed, math, &forms[0])]
            }
            Operation::Products { transposed } => vec![matrices::products(next(), next(), transposed, &forms[0])],
            Operation::Inverses => matrices::inverses(next(), &forms),
            Operation::SumColumns => vec![sum_columns(next(), &forms[0])],
            Operation::Step(rule) => step::run(rule, inputs.collect()),
            Operation::Squares => vec![vectors::squares(inputs.collect())],
            Operation::Join => vec![vectors::join(inputs.collect())],
            Operation::Running { factors } => vectors::running(inputs.collect(), &factors),
            Operation::Similarity => vec![vectors::similarity(next())],
        }
    }

    fn upload(values: Vec<f32>, dims: [usize; 4], device: &Self::Device) -> Cube {
        transfer::upload(values, dims, device)
    }

    fn read_later(values: Cube) -> Reading {
        transfer::read_later(values)
    }
}

fn four(form: &Form) -> [usize; 4] {
    form.dims().expect("an operation's map has four dimensions")
}

/// The output, then the input and the weight as they were read.
fn convolve(input: Cube, weight: Cube, window: Window, math: Math, output: &Form) -> [Cube; 3] {
    let dtype = input.dtype;
    let mut job = Job::new("convolution", &input);
    let (x, filled) = Map::pack(&mut job, input, dtype, Padding::of_channels(dtype));
    let (w, packed) = Map::pack(&mut job, weight, dtype, Padding::of_weight(dtype));
    let (y, shown) = Map::write(&mut job, four(output), dtype, Padding::of_channels(dtype));
    let sizes = [x.images, x.channels, x.height, x.width];
    let key = Key::new(Pass::Forward, dtype == DType::BF16, math, sizes, w.images, window);
    pass(job, key, [x, w, y]);
    [shown, filled, packed]
}

fn input_gradient(gradient: Cube, weight: Cube, window: Window, math: Math, output: &Form) -> Cube {
    let dtype = gradient.dtype;
    let mut job = Job::new("convolution, gradient of its input", &gradient);
    let y = Map::read(&mut job, gradient, dtype, Padding::of_channels(dtype));
    let w = Map::read(&mut job, weight, dtype, Padding::of_weight(dtype));
    let (x, shown) = Map::write(&mut job, four(output), dtype, Padding::of_channels(dtype));
    let sizes = [x.images, x.channels, x.height, x.width];
    let key = Key::new(Pass::InputGradient, dtype == DType::BF16, math, sizes, w.images, window);
    pass(job, key, [x, w, y]);
    shown
}

fn weight_gradient(input: Cube, gradient: Cube, window: Window, math: Math, output: &Form) -> Cube {
    let (dtype, shape) = (input.dtype, four(output));
    let mut job = Job::new("convolution, gradient of its weight", &input);
    let x = Map::read(&mut job, input, dtype, Padding::of_channels(dtype));
    let y = Map::read(&mut job, gradient, dtype, Padding::of_channels(dtype));
    let (w, _) = Map::write(&mut job, [y.channels, x.channels, shape[2], shape[3]], dtype, Padding::NONE);
    let sizes = [x.images, x.channels, x.height, x.width];
    let key = Key::new(Pass::WeightGradient, dtype == DType::BF16, math, sizes, y.channels, window);
    pass_of(&mut job, key, [x, w, y]);
    let shown = w.unpack(&mut job, shape, dtype, DType::F32);
    job.submit();
    shown
}

/// Queues a pass over the maps of input, weight and output.
fn pass(mut job: Job, key: Key, maps: [Map; 3]) {
    pass_of(&mut job, key, maps);
    job.submit();
}

fn pass_of(job: &mut Job, key: Key, maps: [Map; 3]) {
    job.then(move |context, at| {
        let pointers = maps.map(|map| map.at(at));
        // SAFETY: the maps are channels last, with the key's sizes and type, including padding.
        unsafe { context.convolve(key, pointers) }
    });
}

/// Adds maps. Tensors that are channels last, as this project's operations produce, are read
/// without a copy.
fn finish(name: &'static str, input: Cube, bias: Option<Cube>, residual: Option<Cube>, relu: bool) -> Cube {
    let (dtype, shape) = (input.dtype, dims(&input));
    let mut job = Job::new(name, &input);
    let x = Map::read(&mut job, input, dtype, Padding::NONE);
    let bias = bias.map(|bias| job.read_contiguous(bias));
    let residual = residual.map(|residual| Map::read(&mut job, residual, dtype, Padding::NONE).slot);
    let (y, shown) = Map::write(&mut job, shape, dtype, Padding::NONE);
    let tiles = Tiles::new(x.channels, dtype);
    job.then(move |context, at| {
        // SAFETY: input, residual and output are maps of the same size and type. The bias has a
        // value per channel.
        unsafe { add(context, tiles, (dtype, x), [x.at(at), at.of_any(bias), at.of_any(residual), y.at(at)], relu) }
    });
    job.submit();
    shown
}

/// Enqueues `relu?(input + bias? + residual?)`. The pointers are in this order, with the output
/// last.
///
/// # Safety
/// Input, residual (or null) and output must have the size and type of `map`. The bias (or null)
/// must have a value per channel.
unsafe fn add(context: &Context, tiles: Tiles, (dtype, map): (DType, Map), pointers: [u64; 4], relu: bool) -> Outcome {
    let (rows, channels, width) = (map.rows() as i64, map.channels as i32, tiles.width as i32);
    let [from, bias, residual, to] = pointers;
    let shape = (tiles.grid(map.rows(), 4, WRITING), tiles.block());
    let kernel = tiles.kernel(dtype, names!("finish"));
    // SAFETY: guaranteed by the caller.
    unsafe {
        let arguments = arguments![from, bias, residual, to, rows, channels, width, i32::from(relu)];
        context.launch(kernel, shape, arguments)
    }
}

fn by_type(dtype: DType, [bf16, f32]: [&'static str; 2]) -> &'static str {
    if dtype == DType::BF16 { bf16 } else { f32 }
}

/// Has the layout of the struct in `source/pool.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Pool {
    size: [i32; 2],
    channels: i32,
    outputs: [i32; 2],
    kernel: [i32; 2],
    stride: [i32; 2],
    padding: [i32; 2],
}

impl Pool {
    fn new(window: Window, input: Map, output: [usize; 4]) -> Self {
        let both = |pair: [usize; 2]| pair.map(|value| value as i32);
        Pool {
            size: both([input.height, input.width]),
            channels: input.channels as i32,
            outputs: both([output[2], output[3]]),
            kernel: both(window.kernel),
            stride: both(window.stride),
            padding: both(window.padding),
        }
    }
}

fn max_pool(input: Cube, window: Window, output: &Form) -> Vec<Cube> {
    let (dtype, shape) = (input.dtype, four(output));
    let mut job = Job::new("max pool", &input);
    let x = Map::read(&mut job, input, dtype, Padding::NONE);
    let (y, shown) = Map::write(&mut job, shape, dtype, Padding::NONE);
    let (taps, shown_taps) = Map::write(&mut job, shape, DType::U8, Padding::NONE);
    let (kernel, pool) = (by_type(dtype, ["max_pool_bf16", "max_pool_f32"]), Pool::new(window, x, shape));
    job.then(move |context, at| {
        let (from, to, taps, count) = (x.at(at), y.at(at), taps.at(at), y.count());
        // SAFETY: both outputs have `count` values. The input has the size given by `pool`.
        unsafe { context.launch(kernel, (grid(count), 256), arguments![from, to, taps, pool, count]) }
    });
    job.submit();
    vec![shown, shown_taps]
}

fn max_pool_gradient(gradient: Cube, taps: Cube, window: Window, output: &Form) -> Cube {
    let (dtype, shape) = (gradient.dtype, dims(&gradient));
    let mut job = Job::new("max pool, its gradient", &gradient);
    let dy = Map::read(&mut job, gradient, dtype, Padding::NONE);
    // The positions are always an output of `max_pool`, which is channels last.
    let taps = job.read(taps);
    let (dx, shown) = Map::write(&mut job, four(output), dtype, Padding::NONE);
    let kernel = by_type(dtype, ["max_pool_gradient_bf16", "max_pool_gradient_f32"]);
    let pool = Pool::new(window, dx, shape);
    job.then(move |context, at| {
        let (from, taps, to, count) = (dy.at(at), at.of(taps), dx.at(at), dx.count());
        // SAFETY: the output has `count` values. Gradient and positions have the output size given
        // by `pool`.
        unsafe { context.launch(kernel, (grid(count), 256), arguments![from, taps, to, pool, count]) }
    });
    job.submit();
    shown
}

fn global_mean(input: Cube, output: &Form) -> Cube {
    let dtype = input.dtype;
    let mut job = Job::new("global mean", &input);
    let x = Map::read(&mut job, input, dtype, Padding::NONE);
    let (y, shown) = job.write(&output.shape, DType::F32);
    let kernel = by_type(dtype, ["global_mean_bf16", "global_mean_f32"]);
    job.then(move |context, at| {
        let (from, to) = (x.at(at), at.of(y));
        let (images, pixels, channels) = (x.images as i64, (x.height * x.width) as i32, x.channels as i32);
        let shape = (grid(images * i64::from(channels)), 256);
        // SAFETY: the input has `images * pixels * channels` values, the output has one per image
        // and channel.
        unsafe { context.launch(kernel, shape, arguments![from, to, images, pixels, channels]) }
    });
    job.submit();
    shown
}

fn global_mean_gradient(gradient: Cube, output: &Form) -> Cube {
    let dtype = output.dtype;
    let mut job = Job::new("global mean, its gradient", &gradient);
    let dy = job.read_contiguous(gradient);
    let (dx, shown) = Map::write(&mut job, four(output), dtype, Padding::NONE);
    let kernel = by_type(dtype, ["global_mean_gradient_bf16", "global_mean_gradient_f32"]);
    job.then(move |context, at| {
        let (from, to) = (at.of(dy), dx.at(at));
        let (images, pixels, channels) = (dx.images as i64, (dx.height * dx.width) as i32, dx.channels as i32);
        // SAFETY: as in `global_mean`, with input and output exchanged.
        unsafe { context.launch(kernel, (grid(dx.count()), 256), arguments![from, to, images, pixels, channels]) }
    });
    job.submit();
    shown
}

fn product(left: Cube, right: Cube, bias: Option<Cube>, transposed: [bool; 2], math: Math, output: &Form) -> Cube {
    let bf16 = left.dtype == DType::BF16;
    let inner = left.shape()[usize::from(!transposed[0])] as i32;
    let [rows, columns]: [usize; 2] = output.dims().expect("a product has two dimensions");
    let mut job = Job::new("matrix product", &left);
    let factors = [left, right].map(|factor| job.read_contiguous(factor));
    let (to, shown) = job.write(&[rows, columns], DType::F32);
    let product = Product { count: 1, rows: rows as i32, columns: columns as i32, inner, transposed, bf16, math };
    let bias = bias.map(|bias| job.read_contiguous(bias));
    job.then(move |context, at| {
        let [left, right] = factors.map(|slot| at.of(slot));
        // SAFETY: the factors have the product's sizes and type, and are contiguous.
        unsafe { context.blas.multiply(product, [left, right, at.of(to)], &context.stream)? };
        let Some(bias) = bias else { return Ok(()) };
        let map = Map { slot: to, images: rows, channels: columns, height: 1, width: 1 };
        let tiles = Tiles::new(columns, DType::F32);
        let to = at.of(to);
        // SAFETY: the product is updated in place, value by value. The bias has a value per column.
        unsafe { add(context, tiles, (DType::F32, map), [to, at.of(bias), 0, to], false) }
    });
    job.submit();
    shown
}

fn sum_columns(input: Cube, output: &Form) -> Cube {
    let (rows, columns) = (input.shape()[0] as i64, input.shape()[1] as i32);
    let mut job = Job::new("sum of columns", &input);
    let from = job.read_contiguous(input);
    let (to, shown) = job.write(&output.shape, DType::F32);
    job.then(move |context, at| {
        let shape = ([(columns as u32).div_ceil(32), 1], 1024);
        // SAFETY: the input has `rows * columns` values, the output has one per column.
        unsafe { context.launch("sum_columns", shape, arguments![at.of(from), at.of(to), rows, columns]) }
    });
    job.submit();
    shown
}
