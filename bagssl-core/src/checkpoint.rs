//! Checkpoints: one safetensors file from which a server and an edge device load the same network.
//!
//! The tensors are `encoder.*` (torchvision's names inside) and `projector.*`, all `f32`; the key `bagssl` of the
//! metadata holds a [`Spec`] as JSON. A file that training resumes from holds more tensors, whose names begin with
//! `optimiser.`, and its counters in [`Spec::training`].

use std::prelude::v1::*;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::bag::Views;
use crate::embed::Tap;
use crate::error::{Error, Result};
use crate::normalise::Normalisation;
use crate::patch::{Filter, PatchSpec};
pub use crate::plan::NamedTensor;
use crate::plan::{Kind, Parameter, Plan};

/// The version of the format that this crate writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// The key of the metadata that holds the spec.
pub const METADATA_KEY: &str = "bagssl";
/// How the names of the optimiser's tensors begin.
pub const OPTIMISER_PREFIX: &str = "optimiser.";

/// The two networks of a model. The projector reads what the encoder puts out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedModel", into = "UncheckedModel")]
pub struct ModelPlan {
    encoder: Plan,
    projector: Plan,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedModel {
    encoder: Plan,
    projector: Plan,
}

impl TryFrom<UncheckedModel> for ModelPlan {
    type Error = Error;

    fn try_from(plan: UncheckedModel) -> Result<Self> {
        ModelPlan::new(plan.encoder, plan.projector)
    }
}

impl From<ModelPlan> for UncheckedModel {
    fn from(plan: ModelPlan) -> Self {
        UncheckedModel { encoder: plan.encoder, projector: plan.projector }
    }
}

impl ModelPlan {
    /// Joins an encoder and a projector.
    ///
    /// # Errors
    /// [`Error::Plan`] if the encoder does not turn RGB maps into rows, or the projector does not read such rows.
    pub fn new(encoder: Plan, projector: Plan) -> Result<Self> {
        if encoder.input() != Kind::Map(3) {
            return Err(Error::Plan(format!("encoder: expected to read Map(3), got {:?}", encoder.input())));
        }
        let Kind::Rows(dim) = encoder.output() else {
            return Err(Error::Plan(format!("encoder: expected to put out rows, got {:?}", encoder.output())));
        };
        if projector.input() != Kind::Rows(dim) {
            return Err(Error::Plan(format!("projector: expected to read Rows({dim}), got {:?}", projector.input())));
        }
        Ok(ModelPlan { encoder, projector })
    }

    /// The encoder `f`.
    pub fn encoder(&self) -> &Plan {
        &self.encoder
    }

    /// The projector `g`.
    pub fn projector(&self) -> &Plan {
        &self.projector
    }

    /// The length of the feature at a tap.
    pub fn dim(&self, tap: Tap) -> usize {
        match tap {
            Tap::Embedding => self.encoder.output_dim(),
            Tap::FirstLayer => match self.projector.kind(1) {
                Kind::Map(dim) | Kind::Rows(dim) => dim,
            },
            Tap::Projection => self.projector.output_dim(),
        }
    }

    /// Random values for all parameters and buffers, with their names in the checkpoint (see [`Plan::first_weights`]).
    /// The projector draws from a seed of its own, so that its weights do not repeat the encoder's.
    pub fn first_weights(&self, seed: u64) -> Vec<NamedTensor> {
        let prefixed = |prefix: &'static str, plan: &Plan, seed| {
            let named = move |(name, shape, values)| (format!("{prefix}.{name}"), shape, values);
            plan.first_weights(seed).into_iter().map(named)
        };
        prefixed("encoder", &self.encoder, seed).chain(prefixed("projector", &self.projector, !seed)).collect()
    }

    /// All parameters and buffers with their names in the checkpoint.
    pub fn parameters(&self) -> Vec<Parameter> {
        let prefixed = |prefix: &'static str, plan: &Plan| {
            plan.parameters()
                .into_iter()
                .map(move |parameter| Parameter { name: format!("{prefix}.{}", parameter.name), ..parameter })
        };
        prefixed("encoder", &self.encoder).chain(prefixed("projector", &self.projector)).collect()
    }
}

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The program and its version.
    pub created_by: String,
    /// The preset or config that it was trained with.
    pub preset: String,
    /// The fingerprint of the training images.
    pub data: String,
    /// The seed of the run.
    pub seed: u64,
    /// Epochs done.
    pub epochs: u32,
    /// Optimiser steps done.
    pub steps: u64,
}

/// Counters of a run that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The epoch that comes next, or goes on.
    pub epoch: u32,
    /// Batches of that epoch that are done.
    pub batch: u64,
    /// Optimiser steps done.
    pub step: u64,
    /// A hash of all settings that the weights depend on.
    pub config: u64,
}

/// All that is needed to use a model's weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The version of the format.
    pub format_version: u32,
    /// The networks.
    pub model: ModelPlan,
    /// The patches that stand for an image.
    pub patch: PatchSpec,
    /// How a patch is resampled to the network's input.
    pub filter: Filter,
    /// What the network expects of colours.
    pub normalisation: Normalisation,
    /// The feature that is the representation.
    pub tap: Tap,
    /// The views that it was trained on.
    pub views: Views,
    /// Where it comes from.
    pub provenance: Provenance,
    /// The counters of a run that is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
}

/// A checkpoint whose tensors lie in the bytes that it was read from.
#[derive(Debug)]
pub struct Checkpoint<'a> {
    spec: Spec,
    tensors: SafeTensors<'a>,
}

impl<'a> Checkpoint<'a> {
    /// Reads a checkpoint and checks that it holds just the tensors that its plan names, in their shapes.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] says what is not as expected.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        let refuse = |why: String| Error::Checkpoint(why);
        let (_, header) = SafeTensors::read_metadata(bytes)
            .map_err(|error| refuse(format!("expected a safetensors file, got {} bytes: {error}", bytes.len())))?;
        let json =
            header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY)).ok_or_else(|| {
                refuse(format!("expected metadata {METADATA_KEY:?}, got a safetensors file without it"))
            })?;
        let version = serde_json::from_str::<serde_json::Value>(json)
            .ok()
            .and_then(|value| value.get("format_version")?.as_u64())
            .ok_or_else(|| refuse("expected a format version, got none".into()))?;
        if version != u64::from(FORMAT_VERSION) {
            return Err(refuse(format!("expected format version {FORMAT_VERSION}, got {version}")));
        }
        let spec: Spec = serde_json::from_str(json).map_err(|error| refuse(format!("metadata: {error}")))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| refuse(format!("{error}")))?;
        let checkpoint = Checkpoint { spec, tensors };
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    fn check_tensors(&self) -> Result<()> {
        let refuse = |why: String| Err(Error::Checkpoint(why));
        let parameters = self.spec.model.parameters();
        for parameter in &parameters {
            let Ok(tensor) = self.tensors.tensor(&parameter.name) else {
                return refuse(format!("expected tensor {:?}, got none", parameter.name));
            };
            if tensor.shape() != parameter.shape {
                let (name, expected, got) = (&parameter.name, &parameter.shape, tensor.shape());
                return refuse(format!("tensor {name:?}: expected shape {expected:?}, got {got:?}"));
            }
        }
        let mut known: Vec<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
        known.sort_unstable();
        for (name, tensor) in self.tensors.iter() {
            let expected = known.binary_search(&name).is_ok()
                || (self.spec.training.is_some() && name.starts_with(OPTIMISER_PREFIX));
            if !expected {
                return refuse(format!("tensor {name:?} is not in the plan"));
            }
            if tensor.dtype() != Dtype::F32 {
                return refuse(format!("tensor {name:?}: expected F32, got {:?}", tensor.dtype()));
            }
        }
        Ok(())
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

    /// The values of a tensor.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no such tensor.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let tensor =
            self.tensors.tensor(name).map_err(|_| Error::Checkpoint(format!("expected tensor {name:?}, got none")))?;
        let (chunks, _) = tensor.data().as_chunks::<4>();
        Ok(chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

/// Writes a checkpoint. The same model gives the same bytes.
///
/// # Errors
/// [`Error::Checkpoint`] if a tensor's values do not fit its shape or two tensors share a name.
pub fn to_bytes(spec: &Spec, tensors: &[NamedTensor]) -> Result<Vec<u8>> {
    let refuse = |why: String| Error::Checkpoint(why);
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, shape, _), bytes) in tensors.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes)
            .map_err(|error| refuse(format!("tensor {name:?}: {error}")))?;
        views.push((name.as_str(), view));
    }
    let mut names: Vec<_> = views.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(refuse(format!("two tensors are named {:?}", pair[0])));
    }
    let json = serde_json::to_string(spec).map_err(|error| refuse(format!("metadata: {error}")))?;
    let metadata = [(METADATA_KEY.to_string(), json)].into_iter().collect();
    safetensors::serialize(views, Some(metadata)).map_err(|error| refuse(format!("{error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::{Architecture, mlp};
    use crate::patch::PatchSide;
    use proptest::prelude::*;

    fn spec() -> Spec {
        let patch = PatchSpec::new(PatchSide::Pixels(32), 16).unwrap();
        Spec {
            format_version: FORMAT_VERSION,
            model: ModelPlan::new(Architecture::ResNetSmall.plan(), mlp(64, &[8, 4]).unwrap()).unwrap(),
            patch,
            filter: Filter::Bilinear,
            normalisation: Normalisation::HALF,
            tap: Tap::Embedding,
            views: Views::FixedScale(patch),
            provenance: Provenance { seed: u64::MAX, ..Provenance::default() },
            training: None,
        }
    }

    fn tensors(spec: &Spec) -> Vec<NamedTensor> {
        let value = |index: usize| index as f32 * 0.25 - 3.0;
        let fill = |parameter: Parameter| {
            let values = (0..parameter.len()).map(value).collect();
            (parameter.name, parameter.shape, values)
        };
        spec.model.parameters().into_iter().map(fill).collect()
    }

    fn refused(bytes: &[u8], words: &str) {
        let error = Checkpoint::from_bytes(bytes).unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_checkpoint_survives_the_file() {
        let spec = spec();
        let tensors = tensors(&spec);
        let bytes = to_bytes(&spec, &tensors).unwrap();
        assert_eq!(bytes, to_bytes(&spec, &tensors).unwrap());
        let read = Checkpoint::from_bytes(&bytes).unwrap();
        assert_eq!(read.spec(), &spec);
        assert_eq!(read.names().len(), tensors.len());
        for (name, _, values) in &tensors {
            assert_eq!(&read.values(name).unwrap(), values);
        }
        assert!(read.values("encoder.nothing").is_err());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let spec = spec();
        let mut changed = tensors(&spec);
        changed[0].1 = vec![3, 16, 3, 3];
        refused(
            &to_bytes(&spec, &changed).unwrap(),
            "\"encoder.conv1.weight\": expected shape [16, 3, 3, 3], got [3, 16",
        );
        let missing = tensors(&spec).split_off(1);
        refused(&to_bytes(&spec, &missing).unwrap(), "expected tensor \"encoder.conv1.weight\", got none");
        let mut more = tensors(&spec);
        more.push(("optimiser.momentum.x".into(), vec![1], vec![0.0]));
        let bytes = to_bytes(&spec, &more).unwrap();
        refused(&bytes, "\"optimiser.momentum.x\" is not in the plan");
        let training = Some(Training { epoch: 1, batch: 2, step: 3, config: 4 });
        let resumable = Spec { training, ..spec.clone() };
        assert!(Checkpoint::from_bytes(&to_bytes(&resumable, &more).unwrap()).is_ok());
        let newer = Spec { format_version: 2, ..spec.clone() };
        refused(&to_bytes(&newer, &tensors(&spec)).unwrap(), "expected format version 1, got 2");
        let twice = [tensors(&spec), tensors(&spec)].concat();
        assert!(to_bytes(&spec, &twice).is_err());
    }

    #[test]
    fn foreign_bytes_are_refused() {
        refused(b"", "expected a safetensors file, got 0 bytes");
        refused(b"\x89PNG\r\n\x1a\n and more", "expected a safetensors file");
        let foreign = safetensors::serialize(Vec::<(&str, TensorView<'_>)>::new(), None).unwrap();
        refused(&foreign, "without it");
        let bytes = to_bytes(&spec(), &tensors(&spec())).unwrap();
        refused(&bytes[..bytes.len() - 1], "expected a safetensors file");
    }

    #[test]
    fn a_projector_reads_what_the_encoder_gives() {
        let encoder = Architecture::ResNetSmall.plan();
        assert!(ModelPlan::new(encoder.clone(), mlp(63, &[4]).unwrap()).is_err());
        assert!(ModelPlan::new(mlp(64, &[4]).unwrap(), mlp(4, &[4]).unwrap()).is_err());
        let model = ModelPlan::new(encoder, mlp(64, &[8, 4]).unwrap()).unwrap();
        assert_eq!([Tap::Embedding, Tap::FirstLayer, Tap::Projection].map(|tap| model.dim(tap)), [64, 8, 4]);
    }

    proptest! {
        #[test]
        fn any_change_of_the_header_is_read_or_refused(place in 0usize..4000, byte: u8) {
            let mut bytes = to_bytes(&spec(), &tensors(&spec())).unwrap();
            bytes[place] = byte;
            if let Ok(read) = Checkpoint::from_bytes(&bytes) {
                prop_assert!(read.spec().model.parameters().iter().all(|p| read.values(&p.name).unwrap().len() == p.len()));
            }
        }
    }
}
