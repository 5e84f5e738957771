//! Runs a plan on weights in place, in memory supplied by the caller: for devices with little
//! memory.

use std::prelude::v1::*;

use crate::checkpoint::{Checkpoint, TensorRef};
use crate::error::{Error, Result};
use crate::plan::{Kind, Layer, NORM_EPSILON, Op, Plan, Window};

/// A network that copies no weights. It reads weights directly from a checkpoint's bytes, which may
/// lie in flash memory, and converts bf16 and int8 on the fly. All intermediate values are stored
/// in one arena. It runs one input at a time with plain sums of products, and contains no `unsafe`
/// code.
///
/// # Example
/// ```
/// use bagssl_core::architecture::{Architecture, mlp};
/// # use bagssl_core::{bag::Views, embed::FeatureLayer, normalize::Normalization, patch::*};
/// use bagssl_core::checkpoint::{Checkpoint, ModelPlan, Spec, to_bytes};
/// use bagssl_core::cpu::ArenaExecutor;
///
/// # let patch = PatchSpec::new(PatchSide::Pixels(16), 16)?;
/// # let model = ModelPlan::new(Architecture::ResNetSmall.plan(), mlp(64, &[8])?)?;
/// # let spec = Spec {
/// #     format_version: 2, model, patch, filter: Filter::Bilinear, normalization: Normalization::HALF,
/// #     layer: FeatureLayer::Embedding, views: Views::FixedScale(patch), provenance: Default::default(), training: None,
/// # };
/// # let bytes = to_bytes(&spec, &spec.model.init_weights(0))?;
/// // `bytes` is a checkpoint in any memory. `from_bytes_unverified` skips the digest, which
/// // requires reading all bytes.
/// let checkpoint = Checkpoint::from_bytes(&bytes)?;
/// let encoder = ArenaExecutor::encoder(&checkpoint)?;
/// let mut arena = vec![0.0; encoder.arena_len([16, 16])?];
/// let embedding = encoder.run(&mut arena, &[0.5; 3 * 16 * 16], [16, 16])?;
/// assert_eq!(embedding.len(), 64);
/// # Ok::<(), bagssl_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ArenaExecutor<'a> {
    plan: Plan,
    layers: Vec<Weights<'a>>,
}

/// The parameters of a layer.
#[derive(Debug, Default)]
struct Weights<'a> {
    weight: Option<TensorRef<'a>>,
    bias: Option<TensorRef<'a>>,
    /// Scale, shift, running mean, running variance.
    norm: Option<[TensorRef<'a>; 4]>,
}

impl Weights<'_> {
    /// Returns the factor for an output's sum, and the offset that is then added.
    fn factor(&self, output: usize) -> (f32, f32) {
        let bias = self.bias.map_or(0.0, |bias| bias.get(output));
        match self.norm {
            None => (1.0, bias),
            Some(norm) => {
                let [scale, shift, mean, variance] = norm.map(|part| f64::from(part.get(output)));
                let factor = scale / libm::sqrt(variance + NORM_EPSILON);
                (factor as f32, ((f64::from(bias) - mean) * factor + shift) as f32)
            }
        }
    }
}

/// The position of a value in the arena.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Slot {
    start: usize,
    len: usize,
}

impl<'a> ArenaExecutor<'a> {
    /// Creates the executor of a checkpoint's encoder.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a tensor is missing. A validated checkpoint has all tensors.
    pub fn encoder(checkpoint: &Checkpoint<'a>) -> Result<Self> {
        Self::new(checkpoint.spec().model.encoder(), &mut |name| checkpoint.tensor_ref(&format!("encoder.{name}")))
    }

    /// Creates the executor of a checkpoint's projector.
    ///
    /// # Errors
    /// Like [`ArenaExecutor::encoder`].
    pub fn projector(checkpoint: &Checkpoint<'a>) -> Result<Self> {
        Self::new(checkpoint.spec().model.projector(), &mut |name| checkpoint.tensor_ref(&format!("projector.{name}")))
    }

    /// Creates an executor of a plan, with parameters by name from `source`.
    ///
    /// # Errors
    /// [`Error::Plan`] if the length of a parameter differs from the plan's, and any error of
    /// `source`.
    pub fn new(plan: &Plan, source: &mut dyn FnMut(&str) -> Result<TensorRef<'a>>) -> Result<Self> {
        let mut parameters = plan.parameters().into_iter();
        let mut next = || -> Result<TensorRef<'a>> {
            let Some(parameter) = parameters.next() else {
                return Err(Error::Plan("expected all parameters that the layers use, got fewer".into()));
            };
            let stored = source(&parameter.name)?;
            match stored.len() == parameter.len() {
                true => Ok(stored),
                false => {
                    let (name, expected, got) = (&parameter.name, parameter.len(), stored.len());
                    Err(Error::Plan(format!("parameter {name:?}: expected {expected} values, got {got}")))
                }
            }
        };
        let mut layers = Vec::with_capacity(plan.layers().len());
        for layer in plan.layers() {
            let mut weights = Weights::default();
            let has_norm = match &layer.op {
                Op::ConvNorm { .. } => {
                    weights.weight = Some(next()?);
                    true
                }
                Op::Linear { bias, norm, .. } => {
                    weights.weight = Some(next()?);
                    weights.bias = if *bias { Some(next()?) } else { None };
                    norm.is_some()
                }
                Op::MaxPool { .. } | Op::GlobalMean => false,
            };
            if has_norm {
                weights.norm = Some([next()?, next()?, next()?, next()?]);
            }
            layers.push(weights);
        }
        Ok(ArenaExecutor { plan: plan.clone(), layers })
    }

    /// Returns the plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the number of values that the arena must hold for an input of `[height, width]`
    /// (ignored for plans that read rows). This is the entire working memory, except for a few
    /// words per layer.
    ///
    /// # Errors
    /// [`Error::Plan`] if the input is too small for the plan.
    pub fn arena_len(&self, size: [usize; 2]) -> Result<usize> {
        let slots = self.slots(&self.sizes(size)?);
        Ok(slots.iter().map(|slot| slot.start + slot.len).max().unwrap_or(0))
    }

    /// Computes the last value of the plan for one input.
    ///
    /// # Shapes
    /// - `input`: `[channel, height, width]`, or `[dim]` for plans that read rows
    /// - returns: `[dim]`, or `[channel, height, width]` for plans that output maps
    ///
    /// # Errors
    /// [`Error::Plan`] if the input is too small for the plan. [`Error::Length`] if `input` does
    /// not have this size, or the arena is shorter than [`ArenaExecutor::arena_len`].
    pub fn run<'m>(&self, arena: &'m mut [f32], input: &[f32], size: [usize; 2]) -> Result<&'m [f32]> {
        let sizes = self.sizes(size)?;
        let expected = self.length(0, sizes[0]);
        if input.len() != expected {
            return Err(Error::Length { name: "network input", expected, got: input.len() });
        }
        let slots = self.slots(&sizes);
        let needed = slots.iter().map(|slot| slot.start + slot.len).max().unwrap_or(0);
        if arena.len() < needed {
            return Err(Error::Length { name: "network arena", expected: needed, got: arena.len() });
        }
        for (index, layer) in self.plan.layers().iter().enumerate() {
            let residual = match layer.op {
                Op::ConvNorm { residual, .. } => residual,
                _ => None,
            };
            // Values that are live at the same time do not overlap, so the slices that are read can
            // be split from the one that is written.
            let output = slots[index + 1];
            let (before, rest) = arena.split_at_mut(output.start);
            let (to, after) = rest.split_at_mut(output.len);
            let end = output.start + output.len;
            let read = |value: usize| -> &[f32] {
                let Slot { start, len } = slots[value];
                match value {
                    0 => input,
                    _ if start < output.start => &before[start..][..len],
                    _ => &after[start - end..][..len],
                }
            };
            let from = Map { values: read(layer.input), size: sizes[layer.input] };
            let residual_row = residual.map(|value| Map { values: read(value), size: sizes[value] });
            self.layers[index].run(layer, from, residual_row, to, sizes[index + 1]);
        }
        let last = slots[slots.len() - 1];
        Ok(&arena[last.start..][..last.len])
    }

    fn sizes(&self, size: [usize; 2]) -> Result<Vec<[usize; 2]>> {
        let size = if matches!(self.plan.input(), Kind::Rows(_)) { [1, 1] } else { size };
        let why =
            || Error::Plan(format!("expected an input large enough for the network's kernels, got {size:?} pixels"));
        self.plan.sizes(size).ok_or_else(why)
    }

    fn length(&self, value: usize, [height, width]: [usize; 2]) -> usize {
        let (Kind::Map(channels) | Kind::Rows(channels)) = self.plan.kind(value);
        channels * height * width
    }

    /// Assigns each value the lowest position where it overlaps no live value. The input needs no
    /// space.
    fn slots(&self, sizes: &[[usize; 2]]) -> Vec<Slot> {
        let last_use = self.plan.last_use();
        let mut slots = vec![Slot { start: 0, len: 0 }];
        for (value, &size) in sizes.iter().enumerate().skip(1) {
            let len = self.length(value, size);
            let mut alive: Vec<Slot> =
                (1..value).filter(|&other| last_use[other] >= value).map(|other| slots[other]).collect();
            alive.sort_unstable_by_key(|slot| slot.start);
            let mut start = 0;
            for other in alive {
                if start + len <= other.start {
                    break;
                }
                start = start.max(other.start + other.len);
            }
            slots.push(Slot { start, len });
        }
        slots
    }
}

/// A value `[channel, height, width]`.
#[derive(Clone, Copy)]
struct Map<'m> {
    values: &'m [f32],
    size: [usize; 2],
}

impl<'m> Map<'m> {
    fn row(&self, channel: usize, y: usize) -> &'m [f32] {
        let [height, width] = self.size;
        &self.values[(channel * height + y) * width..][..width]
    }
}

impl Weights<'_> {
    fn run(&self, layer: &Layer, from: Map<'_>, residual: Option<Map<'_>>, to: &mut [f32], size: [usize; 2]) {
        let [height, width] = size;
        match (&layer.op, self.weight) {
            (Op::ConvNorm { inputs, window, relu, .. }, Some(weight)) => {
                let taps = window.kernel[0] * window.kernel[1];
                for (output, plane) in to.chunks_exact_mut(height * width).enumerate() {
                    plane.fill(0.0);
                    for input in 0..*inputs {
                        for tap in 0..taps {
                            let weight = weight.get((output * inputs + input) * taps + tap);
                            add_tap(from, input, *window, tap, weight, plane, size);
                        }
                    }
                    let (factor, offset) = self.factor(output);
                    for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                        let residual_row = residual.map(|residual| residual.row(output, y));
                        for (x, value) in row.iter_mut().enumerate() {
                            let sum =
                                *value * factor + offset + residual_row.map_or(0.0, |residual_row| residual_row[x]);
                            *value = if *relu { sum.max(0.0) } else { sum };
                        }
                    }
                }
            }
            (Op::Linear { inputs, relu, .. }, Some(weight)) => {
                for (output, to) in to.iter_mut().enumerate() {
                    let products = from
                        .values
                        .iter()
                        .enumerate()
                        .map(|(input, value)| value * weight.get(output * inputs + input));
                    let (factor, offset) = self.factor(output);
                    let sum = products.sum::<f32>() * factor + offset;
                    *to = if *relu { sum.max(0.0) } else { sum };
                }
            }
            (Op::MaxPool { window }, _) => {
                for (channel, plane) in to.chunks_exact_mut(height * width).enumerate() {
                    for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                        for (x, value) in row.iter_mut().enumerate() {
                            let columns = span(*window, 1, x, from.size[1]);
                            let rows = span(*window, 0, y, from.size[0]);
                            let seen = rows.flat_map(|y| from.row(channel, y)[columns.clone()].iter());
                            *value = seen.fold(f32::NEG_INFINITY, |most, &value| most.max(value));
                        }
                    }
                }
            }
            (Op::GlobalMean, _) => {
                let pixels = from.size[0] * from.size[1];
                for (to, plane) in to.iter_mut().zip(from.values.chunks_exact(pixels)) {
                    *to = plane.iter().sum::<f32>() / pixels as f32;
                }
            }
            (Op::ConvNorm { .. } | Op::Linear { .. }, None) => unreachable!("these layers have weights"),
        }
    }
}

/// The pixels along one axis that a window covers.
fn span(window: Window, axis: usize, at: usize, length: usize) -> core::ops::Range<usize> {
    let first = at * window.stride[axis];
    let end = (first + window.kernel[axis]).saturating_sub(window.padding[axis]).min(length);
    first.saturating_sub(window.padding[axis]).min(end)..end
}

/// Adds one kernel tap times a channel to a plane of outputs.
fn add_tap(
    from: Map<'_>,
    channel: usize,
    window: Window,
    tap: usize,
    weight: f32,
    plane: &mut [f32],
    [height, width]: [usize; 2],
) {
    let [tap_y, tap_x] = [tap / window.kernel[1], tap % window.kernel[1]];
    let [stride_y, stride_x] = window.stride;
    // Outputs `x` with `0 <= x * stride + tap - padding < length`.
    let outputs = |axis: usize, tap: usize, count: usize| {
        let (stride, padding) = (window.stride[axis], window.padding[axis]);
        let first = padding.saturating_sub(tap).div_ceil(stride);
        let end = (from.size[axis] + padding).saturating_sub(tap).div_ceil(stride).min(count);
        first.min(end)..end
    };
    let columns = outputs(1, tap_x, width);
    if columns.is_empty() {
        return;
    }
    let left = columns.start * stride_x + tap_x - window.padding[1];
    for y in outputs(0, tap_y, height) {
        let row = &from.row(channel, y * stride_y + tap_y - window.padding[0])[left..];
        let to = &mut plane[y * width..][columns.clone()];
        if stride_x == 1 {
            to.iter_mut().zip(row).for_each(|(to, value)| *to += weight * value);
        } else {
            to.iter_mut().zip(row.iter().step_by(stride_x)).for_each(|(to, value)| *to += weight * value);
        }
    }
}
