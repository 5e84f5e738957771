//! Named recipes. Each is a TOML text with the sections of a complete run: those of
//! [`TrainConfig`], and an `[augment]` section for the image loader.
//!
//! All but one are this project's own recipes, not the paper's tables (which are not published in
//! full). They share network, batch and schedule and differ in the loss or the crops, so that they
//! can be compared. `emp-ssl-cifar` follows the published code of EMP-SSL (arXiv:2304.03977).

use crate::config::TrainConfig;

/// A named recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// The name.
    pub name: &'static str,
    /// A one-line description.
    pub about: &'static str,
    /// The settings, as TOML.
    pub toml: &'static str,
}

impl Preset {
    /// Returns the settings of training: all sections but `[augment]`.
    ///
    /// # Panics
    /// Not for the recipes in [`PRESETS`].
    pub fn config(&self) -> TrainConfig {
        let mut table: toml::Table = self.toml.parse().expect("a recipe is TOML");
        table.remove("augment");
        table.try_into().expect("a recipe has all settings")
    }
}

/// All recipes; the first is the default.
pub const PRESETS: [Preset; 7] = [
    Preset {
        name: "bagssl",
        about: "patches of one fixed scale, coding rate (TCR) with cosine invariance; small network, for a CPU",
        toml: include_str!("../presets/bagssl.toml"),
    },
    Preset {
        name: "bagssl-vicreg",
        about: "as bagssl, with VICReg's loss between all pairs of patches",
        toml: include_str!("../presets/bagssl-vicreg.toml"),
    },
    Preset {
        name: "bagssl-spectral",
        about: "as bagssl, with the spectral contrastive loss between patches",
        toml: include_str!("../presets/bagssl-spectral.toml"),
    },
    Preset {
        name: "multi-scale",
        about: "the baseline: as bagssl, on crops of 8 to 100 % of the image",
        toml: include_str!("../presets/multi-scale.toml"),
    },
    Preset {
        name: "vicreg",
        about: "a baseline: VICReg's loss on crops of 8 to 100 % of the image",
        toml: include_str!("../presets/vicreg.toml"),
    },
    Preset {
        name: "simclr",
        about: "a baseline: SimCLR's loss (NT-Xent) on crops of 8 to 100 % of the image",
        toml: include_str!("../presets/simclr.toml"),
    },
    Preset {
        name: "emp-ssl-cifar",
        about: "EMP-SSL's recipe for CIFAR: ResNet-18, 20 patches, LARS; for a GPU",
        toml: include_str!("../presets/emp-ssl-cifar.toml"),
    },
];

/// Returns the names of all recipes, separated by commas.
pub fn names() -> String {
    PRESETS.map(|preset| preset.name).join(", ")
}

/// Returns a recipe by name.
pub fn preset(name: &str) -> Option<Preset> {
    PRESETS.into_iter().find(|preset| preset.name == name)
}
