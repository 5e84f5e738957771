//! The operations of training on maps `[image, height, width, channel]`: convolution with both
//! gradients, and batch norm.
//!
//! Results are bitwise identical for any number of threads.
#![allow(unsafe_code, reason = "calls kernels on raw pointers; bounds follow from the maps' forms")]

use std::prelude::v1::*;

use crate::cpu::exec::threads::Threads;
use crate::cpu::kernels::conv::{Conv, Epilogue, Method, Scratch, Weights};
use crate::cpu::kernels::elementwise::{Norm, NormGradient};
use crate::cpu::kernels::isa::{InstructionSet, Micro};
use crate::cpu::kernels::microkernel::GradientTile;
use crate::cpu::layout::feature_map::{Buffer, Map};
use crate::cpu::layout::padded::{Bordered, Output, Shared, padded_channels};
pub use crate::cpu::layout::view::{Shape, View};
use crate::error::{Error, Result};
use crate::network::strided_conv_grad::Phase;
use crate::plan::{NORM_EPSILON, Window, check_window};

/// Runs operations with the kernels of an instruction set, on some threads.
#[derive(Clone, Copy)]
pub struct Processor<'a> {
    micro: &'static Micro,
    threads: &'a dyn Threads,
}

impl core::fmt::Debug for Processor<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Processor({} threads)", self.threads.count())
    }
}

/// The window and channels of a convolution. Its weight is `[output, input, height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// The window.
    pub window: Window,
    /// Number of input channels.
    pub inputs: usize,
    /// Number of output channels.
    pub outputs: usize,
}

/// The result of [`Processor::norm`].
#[derive(Debug, Clone, PartialEq)]
pub struct Normed {
    /// The output map, after residual and ReLU.
    pub output: Vec<f32>,
    /// The mean of each channel.
    pub mean: Vec<f32>,
    /// The biased variance of each channel.
    pub variance: Vec<f32>,
}

/// The result of [`Processor::norm_gradient`].
#[derive(Debug, Clone, PartialEq)]
pub struct NormGradients {
    /// The gradient of the norm's input.
    pub input: Vec<f32>,
    /// The gradient of the scale.
    pub scale: Vec<f32>,
    /// The gradient of the shift.
    pub shift: Vec<f32>,
    /// The gradient of the residual, if any.
    pub residual: Option<Vec<f32>>,
}

impl<'a> Processor<'a> {
    /// Creates a processor with the kernels of `set` on `threads`.
    ///
    /// # Errors
    /// [`Error::Setting`] if this machine does not support the instruction set.
    pub fn new(set: InstructionSet, threads: &'a dyn Threads) -> Result<Self> {
        let micro = set.micro().ok_or_else(|| Error::Setting {
            name: "instruction set",
            expected: "one that this machine supports",
            got: set.name().into(),
        })?;
        Ok(Processor { micro, threads })
    }

    /// Computes `relu?(conv(input) + bias? + residual?)`, `[image, height, width, output]`.
    ///
    /// # Errors
    /// [`Error::Length`] if channels, weight or bias do not match. [`Error::Plan`] if the window
    /// does not fit, or the residual has a different shape.
    pub fn conv2d(
        &self,
        input: View<'_>,
        weight: &[f32],
        conv: Convolution,
        bias: Option<&[f32]>,
        residual: Option<View<'_>>,
        relu: bool,
    ) -> Result<Vec<f32>> {
        let size = conv.check(input, weight)?;
        let shape = [input.shape[0], size[0], size[1], conv.outputs];
        if let Some(residual) = residual.filter(|residual| residual.shape != shape) {
            let (expected, got) = (format!("{shape:?}"), format!("{:?}", residual.shape));
            return Err(Error::Plan(format!("residual: expected shape {expected}, got {got}")));
        }
        let zeros;
        let bias = match bias {
            Some(bias) => {
                expect_length("bias", conv.outputs, bias.len())?;
                bias
            }
            None => {
                zeros = vec![0.0; conv.outputs];
                &zeros
            }
        };
        let method = Method::choose(conv.window, padded_channels(conv.inputs), shape[0] * size[0] * size[1]);
        let (before, after) = Conv::border(conv.window, method, size);
        let input = Bordered::new(self.threads, input, before, after);
        let weights = Weights {
            values: &weight.into(),
            factors: None,
            inputs: conv.inputs,
            outputs: conv.outputs,
            window: conv.window,
        };
        let packed = Conv::new(self.threads, weights, bias, input.form.channels, method, self.micro);
        let residual = residual.map(|residual| Bordered::new(self.threads, residual, 0, [0, 0]));
        let mut output = Output::new(shape);
        let after = Epilogue { residual: residual.as_ref().map(Bordered::map), relu };
        let scratch = Scratch::new(self.threads.count());
        packed.run(self.threads, (&scratch, 0), shape[0], input.map(), output.map(), after);
        Ok(output.into_values(self.threads))
    }

    /// Computes the gradient of a convolution's input, whose `[height, width]` is `size`:
    /// `[image, height, width, input]`.
    ///
    /// # Errors
    /// Like [`Processor::conv2d`].
    pub fn conv2d_input_backward(
        &self,
        gradient: View<'_>,
        weight: &[f32],
        conv: Convolution,
        size: [usize; 2],
    ) -> Result<Vec<f32>> {
        conv.check_gradient(gradient, weight, size)?;
        let Convolution { window, inputs, outputs } = conv;
        let images = gradient.shape[0];
        let phases = |axis: usize| -> Vec<Phase> {
            (0..window.stride[axis].min(size[axis])).map(|phase| Phase::new(window, axis, phase, size[axis])).collect()
        };
        let phases = [phases(0), phases(1)];
        // One bordered copy of the gradient serves all phases. Winograd's complete tiles reach
        // further.
        let before = phases.iter().flatten().map(|phase| phase.before.max(0) as usize).max().unwrap_or(0);
        let after = [0, 1].map(|axis| {
            let reach =
                |phase: &Phase| phase.length.next_multiple_of(4) as isize + 2 + phase.taps as isize - phase.before;
            phases[axis].iter().map(|phase| reach(phase).max(0) as usize).max().unwrap_or(0)
        });
        let source = Bordered::new(self.threads, gradient, before, after);
        let mut output = Output::new([images, size[0], size[1], inputs]);
        let scratch = Scratch::new(self.threads.count());
        let zeros = vec![0.0; inputs];
        for (first_row, down) in phases[0].iter().enumerate() {
            for (first_column, across) in phases[1].iter().enumerate() {
                let part = output.map().every(window.stride, [first_row, first_column]);
                if down.taps == 0 || across.taps == 0 {
                    continue; // No output reads these pixels.
                }
                let kernel = Window { kernel: [down.taps, across.taps], ..Window::square(1, 1, 0) };
                let turned = turned(weight, conv, [*down, *across]);
                let pixels = images * down.length * across.length;
                let method = Method::choose(kernel, source.form.channels, pixels);
                let weights =
                    Weights { values: &turned.into(), factors: None, inputs: outputs, outputs: inputs, window: kernel };
                let packed = Conv::new(self.threads, weights, &zeros, source.form.channels, method, self.micro);
                let from = source.map();
                let from = Map { start: from.at(0, -down.before, -across.before), ..from };
                let after = Epilogue { residual: None, relu: false };
                packed.run(self.threads, (&scratch, 0), images, from, part, after);
            }
        }
        Ok(output.into_values(self.threads))
    }

    /// Computes the gradient of a convolution's weight, `[output, input, height, width]`.
    ///
    /// # Errors
    /// Like [`Processor::conv2d`].
    pub fn conv2d_weight_gradient(&self, input: View<'_>, gradient: View<'_>, conv: Convolution) -> Result<Vec<f32>> {
        let Convolution { window, inputs, outputs } = conv;
        expect_length("convolution input channels", inputs, input.shape[3])?;
        expect_length("convolution gradient batch size", input.shape[0], gradient.shape[0])?;
        conv.check_gradient_shape(gradient, input.size())?;
        let [images, height, width, _] = gradient.shape;
        let (before, after) = Conv::border(window, Method::Direct, [height, width]);
        let input = Bordered::new(self.threads, input, before, after);
        let gradient = Bordered::new(self.threads, gradient, 0, [0, 0]);
        let (from, by) = (input.map(), gradient.map());
        // Sums: `[kernel row, value of its run, output]`.
        let run = window.kernel[1] * input.form.channels;
        let columns = gradient.form.channels;
        let mut sums = Buffer::new(window.kernel[0] * run * columns);
        let target = Shared(sums.as_mut_ptr());
        let panels = columns.div_ceil(self.micro.columns);
        let tiles = run.div_ceil(self.micro.rows);
        // Split the runs so that there is at least one job per thread.
        let parts = tiles.min((4 * self.threads.count()).div_ceil(window.kernel[0] * panels));
        // The number of images whose pixels fit into the second-level cache.
        let together = ((1 << 17) / (input.form.len() + gradient.form.len())).clamp(1, images);
        let [stride_y, _] = window.stride.map(|stride| stride as isize);
        let padding = window.padding.map(|padding| padding as isize);
        self.threads.each(window.kernel[0] * panels * parts, &|job, _| {
            let target = &target;
            let (part, panel, kernel_row) = (job % parts, job / parts % panels, job / parts / panels);
            let column = panel * self.micro.columns;
            let vectors = (columns - column).min(self.micro.columns) / self.micro.lanes;
            let mut runs = Vec::with_capacity(together * height);
            for first in (0..images).step_by(together) {
                runs.clear();
                for image in first..images.min(first + together) {
                    for y in 0..height as isize {
                        let start = from.at(image, y * stride_y + kernel_row as isize - padding[0], -padding[1]);
                        runs.push((start.cast_const(), by.at(image, y, 0).cast_const()));
                    }
                }
                for tile in tiles * part / parts..tiles * (part + 1) / parts {
                    let value = tile * self.micro.rows;
                    let work = GradientTile {
                        runs: &runs,
                        value: value as isize,
                        column,
                        pixels: width,
                        input_step: window.stride[1] * from.pixel,
                        gradient_step: by.pixel,
                        sums: target.0.wrapping_add((kernel_row * run + value) * columns + column),
                        row: columns,
                    };
                    // SAFETY: the input has the border that the window needs, and each job has its
                    // own values and columns.
                    unsafe { (self.micro.gradient_tile)(self.micro.rows.min(run - value), vectors, &work) };
                }
            }
        });
        let sums = sums.as_mut_slice();
        let mut weight = Vec::with_capacity(outputs * inputs * window.kernel[0] * window.kernel[1]);
        for output in 0..outputs {
            for channel in 0..inputs {
                for row in 0..window.kernel[0] {
                    for pixel in 0..window.kernel[1] {
                        let value = row * run + pixel * input.form.channels + channel;
                        weight.push(sums[value * columns + output]);
                    }
                }
            }
        }
        Ok(weight)
    }

    /// Computes batch norm in training mode:
    /// `relu?(scale * (input - mean) / sqrt(variance + epsilon) + shift + residual?)`, with the
    /// mean and the biased variance over images, height and width.
    ///
    /// # Errors
    /// [`Error::Length`] if the length of scale, shift or residual does not match.
    pub fn norm(
        &self,
        input: View<'_>,
        scale: &[f32],
        shift: &[f32],
        residual: Option<View<'_>>,
        relu: bool,
    ) -> Result<Normed> {
        let channels = input.shape[3];
        expect_length("norm scale", channels, scale.len())?;
        expect_length("norm shift", channels, shift.len())?;
        if let Some(residual) = residual {
            expect_length("residual values", input.values.len(), residual.values.len())?;
        }
        let passes = &self.micro.elementwise;
        let pixels = (input.values.len() / channels) as f64;
        let mean: Vec<f32> = self
            // SAFETY (of all passes): this machine supports the instruction set of `micro`.
            .sums(input, 1, &|part, sums| unsafe { (passes.add_sums)(&input.values[part], sums) })
            .into_iter()
            .map(|sum| (sum / pixels) as f32)
            .collect();
        let variance: Vec<f32> = self
            .sums(input, 1, &|part, sums| unsafe { (passes.add_squares)(&input.values[part], &mean, sums) })
            .into_iter()
            .map(|sum| (sum / pixels) as f32)
            .collect();
        let factor = factors(scale, &variance);
        let mut output = vec![0.0; input.values.len()];
        let norm = Norm { mean: &mean, factor: &factor, shift };
        self.parts(input, [Some(&mut output), None], &|part, [output, _]| {
            let residual = residual.map(|residual| &residual.values[part.clone()]);
            if let Some(output) = output {
                unsafe { (passes.normalize)(&input.values[part], &norm, residual, relu, output) }
            }
        });
        Ok(Normed { output, mean, variance })
    }

    /// Computes the gradients of [`Processor::norm`]. `normed` is its output, mean and variance,
    /// and `gradient` is the gradient of its output.
    ///
    /// # Errors
    /// [`Error::Length`] if a length does not match.
    ///
    /// # Source
    /// Ioffe, Szegedy, *Batch Normalization*, ICML 2015, section 3.
    pub fn norm_gradient(
        &self,
        input: View<'_>,
        scale: &[f32],
        normed: (View<'_>, &[f32], &[f32]),
        has_residual: bool,
        relu: bool,
        gradient: View<'_>,
    ) -> Result<NormGradients> {
        let channels = input.shape[3];
        let (output, mean, variance) = normed;
        for (name, expected, got) in [
            ("norm scale", channels, scale.len()),
            ("norm mean", channels, mean.len()),
            ("norm variance", channels, variance.len()),
            ("norm output values", input.values.len(), output.values.len()),
            ("norm gradient values", input.values.len(), gradient.values.len()),
        ] {
            expect_length(name, expected, got)?;
        }
        let passes = &self.micro.elementwise;
        let pixels = (input.values.len() / channels) as f64;
        let outputs = |part: &core::ops::Range<usize>| relu.then(|| &output.values[part.clone()]);
        let sums = self.sums(input, 2, &|part, sums| {
            let (gradients, products) = sums.split_at_mut(channels);
            let (values, back) = (&input.values[part.clone()], &gradient.values[part.clone()]);
            // SAFETY: as in `norm`.
            unsafe { (passes.add_gradient_sums)(values, back, outputs(&part), mean, gradients, products) }
        });
        let (gradients, products) = sums.split_at(channels);
        let inverse = |channel: usize| 1.0 / libm::sqrt(f64::from(variance[channel]) + NORM_EPSILON);
        let offset: Vec<f32> = gradients.iter().map(|sum| (sum / pixels) as f32).collect();
        let slope = |(channel, product): (usize, &f64)| (product / pixels * inverse(channel) * inverse(channel)) as f32;
        let slope: Vec<f32> = products.iter().enumerate().map(slope).collect();
        let factor = factors(scale, variance);
        let norm = NormGradient { mean, factor: &factor, offset: &offset, slope: &slope };
        let mut to_input = vec![0.0; input.values.len()];
        let mut to_residual = has_residual.then(|| vec![0.0; input.values.len()]);
        self.parts(input, [Some(&mut to_input), to_residual.as_mut()], &|part, [to_input, to_residual]| {
            let (values, back) = (&input.values[part.clone()], &gradient.values[part.clone()]);
            if let Some(to_input) = to_input {
                // SAFETY: as in `norm`.
                unsafe { (passes.norm_gradient)(values, back, outputs(&part), &norm, to_input, to_residual) }
            }
        });
        let scale = products.iter().enumerate().map(|(channel, product)| (product * inverse(channel)) as f32);
        Ok(NormGradients {
            input: to_input,
            scale: scale.collect(),
            shift: gradients.iter().map(|&sum| sum as f32).collect(),
            residual: to_residual,
        })
    }

    /// Sums `kinds` values per channel over all pixels: first over short parts in f32, then over
    /// these parts in f64.
    fn sums(
        &self,
        input: View<'_>,
        kinds: usize,
        add: &(dyn Fn(core::ops::Range<usize>, &mut [f32]) + Sync),
    ) -> Vec<f64> {
        let width = kinds * input.shape[3];
        let part = part_of(input);
        let parts = input.values.len().div_ceil(part);
        let mut partial = vec![0.0; parts * width];
        let target = Shared(partial.as_mut_ptr());
        self.threads.each(parts, &|job, _| {
            let target = &target;
            // SAFETY: each job has its own sums.
            let sums = unsafe { core::slice::from_raw_parts_mut(target.0.add(job * width), width) };
            add(job * part..input.values.len().min((job + 1) * part), sums);
        });
        let mut sums = vec![0.0; width];
        for partial in partial.chunks_exact(width) {
            sums.iter_mut().zip(partial).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        sums
    }

    /// Calls `pass` for parts of the pixels, with the corresponding parts of the outputs.
    #[allow(clippy::type_complexity, reason = "a private shorthand")]
    fn parts(
        &self,
        input: View<'_>,
        outputs: [Option<&mut Vec<f32>>; 2],
        pass: &(dyn Fn(core::ops::Range<usize>, [Option<&mut [f32]>; 2]) + Sync),
    ) {
        let total = input.values.len();
        let part = part_of(input);
        let outputs = outputs.map(|output| output.map(|values| Shared(values.as_mut_ptr())));
        self.threads.each(total.div_ceil(part), &|job, _| {
            let range = job * part..total.min((job + 1) * part);
            // SAFETY: each job has its own part, and the outputs are as long as the input.
            let slice =
                |output: &Shared| unsafe { core::slice::from_raw_parts_mut(output.0.add(range.start), range.len()) };
            let parts = outputs.each_ref().map(|output| output.as_ref().map(slice));
            pass(range, parts);
        });
    }
}

/// Returns a number of values that make up complete pixels, about 64 KiB.
fn part_of(input: View<'_>) -> usize {
    let channels = input.shape[3];
    (16_384 / channels).max(1) * channels
}

fn factors(scale: &[f32], variance: &[f32]) -> Vec<f32> {
    let factor = |(&scale, &variance): (&f32, &f32)| f64::from(scale) / libm::sqrt(f64::from(variance) + NORM_EPSILON);
    scale.iter().zip(variance).map(factor).map(|factor| factor as f32).collect()
}

impl Convolution {
    /// Checks the channels and the weight. Returns the output's size.
    fn check(self, input: View<'_>, weight: &[f32]) -> Result<[usize; 2]> {
        expect_length("convolution input channels", self.inputs, input.shape[3])?;
        self.check_weight(weight)?;
        self.size(input.size())
    }

    fn check_weight(self, weight: &[f32]) -> Result<()> {
        let [height, width] = self.window.kernel;
        expect_length("convolution weight", self.outputs * self.inputs * height * width, weight.len())
    }

    fn size(self, input: [usize; 2]) -> Result<[usize; 2]> {
        check_window(self.window).map_err(Error::Plan)?;
        let why =
            || Error::Plan(format!("expected a feature map large enough for {:?}, got {input:?} pixels", self.window));
        self.window.output(input).ok_or_else(why)
    }

    fn check_gradient(self, gradient: View<'_>, weight: &[f32], input: [usize; 2]) -> Result<()> {
        self.check_weight(weight)?;
        self.check_gradient_shape(gradient, input)
    }

    fn check_gradient_shape(self, gradient: View<'_>, input: [usize; 2]) -> Result<()> {
        let [height, width] = self.size(input)?;
        expect_length("convolution gradient channels", self.outputs, gradient.shape[3])?;
        expect_length("convolution gradient rows", height, gradient.shape[1])?;
        expect_length("convolution gradient columns", width, gradient.shape[2])
    }
}

fn expect_length(name: &'static str, expected: usize, got: usize) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::Length { name, expected, got }) }
}

/// Returns the kernel of a phase's gradient: its taps in reverse order, with inputs and outputs
/// exchanged.
fn turned(weight: &[f32], conv: Convolution, [down, across]: [Phase; 2]) -> Vec<f32> {
    let Convolution { window, inputs, outputs } = conv;
    let [height, width] = window.kernel;
    let mut turned = Vec::with_capacity(inputs * outputs * down.taps * across.taps);
    for input in 0..inputs {
        for output in 0..outputs {
            for row in (0..down.taps).rev() {
                for column in (0..across.taps).rev() {
                    let y = down.tap + row * window.stride[0];
                    let x = across.tap + column * window.stride[1];
                    turned.push(weight[((output * inputs + input) * height + y) * width + x]);
                }
            }
        }
    }
    turned
}
