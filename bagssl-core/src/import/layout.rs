//! The tensor names of other programs, and their translation to torchvision's names.

use std::prelude::v1::*;

use super::foreign::Foreign;
use crate::embed::FeatureLayer;
use crate::error::{Error, Result};
use crate::normalize::Normalization;

/// The program that wrote the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `conv1.weight`, `layer1.0.conv1.weight`, ..: torchvision's models, and VICReg's published
    /// encoders.
    Torchvision,
    /// `module.backbone.*`, `module.projector.*`: VICReg's training checkpoints.
    Vicreg,
    /// `backbone.*` (`encoder.*` in older files), `projector.*` within `state_dict`.
    SoloLearn,
    /// `backbone.*`, or `backbone.0.*` for a `Sequential` of torchvision's layers;
    /// `projection_head.layers.*`.
    Lightly,
    /// `module.backbone.*`, `module.pre_feature.*`, `module.projection.*`.
    EmpSsl,
}

/// The prefix of `torch.compile`, which may occur at any level of a name.
const COMPILED: &str = "_orig_mod.";

/// Strips the prefixes of wrappers: `torch.compile`, and `module.` of parallel and averaged models.
fn bare(name: &str) -> String {
    let name = name.replace(COMPILED, "");
    name.trim_start_matches("module.").into()
}

/// The role of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A tensor of the encoder, with torchvision's name.
    Encoder(String),
    /// A tensor of the projector: its section, its module there, and its name.
    Projector(usize, usize, String),
    /// Known to be irrelevant, such as a classifier.
    Other,
}

impl Layout {
    /// All layouts.
    pub const ALL: [Self; 5] = [Self::Torchvision, Self::Vicreg, Self::SoloLearn, Self::Lightly, Self::EmpSsl];

    /// Returns the name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Torchvision => "torchvision",
            Layout::Vicreg => "vicreg",
            Layout::SoloLearn => "solo-learn",
            Layout::Lightly => "lightly",
            Layout::EmpSsl => "emp-ssl",
        }
    }

    /// Detects the layout from a file's tensor names.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the names match no layout.
    pub fn detect(foreign: &Foreign<'_>) -> Result<Self> {
        let has = |prefix: &str| foreign.names().any(|name| bare(name).starts_with(prefix));
        let parallel = || foreign.names().any(|name| name.replace(COMPILED, "").starts_with("module.backbone."));
        Ok(match () {
            () if has("pre_feature.") => Layout::EmpSsl,
            () if has("projection_head.") || has("backbone.0.") => Layout::Lightly,
            () if parallel() => Layout::Vicreg,
            () if has("backbone.") || has("encoder.conv1.") => Layout::SoloLearn,
            () if has("conv1.") => Layout::Torchvision,
            () => {
                let first: Vec<&str> = foreign.names().take(3).collect();
                return Err(Error::Checkpoint(format!(
                    "import: expected tensor names of torchvision, vicreg, solo-learn, lightly or emp-ssl, got \
                     {first:?}"
                )));
            }
        })
    }

    /// Returns the normalization that the program uses by default.
    pub(crate) fn normalization(self) -> Normalization {
        match self {
            Layout::EmpSsl => Normalization::HALF,
            _ => Normalization::IMAGENET,
        }
    }

    /// Returns the feature that the program evaluates.
    pub(crate) fn layer(self) -> FeatureLayer {
        if self == Layout::EmpSsl { FeatureLayer::FirstLayer } else { FeatureLayer::Embedding }
    }

    /// The name prefixes of the projector's sections, in execution order.
    fn projector(self) -> &'static [&'static str] {
        match self {
            Layout::Torchvision => &[],
            Layout::Vicreg | Layout::SoloLearn => &["projector."],
            Layout::Lightly => &["projection_head.layers."],
            Layout::EmpSsl => &["pre_feature.", "projection."],
        }
    }

    /// Returns the role of a tensor name.
    pub(super) fn part(self, name: &str) -> Part {
        let name = &*bare(name);
        for (stretch, prefix) in self.projector().iter().enumerate() {
            let split = name.strip_prefix(prefix).and_then(|rest| rest.split_once('.'));
            if let Some((module, tensor)) = split
                && let Ok(module) = module.parse::<u16>()
            {
                return Part::Projector(stretch, module.into(), tensor.into());
            }
        }
        let inner = match self {
            Layout::Torchvision => Some(name),
            Layout::SoloLearn => name.strip_prefix("backbone.").or_else(|| name.strip_prefix("encoder.")),
            _ => name.strip_prefix("backbone."),
        };
        match inner {
            Some(inner) if !inner.starts_with("fc.") => Part::Encoder(self.numbered(inner)),
            _ => Part::Other,
        }
    }

    /// Maps the numbers of a `Sequential` of torchvision's children to their names: `0`, `1` and
    /// `4` to `7` are `conv1`, `bn1` and `layer1` to `layer4`.
    fn numbered(self, name: &str) -> String {
        let names = [("0.", "conv1."), ("1.", "bn1."), ("4.", "layer1."), ("5.", "layer2."), ("6.", "layer3.")];
        let mut names = names.into_iter().chain([("7.", "layer4.")]);
        let found = names.find_map(|(number, known)| Some((known, name.strip_prefix(number)?)));
        match found {
            Some((known, rest)) if self == Layout::Lightly => format!("{known}{rest}"),
            _ => name.into(),
        }
    }
}

impl core::str::FromStr for Layout {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| Error::Setting {
            name: "layout",
            expected: "one of torchvision, vicreg, solo-learn, lightly and emp-ssl",
            got: format!("{name:?}"),
        })
    }
}
