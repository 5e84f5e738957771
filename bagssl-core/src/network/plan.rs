//! Networks as data: a plan lists the layers of a network with their shapes and parameter names.
//!
//! All executors run the same plan, so each network is defined once. Each layer reads the output of
//! an earlier one. Value 0 is the network's input, value `i + 1` is the output of layer `i`, and
//! the last value is the network's output.

use std::prelude::v1::*;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::random::{Address, Purpose, Stream};

/// The name, shape and values of a tensor.
pub type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// The epsilon of batch norm, added to the variance (PyTorch's default).
pub const NORM_EPSILON: f64 = 1e-5;
/// The momentum of batch norm: the weight of a new batch in the running statistics (PyTorch's
/// default).
pub const NORM_MOMENTUM: f64 = 0.1;

/// A sliding window over a map. All fields are `[vertical, horizontal]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The size of the window.
    pub kernel: [usize; 2],
    /// The step from one window to the next.
    pub stride: [usize; 2],
    /// The padding on each side: zeros for a convolution, ignored by a maximum.
    pub padding: [usize; 2],
}

impl Window {
    /// Creates a square window with the same stride and padding in both directions.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Window { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] }
    }

    /// Returns the size of the output map, or `None` if the window does not fit into
    /// `[height, width]`.
    pub fn output(self, [height, width]: [usize; 2]) -> Option<[usize; 2]> {
        let along = |axis: usize, length: usize| {
            let padded = length + 2 * self.padding[axis];
            Some(padded.checked_sub(self.kernel[axis])? / self.stride[axis] + 1)
        };
        Some([along(0, height)?, along(1, width)?])
    }
}

/// The operation of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// `relu?(norm(conv(x)) + residual?)` on maps. The convolution has no bias.
    ConvNorm {
        /// The name of the convolution. Its weight is `{conv}.weight`,
        /// `[outputs, inputs, kernel, kernel]`.
        conv: String,
        /// The name of the batch norm.
        norm: String,
        /// Number of input channels.
        inputs: usize,
        /// Number of output channels.
        outputs: usize,
        /// The window of the convolution.
        window: Window,
        /// A value that is added before the ReLU. If its map is larger than the output, its top
        /// left part is added. This happens if an unpadded convolution runs beside a shortcut.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        residual: Option<usize>,
        /// Whether the layer ends with a ReLU.
        relu: bool,
    },
    /// The maximum over a window (max pooling).
    MaxPool {
        /// The window.
        window: Window,
    },
    /// The mean over a map: from `[row, channel, height, width]` to `[row, channel]`.
    GlobalMean,
    /// `relu?(norm?(W x + b?))` on rows.
    Linear {
        /// The name of the layer: `{name}.weight` is `[outputs, inputs]`, `{name}.bias` is
        /// `[outputs]`.
        name: String,
        /// The length of an input row.
        inputs: usize,
        /// The length of an output row.
        outputs: usize,
        /// Whether the layer has a bias.
        bias: bool,
        /// The name of the batch norm, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        norm: Option<String>,
        /// Whether the layer ends with a ReLU.
        relu: bool,
    },
}

/// A layer: its operation and its input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The index of the input value.
    pub input: usize,
    /// The operation.
    #[serde(flatten)]
    pub op: Op,
}

/// The kind of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `[row, channel, height, width]`, with this many channels.
    Map(usize),
    /// `[row, dim]`, with rows of this length.
    Rows(usize),
}

/// The role of a parameter. Buffers (the running statistics) are not trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The weight of a convolution or linear layer.
    Weight,
    /// The bias of a linear layer.
    Bias,
    /// The scale of a batch norm.
    NormScale,
    /// The shift of a batch norm.
    NormShift,
    /// The running mean of a batch norm.
    RunningMean,
    /// The running variance of a batch norm (unbiased).
    RunningVariance,
}

impl Role {
    /// Returns whether the optimizer updates it.
    pub fn is_trained(self) -> bool {
        !matches!(self, Role::RunningMean | Role::RunningVariance)
    }
}

/// A parameter or buffer of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The name, as in the checkpoint but without the network's prefix.
    pub name: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// The role.
    pub role: Role,
}

impl Parameter {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns whether there are no values. Never true for parameters of a validated plan.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A validated network: every layer reads an existing value of the right kind, and all parameter
/// names are distinct.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedPlan", into = "UncheckedPlan")]
pub struct Plan {
    input: Kind,
    layers: Vec<Layer>,
    kinds: Vec<Kind>,
}

/// The serialized form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedPlan {
    input: Kind,
    layers: Vec<Layer>,
}

impl TryFrom<UncheckedPlan> for Plan {
    type Error = Error;

    fn try_from(plan: UncheckedPlan) -> Result<Self> {
        Plan::new(plan.input, plan.layers)
    }
}

impl From<Plan> for UncheckedPlan {
    fn from(plan: Plan) -> Self {
        UncheckedPlan { input: plan.input, layers: plan.layers }
    }
}

/// The limit of channels, kernel sizes and strides. It is above any sensible size, and small enough
/// that no product of four overflows 64 bits.
const MAX_DIM: usize = 1 << 15;

impl Plan {
    /// Validates a list of layers.
    ///
    /// # Errors
    /// [`Error::Plan`] naming the first invalid layer and the reason.
    pub fn new(input: Kind, layers: Vec<Layer>) -> Result<Self> {
        if layers.is_empty() {
            return Err(Error::Plan("expected at least one layer, got none".into()));
        }
        let mut kinds = vec![input];
        for (index, layer) in layers.iter().enumerate() {
            let kind = output_kind(layer, &kinds).map_err(|reason| Error::Plan(format!("layer {index}: {reason}")))?;
            kinds.push(kind);
        }
        let plan = Plan { input, layers, kinds };
        let mut names: Vec<_> = plan.parameters().into_iter().map(|parameter| parameter.name).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::Plan(format!("two parameters are named {:?}", pair[0])));
        }
        Ok(plan)
    }

    /// Returns the kind of the network's input.
    pub fn input(&self) -> Kind {
        self.input
    }

    /// Returns the layers in execution order.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Returns the kind of a value: 0 is the input, `i + 1` the output of layer `i`.
    ///
    /// # Panics
    /// If `value` is out of range.
    pub fn kind(&self, value: usize) -> Kind {
        self.kinds[value]
    }

    /// Returns the kind of the network's output.
    pub fn output(&self) -> Kind {
        self.kinds[self.layers.len()]
    }

    /// Returns the length of the output's rows, or its number of channels.
    pub fn output_dim(&self) -> usize {
        match self.output() {
            Kind::Map(dim) | Kind::Rows(dim) => dim,
        }
    }

    /// Returns all parameters and buffers in the order of the layers. Each layer lists its weight,
    /// its bias, then the scale, shift, running mean and running variance of its norm.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut all = Vec::new();
        let mut add = |name: String, shape: Vec<usize>, role| all.push(Parameter { name, shape, role });
        for layer in &self.layers {
            let norm = match &layer.op {
                Op::ConvNorm { conv, norm, inputs, outputs, window, .. } => {
                    let shape = vec![*outputs, *inputs, window.kernel[0], window.kernel[1]];
                    add(format!("{conv}.weight"), shape, Role::Weight);
                    Some((norm, *outputs))
                }
                Op::Linear { name, inputs, outputs, bias, norm, .. } => {
                    add(format!("{name}.weight"), vec![*outputs, *inputs], Role::Weight);
                    if *bias {
                        add(format!("{name}.bias"), vec![*outputs], Role::Bias);
                    }
                    norm.as_ref().map(|norm| (norm, *outputs))
                }
                Op::MaxPool { .. } | Op::GlobalMean => None,
            };
            if let Some((norm, dim)) = norm {
                for (part, role) in [
                    ("weight", Role::NormScale),
                    ("bias", Role::NormShift),
                    ("running_mean", Role::RunningMean),
                    ("running_var", Role::RunningVariance),
                ] {
                    add(format!("{norm}.{part}"), vec![dim], role);
                }
            }
        }
        all
    }

    /// Returns, for each value, the number of the last layer that reads it, counting layers from 1.
    /// For a value that no layer reads, returns the value's own index, which is the number of the
    /// layer that computes it (0 for the input).
    pub(crate) fn last_use(&self) -> Vec<usize> {
        let mut last: Vec<usize> = (0..=self.layers.len()).collect();
        for (index, layer) in self.layers.iter().enumerate() {
            last[layer.input] = index + 1;
            if let Op::ConvNorm { residual: Some(residual), .. } = layer.op {
                last[residual] = index + 1;
            }
        }
        last
    }

    /// Draws random values for all parameters and buffers, in their order. The values depend only
    /// on the seed.
    ///
    /// # Source
    /// Convolutions as in torchvision's residual networks: normal with standard deviation
    /// `sqrt(2 / (outputs * height * width))` (He et al. 2015, by fan-out). Linear layers as in
    /// PyTorch: uniform within `1 / sqrt(inputs)`, except that biases are 0. Norms are initialized
    /// to the identity. The weights of each output come from a separate stream.
    pub fn init_weights(&self, seed: u64) -> Vec<NamedTensor> {
        let first = |(index, parameter): (usize, Parameter)| {
            let address = Address { seed, image: index as u32, ..Address::default() };
            let values = first_values(&parameter, address);
            (parameter.name, parameter.shape, values)
        };
        self.parameters().into_iter().enumerate().map(first).collect()
    }

    /// Returns the `[height, width]` of each value for an input of this size (`[1, 1]` for rows).
    /// Returns `None` if the input is too small for a window, or if a residual is smaller than the
    /// output that it is added to.
    pub fn sizes(&self, input: [usize; 2]) -> Option<Vec<[usize; 2]>> {
        let mut sizes = vec![input];
        for layer in &self.layers {
            let size = sizes[layer.input];
            sizes.push(match &layer.op {
                Op::ConvNorm { window, residual, .. } => {
                    let output = window.output(size)?;
                    let residual_size = residual.map_or(output, |residual| sizes[residual]);
                    if residual_size[0] < output[0] || residual_size[1] < output[1] {
                        return None;
                    }
                    output
                }
                Op::MaxPool { window } => window.output(size)?,
                Op::GlobalMean | Op::Linear { .. } => [1, 1],
            });
        }
        Some(sizes)
    }

    /// Returns the number of multiply-accumulate operations for one input of `[height, width]`
    /// (ignored for plans that read rows), or `None` if the input is too small (see
    /// [`Plan::sizes`]).
    pub fn multiply_accumulates(&self, input: [usize; 2]) -> Option<u64> {
        let sizes = self.sizes(input)?;
        let count = |(index, layer): (usize, &Layer)| match &layer.op {
            Op::ConvNorm { inputs, outputs, window, .. } => {
                let [height, width] = sizes[index + 1];
                (height * width) as u64 * (inputs * outputs * window.kernel[0] * window.kernel[1]) as u64
            }
            Op::MaxPool { .. } | Op::GlobalMean => 0,
            Op::Linear { inputs, outputs, .. } => (inputs * outputs) as u64,
        };
        Some(self.layers.iter().enumerate().map(count).sum())
    }

    /// Returns the plan up to its last map, whose pixels are the embeddings of patches, and the
    /// receptive field of each pixel.
    ///
    /// # Errors
    /// [`Error::Plan`] if the plan does not end with a global mean, and like
    /// [`Plan::receptive_field`].
    pub fn dense(&self) -> Result<(Plan, ReceptiveField)> {
        let field = self.receptive_field()?;
        match self.layers.split_last() {
            Some((Layer { input, op: Op::GlobalMean }, before)) if *input == before.len() => {
                Ok((Plan::new(self.input, before.to_vec())?, field))
            }
            _ => Err(Error::Plan("expected a global mean as the last layer of a dense encoder, got another".into())),
        }
    }

    /// Returns the receptive field of a pixel of the last map: the side of its square of input
    /// pixels, and the distance between adjacent squares. All windows must be square and without
    /// padding, so that each output pixel depends only on its own square.
    ///
    /// # Errors
    /// [`Error::Plan`] naming the first layer with padding, with a window that is not square, or
    /// whose two inputs have different strides.
    pub fn receptive_field(&self) -> Result<ReceptiveField> {
        let refuse = |index: usize, reason: String| Err(Error::Plan(format!("layer {index}: {reason}")));
        let mut fields = vec![ReceptiveField { side: 1, stride: 1 }];
        for (index, layer) in self.layers.iter().enumerate() {
            let input_field = fields[layer.input];
            fields.push(match &layer.op {
                Op::ConvNorm { window, .. } | Op::MaxPool { window } => {
                    let Window { kernel, stride, padding } = *window;
                    if padding != [0, 0] {
                        return refuse(index, format!("expected no padding for dense embedding, got {padding:?}"));
                    }
                    if kernel[0] != kernel[1] || stride[0] != stride[1] {
                        return refuse(index, format!("expected a square window, got {window:?}"));
                    }
                    let mut field = ReceptiveField {
                        side: input_field.side.saturating_add((kernel[0] - 1).saturating_mul(input_field.stride)),
                        stride: input_field.stride.saturating_mul(stride[0]),
                    };
                    if let Op::ConvNorm { residual: Some(residual), .. } = layer.op {
                        let skip_field = fields[residual];
                        if skip_field.stride != field.stride {
                            return refuse(index, format!("expected equal strides, got {field:?} and {skip_field:?}"));
                        }
                        field.side = field.side.max(skip_field.side);
                    }
                    field
                }
                Op::GlobalMean | Op::Linear { .. } => input_field,
            });
        }
        Ok(fields[self.layers.len()])
    }
}

fn first_values(parameter: &Parameter, address: Address) -> Vec<f32> {
    let count = parameter.len();
    match (parameter.role, parameter.shape.as_slice()) {
        (Role::NormScale | Role::RunningVariance, _) => vec![1.0; count],
        (Role::NormShift | Role::RunningMean | Role::Bias, _) => vec![0.0; count],
        (Role::Weight, shape) => {
            let [outputs, inputs] = [shape[0], shape[1]];
            let per_output = count / outputs;
            let deviation = libm::sqrt(2.0 / (outputs * per_output / inputs) as f64);
            let bound = 1.0 / libm::sqrtf(inputs as f32);
            let mut values = Vec::with_capacity(count);
            for output in 0..outputs {
                let mut random = Address { patch: output as u32, ..address }.stream(Purpose::Weights);
                let normal = |random: &mut Stream| (deviation * random.normal_pair().0) as f32;
                let is_linear = shape.len() == 2;
                let draw = |_| if is_linear { random.uniform(-bound, bound) } else { normal(&mut random) };
                values.extend((0..per_output).map(draw));
            }
            values
        }
    }
}

/// The receptive field of the pixels of a map. The first square starts at the top left corner of
/// the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceptiveField {
    /// The side of the square, in pixels of the input.
    pub side: usize,
    /// The step from one square to the next, in pixels of the input.
    pub stride: usize,
}

fn output_kind(layer: &Layer, kinds: &[Kind]) -> core::result::Result<Kind, String> {
    let value = |index: usize| {
        kinds.get(index).copied().ok_or_else(|| format!("expected index 0 to {}, got {index}", kinds.len() - 1))
    };
    let input = value(layer.input)?;
    let expect = |expected: Kind, got: Kind| {
        if expected == got { Ok(()) } else { Err(format!("expected {expected:?}, got {got:?}")) }
    };
    match &layer.op {
        Op::ConvNorm { inputs, outputs, window, residual, .. } => {
            expect(Kind::Map(*inputs), input)?;
            check_window(*window)?;
            check_size("outputs", *outputs)?;
            if let Some(residual) = residual {
                expect(Kind::Map(*outputs), value(*residual)?)?;
            }
            Ok(Kind::Map(*outputs))
        }
        Op::MaxPool { window } => {
            check_window(*window)?;
            if (0..2).any(|axis| 2 * window.padding[axis] > window.kernel[axis]) {
                return Err(format!("expected padding of at most half the kernel, got {window:?}"));
            }
            match input {
                Kind::Map(_) => Ok(input),
                Kind::Rows(_) => Err(format!("expected a map, got {input:?}")),
            }
        }
        Op::GlobalMean => match input {
            Kind::Map(channels) => Ok(Kind::Rows(channels)),
            Kind::Rows(_) => Err(format!("expected a map, got {input:?}")),
        },
        Op::Linear { inputs, outputs, .. } => {
            expect(Kind::Rows(*inputs), input)?;
            check_size("outputs", *outputs)?;
            Ok(Kind::Rows(*outputs))
        }
    }
}

/// Rejects windows with a size, stride or padding that is out of range.
pub(crate) fn check_window(window: Window) -> core::result::Result<(), String> {
    for axis in 0..2 {
        check_size("kernel", window.kernel[axis])?;
        check_size("stride", window.stride[axis])?;
        let (kernel, padding) = (window.kernel[axis], window.padding[axis]);
        // More padding would create large maps from small inputs.
        if padding > 3 * kernel {
            return Err(format!("padding: expected at most {} (three times the kernel), got {padding}", 3 * kernel));
        }
    }
    Ok(())
}

fn check_size(name: &str, size: usize) -> core::result::Result<(), String> {
    if (1..=MAX_DIM).contains(&size) { Ok(()) } else { Err(format!("{name}: expected 1 to {MAX_DIM}, got {size}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(input: usize, inputs: usize, outputs: usize, residual: Option<usize>) -> Layer {
        let names = (format!("conv{input}"), format!("bn{input}"));
        let window = Window { kernel: [3, 1], stride: [2, 1], padding: [1, 0] };
        Layer {
            input,
            op: Op::ConvNorm { conv: names.0, norm: names.1, inputs, outputs, window, residual, relu: true },
        }
    }

    #[test]
    fn windows_by_hand() {
        let window = Window { kernel: [3, 1], stride: [2, 1], padding: [1, 0] };
        assert_eq!(window.output([5, 7]), Some([3, 7]));
        assert_eq!(Window::square(7, 2, 3).output([224, 9]), Some([112, 5]));
        assert_eq!(Window::square(3, 1, 0).output([2, 9]), None);
    }

    #[test]
    fn parameters_and_operations_by_hand() {
        let plan = Plan::new(Kind::Map(3), vec![conv(0, 3, 5, None), Layer { input: 1, op: Op::GlobalMean }]).unwrap();
        let parameters = plan.parameters();
        assert_eq!(parameters.len(), 5);
        assert_eq!(parameters[0].name, "conv0.weight");
        assert_eq!(parameters[0].shape, [5, 3, 3, 1]);
        assert_eq!((parameters[4].name.as_str(), parameters[4].role), ("bn0.running_var", Role::RunningVariance));
        assert_eq!(plan.output(), Kind::Rows(5));
        // [5, 7] becomes [3, 7]: 21 pixels of 3 * 5 * 3 products each.
        assert_eq!(plan.multiply_accumulates([5, 7]), Some(21 * 45));
        assert_eq!(plan.last_use(), [1, 2, 2]);
    }

    /// 3x3, then 3x3 with stride 2: a field of 3 + 2 * 1 = 5 pixels, 2 apart. A shortcut may be
    /// larger than the output, but not smaller.
    #[test]
    fn receptive_fields_and_sizes_by_hand() {
        let square = |input, kernel, stride, padding, residual| {
            let Layer { op, .. } = conv(input, 3, 3, residual);
            let Op::ConvNorm { norm, .. } = op else { unreachable!() };
            let window = Window::square(kernel, stride, padding);
            let conv = format!("conv{kernel}{stride}{input}");
            let norm = format!("{norm}{kernel}");
            Layer { input, op: Op::ConvNorm { conv, norm, inputs: 3, outputs: 3, window, residual, relu: true } }
        };
        let plan = |layers| Plan::new(Kind::Map(3), layers).unwrap();
        let two = plan(vec![square(0, 3, 1, 0, None), square(1, 3, 2, 0, None)]);
        assert_eq!(two.receptive_field().unwrap(), ReceptiveField { side: 5, stride: 2 });
        assert_eq!(two.sizes([9, 6]).unwrap(), [[9, 6], [7, 4], [3, 1]]);
        assert_eq!(two.sizes([9, 4]), None);
        let larger = plan(vec![square(0, 3, 1, 0, Some(0))]);
        assert_eq!(larger.sizes([5, 4]).unwrap()[1], [3, 2]);
        let smaller = plan(vec![square(0, 3, 1, 0, None), square(0, 1, 1, 0, Some(1))]);
        assert_eq!(smaller.sizes([5, 4]), None);
        let padded = plan(vec![square(0, 3, 1, 1, None)]);
        let error = padded.receptive_field().unwrap_err().to_string();
        assert!(error.contains("layer 0: expected no padding for dense embedding, got [1, 1]"));
    }

    #[test]
    fn mismatches_are_refused() {
        let refused = |layers: Vec<Layer>, words: &str| {
            let error = Plan::new(Kind::Map(3), layers).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(vec![], "at least one layer");
        refused(vec![conv(0, 4, 5, None)], "expected Map(4), got Map(3)");
        refused(vec![conv(1, 3, 5, None)], "index 0 to 0, got 1");
        refused(vec![conv(0, 3, 5, Some(0))], "expected Map(5), got Map(3)");
        refused(vec![conv(0, 3, 5, None), conv(0, 3, 5, None)], "two parameters are named");
        refused(vec![conv(0, 3, 0, None)], "outputs");
        refused(vec![Layer { input: 0, op: Op::MaxPool { window: Window::square(2, 0, 0) } }], "stride");
        refused(vec![Layer { input: 0, op: Op::MaxPool { window: Window::square(2, 1, 2) } }], "half the kernel");
    }

    #[test]
    fn plan_json_round_trip() {
        let plan = Plan::new(Kind::Map(3), vec![conv(0, 3, 5, None), conv(1, 5, 5, Some(1))]).unwrap();
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        assert!(serde_json::from_str::<Plan>(&text.replace("\"inputs\":5", "\"inputs\":4")).is_err());
    }
}
