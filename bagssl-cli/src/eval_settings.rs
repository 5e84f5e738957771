//! What is measured of a network, and what it has to know of images for that.

use bagssl_core::bag::Bag;
use bagssl_core::checkpoint::Spec;
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::Filter;
use bagssl_data::OnBadImage;
use bagssl_eval::classify::protocol::Protocol;

use crate::input::groups::Groups;

/// What is measured, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EvalSettings {
    /// Which patches stand for an image.
    pub(crate) bag: Bag,
    /// How images are classified.
    pub(crate) how: Protocol,
    /// Which images an interval draws together.
    pub(crate) groups: Groups,
    /// The seed of the order in which patches are taken.
    pub(crate) seed: u64,
    /// What becomes of images that cannot be used.
    pub(crate) on_bad_image: OnBadImage,
    /// Threads that cut patches.
    pub(crate) threads: usize,
}

/// What a network needs to know of images.
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
