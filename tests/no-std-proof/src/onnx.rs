//! ONNX models: a checkpoint becomes one.

use alloc::vec;
use alloc::vec::Vec;

use bagssl_core::Result;
use bagssl_core::checkpoint::{Checkpoint, NamedTensor, to_bytes};
use bagssl_core::embed::FeatureLayer;
use bagssl_core::onnx::{self, Export, Output};

use crate::checkpoint::spec;

/// A model begins with its IR version, 8; and a padded convolution is not exported as a dense one.
pub(crate) fn a_model_is_exported() -> Result<bool> {
    let spec = spec()?;
    let parameters = spec.model.parameters().into_iter();
    let ones = parameters.map(|parameter| {
        let values = vec![1.0; parameter.len()];
        (parameter.name, parameter.shape, values)
    });
    let bytes = to_bytes(&spec, &ones.collect::<Vec<NamedTensor>>())?;
    let checkpoint = Checkpoint::from_bytes(&bytes)?;
    let export = |output| onnx::to_bytes(&checkpoint, &Export { output, size: None });
    Ok(export(Output::Rows(FeatureLayer::Projection))?.starts_with(&[8, 8]) && export(Output::Dense).is_err())
}
