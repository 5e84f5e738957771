//! Plans and checkpoints: a small model goes into a file's bytes and comes back.

use alloc::vec;
use alloc::vec::Vec;

use bagssl_core::Result;
use bagssl_core::architecture::mlp;
use bagssl_core::bag::Views;
use bagssl_core::checkpoint::{Checkpoint, FORMAT_VERSION, ModelPlan, NamedTensor, Provenance, Spec, to_bytes};
use bagssl_core::embed::FeatureLayer;
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::{Filter, PatchSide, PatchSpec};
use bagssl_core::plan::{Kind, Layer, Op, Plan, Window};

/// An encoder of one convolution, 3 rows and 1 column large.
pub(crate) fn spec() -> Result<Spec> {
    let window = Window { kernel: [3, 1], stride: [2, 1], padding: [1, 0] };
    let (conv, norm) = ("conv1".into(), "bn1".into());
    let conv = Op::ConvNorm { conv, norm, inputs: 3, outputs: 4, window, residual: None, relu: true };
    let layers = vec![Layer { input: 0, op: conv }, Layer { input: 1, op: Op::GlobalMean }];
    let patch = PatchSpec::new(PatchSide::Pixels(2), 2)?;
    Ok(Spec {
        format_version: FORMAT_VERSION,
        model: ModelPlan::new(Plan::new(Kind::Map(3), layers)?, mlp(4, &[5, 2])?)?,
        patch,
        filter: Filter::Bilinear,
        normalization: Normalization::HALF,
        layer: FeatureLayer::Embedding,
        views: Views::FixedScale(patch),
        provenance: Provenance::default(),
        training: None,
    })
}

fn tensors(spec: &Spec) -> Vec<NamedTensor> {
    let parameters = spec.model.parameters().into_iter();
    parameters
        .map(|parameter| {
            let values = (0..parameter.len()).map(|index| index as f32 * 0.5 - 1.0).collect();
            (parameter.name, parameter.shape, values)
        })
        .collect()
}

/// What is read is what was written, and a file without its last byte is refused.
pub(crate) fn a_model_survives() -> Result<bool> {
    let spec = spec()?;
    let tensors = tensors(&spec);
    let bytes = to_bytes(&spec, &tensors)?;
    let read = Checkpoint::from_bytes(&bytes)?;
    let same = tensors.iter().all(|(name, _, values)| read.values(name).as_ref() == Ok(values));
    let refused = Checkpoint::from_bytes(&bytes[..bytes.len() - 1]).is_err();
    Ok(read.spec() == &spec && same && refused)
}
