//! The safetensors format of classifiers: numbers are tensors, the rest is JSON in the metadata,
//! which ends with a [`digest`] as that of a checkpoint does.

use std::collections::HashMap;

use bagssl_core::checkpoint::digest;
use bagssl_core::embed::Rows;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{Classifier, ClassifierKind};
use crate::classify::knn::Knn;
use crate::classify::probe::SoftmaxModel;
use crate::error::{Error, Result};
use crate::features::samples::Samples;

/// The key in the metadata.
const KEY: &str = "bagssl-classifier";
/// The version of the format that is written. Version 1, which has no digest, is also read.
const VERSION: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format_version: u32,
    network: String,
    classes: Vec<String>,
    kind: Kind,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Kind {
    /// Tensors: `samples`, `[sample, dim]` of f32, and `labels`, `[sample]` of u32.
    Neighbors { neighbors: usize, temperature: f64 },
    /// Tensors: `weights`, `[class, dim]` of f64, `bias`, `[class]` of f64, and `labels`, `[class]`
    /// of u32, ascending.
    Linear,
}

impl Classifier {
    /// Serializes the classifier to a safetensors file.
    ///
    /// # Errors
    /// [`Error::File`] if serialization fails, which does not happen in practice.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (kind, tensors) = match &self.kind {
            ClassifierKind::Neighbors(knn, samples) => {
                let shape = vec![samples.len(), samples.rows().dim];
                let kind = Kind::Neighbors { neighbors: knn.neighbors, temperature: knn.temperature };
                let samples = [
                    ("samples", Dtype::F32, shape, bytes(samples.rows().values, |value| value.to_le_bytes())),
                    labels(samples.labels()),
                ];
                (kind, Vec::from(samples))
            }
            ClassifierKind::Linear(model) => {
                let classes = model.classes().len();
                let weights = bytes(model.weights(), |value| value.to_le_bytes());
                let bias = bytes(model.bias(), |value| value.to_le_bytes());
                let tensors = [
                    ("weights", Dtype::F64, vec![classes, model.dim], weights),
                    ("bias", Dtype::F64, vec![classes], bias),
                    labels(model.classes()),
                ];
                (Kind::Linear, Vec::from(tensors))
            }
        };
        let header =
            Header { format_version: VERSION, network: self.network.clone(), classes: self.classes.clone(), kind };
        let failed = |error: String| refuse("classifier", "serializable numbers", error);
        let header = serde_json::to_string(&header).map_err(|error| failed(error.to_string()))?;
        let views: Vec<(&str, TensorView<'_>)> = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)))
            .collect::<core::result::Result<_, safetensors::SafeTensorError>>()
            .map_err(|error| failed(error.to_string()))?;
        let described = tensors.iter().map(|(name, dtype, shape, bytes)| (*name, *dtype, shape.clone(), &bytes[..]));
        let header = digest::join(&header, digest::digest(&header, described.collect()));
        let metadata = HashMap::from([(KEY.to_string(), header)]);
        safetensors::serialize(views, Some(metadata)).map_err(|error| failed(error.to_string()))
    }

    /// Reads a classifier from the bytes of its file.
    ///
    /// # Errors
    /// [`Error::File`] if the file is not a classifier, has an unsupported version, has changed
    /// since it was written, or its tensors do not match. The errors of [`Classifier::new`], [`Samples::new`] and [`Knn::predict`] if
    /// the contents are invalid.
    pub fn from_bytes(file: &[u8]) -> Result<Self> {
        let no_file = |error: safetensors::SafeTensorError| refuse("file", "a classifier (safetensors)", error);
        let (_, metadata) = SafeTensors::read_metadata(file).map_err(no_file)?;
        let tensors = SafeTensors::deserialize(file).map_err(no_file)?;
        let header: Header = serde_json::from_str(&checked_header(metadata.metadata().as_ref(), &tensors)?)
            .map_err(|error| refuse("metadata", "valid classifier metadata", error))?;
        let labels = values(&tensors, "labels", Dtype::U32, u32::from_le_bytes)?;
        let kind = match header.kind {
            Kind::Neighbors { neighbors, temperature } => {
                let knn = Knn { neighbors, temperature };
                knn.check()?;
                let dim = columns(&tensors, "samples", labels.0.len())?;
                let rows = values(&tensors, "samples", Dtype::F32, f32::from_le_bytes)?.0;
                ClassifierKind::Neighbors(knn, Samples::new(Rows { values: rows, dim }, labels.0)?)
            }
            Kind::Linear => ClassifierKind::Linear(linear(&tensors, labels.0)?),
        };
        Classifier::new(kind, header.classes, header.network)
    }
}

/// Returns the JSON of the header, without the digest, which is verified.
fn checked_header(entries: Option<&HashMap<String, String>>, tensors: &SafeTensors<'_>) -> Result<String> {
    /// The format version, which determines how the rest is read.
    #[derive(Deserialize)]
    struct Version {
        format_version: u64,
    }
    let json = entries.and_then(|entries| entries.get(KEY));
    let json = json.ok_or_else(|| refuse("file", "a classifier, with metadata \"bagssl-classifier\"", "none"))?;
    let version: Version =
        serde_json::from_str(json).map_err(|error| refuse("metadata", "valid classifier metadata", error))?;
    match version.format_version {
        1 => return Ok(json.clone()),
        2 => {}
        other => return Err(refuse("format version", format!("{VERSION} or 1"), other)),
    }
    // The digest does not cover other entries.
    if let Some(other) = entries.into_iter().flat_map(HashMap::keys).find(|key| *key != KEY) {
        return Err(refuse("metadata", format!("{KEY:?} only"), format!("also {other:?}")));
    }
    let (json, stated) =
        digest::split(json).map_err(|_| refuse("metadata", "a digest at the end of the metadata", "none"))?;
    let described = tensors.iter().map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data()));
    match digest::digest(&json, described.collect()) {
        got if got == stated => Ok(json),
        got => Err(refuse("the file is corrupt", format!("digest {stated:016x}"), format!("{got:016x}"))),
    }
}

/// Reads a linear probe from its tensors.
fn linear(tensors: &SafeTensors<'_>, classes: Vec<u32>) -> Result<SoftmaxModel> {
    let dim = columns(tensors, "weights", classes.len())?;
    let mut parameters = values(tensors, "weights", Dtype::F64, f64::from_le_bytes)?.0;
    let (bias, shape) = values(tensors, "bias", Dtype::F64, f64::from_le_bytes)?;
    if shape != [classes.len()] {
        return Err(refuse("bias", format!("[{}]", classes.len()), format!("{shape:?}")));
    }
    parameters.extend(bias);
    if let Some(wrong) = parameters.iter().find(|value| !value.is_finite()) {
        return Err(refuse("weights", "finite numbers", wrong));
    }
    if !classes.is_sorted_by(|a, b| a < b) {
        return Err(refuse("labels", "ascending numbers", format!("{classes:?}")));
    }
    Ok(SoftmaxModel { classes, parameters, dim })
}

/// Returns the number of columns of a matrix with `rows` rows. Both must be at least 1.
fn columns(tensors: &SafeTensors<'_>, name: &str, rows: usize) -> Result<usize> {
    let shape = tensors.tensor(name).map_err(|error| refuse(name, "a tensor", error))?.shape().to_vec();
    match shape[..] {
        [found, columns] if found == rows && rows > 0 && columns > 0 => Ok(columns),
        _ => Err(refuse(name, format!("[{rows}, dim], both at least 1"), format!("{shape:?}"))),
    }
}

/// Returns the numbers and the shape of a tensor.
fn values<T, const N: usize>(
    tensors: &SafeTensors<'_>,
    name: &str,
    dtype: Dtype,
    from: fn([u8; N]) -> T,
) -> Result<(Vec<T>, Vec<usize>)> {
    let tensor = tensors.tensor(name).map_err(|error| refuse(name, "a tensor", error))?;
    if tensor.dtype() != dtype {
        return Err(refuse(name, format!("{dtype:?}"), format!("{:?}", tensor.dtype())));
    }
    let numbers = tensor.data().as_chunks::<N>().0.iter().map(|&bytes| from(bytes)).collect();
    Ok((numbers, tensor.shape().to_vec()))
}

type Tensor = (&'static str, Dtype, Vec<usize>, Vec<u8>);

fn labels(labels: &[u32]) -> Tensor {
    ("labels", Dtype::U32, vec![labels.len()], bytes(labels, |value| value.to_le_bytes()))
}

fn bytes<T: Copy, const N: usize>(values: &[T], to: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| to(value)).collect()
}

fn refuse(part: &str, expected: impl ToString, got: impl ToString) -> Error {
    Error::File { part: part.into(), expected: expected.to_string(), got: got.to_string() }
}
