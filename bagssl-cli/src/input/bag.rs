//! Command-line arguments for the choice of patches.

use anyhow::Result;
use bagssl::Patches;
use bagssl_core::bag::Bag;
use bagssl_core::patch::{PatchSide, PatchSpec};
use bagssl_data::Dataset;

use crate::embedding::by_flag;

/// The choice of patches per image.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct BagArgs {
    /// Embed N patches at random places of each image, instead of a grid
    #[arg(long, value_name = "N", conflicts_with = "stride")]
    random: Option<u32>,
    /// Embed all patches of a grid with this stride [default: a quarter of the patch's side]
    #[arg(long, value_name = "PIXELS")]
    stride: Option<u32>,
}

impl BagArgs {
    /// Returns the arguments for a grid. `None` is the default stride.
    pub(crate) fn with_stride(stride: Option<u32>) -> Self {
        BagArgs { random: None, stride }
    }

    /// Returns the arguments that ask for a random bag or a grid, and the default for other bags.
    pub(crate) fn like(bag: Bag) -> Self {
        match bag {
            Bag::Random { patches, .. } => BagArgs { random: Some(patches), stride: None },
            Bag::Grid { stride, .. } => BagArgs { random: None, stride: Some(stride) },
            Bag::Whole | Bag::Center => BagArgs::default(),
        }
    }

    /// Returns whether no argument was given.
    pub(crate) fn is_unset(&self) -> bool {
        self.random.is_none() && self.stride.is_none()
    }

    /// Returns the patches that the arguments ask for.
    pub(crate) fn patches(&self) -> Result<Patches> {
        let patches = match (self.random, self.stride) {
            (Some(count), _) => Patches::Random(count),
            (None, stride) => Patches::Grid { stride },
        };
        patches.check().map_err(by_flag)?;
        Ok(patches)
    }

    /// Returns the bag for patches of this size. The default stride is computed from the size of
    /// the first image.
    pub(crate) fn of(&self, spec: &PatchSpec, dataset: &Dataset) -> Result<Bag> {
        self.patches()?.bag_for(spec, dataset).map_err(by_flag)
    }
}

/// Describes a bag in words.
pub(crate) fn describe(bag: Bag) -> String {
    match bag {
        Bag::Random { spec, patches } => format!("{patches} random patches: {}", describe_patches(spec)),
        Bag::Grid { spec, stride } => format!("all patches of a grid with stride {stride}: {}", describe_patches(spec)),
        Bag::Whole => "the whole image".into(),
        Bag::Center => "the largest square in the middle".into(),
    }
}

/// Describes patches of a fixed scale in words.
pub(crate) fn describe_patches(spec: PatchSpec) -> String {
    let side = match spec.side() {
        PatchSide::Pixels(side) => format!("{side}x{side} pixels"),
        PatchSide::AreaShare(share) => {
            format!("{} % of the area of an image's center square", (f64::from(share) * 1e4).round() / 1e2)
        }
    };
    format!("{side}, resampled to {0}x{0}", spec.input())
}
