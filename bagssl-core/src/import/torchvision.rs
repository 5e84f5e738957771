//! Export of encoders to torchvision.

use std::prelude::v1::*;

use safetensors::tensor::{Dtype, TensorView};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};

/// Writes the encoder as a safetensors file with torchvision's tensor names, all `F32`, and a
/// `num_batches_tracked` of 0 (`I64`) for each norm. There is no `fc`, since that is a classifier.
///
/// In Python, with `model = torchvision.models.resnet18()`, load it with
/// `model.load_state_dict(safetensors.torch.load_file("FILE"), strict=False)`. This reports
/// `fc.weight` and `fc.bias` as missing and no unexpected tensors. After
/// `model.fc = torch.nn.Identity()`, `strict=True` works as well.
///
/// An encoder with the small stem also needs
/// `model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)` (for `-cifar-pad2`, with padding 2
/// instead of the last 1) and `model.maxpool = torch.nn.Identity()`.
///
/// # Errors
/// [`Error::Checkpoint`] if the tensors cannot be serialized.
pub fn to_torchvision(checkpoint: &Checkpoint<'_>) -> Result<Vec<u8>> {
    let mut raw: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for parameter in checkpoint.spec().model.encoder().parameters() {
        let values = checkpoint.values(&format!("encoder.{}", parameter.name))?;
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        if let Some(norm) = parameter.name.strip_suffix(".running_var") {
            raw.push((format!("{norm}.num_batches_tracked"), Dtype::I64, Vec::new(), vec![0; 8]));
        }
        raw.push((parameter.name, Dtype::F32, parameter.shape, bytes));
    }
    let refuse = |error: safetensors::SafeTensorError| Error::Checkpoint(format!("torchvision: {error}"));
    let mut views = Vec::with_capacity(raw.len());
    for (name, dtype, shape, bytes) in &raw {
        views.push((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).map_err(refuse)?));
    }
    safetensors::serialize(views, None).map_err(refuse)
}
