//! Import of checkpoints from other programs, and export to torchvision. Reads PyTorch files and
//! safetensors of torchvision, VICReg, solo-learn, lightly and EMP-SSL.
//!
//! Pickles are read as data. The parser never calls a function, and rejects unknown globals by
//! name. It knows four kinds of globals:
//!
//! - functions and classes that describe tensors
//! - plain containers
//! - a fixed list of classes for settings, since Lightning stores hyperparameters beside the
//!   weights. Their objects stay inert, and a tensor that depends on an inert value is rejected
//! - functions of the training script, since VICReg stores one in its optimizer state. A pickle
//!   that calls one is rejected

mod dtype;
mod zip;
mod globals;
mod pickle;
mod foreign;
mod layout;
mod projector;
mod torchvision;

#[cfg(test)]
mod tests;

pub use dtype::DType;
pub use foreign::{Foreign, ForeignTensor};
pub use layout::Layout;
pub use torchvision::to_torchvision;

use std::prelude::v1::*;

use std::collections::BTreeMap;

use crate::architecture::Architecture;
use crate::bag::Views;
use crate::checkpoint::{FORMAT_VERSION, ModelPlan, Provenance, Spec};
use crate::embed::FeatureLayer;
use crate::error::{Error, Result};
use crate::normalize::Normalization;
use crate::patch::{Filter, PatchSpec};
use crate::plan::{NamedTensor, Plan};
use layout::Part;

/// Settings that the imported file does not contain.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportOptions {
    /// The layout of the file; `None` detects it from the tensor names.
    pub layout: Option<Layout>,
    /// The encoder; `None` detects it from the tensor shapes.
    pub architecture: Option<Architecture>,
    /// The patches that represent an image.
    pub patch: PatchSpec,
    /// The normalization that the network expects; `None` uses the layout's default.
    pub normalization: Option<Normalization>,
    /// Whether to ignore tensors outside the encoder and projector (a classifier, a momentum copy).
    pub allow_unused: bool,
    /// The name of the file, recorded in the provenance.
    pub source: String,
}

/// An imported model.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The description of the model.
    pub spec: Spec,
    /// The tensors, for [`crate::checkpoint::to_bytes`].
    pub tensors: Vec<NamedTensor>,
    /// The layout of the file.
    pub layout: Layout,
    /// The encoder.
    pub architecture: Architecture,
    /// The names of ignored tensors.
    pub unused: Vec<String>,
    /// Notes for the user, one line each.
    pub notes: Vec<String>,
}

/// Converts another program's file to a checkpoint.
///
/// If the projector is missing or contains modules other than linear layers, batch norms and ReLUs,
/// it is replaced by the identity, so the projection equals the embedding. A note and the
/// provenance record this.
///
/// # Errors
/// [`Error::Checkpoint`] naming the tensors that are missing, unexpected or of a different shape.
/// Unknown tensors of the encoder are rejected even with [`ImportOptions::allow_unused`], since they
/// indicate a different network.
pub fn import(foreign: &Foreign<'_>, options: &ImportOptions) -> Result<Imported> {
    let layout = options.layout.map_or_else(|| Layout::detect(foreign), Ok)?;
    let sorted = Sorted::new(foreign, layout)?;
    let architecture = options.architecture.map_or_else(|| sorted.architecture(foreign, layout), Ok)?;
    let encoder = architecture.plan();
    let mut notes = habits(layout, architecture, options);
    let mut tensors = sorted.encoder_tensors(foreign, &encoder)?;
    let mut unused = sorted.other.clone();
    if !unused.is_empty() && !options.allow_unused {
        return Err(refuse(format!("unexpected tensors {}; allow-unused skips them", list_names(&unused))));
    }
    let found = projector::read(foreign, &sorted.projector, encoder.output_dim());
    let has_projector = found.is_ok();
    let (plan, values) = match found {
        Ok(projector) => projector,
        Err(reason) => {
            notes.push(format!("projector: replaced by the identity ({reason})"));
            unused.extend(sorted.projector.values().cloned());
            projector::identity(encoder.output_dim())?
        }
    };
    tensors.extend(values);
    let word = if has_projector { "" } else { ", projector the identity" };
    let provenance = Provenance {
        created_by: format!("bagssl-core {} import", env!("CARGO_PKG_VERSION")),
        preset: format!("{} of {}, {}{word}", architecture.name(), layout.name(), options.source),
        ..Provenance::default()
    };
    let spec = Spec {
        format_version: FORMAT_VERSION,
        model: ModelPlan::new(encoder, plan)?,
        patch: options.patch,
        filter: Filter::Bilinear,
        normalization: options.normalization.unwrap_or_else(|| layout.normalization()),
        layer: if has_projector { layout.layer() } else { FeatureLayer::Embedding },
        views: Views::FixedScale(options.patch),
        provenance,
        training: None,
    };
    Ok(Imported { spec, tensors, layout, architecture, unused, notes })
}

/// Returns the encoder that [`import()`] would read.
///
/// # Errors
/// [`Error::Checkpoint`] if the names match no layout, or the first convolution matches no known
/// network.
pub fn architecture(foreign: &Foreign<'_>, options: &ImportOptions) -> Result<Architecture> {
    let layout = options.layout.map_or_else(|| Layout::detect(foreign), Ok)?;
    options.architecture.map_or_else(|| Sorted::new(foreign, layout)?.architecture(foreign, layout), Ok)
}

/// Notes on assumptions about solo-learn's networks for small images, which the file does not
/// state.
fn habits(layout: Layout, architecture: Architecture, options: &ImportOptions) -> Vec<String> {
    let mut notes = Vec::new();
    let Some(usual) = architecture.name().strip_suffix("-pad2").filter(|_| layout == Layout::SoloLearn) else {
        return notes;
    };
    notes.push(format!("stem: assumed padding 2, as in solo-learn for CIFAR; {usual} has padding 1"));
    if options.normalization.is_none() {
        notes.push(
            "colors: assumed ImageNet's normalization; for a solo-learn run on CIFAR, cifar10 or cifar100 may be right"
                .into(),
        );
    }
    notes
}

fn refuse(reason: String) -> Error {
    Error::Checkpoint(format!("import: {reason}"))
}

/// Formats at most six names and the number of the rest.
fn list_names(names: &[String]) -> String {
    let more = names.len().saturating_sub(6);
    let shown: Vec<&String> = names.iter().take(6).collect();
    if more == 0 { format!("{shown:?}") } else { format!("{shown:?} and {more} more") }
}

/// Whether a tensor is a counter: the number of batches of a norm, or the number of models in an
/// average.
fn is_counter(name: &str) -> bool {
    name.ends_with(".num_batches_tracked") || name == "n_averaged"
}

/// The file's tensor names, sorted by their role. Counters are left out.
struct Sorted {
    /// The file's names by torchvision's name.
    encoder: BTreeMap<String, String>,
    /// The file's names by section, module and tensor.
    projector: BTreeMap<(usize, usize, String), String>,
    other: Vec<String>,
}

impl Sorted {
    /// Rejects two names with the same role.
    fn new(foreign: &Foreign<'_>, layout: Layout) -> Result<Self> {
        let mut sorted = Sorted { encoder: BTreeMap::new(), projector: BTreeMap::new(), other: Vec::new() };
        for name in foreign.names().filter(|name| !is_counter(name)) {
            let before = match layout.part(name) {
                Part::Encoder(inner) => sorted.encoder.insert(inner, name.into()),
                Part::Projector(stretch, module, tensor) => {
                    sorted.projector.insert((stretch, module, tensor), name.into())
                }
                Part::Other => {
                    sorted.other.push(name.into());
                    None
                }
            };
            if let Some(before) = before {
                return Err(refuse(format!(
                    "expected one tensor for each parameter, got {before:?} and {name:?} for the same"
                )));
            }
        }
        Ok(sorted)
    }

    /// Detects the residual network from its stem and blocks. The padding of a small stem follows
    /// from the layout.
    fn architecture(&self, foreign: &Foreign<'_>, layout: Layout) -> Result<Architecture> {
        use Architecture::{
            ResNet18, ResNet18Cifar, ResNet18CifarPad2, ResNet34, ResNet34Cifar, ResNet34CifarPad2, ResNet50,
            ResNet50Cifar, ResNet50CifarPad2, ResNetSmall,
        };
        let first = self.encoder.get("conv1.weight").and_then(|name| foreign.get(name));
        let first = first.ok_or_else(|| refuse("expected a tensor for \"conv1.weight\", got none".into()))?;
        let has = |name: &str| self.encoder.contains_key(name);
        let stem = match first.shape() {
            [16, 3, 3, 3] if !has("layer4.0.conv1.weight") => return Ok(ResNetSmall),
            [64, 3, 7, 7] => 0,
            [64, 3, 3, 3] if layout == Layout::SoloLearn => 2,
            [64, 3, 3, 3] => 1,
            other => {
                return Err(refuse(format!(
                    "first convolution: expected shape [64, 3, 7, 7] or [64, 3, 3, 3], got {other:?}"
                )));
            }
        };
        let stems = match (has("layer1.0.conv3.weight"), has("layer3.2.conv1.weight")) {
            (true, _) => [ResNet50, ResNet50Cifar, ResNet50CifarPad2],
            (false, true) => [ResNet34, ResNet34Cifar, ResNet34CifarPad2],
            (false, false) => [ResNet18, ResNet18Cifar, ResNet18CifarPad2],
        };
        Ok(stems[stem])
    }

    fn encoder_tensors(&self, foreign: &Foreign<'_>, plan: &Plan) -> Result<Vec<NamedTensor>> {
        let parameters = plan.parameters();
        let missing: Vec<String> =
            parameters.iter().map(|p| p.name.clone()).filter(|name| !self.encoder.contains_key(name)).collect();
        let known = |name: &&String| parameters.iter().any(|parameter| parameter.name == **name);
        let unexpected: Vec<String> = self.encoder.keys().filter(|name| !known(name)).cloned().collect();
        if !missing.is_empty() || !unexpected.is_empty() {
            let parts = [("missing", missing), ("unexpected", unexpected)];
            let parts = parts.iter().filter(|(_, names)| !names.is_empty());
            let parts: Vec<String> = parts.map(|(what, names)| format!("{what} {}", list_names(names))).collect();
            return Err(refuse(format!("encoder: tensors {}", parts.join(", "))));
        }
        let values = |parameter: &crate::plan::Parameter| {
            let values = values(foreign, &self.encoder[&parameter.name], &parameter.shape)?;
            Ok((format!("encoder.{}", parameter.name), parameter.shape.clone(), values))
        };
        parameters.iter().map(values).collect()
    }
}

/// Reads the values of a tensor and checks its shape.
fn values(foreign: &Foreign<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let tensor = foreign.get(name).ok_or_else(|| refuse(format!("expected tensor {name:?}, got none")))?;
    if tensor.shape() != shape {
        return Err(refuse(format!("tensor {name:?}: expected shape {shape:?}, got {:?}", tensor.shape())));
    }
    tensor.values().ok_or_else(|| refuse(format!("tensor {name:?}: expected floats, got {:?}", tensor.dtype())))
}
