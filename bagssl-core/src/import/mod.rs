//! Checkpoints from elsewhere: PyTorch's files and safetensors of torchvision, VICReg, solo-learn, lightly and EMP-SSL become
//! checkpoints of this project, and these become files for torchvision.
//!
//! A pickle is read as data: nothing that it names is called, and what is not known is refused by its name. Four kinds of
//! globals are known: those that describe tensors, those of plain containers, a fixed list of classes of settings (Lightning
//! keeps its hyperparameters beside the weights), whose objects stay inert, and functions of the training script (VICReg keeps one in
//! its optimizer's state), which are refused if a pickle calls them; a tensor that depends on an inert value is refused.

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

/// What a foreign file does not say.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Who wrote it; `None` looks at the names.
    pub layout: Option<Layout>,
    /// The encoder; `None` looks at the shapes.
    pub architecture: Option<Architecture>,
    /// The patches that stand for an image.
    pub patch: PatchSpec,
    /// What the network expects of colors; `None` is the layout's habit.
    pub normalization: Option<Normalization>,
    /// Whether tensors that are neither encoder nor projector (a classifier, a momentum copy) may be there.
    pub allow_unused: bool,
    /// A name for the file, which goes into the provenance.
    pub source: String,
}

/// A foreign model as one of this project.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// What it is.
    pub spec: Spec,
    /// Its tensors, for [`crate::checkpoint::to_bytes`].
    pub tensors: Vec<NamedTensor>,
    /// Who wrote it.
    pub layout: Layout,
    /// The encoder.
    pub architecture: Architecture,
    /// Tensors that were left out.
    pub unused: Vec<String>,
    /// What a reader should know, one line each.
    pub notes: Vec<String>,
}

/// Makes a checkpoint of a foreign file.
///
/// A file without a projector, or with one that is not linear layers, batch norms and ReLUs, gets the identity as its
/// projector, so that its projection is its embedding; a note says so, and the provenance too.
///
/// # Errors
/// [`Error::Checkpoint`] names tensors that are missing, unexpected or of another shape. Unknown tensors of the encoder are refused even
/// if unused ones are allowed: they belong to another network.
pub fn import(foreign: &Foreign<'_>, options: &Options) -> Result<Imported> {
    let layout = options.layout.map_or_else(|| Layout::detect(foreign), Ok)?;
    let sorted = Sorted::new(foreign, layout)?;
    let architecture = options.architecture.map_or_else(|| sorted.architecture(foreign, layout), Ok)?;
    let encoder = architecture.plan();
    let mut notes = habits(layout, architecture, options);
    let mut tensors = sorted.encoder_tensors(foreign, &encoder)?;
    let mut unused = sorted.other.clone();
    if !unused.is_empty() && !options.allow_unused {
        return Err(refuse(format!("unexpected tensors {}; allow-unused leaves them out", listed(&unused))));
    }
    let found = projector::read(foreign, &sorted.projector, encoder.output_dim());
    let kept = found.is_ok();
    let (plan, values) = match found {
        Ok(projector) => projector,
        Err(why) => {
            notes.push(format!("projector: the identity, since {why}"));
            unused.extend(sorted.projector.values().cloned());
            projector::identity(encoder.output_dim())?
        }
    };
    tensors.extend(values);
    let word = if kept { "" } else { ", projector the identity" };
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
        tap: if kept { layout.tap() } else { FeatureLayer::Embedding },
        views: Views::FixedScale(options.patch),
        provenance,
        training: None,
    };
    Ok(Imported { spec, tensors, layout, architecture, unused, notes })
}

/// The encoder that [`import()`] would read.
///
/// # Errors
/// [`Error::Checkpoint`] if the names speak of no layout, or the first convolution is of no known network.
pub fn architecture(foreign: &Foreign<'_>, options: &Options) -> Result<Architecture> {
    let layout = options.layout.map_or_else(|| Layout::detect(foreign), Ok)?;
    options.architecture.map_or_else(|| Sorted::new(foreign, layout)?.architecture(foreign, layout), Ok)
}

/// What a file of solo-learn does not say of a network for small images.
fn habits(layout: Layout, architecture: Architecture, options: &Options) -> Vec<String> {
    let mut notes = Vec::new();
    let Some(usual) = architecture.name().strip_suffix("-pad2").filter(|_| layout == Layout::SoloLearn) else {
        return notes;
    };
    notes.push(format!("stem: padded by 2, as solo-learn does for CIFAR; the file does not say so, {usual} pads by 1"));
    if options.normalization.is_none() {
        notes.push(
            "colors: ImageNet's, which solo-learn's runs on CIFAR may not have had: check cifar10 and cifar100".into(),
        );
    }
    notes
}

fn refuse(why: String) -> Error {
    Error::Checkpoint(format!("import: {why}"))
}

/// A few names of many.
fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(6);
    let shown: Vec<&String> = names.iter().take(6).collect();
    if more == 0 { format!("{shown:?}") } else { format!("{shown:?} and {more} more") }
}

/// Whether a tensor counts batches of a norm, or what an averaged model is the mean of.
fn is_counter(name: &str) -> bool {
    name.ends_with(".num_batches_tracked") || name == "n_averaged"
}

/// Foreign names by what they stand for; counters are left out.
struct Sorted {
    /// By torchvision's name.
    encoder: BTreeMap<String, String>,
    /// By stretch, module and tensor.
    projector: BTreeMap<(usize, usize, String), String>,
    other: Vec<String>,
}

impl Sorted {
    /// Refuses two names that stand for the same.
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
                return Err(refuse(format!("expected one tensor of a kind, got {before:?} and {name:?}")));
            }
        }
        Ok(sorted)
    }

    /// The residual network that has such a stem and such blocks. How a small stem pads, only the layout tells.
    fn architecture(&self, foreign: &Foreign<'_>, layout: Layout) -> Result<Architecture> {
        use Architecture::{
            ResNet18, ResNet18Cifar, ResNet18CifarPad2, ResNet34, ResNet34Cifar, ResNet34CifarPad2, ResNet50,
            ResNet50Cifar, ResNet50CifarPad2, ResNetSmall,
        };
        let first = self.encoder.get("conv1.weight").and_then(|name| foreign.get(name));
        let first =
            first.ok_or_else(|| refuse("expected a tensor that stands for \"conv1.weight\", got none".into()))?;
        let has = |name: &str| self.encoder.contains_key(name);
        let stem = match first.shape() {
            [16, 3, 3, 3] if !has("layer4.0.conv1.weight") => return Ok(ResNetSmall),
            [64, 3, 7, 7] => 0,
            [64, 3, 3, 3] if layout == Layout::SoloLearn => 2,
            [64, 3, 3, 3] => 1,
            other => {
                return Err(refuse(format!(
                    "first convolution: expected [64, 3, 7, 7] or [64, 3, 3, 3], got {other:?}"
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
            let parts: Vec<String> = parts.map(|(what, names)| format!("{what} {}", listed(names))).collect();
            return Err(refuse(format!("encoder: tensors {}", parts.join(", "))));
        }
        let values = |parameter: &crate::plan::Parameter| {
            let values = values(foreign, &self.encoder[&parameter.name], &parameter.shape)?;
            Ok((format!("encoder.{}", parameter.name), parameter.shape.clone(), values))
        };
        parameters.iter().map(values).collect()
    }
}

/// The values of a tensor of an expected shape.
fn values(foreign: &Foreign<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let tensor = foreign.get(name).ok_or_else(|| refuse(format!("expected tensor {name:?}, got none")))?;
    if tensor.shape() != shape {
        return Err(refuse(format!("tensor {name:?}: expected shape {shape:?}, got {:?}", tensor.shape())));
    }
    tensor.values().ok_or_else(|| refuse(format!("tensor {name:?}: expected floats, got {:?}", tensor.dtype())))
}
