//! Checkpoints: one safetensors file from which servers and edge devices load the same network.
//!
//! The tensors are named `encoder.*` (followed by torchvision's names) and `projector.*`. The
//! metadata key `bagssl` holds a [`Spec`] as JSON, which ends with a [`digest`] of the file. All
//! tensors are `F32`, except that the weights of convolutions and linear layers may also be `BF16`
//! or `I8`. `I8` weights have a scale per output in the `F32` tensor `NAME.scale`. [`convert`]
//! writes such files.
//!
//! A file from which training resumes also holds tensors whose names begin with
//! [`OPTIMIZER_PREFIX`], and its counters in [`Spec::training`].

use std::prelude::v1::*;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::{Error, Result};
pub mod digest;
mod header;
mod projector;
mod spec;
mod tensor_ref;
mod training;
#[cfg(test)]
mod tests;

use header::Header;
pub use header::{check_header, header_length};
pub(crate) use spec::METADATA_KEY;
use spec::scale_name;
pub use spec::{FORMAT_VERSION, ModelPlan, OPTIMIZER_PREFIX, Provenance, Spec};
pub use tensor_ref::TensorRef;
pub use training::{SettingChange, Training};

pub use crate::plan::NamedTensor;
use crate::plan::{Parameter, Role};

/// A checkpoint that borrows its tensors from the bytes of the file.
#[derive(Debug)]
pub struct Checkpoint<'a> {
    spec: Spec,
    tensors: SafeTensors<'a>,
    /// The digest stated in the file, and the spec's JSON without it.
    stated: Option<(u64, String)>,
}

impl<'a> Checkpoint<'a> {
    /// Parses a checkpoint. Checks that it holds exactly the tensors of its plan in their shapes,
    /// and verifies the digest. Does not check the values; see [`Checkpoint::check_values`].
    ///
    /// # Errors
    /// [`Error::Checkpoint`] with the expected and the actual content.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        let checkpoint = Self::from_bytes_unverified(bytes)?;
        checkpoint.verify()?;
        Ok(checkpoint)
    }

    /// Like [`Checkpoint::from_bytes`], but without verifying the digest. Use it on a device that
    /// cannot afford to read all bytes at each start, or that trusts its memory.
    /// [`Checkpoint::verify`] verifies the digest later.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] with the expected and the actual content.
    pub fn from_bytes_unverified(bytes: &'a [u8]) -> Result<Self> {
        let Header { spec, stated } = Header::from_metadata(&header::metadata(bytes)?)?;
        let no_file = |error| format!("expected a safetensors file, got {} bytes: {error}", bytes.len());
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| Error::Checkpoint(no_file(error)))?;
        Ok(Checkpoint { spec, tensors, stated })
    }

    /// Verifies the digest over all tensors and the spec. Files of format 1 have no digest and
    /// pass.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the file has changed since it was written.
    pub fn verify(&self) -> Result<()> {
        let Some((stated, json)) = &self.stated else { return Ok(()) };
        let tensors = self.tensors.iter().map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data()));
        let got = digest::digest(json, tensors.collect());
        if got != *stated {
            return Err(Error::Checkpoint(format!(
                "the file is corrupt: expected digest {stated:016x}, got {got:016x}"
            )));
        }
        Ok(())
    }

    /// Returns whether the file has a digest. Files of format 1 have none.
    pub fn has_digest(&self) -> bool {
        self.stated.is_some()
    }

    /// Returns the description of the model.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Returns the names of all tensors in alphabetical order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tensors.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    }

    /// Checks that all parameters are usable: all values are finite, and no running variance is
    /// negative. This check is needed because a ReLU turns NaN into 0, so the embeddings of a
    /// broken network may look normal.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the first tensor with an invalid value.
    pub fn check_values(&self) -> Result<()> {
        let parameters = self.spec.model.parameters();
        parameters.iter().try_for_each(|parameter| self.checked_values(&parameter.name, parameter.role).map(|_| ()))
    }

    fn checked_values(&self, name: &str, role: Role) -> Result<Vec<f32>> {
        let values = self.values(name)?;
        check_values(name, role, &values)?;
        Ok(values)
    }

    /// Returns the values of a tensor as `f32`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no such tensor.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.tensor_ref(name)?.to_vec())
    }

    /// Returns a reference to the values of a tensor, without copying them.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no such tensor.
    pub fn tensor_ref(&self, name: &str) -> Result<TensorRef<'a>> {
        let missing = |_| Error::Checkpoint(format!("expected tensor {name:?}, got none"));
        let tensor = self.tensors.tensor(name).map_err(missing)?;
        Ok(match tensor.dtype() {
            Dtype::BF16 => TensorRef::Bf16(tensor.data().as_chunks().0),
            Dtype::I8 => {
                let scales = self.tensors.tensor(&scale_name(name)).map_err(missing)?;
                let per_output = tensor.shape().iter().skip(1).product::<usize>().max(1);
                TensorRef::Int8 { values: tensor.data(), scales: scales.data().as_chunks().0, per_output }
            }
            _ => TensorRef::F32(tensor.data().as_chunks().0),
        })
    }

    /// Returns the storage type of the weights of convolutions and linear layers. If the types
    /// differ, returns that of the first.
    pub fn weight_type(&self) -> WeightType {
        let parameters = self.spec.model.parameters();
        let first = parameters.iter().find(|parameter| parameter.role == Role::Weight);
        match first.and_then(|parameter| self.tensor_ref(&parameter.name).ok()) {
            Some(TensorRef::Bf16(_)) => WeightType::Bf16,
            Some(TensorRef::Int8 { .. }) => WeightType::Int8,
            _ => WeightType::F32,
        }
    }
}

/// Checks the values of a tensor: all must be finite, and running variances must not be negative.
///
/// # Errors
/// [`Error::Checkpoint`] naming the tensor and the first invalid value.
pub fn check_values(name: &str, role: Role, values: &[f32]) -> Result<()> {
    let refuse =
        |expected, got: f32| Err(Error::Checkpoint(format!("tensor {name:?}: expected {expected}, got {got}")));
    if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
        return refuse("finite values", value);
    }
    match values.iter().find(|value| role == Role::RunningVariance && **value < 0.0) {
        Some(&value) => refuse("variances of at least 0", value),
        None => Ok(()),
    }
}

/// Rounds to the nearest bf16 (ties to even). NaN stays NaN.
fn narrow(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let half = if value.is_nan() { (bits >> 16) | 0x40 } else { bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16 };
    (half as u16).to_le_bytes()
}

/// The storage type of the weights of convolutions and linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// 32-bit floats, as trained.
    F32,
    /// The upper 16 bits of each float: half the size.
    Bf16,
    /// Signed bytes with a scale per output: a quarter of the size.
    Int8,
}

impl WeightType {
    /// All storage types.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// Returns the name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            WeightType::F32 => "f32",
            WeightType::Bf16 => "bf16",
            WeightType::Int8 => "int8",
        }
    }
}

/// Converts a checkpoint to another weight type and drops the training state (optimizer and
/// counters). bf16 rounds to nearest. int8 is symmetric with a scale per output: the largest
/// magnitude divided by 127.
///
/// # Errors
/// [`Error::Checkpoint`] if a weight is not finite or a running variance is negative.
pub fn convert(checkpoint: &Checkpoint<'_>, weights: WeightType) -> Result<Vec<u8>> {
    let spec = Spec { training: None, ..checkpoint.spec().clone() };
    let mut tensors: Vec<RawTensor> = Vec::new();
    for Parameter { name, shape, role } in spec.model.parameters() {
        let values = checkpoint.checked_values(&name, role)?;
        match (role, weights) {
            (Role::Weight, WeightType::Bf16) => {
                let bytes = values.iter().flat_map(|&value| narrow(value)).collect();
                tensors.push(RawTensor { name, shape, dtype: Dtype::BF16, bytes });
            }
            (Role::Weight, WeightType::Int8) => {
                let per_output = shape.iter().skip(1).product::<usize>().max(1);
                let (mut bytes, mut scales) = (Vec::with_capacity(values.len()), Vec::new());
                for output in values.chunks(per_output) {
                    let largest = output.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
                    let scale = largest / 127.0;
                    let factor = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                    bytes.extend(output.iter().map(|value| (libm::roundf(value * factor) as i8).cast_unsigned()));
                    scales.extend(scale.to_le_bytes());
                }
                let (scale, outputs) = (scale_name(&name), vec![shape[0]]);
                tensors.push(RawTensor { name, shape, dtype: Dtype::I8, bytes });
                tensors.push(RawTensor { name: scale, shape: outputs, dtype: Dtype::F32, bytes: scales });
            }
            _ => tensors.push(RawTensor::f32(&name, &shape, &values)),
        }
    }
    write(&spec, &tensors)
}

struct RawTensor {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl RawTensor {
    fn f32(name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        RawTensor { name: name.into(), shape: shape.to_vec(), dtype: Dtype::F32, bytes }
    }
}

/// Serializes a checkpoint. The same model gives the same bytes.
///
/// # Errors
/// [`Error::Checkpoint`] if a tensor's values do not fit its shape, or two tensors have the same
/// name.
pub fn to_bytes(spec: &Spec, tensors: &[NamedTensor]) -> Result<Vec<u8>> {
    let raw = tensors.iter().map(|(name, shape, values)| RawTensor::f32(name, shape, values));
    write(spec, &raw.collect::<Vec<_>>())
}

fn write(spec: &Spec, tensors: &[RawTensor]) -> Result<Vec<u8>> {
    let refuse = |why: String| Error::Checkpoint(why);
    let mut views = Vec::with_capacity(tensors.len());
    for RawTensor { name, shape, dtype, bytes } in tensors {
        let view = TensorView::new(*dtype, shape.clone(), bytes)
            .map_err(|error| refuse(format!("tensor {name:?}: {error}")))?;
        views.push((name.as_str(), view));
    }
    let mut names: Vec<_> = views.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(refuse(format!("two tensors are named {:?}", pair[0])));
    }
    // Always write the newest format version, whatever version was read.
    let spec = Spec { format_version: FORMAT_VERSION, ..spec.clone() };
    let json = serde_json::to_string(&spec).map_err(|error| refuse(format!("metadata: {error}")))?;
    let digest = digest::digest(
        &json,
        tensors.iter().map(|raw| (&*raw.name, raw.dtype, raw.shape.clone(), &*raw.bytes)).collect(),
    );
    let metadata = [(METADATA_KEY.to_string(), digest::join(&json, digest))].into_iter().collect();
    safetensors::serialize(views, Some(metadata)).map_err(|error| refuse(format!("{error}")))
}
