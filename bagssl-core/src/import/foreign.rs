//! The tensors of a file that another program wrote.

use std::prelude::v1::*;

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, SafeTensors};

use super::dtype::DType;
use super::pickle::{Id, Pickle, TensorRef, Value};
use super::zip::Archive;
use crate::checkpoint::{METADATA_KEY, header_length};
use crate::error::{Error, Result};

/// The dictionary keys under which a state dict may be nested, and the maximum depth of nesting.
const WRAPPERS: [&str; 3] = ["state_dict", "model", "model_state_dict"];

/// The first bytes of a zip archive.
const ZIP: &[u8] = b"PK\x03\x04";

/// A tensor, borrowed from the bytes of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeignTensor<'a> {
    dtype: DType,
    shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
    storage: &'a [u8],
}

impl<'a> ForeignTensor<'a> {
    /// Returns the type of the stored values.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Returns the shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all values in row-major order, whatever the strides are; `None` for integers.
    pub fn values(&self) -> Option<Vec<f32>> {
        let size = self.dtype.bytes();
        let mut index = vec![0; self.shape.len()];
        let mut values = Vec::with_capacity(self.len());
        for _ in 0..self.len() {
            let along: usize = index.iter().zip(&self.strides).map(|(index, stride)| index * stride).sum();
            let at = (self.offset + along) * size;
            values.push(self.dtype.value(&self.storage[at..at + size])?);
            for (index, &length) in index.iter_mut().zip(&self.shape).rev() {
                *index += 1;
                if *index < length {
                    break;
                }
                *index = 0;
            }
        }
        Some(values)
    }

    /// Checks a described tensor against its storage: it must lie inside, and must not have more
    /// values than the storage.
    fn checked(tensor: &TensorRef<'_>, storage: &'a [u8]) -> core::result::Result<Self, String> {
        let bytes = tensor.dtype.bytes();
        let stored = usize::try_from(tensor.stored).ok().and_then(|count| count.checked_mul(bytes));
        if stored != Some(storage.len()) {
            let TensorRef { stored, dtype, .. } = tensor;
            return Err(format!("expected a storage of {stored} values of {dtype:?}, got {} bytes", storage.len()));
        }
        let outside = || {
            let TensorRef { shape, strides, offset, stored, .. } = tensor;
            format!("shape {shape:?} with strides {strides:?} and offset {offset} does not fit into {stored} values")
        };
        let sizes = |sizes: &[u64]| sizes.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<Vec<_>>>();
        let shape = sizes(&tensor.shape).ok_or_else(outside)?;
        let strides = sizes(&tensor.strides).ok_or_else(outside)?;
        let offset = usize::try_from(tensor.offset).map_err(|_| outside())?;
        let count = storage.len() / bytes;
        let values = shape.iter().try_fold(1_usize, |product, &length| product.checked_mul(length));
        let last = shape.iter().zip(&strides).try_fold(offset, |last, (&length, &stride)| {
            last.checked_add(length.saturating_sub(1).checked_mul(stride)?)
        });
        match (values, last) {
            (Some(0), _) => Ok(ForeignTensor { dtype: tensor.dtype, shape, strides, offset, storage }),
            (Some(values), Some(last)) if values <= count && last < count => {
                Ok(ForeignTensor { dtype: tensor.dtype, shape, strides, offset, storage })
            }
            _ => Err(outside()),
        }
    }
}

/// The tensors of a file by name.
#[derive(Debug)]
pub struct Foreign<'a> {
    tensors: BTreeMap<String, ForeignTensor<'a>>,
}

impl<'a> Foreign<'a> {
    /// The number of bytes at the start of a file that identify its format.
    pub const START_BYTES: u64 = 512;

    /// Reads PyTorch's zip format or safetensors. The state dict of a pickle may be nested under
    /// the keys `state_dict`, `model` and `model_state_dict`. Other entries beside these are
    /// ignored.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the file has neither format or is a BagSSL checkpoint, if a pickle
    /// contains a disallowed opcode or global, if a tensor exceeds its storage, or if overlapping
    /// tensors have too many values.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        Self::check_start(bytes)?;
        let foreign = match bytes.starts_with(ZIP) {
            true => Self::from_zip(bytes)?,
            false => Self::from_safetensors(bytes)?,
        };
        let values: u64 = foreign.tensors.values().map(|tensor| tensor.len() as u64).sum();
        let most = 2 * bytes.len() as u64;
        if values > most {
            let expected = format!("at most {most} values in a file of {} bytes", bytes.len());
            return Err(refuse(&format!("expected {expected}, got {values} in overlapping tensors")));
        }
        Ok(foreign)
    }

    /// Checks the first bytes of a file before the rest is read. Pass [`Foreign::START_BYTES`] bytes for
    /// the most specific error.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the bytes start neither PyTorch's zip format nor safetensors.
    pub fn check_start(start: &[u8]) -> Result<()> {
        if start.starts_with(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") {
            return Err(refuse(
                "expected PyTorch's zip format, got the format used before PyTorch 1.6: load the file and save it \
                 again with torch.save",
            ));
        }
        if start.starts_with(ZIP) {
            return Ok(());
        }
        let neither = |got: &str| {
            refuse(
                recognize_other(start)
                    .unwrap_or(&format!("expected PyTorch's zip format or safetensors, got neither: {got}")),
            )
        };
        let header = *start.first_chunk().ok_or_else(|| neither(&format!("{} bytes", start.len())))?;
        header_length(header).map(|_| ()).map_err(|error| neither(&error.to_string()))
    }

    /// Returns the tensor with a name.
    pub fn get(&self, name: &str) -> Option<&ForeignTensor<'a>> {
        self.tensors.get(name)
    }

    /// Returns all names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    fn from_safetensors(bytes: &'a [u8]) -> Result<Self> {
        let neither = |error| refuse(&format!("expected PyTorch's zip format or safetensors, got neither: {error}"));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(neither)?;
        if header.metadata().as_ref().is_some_and(|metadata| metadata.contains_key(METADATA_KEY)) {
            return Err(refuse(
                "expected a checkpoint of another program, got a BagSSL checkpoint: use it directly, without import",
            ));
        }
        let read = SafeTensors::deserialize(bytes).map_err(neither)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in read.tensors() {
            let dtype = dtype(view.dtype()).ok_or_else(|| {
                let expected = "F64, F32, F16, BF16, or integers of up to 64 bits";
                refuse(&format!("tensor {name:?}: expected {expected}, got {:?}", view.dtype()))
            })?;
            let shape = view.shape().to_vec();
            let mut strides = vec![1; shape.len()];
            for axis in (1..shape.len()).rev() {
                strides[axis - 1] = strides[axis] * shape[axis].max(1);
            }
            tensors.insert(name, ForeignTensor { dtype, shape, strides, offset: 0, storage: view.data() });
        }
        Ok(Foreign { tensors })
    }

    fn from_zip(bytes: &'a [u8]) -> Result<Self> {
        let archive = Archive::from_bytes(bytes)?;
        let mut pickles = archive.names().filter_map(|name| name.strip_suffix("data.pkl"));
        let (folder, None) = (pickles.next(), pickles.next()) else {
            return Err(refuse("expected one data.pkl in the archive, got several"));
        };
        let folder = folder.filter(|folder| folder.is_empty() || folder.ends_with('/'));
        let folder = folder.ok_or_else(|| refuse("expected data.pkl in the archive, got none"))?;
        if let Some(order) = archive.get(&format!("{folder}byteorder")).filter(|order| *order != b"little") {
            return Err(refuse(&format!("expected byte order \"little\", got {} bytes of another value", order.len())));
        }
        if archive.get(&format!("{folder}constants.pkl")).is_some() {
            return Err(refuse("expected a state dict, got a TorchScript program"));
        }
        let pickle = Pickle::from_bytes(archive.get(&format!("{folder}data.pkl")).unwrap_or_default())?;
        let mut tensors = BTreeMap::new();
        let dict = state_dict(&pickle)?;
        for &(key, value) in dict.0 {
            let Value::Str(name) = *pickle.get(key) else {
                return Err(refuse("state dict: expected strings as keys, got another type"));
            };
            let Value::Tensor(tensor) = pickle.get(value) else {
                return Err(no_tensor(&pickle, &dict, name));
            };
            let storage = archive.get(&format!("{folder}data/{}", tensor.storage)).ok_or_else(|| {
                refuse(&format!("tensor {name:?}: expected storage {:?} in the archive, got none", tensor.storage))
            })?;
            let tensor = ForeignTensor::checked(tensor, storage);
            let tensor = tensor.map_err(|reason| refuse(&format!("tensor {name:?}: {reason}")))?;
            tensors.insert(name.into(), tensor);
        }
        Ok(Foreign { tensors })
    }
}

/// Recognizes a file of another type by its first bytes, and returns the error message.
fn recognize_other(bytes: &[u8]) -> Option<&'static str> {
    let begins = |start: &[u8]| bytes.starts_with(start);
    if bytes.get(257..262) == Some(b"ustar") {
        return Some(
            "expected PyTorch's zip format or safetensors, got a tar, the format used before PyTorch 0.1.10: load the \
             file and save it again with torch.save",
        );
    }
    if begins(b"\x80") {
        return Some(
            "expected PyTorch's zip format or safetensors, got a bare pickle: load the file and save it with \
             torch.save",
        );
    }
    if begins(b"\x89HDF") {
        return Some("expected PyTorch's zip format or safetensors, got an HDF5 file (such as Keras writes)");
    }
    if begins(b"version https://git-lfs") {
        return Some(
            "expected PyTorch's zip format or safetensors, got a Git LFS pointer: run `git lfs pull` to fetch the file",
        );
    }
    let is_page = |mark: &[u8]| bytes.get(..mark.len()).is_some_and(|start| start.eq_ignore_ascii_case(mark));
    let page = "expected PyTorch's zip format or safetensors, got an HTML page, probably from a failed download";
    (is_page(b"<!doctype html") || is_page(b"<html")).then_some(page)
}

fn refuse(reason: &str) -> Error {
    Error::Checkpoint(format!("import: {reason}"))
}

/// A key and its value.
type Entry = (Id, Id);

/// Returns the state dict and the keys under which it is nested.
fn state_dict<'p, 'a>(pickle: &'p Pickle<'a>) -> Result<(&'p [Entry], Vec<&'static str>)> {
    let (mut dict, mut path) = (pickle.root(), Vec::new());
    for _ in 0..WRAPPERS.len() {
        let inner = WRAPPERS.iter().find_map(|&name| Some((name, pickle.entry(dict, name)?)));
        match inner {
            Some((name, inner @ Value::Dict(_))) => {
                dict = inner;
                path.push(name);
            }
            _ => break,
        }
    }
    match dict {
        Value::Dict(entries) => Ok((entries, path)),
        _ => Err(refuse("expected a dictionary of tensors, got another type")),
    }
}

/// Builds the error for a state dict with other values than tensors. Names dictionaries that
/// contain tensors, searching only the first entries, since values may be shared.
fn no_tensor(pickle: &Pickle<'_>, (entries, path): &(&[Entry], Vec<&'static str>), name: &str) -> Error {
    let is_tensor = |(_, value): &Entry| matches!(pickle.get(*value), Value::Tensor(_));
    let short = |name: &str| name.chars().take(60).collect::<String>();
    let holds = |&(key, value): &Entry| match (pickle.get(key), pickle.get(value)) {
        (Value::Str(key), Value::Dict(inner)) if inner.iter().take(64).any(is_tensor) => Some(short(key)),
        _ => None,
    };
    let found: Vec<String> = entries.iter().take(256).filter_map(holds).take(4).collect();
    let place = if path.is_empty() { String::new() } else { format!(" {path:?}") };
    let got = match found.is_empty() {
        true => format!("another type under {:?}", short(name)),
        false => format!("dictionaries of tensors under {found:?}"),
    };
    refuse(&format!(
        "state dict{place}: expected tensors, or a dictionary of tensors under one of {WRAPPERS:?}, got {got}"
    ))
}

fn dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::Bf16,
        Dtype::I64 | Dtype::U64 => DType::Integer(8),
        Dtype::I32 | Dtype::U32 => DType::Integer(4),
        Dtype::I16 | Dtype::U16 => DType::Integer(2),
        Dtype::I8 | Dtype::U8 | Dtype::BOOL => DType::Integer(1),
        _ => return None,
    })
}
