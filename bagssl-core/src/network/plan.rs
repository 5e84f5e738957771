//! Models as data: a network is a list of layers with their shapes and the names of their parameters.
//!
//! One plan drives every executor, so a network is defined once. A layer reads the value of an earlier one; value 0 is
//! the network's input, value `i + 1` the output of layer `i`, and the last value is the network's output.

use std::prelude::v1::*;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::random::{Address, Purpose, Stream};

/// A tensor by its name, with its shape and its values.
pub type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// Added to a variance before its root is taken (PyTorch's default for batch norm).
pub const NORM_EPSILON: f64 = 1e-5;
/// The weight of a new batch in the running statistics (PyTorch's default for batch norm).
pub const NORM_MOMENTUM: f64 = 0.1;

/// A window that slides over a map, `[vertical, horizontal]` throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The window's size.
    pub kernel: [usize; 2],
    /// From window to window.
    pub stride: [usize; 2],
    /// Added on each side: zeros for a convolution, nothing that counts for a maximum.
    pub padding: [usize; 2],
}

impl Window {
    /// A square window with the same stride and padding in both directions.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Window { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] }
    }

    /// The size of the map that comes out, or `None` if the window does not fit into `[height, width]`.
    pub fn output(self, [height, width]: [usize; 2]) -> Option<[usize; 2]> {
        let along = |axis: usize, length: usize| {
            let padded = length + 2 * self.padding[axis];
            Some(padded.checked_sub(self.kernel[axis])? / self.stride[axis] + 1)
        };
        Some([along(0, height)?, along(1, width)?])
    }
}

/// What a layer does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// `relu?(norm(conv(x)) + residual?)` on maps; the convolution has no bias.
    ConvNorm {
        /// The convolution's name: its weight is `{conv}.weight`, `[outputs, inputs, kernel, kernel]`.
        conv: String,
        /// The batch norm's name.
        norm: String,
        /// Channels that come in.
        inputs: usize,
        /// Channels that go out.
        outputs: usize,
        /// The convolution's window.
        window: Window,
        /// A value to add before the ReLU. If its map is larger than the output, its top left part is added (an
        /// unpadded convolution beside a shortcut makes the smaller one).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        residual: Option<usize>,
        /// Whether a ReLU ends the layer.
        relu: bool,
    },
    /// The maximum over a window.
    MaxPool {
        /// The window.
        window: Window,
    },
    /// The mean over a map: from `[row, channel, height, width]` to `[row, channel]`.
    GlobalMean,
    /// `relu?(norm?(W x + b?))` on rows.
    Linear {
        /// Its name: `{name}.weight` is `[outputs, inputs]`, `{name}.bias` is `[outputs]`.
        name: String,
        /// Length of a row that comes in.
        inputs: usize,
        /// Length of a row that goes out.
        outputs: usize,
        /// Whether there is a bias.
        bias: bool,
        /// The batch norm's name, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        norm: Option<String>,
        /// Whether a ReLU ends the layer.
        relu: bool,
    },
}

/// One layer: what it does, and the value that it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The value that is read.
    pub input: usize,
    /// What is done with it.
    #[serde(flatten)]
    pub op: Op,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `[row, channel, height, width]`, with this many channels.
    Map(usize),
    /// `[row, dim]`, with rows of this length.
    Rows(usize),
}

/// What a parameter is for. Buffers (the running statistics) are not trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A convolution's or linear layer's weight.
    Weight,
    /// A linear layer's bias.
    Bias,
    /// A batch norm's factor.
    NormScale,
    /// A batch norm's offset.
    NormShift,
    /// A batch norm's running mean.
    RunningMean,
    /// A batch norm's running variance (unbiased).
    RunningVariance,
}

impl Role {
    /// Whether an optimizer changes it.
    pub fn is_trained(self) -> bool {
        !matches!(self, Role::RunningMean | Role::RunningVariance)
    }
}

/// A parameter or buffer of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name, as in the checkpoint but without the network's prefix.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
}

impl Parameter {
    /// How many values it has.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has none. A checked plan has no such parameter.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A network as data, checked: every layer reads a value that is there and of the right kind, and no two parameters
/// share a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedPlan", into = "UncheckedPlan")]
pub struct Plan {
    input: Kind,
    layers: Vec<Layer>,
    kinds: Vec<Kind>,
}

/// A plan as it stands in a file.
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

/// More than any sensible size, and small enough that no product of four overflows 64 bits.
const LARGEST: usize = 1 << 15;

impl Plan {
    /// Checks a list of layers.
    ///
    /// # Errors
    /// [`Error::Plan`] names the first layer that does not fit, and why.
    pub fn new(input: Kind, layers: Vec<Layer>) -> Result<Self> {
        if layers.is_empty() {
            return Err(Error::Plan("expected at least one layer, got none".into()));
        }
        let mut kinds = vec![input];
        for (index, layer) in layers.iter().enumerate() {
            let kind = output_kind(layer, &kinds).map_err(|why| Error::Plan(format!("layer {index}: {why}")))?;
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

    /// What the network reads.
    pub fn input(&self) -> Kind {
        self.input
    }

    /// The layers, in the order in which they run.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// What a value is: 0 is the input, `i + 1` the output of layer `i`.
    ///
    /// # Panics
    /// If there is no such value.
    pub fn kind(&self, value: usize) -> Kind {
        self.kinds[value]
    }

    /// What the network puts out.
    pub fn output(&self) -> Kind {
        self.kinds[self.layers.len()]
    }

    /// The length of the output's rows, or its channels.
    pub fn output_dim(&self) -> usize {
        match self.output() {
            Kind::Map(dim) | Kind::Rows(dim) => dim,
        }
    }

    /// All parameters and buffers, in the order of the layers; each layer's weight first, then its bias, its norm's
    /// scale, shift, running mean and running variance.
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

    /// For each value the number of the layer, counted from 1, that reads it last; a value's own number (that of the layer
    /// that makes it, 0 for the input) if none does.
    pub fn last_use(&self) -> Vec<usize> {
        let mut last: Vec<usize> = (0..=self.layers.len()).collect();
        for (index, layer) in self.layers.iter().enumerate() {
            last[layer.input] = index + 1;
            if let Op::ConvNorm { residual: Some(residual), .. } = layer.op {
                last[residual] = index + 1;
            }
        }
        last
    }

    /// Random values for all parameters and buffers, in their order: a function of the seed.
    ///
    /// # Source
    /// Convolutions as torchvision's residual networks: normal with deviation `sqrt(2 / (outputs * height * width))` (He et
    /// al. 2015, by fan-out); linear layers as PyTorch's: uniform within `1 / sqrt(inputs)`, but biases 0; norms the
    /// identity. Each output's weights are a stream of their own.
    pub fn init_weights(&self, seed: u64) -> Vec<NamedTensor> {
        let first = |(index, parameter): (usize, Parameter)| {
            let address = Address { seed, image: index as u32, ..Address::default() };
            let values = first_values(&parameter, address);
            (parameter.name, parameter.shape, values)
        };
        self.parameters().into_iter().enumerate().map(first).collect()
    }

    /// The `[height, width]` of each value for an input of such a size (`[1, 1]` for rows), or `None` if the input is too
    /// small for a window, or a residual too small for what it is added to.
    pub fn sizes(&self, input: [usize; 2]) -> Option<Vec<[usize; 2]>> {
        let mut sizes = vec![input];
        for layer in &self.layers {
            let size = sizes[layer.input];
            sizes.push(match &layer.op {
                Op::ConvNorm { window, residual, .. } => {
                    let output = window.output(size)?;
                    let have = residual.map_or(output, |residual| sizes[residual]);
                    if have[0] < output[0] || have[1] < output[1] {
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

    /// Multiply-accumulate operations for one input of `[height, width]` (which rows do not have), or `None` if the
    /// input is too small (see [`Plan::sizes`]).
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

    /// The plan up to its last map, whose pixels are the embeddings of patches, and what each of them sees.
    ///
    /// # Errors
    /// [`Error::Plan`] if the plan does not end in a global mean, or as [`Plan::receptive_field`].
    pub fn dense(&self) -> Result<(Plan, ReceptiveField)> {
        let field = self.receptive_field()?;
        match self.layers.split_last() {
            Some((Layer { input, op: Op::GlobalMean }, before)) if *input == before.len() => {
                Ok((Plan::new(self.input, before.to_vec())?, field))
            }
            _ => {
                Err(Error::Plan("expected a global mean as the last layer of what encodes all patches at once".into()))
            }
        }
    }

    /// The square of pixels that one pixel of the last map sees, and how far such squares lie apart, for a network that
    /// looks at each square alone: one whose windows are square and without padding.
    ///
    /// # Errors
    /// [`Error::Plan`] names the first layer with padding, with a window that is not square, or whose two inputs see
    /// different strides.
    pub fn receptive_field(&self) -> Result<ReceptiveField> {
        let refuse = |index: usize, why: String| Err(Error::Plan(format!("layer {index}: {why}")));
        let mut fields = vec![ReceptiveField { side: 1, stride: 1 }];
        for (index, layer) in self.layers.iter().enumerate() {
            let seen = fields[layer.input];
            fields.push(match &layer.op {
                Op::ConvNorm { window, .. } | Op::MaxPool { window } => {
                    let Window { kernel, stride, padding } = *window;
                    if padding != [0, 0] {
                        return refuse(
                            index,
                            format!("expected no padding, got {padding:?}: patches would differ from crops"),
                        );
                    }
                    if kernel[0] != kernel[1] || stride[0] != stride[1] {
                        return refuse(index, format!("expected a square window, got {window:?}"));
                    }
                    let mut field = ReceptiveField {
                        side: seen.side.saturating_add((kernel[0] - 1).saturating_mul(seen.stride)),
                        stride: seen.stride.saturating_mul(stride[0]),
                    };
                    if let Op::ConvNorm { residual: Some(residual), .. } = layer.op {
                        let beside = fields[residual];
                        if beside.stride != field.stride {
                            return refuse(index, format!("expected strides that agree, got {field:?} and {beside:?}"));
                        }
                        field.side = field.side.max(beside.side);
                    }
                    field
                }
                Op::GlobalMean | Op::Linear { .. } => seen,
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

/// What one pixel of a map sees of the network's input. All such squares start at the top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceptiveField {
    /// Side of the square, in pixels of the input.
    pub side: usize,
    /// From one square to the next, in pixels of the input.
    pub stride: usize,
}

fn output_kind(layer: &Layer, kinds: &[Kind]) -> core::result::Result<Kind, String> {
    let value = |index: usize| {
        kinds.get(index).copied().ok_or_else(|| format!("expected one of values 0 to {}, got {index}", kinds.len() - 1))
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

/// Refuses a window of no size, or of one that nobody means.
pub(crate) fn check_window(window: Window) -> core::result::Result<(), String> {
    for axis in 0..2 {
        check_size("kernel", window.kernel[axis])?;
        check_size("stride", window.stride[axis])?;
        let (kernel, padding) = (window.kernel[axis], window.padding[axis]);
        // More makes maps of any size from nothing.
        if padding > 3 * kernel {
            return Err(format!("padding: expected at most {}, three times the kernel, got {padding}", 3 * kernel));
        }
    }
    Ok(())
}

fn check_size(what: &str, size: usize) -> core::result::Result<(), String> {
    if (1..=LARGEST).contains(&size) { Ok(()) } else { Err(format!("{what}: expected 1 to {LARGEST}, got {size}")) }
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
        // [5, 7] becomes [3, 7]: 21 pixels of 3 * 5 * 3 products.
        assert_eq!(plan.multiply_accumulates([5, 7]), Some(21 * 45));
        assert_eq!(plan.last_use(), [1, 2, 2]);
    }

    /// 3x3, then 3x3 with stride 2 on it: 3 + 2 * 1 = 5 pixels, 2 apart. A shortcut may be larger, not smaller.
    #[test]
    fn fields_and_sizes_by_hand() {
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
        assert!(padded.receptive_field().unwrap_err().to_string().contains("layer 0: expected no padding, got [1, 1]"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |layers: Vec<Layer>, words: &str| {
            let error = Plan::new(Kind::Map(3), layers).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(vec![], "at least one layer");
        refused(vec![conv(0, 4, 5, None)], "expected Map(4), got Map(3)");
        refused(vec![conv(1, 3, 5, None)], "values 0 to 0, got 1");
        refused(vec![conv(0, 3, 5, Some(0))], "expected Map(5), got Map(3)");
        refused(vec![conv(0, 3, 5, None), conv(0, 3, 5, None)], "two parameters are named");
        refused(vec![conv(0, 3, 0, None)], "outputs");
        refused(vec![Layer { input: 0, op: Op::MaxPool { window: Window::square(2, 0, 0) } }], "stride");
        refused(vec![Layer { input: 0, op: Op::MaxPool { window: Window::square(2, 1, 2) } }], "half the kernel");
    }

    #[test]
    fn a_plan_survives_json() {
        let plan = Plan::new(Kind::Map(3), vec![conv(0, 3, 5, None), conv(1, 5, 5, Some(1))]).unwrap();
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        assert!(serde_json::from_str::<Plan>(&text.replace("\"inputs\":5", "\"inputs\":4")).is_err());
    }
}
