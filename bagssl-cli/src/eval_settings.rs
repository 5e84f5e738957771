//! Evaluation settings, and the network's input format.

use bagssl_core::bag::Bag;
use bagssl_core::checkpoint::Spec;
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::Filter;
use bagssl_data::OnBadImage;
use bagssl_eval::classify::protocol::Protocol;

use crate::input::groups::Groups;

/// The settings of an evaluation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EvalSettings {
    /// The patches that represent an image.
    pub(crate) bag: Bag,
    /// The classification protocol.
    pub(crate) how: Protocol,
    /// The groups of images that the bootstrap resamples.
    pub(crate) groups: Groups,
    /// The seed of the order in which patches are averaged.
    pub(crate) seed: u64,
    /// The handling of unusable images.
    pub(crate) on_bad_image: OnBadImage,
    /// Number of threads that load images and cut patches.
    pub(crate) threads: usize,
}

/// The input format of a network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input {
    pub(crate) side: u32,
    pub(crate) normalization: Normalization,
    pub(crate) filter: Filter,
}

impl Input {
    pub(crate) fn from_spec(spec: &Spec) -> Self {
        Input { side: spec.patch.input(), normalization: spec.normalization, filter: spec.filter }
    }
}
