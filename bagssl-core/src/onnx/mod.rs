//! Export of checkpoints to ONNX, for runtimes without this crate.
//!
//! The model contains the network with its running statistics; each batch norm is folded into the
//! preceding layer. It reads pixels that are already resampled and normalized. Its metadata
//! describes this preprocessing (`bagssl.*`: patch, input, filter, mean and standard deviation).
//! Initializers have the checkpoint's names, such as `encoder.conv1.weight`. The folded norm of a
//! convolution without a bias becomes a bias, such as `encoder.conv1.bias`.
//!
//! # Source
//! ONNX, <https://onnx.ai>: IR version 8, operator set 17.

use std::prelude::v1::*;

use prost::Message;

use crate::checkpoint::{Checkpoint, Spec};
use crate::embed::FeatureLayer;
use crate::error::{Error, Result};
use crate::patch::{Filter, PatchSide};
use crate::plan::{Op, Plan, ReceptiveField};

mod proto;
mod cut;
mod fold;
mod graph;

use cut::{Cut, cuts};
use graph::Builder;
use proto::{Dim, FLOAT, OperatorSet, Property, Shape, TensorType, Type, ValueInfo};

/// The name of a model's input.
pub const INPUT: &str = "input";

const IR_VERSION: i64 = 8;
const OPERATOR_SET: i64 = 17;
/// The maximum number of bytes of a protobuf message.
const MAX_MODEL_BYTES: usize = i32::MAX as usize;
/// The largest accepted side of an input, in pixels.
const MAX_SIDE: usize = 1 << 16;

/// The output of a model. It is named after its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// One feature per input: `[batch, dim]`.
    Rows(FeatureLayer),
    /// The embedding of each receptive field in the input: `[batch, dim, rows, columns]`.
    /// [`Plan::receptive_field`] gives the side and stride of the fields (metadata
    /// `bagssl.field_side` and `bagssl.field_stride`). The mean of these embeddings is the
    /// [`FeatureLayer::Embedding`] of the input.
    Dense,
}

/// The settings of an export.
///
/// # Example
/// ```no_run
/// use bagssl_core::checkpoint::Checkpoint;
/// use bagssl_core::embed::FeatureLayer;
/// use bagssl_core::onnx::{Export, Output, to_bytes};
/// # let bytes: Vec<u8> = Vec::new();
/// let checkpoint = Checkpoint::from_bytes(&bytes)?;
/// let model = to_bytes(&checkpoint, &Export { output: Output::Rows(FeatureLayer::Embedding), size: None })?;
/// # Ok::<(), bagssl_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Export {
    /// The output of the model.
    pub output: Output,
    /// The `[height, width]` of the input in pixels; `None` for a model that accepts any size.
    pub size: Option<[usize; 2]>,
}

/// Exports a checkpoint as an ONNX model. The same checkpoint and settings give the same bytes.
///
/// # Shapes
/// - the model's input: `[batch, 3, height, width]`, normalized RGB, `f32`; any batch size
/// - its output: see [`Output`]
///
/// # Errors
/// - [`Error::Plan`] for [`Output::Dense`] if the encoder has no [`Plan::receptive_field`] or does
///   not end with a global mean, and for any output if the encoder requires a fixed size and none
///   is given
/// - [`Error::Setting`] if the encoder does not accept the size
/// - [`Error::Checkpoint`] if a value is not finite, or the model exceeds the limit of 2 GiB of
///   protobuf
pub fn to_bytes(checkpoint: &Checkpoint<'_>, export: &Export) -> Result<Vec<u8>> {
    check_size(export.size)?;
    let spec = checkpoint.spec();
    let (layer, field) = match export.output {
        Output::Rows(layer) => (layer, None),
        Output::Dense => (FeatureLayer::Embedding, Some(dense_field(spec.model.encoder())?)),
    };
    let model = proto::ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![OperatorSet { domain: String::new(), version: OPERATOR_SET }],
        producer_name: "bagssl".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: doc(layer, field),
        graph: Some(graph(checkpoint, layer, field.is_some(), export.size)?),
        metadata_props: metadata(spec, layer, field),
    };
    match model.encoded_len() {
        0..=MAX_MODEL_BYTES => Ok(model.encode_to_vec()),
        bytes => Err(Error::Checkpoint(format!("expected a model of at most {MAX_MODEL_BYTES} bytes, got {bytes}"))),
    }
}

fn graph(
    checkpoint: &Checkpoint<'_>,
    layer: FeatureLayer,
    dense: bool,
    size: Option<[usize; 2]>,
) -> Result<proto::Graph> {
    let spec = checkpoint.spec();
    let (encoder, projector) = (spec.model.encoder(), spec.model.projector());
    let mut cuts = cuts(encoder, size)?;
    if dense {
        // The last layer is the mean; its input is the output of the dense model.
        cuts.truncate(encoder.layers()[encoder.layers().len() - 1].input);
    }
    let head = match layer {
        FeatureLayer::Embedding => 0,
        FeatureLayer::FirstLayer => 1,
        FeatureLayer::Projection => projector.layers().len(),
    };
    let mut builder = Builder::new(checkpoint);
    let embedding = builder.add("encoder", encoder, &cuts, INPUT.into())?;
    let last = builder.add("projector", projector, &vec![Cut::Whole; head], embedding)?;
    let (node, initializer) = builder.finish(&last, layer.name());
    let map = dense.then(|| match size.and_then(|size| encoder.sizes(size)) {
        Some(sizes) => sizes[cuts.len()].map(fixed),
        None => ["rows", "columns"].map(any),
    });
    Ok(proto::Graph {
        node,
        name: "bagssl".into(),
        initializer,
        doc_string: "Batch norm is folded into convolutions and linear layers.".into(),
        input: vec![input(spec, size)],
        output: vec![output(layer, spec.model.dim(layer), map)],
    })
}

fn check_size(size: Option<[usize; 2]>) -> Result<()> {
    match size {
        Some([height, width]) if ![height, width].iter().all(|side| (1..=MAX_SIDE).contains(side)) => {
            Err(Error::Setting {
                name: "size",
                expected: "1 to 65536 pixels for height and width",
                got: format!("{height}x{width}"),
            })
        }
        _ => Ok(()),
    }
}

/// Returns the receptive field of a pixel of the last map, for an encoder that ends with a global
/// mean.
fn dense_field(encoder: &Plan) -> Result<ReceptiveField> {
    let field = encoder.receptive_field()?;
    let last = encoder.layers().len() - 1;
    match &encoder.layers()[last].op {
        Op::GlobalMean => Ok(field),
        op => Err(Error::Plan(format!("layer {last}: expected a global mean as the last layer, got {op:?}"))),
    }
}

fn any(name: &str) -> Dim {
    Dim { value: None, name: Some(name.into()) }
}

fn fixed(length: usize) -> Dim {
    Dim { value: Some(length as i64), name: None }
}

fn tensor(name: &str, dim: Vec<Dim>, doc_string: String) -> ValueInfo {
    let tensor = TensorType { element: FLOAT, shape: Some(Shape { dim }) };
    ValueInfo { name: name.into(), kind: Some(Type { tensor: Some(tensor) }), doc_string }
}

fn input(spec: &Spec, size: Option<[usize; 2]>) -> ValueInfo {
    let [height, width] = match size {
        Some(size) => size.map(fixed),
        None => ["height", "width"].map(any),
    };
    let (mean, deviation) = (spec.normalization.mean(), spec.normalization.deviation());
    let doc = format!("RGB in [0, 1], then for each channel (value - mean) / std; mean {mean:?}, std {deviation:?}");
    tensor(INPUT, vec![any("batch"), fixed(3), height, width], doc)
}

fn output(layer: FeatureLayer, dim: usize, map: Option<[Dim; 2]>) -> ValueInfo {
    let mut dims = vec![any("batch"), fixed(dim)];
    dims.extend(map.into_iter().flatten());
    let doc = match layer {
        FeatureLayer::Embedding => "the encoder's output",
        FeatureLayer::FirstLayer => "the projector's first layer after its activation",
        FeatureLayer::Projection => "the projector's output",
    };
    tensor(layer.name(), dims, doc.into())
}

fn doc(layer: FeatureLayer, field: Option<ReceptiveField>) -> String {
    match field {
        None => format!("Maps each normalized image patch to a feature vector: {}.", layer.name()),
        Some(ReceptiveField { side, stride }) => format!(
            "Maps normalized images to the embeddings of squares of {side}x{side} pixels, at stride {stride}, from the \
             top left corner."
        ),
    }
}

/// The metadata that describes how to use the model.
fn metadata(spec: &Spec, layer: FeatureLayer, field: Option<ReceptiveField>) -> Vec<Property> {
    let patch = match spec.patch.side() {
        PatchSide::Pixels(side) => ("patch_pixels", format!("{side}")),
        PatchSide::AreaShare(share) => ("patch_area_share", format!("{share}")),
    };
    let filter = match spec.filter {
        Filter::Bilinear => "bilinear",
        Filter::Bicubic => "bicubic",
    };
    let mut all = vec![
        patch,
        ("input_side", format!("{}", spec.patch.input())),
        ("filter", filter.into()),
        ("mean", format!("{:?}", spec.normalization.mean())),
        ("std", format!("{:?}", spec.normalization.deviation())),
        ("tap", layer.name().into()),
    ];
    if let Some(ReceptiveField { side, stride }) = field {
        all.extend([("field_side", format!("{side}")), ("field_stride", format!("{stride}"))]);
    }
    all.into_iter().map(|(key, value)| Property { key: format!("bagssl.{key}"), value }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::{Architecture, mlp};
    use crate::bag::Views;
    use crate::checkpoint::{self, FORMAT_VERSION, ModelPlan, NamedTensor, Provenance};
    use crate::normalize::Normalization;
    use crate::patch::PatchSpec;
    use crate::plan::{Kind, Layer, Role, Window};

    const EMBEDDING: Export = Export { output: Output::Rows(FeatureLayer::Embedding), size: None };
    const DENSE: Export = Export { output: Output::Dense, size: None };

    fn conv(name: &str, input: usize, window: Window, residual: Option<usize>) -> Layer {
        let (conv, norm) = (format!("{name}.conv"), format!("{name}.bn"));
        Layer {
            input,
            op: Op::ConvNorm { conv, norm, inputs: 3, outputs: 3, window, residual, relu: residual.is_some() },
        }
    }

    /// Two unpadded convolutions, the second beside a shortcut, and the mean.
    fn tiny() -> Vec<Layer> {
        let mean = Layer { input: 2, op: Op::GlobalMean };
        vec![conv("a", 0, Window::square(2, 2, 0), None), conv("b", 1, Window::square(3, 1, 0), Some(1)), mean]
    }

    /// A checkpoint with values 1, 2, 3.. for weights, biases and means, and 4 for variances.
    fn file(layers: Vec<Layer>, change: impl Fn(&mut NamedTensor)) -> Vec<u8> {
        let encoder = Plan::new(Kind::Map(3), layers).unwrap();
        let projector = mlp(encoder.output_dim(), &[5, 4]).unwrap();
        let patch = PatchSpec::new(PatchSide::AreaShare(0.25), 8).unwrap();
        let spec = Spec {
            format_version: FORMAT_VERSION,
            model: ModelPlan::new(encoder, projector).unwrap(),
            patch,
            filter: Filter::Bicubic,
            normalization: Normalization::new([0.5, 0.25, 0.125], [1.0, 2.0, 4.0]).unwrap(),
            layer: FeatureLayer::Projection,
            views: Views::FixedScale(patch),
            provenance: Provenance::default(),
            training: None,
        };
        let tensor = |parameter: crate::plan::Parameter| {
            let value = |index| if parameter.role == Role::RunningVariance { 4.0 } else { index as f32 + 1.0 };
            let mut tensor =
                (parameter.name.clone(), parameter.shape.clone(), (0..parameter.len()).map(value).collect());
            change(&mut tensor);
            tensor
        };
        let tensors: Vec<NamedTensor> = spec.model.parameters().into_iter().map(tensor).collect();
        checkpoint::to_bytes(&spec, &tensors).unwrap()
    }

    fn export(file: &[u8], export: &Export) -> Result<Vec<u8>> {
        to_bytes(&Checkpoint::from_bytes(file).unwrap(), export)
    }

    fn model(layers: Vec<Layer>, settings: &Export) -> proto::ModelProto {
        let bytes = export(&file(layers, |_| {}), settings).unwrap();
        let model = proto::ModelProto::decode(bytes.as_slice()).unwrap();
        assert_eq!(model.encode_to_vec(), bytes);
        check(model.graph.as_ref().unwrap());
        model
    }

    /// Each name is defined once, and before it is read. The output is defined. Initializers have
    /// as many bytes as their shape needs.
    fn check(graph: &proto::Graph) {
        let mut known: Vec<&str> = vec![INPUT];
        for tensor in &graph.initializer {
            let width = if tensor.data_type == FLOAT { 4 } else { 8 };
            assert_eq!(tensor.raw_data.len() as i64, tensor.dims.iter().product::<i64>() * width, "{}", tensor.name);
            assert!(!known.contains(&tensor.name.as_str()), "{}", tensor.name);
            known.push(&tensor.name);
        }
        for node in &graph.node {
            assert!(node.input.iter().all(|input| known.contains(&input.as_str())), "{node:?}");
            assert!(!known.contains(&node.output[0].as_str()), "{node:?}");
            known.push(&node.output[0]);
        }
        assert!(graph.node.last().unwrap().output[0] == graph.output[0].name);
    }

    fn refused(file: &[u8], settings: &Export, words: &str) {
        let error = export(file, settings).unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains('\n'), "{error}");
    }

    /// Formats a node as one line.
    fn line(node: &proto::Node) -> String {
        let attribute = |attribute: &proto::Attribute| match attribute.int {
            Some(int) => format!(" {}={int}", attribute.name),
            None => format!(" {}={:?}", attribute.name, attribute.ints),
        };
        let attributes: String = node.attribute.iter().map(attribute).collect();
        format!("{} = {}({}){attributes}", node.output[0], node.op_type, node.input.join(", "))
    }

    fn lines(model: &proto::ModelProto) -> Vec<String> {
        model.graph.as_ref().unwrap().node.iter().map(line).collect()
    }

    fn dims(value: &ValueInfo) -> Vec<String> {
        let shape = value.kind.as_ref().and_then(|kind| kind.tensor.as_ref()?.shape.as_ref()).unwrap();
        let dim = |dim: &Dim| dim.name.clone().or(dim.value.map(|value| format!("{value}"))).unwrap();
        shape.dim.iter().map(dim).collect()
    }

    fn shapes(model: &proto::ModelProto) -> [Vec<String>; 2] {
        let graph = model.graph.as_ref().unwrap();
        [dims(&graph.input[0]), dims(&graph.output[0])]
    }

    fn initializer<'a>(model: &'a proto::ModelProto, name: &str) -> &'a proto::Tensor {
        model.graph.as_ref().unwrap().initializer.iter().find(|tensor| tensor.name == name).unwrap()
    }

    fn floats(model: &proto::ModelProto, name: &str) -> Vec<f32> {
        let (chunks, _) = initializer(model, name).raw_data.as_chunks::<4>();
        chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    const FIRST: &str = "encoder.a.conv/Conv = Conv(input, encoder.a.conv.weight, encoder.a.conv.bias) \
                         kernel_shape=[2, 2] pads=[0, 0, 0, 0] strides=[2, 2]";
    const SECOND: &str = "encoder.b.conv/Conv = Conv(encoder.a.conv/Conv, encoder.b.conv.weight, encoder.b.conv.bias) \
                          kernel_shape=[3, 3] pads=[0, 0, 0, 0] strides=[1, 1]";
    const SUM: &str = "encoder.b.conv/Add = Add(encoder.b.conv/Conv, encoder.b.conv/Slice)";

    #[test]
    fn nodes_by_hand() {
        let model = model(tiny(), &EMBEDDING);
        let expected = [
            FIRST,
            SECOND,
            "encoder.b.conv/Shape = Shape(encoder.b.conv/Conv) start=2",
            "encoder.b.conv/Slice = Slice(encoder.a.conv/Conv, cut/starts, encoder.b.conv/Shape, cut/axes)",
            SUM,
            "encoder.b.conv/Relu = Relu(encoder.b.conv/Add)",
            "encoder/2/GlobalAveragePool = GlobalAveragePool(encoder.b.conv/Relu)",
            "embedding = Flatten(encoder/2/GlobalAveragePool) axis=1",
        ];
        assert_eq!(lines(&model), expected);
        assert_eq!(shapes(&model), [vec!["batch", "3", "height", "width"], vec!["batch", "3"]]);
        assert_eq!((model.ir_version, model.opset_import[0].version), (8, 17));
        assert_eq!(initializer(&model, "encoder.b.conv.weight").dims, [3, 3, 3, 3]);
        assert_eq!(initializer(&model, "encoder.b.conv.bias").dims, [3]);
        assert_eq!(initializer(&model, "cut/axes").raw_data, [2i64, 3].map(i64::to_le_bytes).concat());
        // Channel 2: factor 3 / sqrt(4) = 1.5, weights from 25; bias (0 - 3) * 1.5 + 3.
        let (weight, bias) = (floats(&model, "encoder.a.conv.weight"), floats(&model, "encoder.a.conv.bias"));
        assert!((weight[24] - 25.0 * 1.5).abs() < 1e-4 && (bias[2] + 1.5).abs() < 1e-4, "{weight:?} {bias:?}");
    }

    #[test]
    fn fixed_size_makes_the_cut_constant() {
        let model = model(tiny(), &Export { size: Some([9, 6]), ..EMBEDDING });
        let cut = "encoder.b.conv/Slice = Slice(encoder.a.conv/Conv, cut/starts, encoder.b.conv/ends, cut/axes)";
        assert_eq!(lines(&model)[..4], [FIRST, SECOND, cut, SUM]);
        // [9, 6] becomes [4, 3], then [2, 1].
        assert_eq!(initializer(&model, "encoder.b.conv/ends").raw_data, [2i64, 1].map(i64::to_le_bytes).concat());
        assert_eq!(shapes(&model), [vec!["batch", "3", "9", "6"], vec!["batch", "3"]]);
    }

    #[test]
    fn dense_export_outputs_the_last_map() {
        let dense = model(tiny(), &DENSE);
        assert_eq!(lines(&dense).last().unwrap(), "embedding = Relu(encoder.b.conv/Add)");
        assert_eq!(shapes(&dense)[1], ["batch", "3", "rows", "columns"]);
        let dense = model(tiny(), &Export { size: Some([9, 6]), ..DENSE });
        assert_eq!(shapes(&dense)[1], ["batch", "3", "2", "1"]);
        let mean_alone = model(vec![Layer { input: 0, op: Op::GlobalMean }], &DENSE);
        assert_eq!(lines(&mean_alone), ["embedding = Identity(input)"]);
    }

    #[test]
    fn export_of_projector_layers() {
        let nodes = |layer| {
            let model = model(tiny(), &Export { output: Output::Rows(layer), size: None });
            (lines(&model).split_off(8), shapes(&model)[1].clone())
        };
        let first = "Gemm(encoder/2/Flatten, projector.0.weight, projector.0.bias) transB=1";
        let expected = [format!("projector.0/Gemm = {first}"), "first_layer = Relu(projector.0/Gemm)".into()];
        assert_eq!(nodes(FeatureLayer::FirstLayer), (expected.to_vec(), vec!["batch".into(), "5".into()]));
        let (lines, shape) = nodes(FeatureLayer::Projection);
        let last = "projection = Gemm(projector.0/Relu, projector.3.weight, projector.3.bias) transB=1";
        assert_eq!((lines.last().unwrap().as_str(), shape), (last, vec!["batch".into(), "4".into()]));
    }

    #[test]
    fn export_of_pool_and_linear_without_bias() {
        let window = Window { kernel: [3, 2], stride: [2, 1], padding: [1, 0] };
        let linear = Op::Linear { name: "fc".into(), inputs: 3, outputs: 2, bias: false, norm: None, relu: false };
        let ops = [Op::MaxPool { window }, Op::GlobalMean, linear];
        let layers = ops.into_iter().enumerate().map(|(input, op)| Layer { input, op }).collect();
        let model = model(layers, &EMBEDDING);
        let expected = [
            "encoder/0/MaxPool = MaxPool(input) kernel_shape=[3, 2] pads=[1, 0, 1, 0] strides=[2, 1]",
            "encoder/1/GlobalAveragePool = GlobalAveragePool(encoder/0/MaxPool)",
            "encoder/1/Flatten = Flatten(encoder/1/GlobalAveragePool) axis=1",
            "embedding = Gemm(encoder/1/Flatten, encoder.fc.weight) transB=1",
        ];
        assert_eq!(lines(&model), expected);
        assert_eq!(initializer(&model, "encoder.fc.weight").dims, [2, 3]);
        assert_eq!(floats(&model, "encoder.fc.weight"), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn metadata_describes_the_input() {
        let properties = |settings: &Export| -> Vec<(String, String)> {
            model(tiny(), settings).metadata_props.into_iter().map(|pair| (pair.key, pair.value)).collect()
        };
        let expected = [
            ("bagssl.patch_area_share", "0.25"),
            ("bagssl.input_side", "8"),
            ("bagssl.filter", "bicubic"),
            ("bagssl.mean", "[0.5, 0.25, 0.125]"),
            ("bagssl.std", "[1.0, 2.0, 4.0]"),
            ("bagssl.tap", "embedding"),
        ];
        let expected = expected.map(|(key, value)| (key.to_string(), value.to_string()));
        assert_eq!(properties(&EMBEDDING), expected);
        // 2x2 with stride 2, then 3x3: 2 + 2 * 2 = 6 pixels.
        let field = [("bagssl.field_side", "6"), ("bagssl.field_stride", "2")];
        assert_eq!(properties(&DENSE)[6..], field.map(|(key, value)| (key.to_string(), value.to_string())));
    }

    #[test]
    fn export_is_deterministic() {
        let file = file(tiny(), |_| {});
        assert_eq!(export(&file, &DENSE).unwrap(), export(&file, &DENSE).unwrap());
    }

    #[test]
    fn export_without_cuts_has_no_cut_nodes() {
        let model = model(Architecture::ResNetSmall.plan().layers().to_vec(), &EMBEDDING);
        let graph = model.graph.unwrap();
        assert!(graph.node.iter().all(|node| node.op_type != "Slice" && node.op_type != "Shape"));
        // Nine convolutions with a weight and a bias each: the stem, two in each of three blocks,
        // two shortcuts.
        assert_eq!(graph.initializer.len(), 18);
    }

    #[test]
    fn unsupported_export_is_refused() {
        let good = file(tiny(), |_| {});
        let padded =
            file(vec![conv("a", 0, Window::square(3, 1, 1), None), Layer { input: 1, op: Op::GlobalMean }], |_| {});
        refused(&padded, &DENSE, "plan: layer 0: expected no padding for dense embedding, got [1, 1]");
        let mut rows = tiny();
        rows.push(Layer {
            input: 3,
            op: Op::Linear { name: "fc".into(), inputs: 3, outputs: 2, bias: false, norm: None, relu: false },
        });
        refused(&file(rows, |_| {}), &DENSE, "plan: layer 3: expected a global mean as the last layer, got Linear");
        refused(&good, &Export { size: Some([5, 9]), ..DENSE }, "network's kernels, got 5x9");
        refused(&good, &Export { size: Some([usize::MAX, 9]), ..DENSE }, "size: expected 1 to 65536 pixels");
        let broken = file(tiny(), |(name, _, values)| {
            if name == "encoder.b.bn.running_var" {
                values[1] = -4.0;
            }
        });
        refused(
            &broken,
            &EMBEDDING,
            "\"encoder.b.conv.weight\": expected finite values after folding in the norm, got NaN",
        );
    }
}
