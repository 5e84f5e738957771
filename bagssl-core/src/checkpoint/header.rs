//! The header of a checkpoint. It is read and checked before the tensors, since the file may be
//! large.

use std::prelude::v1::*;

use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;

use super::digest;
use super::spec::{FORMAT_VERSION, METADATA_KEY, OPTIMIZER_PREFIX, Spec, scale_name};
use crate::error::{Error, Result};
use crate::limits;
use crate::plan::{Parameter, Role};

/// The maximum length of a header, in bytes. A network of 4096 layers with its optimizer state
/// needs less.
pub(super) const MAX_HEADER_BYTES: usize = 8 << 20;

/// The number of bytes that store the header's length.
const LENGTH: usize = 8;

/// A validated header: its tensors match its plan, and the plan stays within the [limits].
#[derive(Debug)]
pub(super) struct Header {
    pub(super) spec: Spec,
    /// The digest stated in the file, and the spec's JSON without it.
    pub(super) stated: Option<(u64, String)>,
}

/// Returns the length of the header in bytes, including the 8 bytes that store it.
///
/// # Errors
/// [`Error::Checkpoint`] if the length is out of range.
pub fn header_length(start: [u8; LENGTH]) -> Result<usize> {
    match usize::try_from(u64::from_le_bytes(start)) {
        Ok(length @ 2..=MAX_HEADER_BYTES) => Ok(LENGTH + length),
        _ => Err(refuse(format!(
            "expected a safetensors file with a header of at most {MAX_HEADER_BYTES} bytes, got a header of {}",
            u64::from_le_bytes(start)
        ))),
    }
}

/// Checks the header of a checkpoint without its tensors, like
/// [`Checkpoint::from_bytes`](super::Checkpoint::from_bytes). `header` is the first
/// [`header_length`] bytes of a file of `length` bytes.
///
/// # Errors
/// [`Error::Checkpoint`] with the expected and the actual content.
pub fn check_header(header: &[u8], length: u64) -> Result<()> {
    let metadata = metadata(header)?;
    let data_end = metadata.tensors().values().map(|info| info.data_offsets.1).max().unwrap_or(0);
    let expected = (header.len() as u64).saturating_add(data_end as u64);
    if expected != length {
        return Err(refuse(format!("expected a safetensors file of {expected} bytes, got {length}")));
    }
    Header::from_metadata(&metadata).map(|_| ())
}

/// Parses the safetensors metadata of a header.
pub(super) fn metadata(bytes: &[u8]) -> Result<Metadata> {
    let invalid = |reason: String| refuse(format!("expected a safetensors file, got {reason}"));
    let start = *bytes.first_chunk().ok_or_else(|| invalid(format!("{} bytes without a header", bytes.len())))?;
    let json = bytes.get(LENGTH..header_length(start)?).ok_or_else(|| invalid("a truncated header".into()))?;
    serde_json::from_slice(json).map_err(|error| invalid(format!("an invalid header: {error}")))
}

impl Header {
    pub(super) fn from_metadata(metadata: &Metadata) -> Result<Self> {
        /// The format version, which determines how the rest is read.
        #[derive(Deserialize)]
        struct Version {
            format_version: u64,
        }
        let entries = metadata.metadata().as_ref();
        let json = entries.and_then(|metadata| metadata.get(METADATA_KEY)).ok_or_else(|| {
            refuse(format!(
                "expected metadata {METADATA_KEY:?}, got a safetensors file without it, such as other programs \
                        write: import its weights first"
            ))
        })?;
        let version: Version =
            serde_json::from_str(json).map_err(|_| refuse("expected a format version, got none".into()))?;
        let (json, stated) = match version.format_version {
            1 => (json.clone(), None),
            2 => {
                // The digest does not cover other entries.
                if let Some(other) = entries.into_iter().flat_map(|all| all.keys()).find(|key| *key != METADATA_KEY) {
                    return Err(refuse(format!("expected metadata {METADATA_KEY:?} only, got also {other:?}")));
                }
                digest::split(json).map(|(json, digest)| (json, Some(digest))).map_err(refuse)?
            }
            version => return Err(refuse(format!("expected format version {FORMAT_VERSION} or 1, got {version}"))),
        };
        let spec: Spec = serde_json::from_str(&json).map_err(|error| refuse(format!("metadata: {error}")))?;
        limits::check(&spec)?;
        check_tensors(&spec, metadata)?;
        Ok(Header { spec, stated: stated.map(|digest| (digest, json)) })
    }
}

fn check_tensors(spec: &Spec, metadata: &Metadata) -> Result<()> {
    let tensors = metadata.tensors();
    let parameters = spec.model.parameters();
    let mut known = Vec::with_capacity(parameters.len());
    let mut expect = |name: &str, shape: &[usize], dtypes: &[Dtype]| -> Result<Dtype> {
        let Some(tensor) = tensors.get(name) else {
            return Err(refuse(format!("expected tensor {name:?}, got none")));
        };
        let (got, dtype) = (&tensor.shape, tensor.dtype);
        if got != shape {
            return Err(refuse(format!("tensor {name:?}: expected shape {shape:?}, got {got:?}")));
        }
        if !dtypes.contains(&dtype) {
            return Err(refuse(format!("tensor {name:?}: expected one of {dtypes:?}, got {dtype:?}")));
        }
        known.push(name.to_string());
        Ok(dtype)
    };
    for parameter in &parameters {
        let Parameter { name, shape, role } = parameter;
        if *role != Role::Weight {
            expect(name, shape, &[Dtype::F32])?;
        } else if expect(name, shape, &[Dtype::F32, Dtype::BF16, Dtype::I8])? == Dtype::I8 {
            expect(&scale_name(name), &shape[..1], &[Dtype::F32])?;
        }
    }
    known.sort_unstable();
    for (name, tensor) in &tensors {
        let is_known = known.binary_search_by(|known| known.as_str().cmp(name)).is_ok();
        let is_optimizer = spec.training.is_some() && name.starts_with(OPTIMIZER_PREFIX);
        if !is_known && !is_optimizer {
            return Err(refuse(format!("tensor {name:?} is not in the plan")));
        }
        if is_optimizer && tensor.dtype != Dtype::F32 {
            return Err(refuse(format!("tensor {name:?}: expected F32, got {:?}", tensor.dtype)));
        }
    }
    Ok(())
}

fn refuse(reason: String) -> Error {
    Error::Checkpoint(reason)
}
