//! How a network is evaluated, and what an evaluation says while it runs.

use std::fmt;
use std::path::Path;

use bagssl_core::bag::Bag;
use bagssl_core::patch::PatchSpec;
use bagssl_data::{Dataset, OnBadImage, Skipped};
use bagssl_eval::Protocol;

use crate::embed::Patches;
use crate::error::Result;
use crate::groups::Groups;

/// How a network is evaluated.
#[derive(Clone, Copy, Default)]
pub struct EvalOptions<'a> {
    /// The patches that represent an image. If `None`, these are as many random patches as the protocol says, or all patches of
    /// a grid with the default stride if it says nothing.
    pub patches: Option<Patches>,
    /// The classifiers and their settings.
    pub protocol: Protocol,
    /// The groups of images that the bootstrap of a confidence interval draws as a unit.
    pub groups: Groups,
    /// The seed of random patches, patch orders, held-out samples and bootstrap draws.
    pub seed: u64,
    /// What to do with images that cannot be read, decoded or cut.
    pub on_bad_image: OnBadImage,
    /// Threads that decode and cut images; one per core if 0.
    pub threads: usize,
    /// A folder in which features are cached. Later calls reuse the features of the same network and images, and interrupted
    /// calls resume. If `None`, features are in memory, which they must fit into.
    pub feature_cache: Option<&'a Path>,
    /// Called with the progress, and with what the reader of the results should know.
    pub on_event: Option<&'a (dyn Fn(Event<'_>) + Sync)>,
}

/// What an evaluation says while it runs.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// So many more images will be embedded, in all views and colors.
    Planned(u64),
    /// So many more images have been embedded, or read from the feature cache.
    Embedded(u64),
    /// These images of a data set were skipped.
    Skipped(&'a [Skipped]),
    /// So many images were skipped by an earlier call, whose features come from the cache. That call has named them.
    SkippedBefore(usize),
    /// The feature cache has features of other images from the same place.
    ImagesChanged {
        /// Where the images lie.
        location: &'a str,
        /// Whether the features of these images are in the cache, too.
        is_cached: bool,
    },
    /// Another process is extracting the same features. This call waits for it.
    Waiting {
        /// The folder of the features.
        folder: &'a Path,
    },
}

impl EvalOptions<'_> {
    /// Returns the bag of patches that represents an image of a data set. The default stride may depend on the size of the first
    /// image.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if a number of patches or a stride is out of range. The errors of
    /// [`Patches::bag_for`].
    pub fn bag(&self, spec: &PatchSpec, dataset: &Dataset) -> Result<Bag> {
        let of_protocol = || self.protocol.patches.map(Patches::Random);
        self.patches.or_else(of_protocol).unwrap_or_default().bag_for(spec, dataset)
    }

    pub(crate) fn report(&self, event: Event<'_>) {
        if let Some(on_event) = self.on_event {
            on_event(event);
        }
    }
}

impl fmt::Debug for EvalOptions<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("EvalOptions")
            .field("patches", &self.patches)
            .field("protocol", &self.protocol)
            .field("groups", &self.groups)
            .field("seed", &self.seed)
            .field("on_bad_image", &self.on_bad_image)
            .field("threads", &self.threads)
            .field("feature_cache", &self.feature_cache)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::patch::PatchSide;
    use bagssl_data::Split;

    #[test]
    fn patches_default_to_the_protocol() {
        let dataset = Dataset::embedded(Split::Validation).unwrap();
        let bag = |side, patches, protocol| {
            let protocol = Protocol::preset(protocol).unwrap();
            let spec = PatchSpec::new(side, 16).unwrap();
            (spec, EvalOptions { patches, protocol, ..EvalOptions::default() }.bag(&spec, &dataset).unwrap())
        };
        // A quarter of the area of tiles of 64 pixels has a side of 32.
        let (spec, found) = bag(PatchSide::AreaShare(0.25), None, "bagssl");
        assert_eq!(found, Bag::Grid { spec, stride: 8 });
        let (spec, found) = bag(PatchSide::Pixels(20), None, "bagssl");
        assert_eq!(found, Bag::Grid { spec, stride: 5 });
        let (spec, found) = bag(PatchSide::Pixels(20), None, "emp-ssl");
        assert_eq!(found, Bag::Random { spec, patches: 128 });
        let (spec, found) = bag(PatchSide::Pixels(20), Some(Patches::Grid { stride: Some(3) }), "emp-ssl");
        assert_eq!(found, Bag::Grid { spec, stride: 3 });
    }
}
