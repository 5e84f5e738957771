//! Builds the ONNX graph: nodes and initializers, layer by layer.

use std::prelude::v1::*;

use super::cut::Cut;
use super::fold::{Norm, folded};
use super::proto::{Attribute, FLOAT, INT, INT64, INTS, Node, Tensor};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::plan::{Op, Plan, Window};

/// Initializers for cropping residuals: start at the top left corner, along height and width. They
/// cannot collide with parameters, whose names start with `encoder.` or `projector.`.
const CUT_STARTS: &str = "cut/starts";
const CUT_AXES: &str = "cut/axes";

/// A graph under construction. A node and its output are named `{layer}/{operator}`.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    checkpoint: &'a Checkpoint<'a>,
    nodes: Vec<Node>,
    initializers: Vec<Tensor>,
}

impl<'a> Builder<'a> {
    /// Creates an empty graph that takes its parameters from a checkpoint.
    pub(super) fn new(checkpoint: &'a Checkpoint<'a>) -> Self {
        Builder { checkpoint, nodes: Vec::new(), initializers: Vec::new() }
    }

    /// Adds the first layers of a plan, one per element of `cuts`. Returns the name of the last
    /// output.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a weight or a bias is not finite.
    pub(super) fn add(&mut self, prefix: &str, plan: &Plan, cuts: &[Cut], input: String) -> Result<String> {
        let mut values = vec![input];
        for (index, (layer, &cut)) in plan.layers().iter().zip(cuts).enumerate() {
            let input = values[layer.input].clone();
            let value = match &layer.op {
                Op::ConvNorm { conv, norm, inputs, outputs, window, residual, relu } => {
                    let layer = format!("{prefix}.{conv}");
                    let shape = [*outputs, *inputs, window.kernel[0], window.kernel[1]];
                    let [weight, bias] = self.normed(&layer, &shape, false, &format!("{prefix}.{norm}"))?;
                    let mut value = self.node(&layer, "Conv", &[&input, &weight, &bias], windowed(*window));
                    if let Some(residual) = residual {
                        let residual_name = self.cut(&layer, &values[*residual], &value, cut);
                        value = self.node(&layer, "Add", &[&value, &residual_name], vec![]);
                    }
                    self.relu(&layer, value, *relu)
                }
                Op::MaxPool { window } => {
                    self.node(&format!("{prefix}/{index}"), "MaxPool", &[&input], windowed(*window))
                }
                Op::GlobalMean => {
                    let layer = format!("{prefix}/{index}");
                    let mean = self.node(&layer, "GlobalAveragePool", &[&input], vec![]);
                    self.node(&layer, "Flatten", &[&mean], vec![int("axis", 1)])
                }
                Op::Linear { name, inputs, outputs, bias, norm, relu } => {
                    let layer = format!("{prefix}.{name}");
                    let shape = [*outputs, *inputs];
                    let parameters = match norm {
                        Some(norm) => self.normed(&layer, &shape, *bias, &format!("{prefix}.{norm}"))?.to_vec(),
                        None => self.plain(&layer, &shape, *bias)?,
                    };
                    let mut read = vec![input.as_str()];
                    read.extend(parameters.iter().map(String::as_str));
                    let value = self.node(&layer, "Gemm", &read, vec![int("transB", 1)]);
                    self.relu(&layer, value, *relu)
                }
            };
            values.push(value);
        }
        Ok(values.swap_remove(cuts.len()))
    }

    /// Returns nodes and initializers, with the last value renamed to `output`.
    pub(super) fn finish(mut self, last: &str, output: &str) -> (Vec<Node>, Vec<Tensor>) {
        if self.nodes.is_empty() {
            self.node("input", "Identity", &[last], vec![]);
        }
        if let Some(node) = self.nodes.last_mut() {
            node.output = vec![output.into()];
        }
        (self.nodes, self.initializers)
    }

    fn node(&mut self, layer: &str, operator: &str, inputs: &[&str], attribute: Vec<Attribute>) -> String {
        let name = format!("{layer}/{operator}");
        self.nodes.push(Node {
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: operator.into(),
            attribute,
        });
        name
    }

    fn relu(&mut self, layer: &str, value: String, relu: bool) -> String {
        if relu { self.node(layer, "Relu", &[&value], vec![]) } else { value }
    }

    /// Returns the part of a residual that is added to `value`.
    fn cut(&mut self, layer: &str, residual: &str, value: &str, cut: Cut) -> String {
        let ends = match cut {
            Cut::Whole => return residual.into(),
            Cut::To(size) => {
                let name = format!("{layer}/ends");
                self.integers(&name, size);
                name
            }
            Cut::ToOutput => self.node(layer, "Shape", &[value], vec![int("start", 2)]),
        };
        if self.initializers.iter().all(|tensor| tensor.name != CUT_STARTS) {
            self.integers(CUT_STARTS, [0, 0]);
            self.integers(CUT_AXES, [2, 3]);
        }
        self.node(layer, "Slice", &[residual, CUT_STARTS, &ends, CUT_AXES], vec![])
    }

    /// Adds the weight and bias of a layer with its norm folded in. Returns their names.
    fn normed(&mut self, layer: &str, shape: &[usize], bias: bool, norm: &str) -> Result<[String; 2]> {
        let [weight_name, bias_name] = ["weight", "bias"].map(|part| format!("{layer}.{part}"));
        let part = |part: &str| self.checkpoint.values(&format!("{norm}.{part}"));
        let norm = Norm {
            scale: part("weight")?,
            shift: part("bias")?,
            mean: part("running_mean")?,
            variance: part("running_var")?,
        };
        let bias = if bias { Some(self.checkpoint.values(&bias_name)?) } else { None };
        let (weight, bias) = folded(self.checkpoint.values(&weight_name)?, bias, &norm);
        self.floats(&weight_name, shape, &weight)?;
        self.floats(&bias_name, &shape[..1], &bias)?;
        Ok([weight_name, bias_name])
    }

    /// Adds the weight and optional bias of a layer without a norm. Returns their names.
    fn plain(&mut self, layer: &str, shape: &[usize], bias: bool) -> Result<Vec<String>> {
        let mut parts = vec![(format!("{layer}.weight"), shape)];
        if bias {
            parts.push((format!("{layer}.bias"), &shape[..1]));
        }
        for (name, shape) in &parts {
            self.floats(name, shape, &self.checkpoint.values(name)?)?;
        }
        Ok(parts.into_iter().map(|(name, _)| name).collect())
    }

    fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            let reason = format!("tensor {name:?}: expected finite values after folding in the norm, got {value}");
            return Err(Error::Checkpoint(reason));
        }
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let dims = shape.iter().map(|&length| length as i64).collect();
        self.initializers.push(Tensor { dims, data_type: FLOAT, name: name.into(), raw_data });
        Ok(())
    }

    fn integers(&mut self, name: &str, values: [usize; 2]) {
        let raw_data = values.iter().flat_map(|&value| (value as i64).to_le_bytes()).collect();
        self.initializers.push(Tensor { dims: vec![2], data_type: INT64, name: name.into(), raw_data });
    }
}

fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: name.into(), kind: INT, int: Some(value), ints: vec![] }
}

/// Converts a window to attributes. ONNX lists the padding at the start of all axes, then at the
/// end.
fn windowed(window: Window) -> Vec<Attribute> {
    let ints = |name: &str, values: &[usize]| {
        let ints = values.iter().map(|&value| value as i64).collect();
        Attribute { name: name.into(), kind: INTS, int: None, ints }
    };
    vec![
        ints("kernel_shape", &window.kernel),
        ints("pads", &[window.padding, window.padding].concat()),
        ints("strides", &window.stride),
    ]
}
