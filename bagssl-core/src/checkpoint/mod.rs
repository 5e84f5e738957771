//! Checkpoints: one safetensors file from which a server and an edge device load the same network.
//!
//! The tensors are `encoder.*` (torchvision's names inside) and `projector.*`; the key `bagssl` of the metadata holds a
//! [`Spec`] as JSON. All are `F32`; only the weights of convolutions and linear layers may be `BF16`, or `I8` with a factor
//! for each output in the `F32` tensor `NAME.scale` ([`convert`] makes such files). The spec ends with a [`digest`] of all of it. A file that training resumes from holds more tensors, whose names begin with
//! `optimizer.`, and its counters in [`Spec::training`].

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
pub use header::{LONGEST_HEADER, check_header, header_length};
use spec::scale_name;
pub use spec::{FORMAT_VERSION, METADATA_KEY, ModelPlan, OPTIMIZER_PREFIX, Provenance, Spec};
pub use tensor_ref::TensorRef;
pub use training::{Change, Training};

pub use crate::plan::NamedTensor;
use crate::plan::{Parameter, Role};

/// A checkpoint whose tensors lie in the bytes that it was read from.
#[derive(Debug)]
pub struct Checkpoint<'a> {
    spec: Spec,
    tensors: SafeTensors<'a>,
    /// What the file says its digest is, and the spec as it was written.
    stated: Option<(u64, String)>,
}

impl<'a> Checkpoint<'a> {
    /// Reads a checkpoint and checks that it holds just the tensors that its plan names, in their shapes, and that nothing
    /// has changed since it was written. Values are not looked at: [`Checkpoint::check_values`] does that.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] says what is not as expected.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        let checkpoint = Self::from_bytes_unverified(bytes)?;
        checkpoint.verify()?;
        Ok(checkpoint)
    }

    /// The same without the digest, for a device that has not the time to read all bytes at each start, or reads them
    /// from memory that it trusts. [`Checkpoint::verify`] makes up for it at any time.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] says what is not as expected.
    pub fn from_bytes_unverified(bytes: &'a [u8]) -> Result<Self> {
        let Header { spec, stated } = Header::from_metadata(&header::metadata(bytes)?)?;
        let no_file = |error| format!("expected a safetensors file, got {} bytes: {error}", bytes.len());
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| Error::Checkpoint(no_file(error)))?;
        Ok(Checkpoint { spec, tensors, stated })
    }

    /// Checks the digest over all tensors and the spec. A file of format 1 has none, and passes.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the file has changed since it was written.
    pub fn verify(&self) -> Result<()> {
        let Some((stated, json)) = &self.stated else { return Ok(()) };
        let tensors = self.tensors.iter().map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data()));
        let got = digest::digest(json, tensors.collect());
        if got != *stated {
            return Err(Error::Checkpoint(format!(
                "the file is damaged: expected digest {stated:016x}, got {got:016x}"
            )));
        }
        Ok(())
    }

    /// Whether the file has a digest. Those of format 1 have none.
    pub fn has_digest(&self) -> bool {
        self.stated.is_some()
    }

    /// What the model is.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The names of all tensors, in alphabetical order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tensors.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    }

    /// Checks that every parameter can be computed with: all values are finite, and no running variance is negative. A
    /// ReLU turns what is not a number into 0, so the embeddings of a broken network need not show it.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] names the first tensor that has another value.
    pub fn check_values(&self) -> Result<()> {
        let parameters = self.spec.model.parameters();
        parameters.iter().try_for_each(|parameter| self.checked_values(&parameter.name, parameter.role).map(|_| ()))
    }

    fn checked_values(&self, name: &str, role: Role) -> Result<Vec<f32>> {
        let values = self.values(name)?;
        check_values(name, role, &values)?;
        Ok(values)
    }

    /// The values of a tensor, in f32.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no such tensor.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.tensor_ref(name)?.to_vec())
    }

    /// The values of a tensor where they lie.
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

    /// How the weights of convolutions and linear layers are stored; if in several ways, how the first is.
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

/// Refuses values of a tensor that nothing can be computed with: they have to be finite, running variances not negative.
///
/// # Errors
/// [`Error::Checkpoint`] names the tensor and the first such value.
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

/// The nearest bf16 (ties to even), as its bytes; NaN stays NaN.
fn narrow(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let half = if value.is_nan() { (bits >> 16) | 0x40 } else { bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16 };
    (half as u16).to_le_bytes()
}

/// How the weights of convolutions and linear layers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// As trained.
    F32,
    /// The upper halves: half the size.
    Bf16,
    /// Signed bytes with a factor for each output: a quarter of the size.
    Int8,
}

impl WeightType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// The name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            WeightType::F32 => "f32",
            WeightType::Bf16 => "bf16",
            WeightType::Int8 => "int8",
        }
    }
}

/// A checkpoint for use alone (no optimizer, no counters), its weights stored in another way. bf16 rounds to nearest;
/// int8 is symmetrical with a factor for each output: its largest magnitude over 127.
///
/// # Errors
/// [`Error::Checkpoint`] if a weight is not finite.
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

/// Writes a checkpoint. The same model gives the same bytes.
///
/// # Errors
/// [`Error::Checkpoint`] if a tensor's values do not fit its shape or two tensors share a name.
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
    // Whatever it was read from, it is written as the newest version.
    let spec = Spec { format_version: FORMAT_VERSION, ..spec.clone() };
    let json = serde_json::to_string(&spec).map_err(|error| refuse(format!("metadata: {error}")))?;
    let digest = digest::digest(
        &json,
        tensors.iter().map(|raw| (&*raw.name, raw.dtype, raw.shape.clone(), &*raw.bytes)).collect(),
    );
    let metadata = [(METADATA_KEY.to_string(), digest::join(&json, digest))].into_iter().collect();
    safetensors::serialize(views, Some(metadata)).map_err(|error| refuse(format!("{error}")))
}
