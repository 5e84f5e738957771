//! A network with what describes it.

use std::fmt;

use bagssl_core::checkpoint::{Checkpoint, Spec};
use bagssl_core::embed::{Embed, FeatureLayer};
use bagssl_eval::{Origin, Protocol, fnv1a};

use crate::splits::Splits;

/// A network with what describes it, to be evaluated. It may run on any backend.
#[derive(Clone)]
pub struct Model<'a> {
    /// The name in reports. Within a report, each model has another name.
    pub name: String,
    /// The network. It must be able to read each layer that is evaluated.
    pub network: &'a dyn Embed,
    /// What the checkpoint says of itself: its plan, and how images are cut and normalized for it.
    pub spec: &'a Spec,
    /// Whether the projector is the model's own. If not, only the embedding is evaluated, as [`claims::NO_PROJECTOR`] says.
    ///
    /// [`claims::NO_PROJECTOR`]: crate::claims::NO_PROJECTOR
    pub has_projector: bool,
    /// The hash of the checkpoint's bytes ([`fnv1a`]). It names the weights in [`Origin`].
    pub checkpoint_hash: String,
    /// The name of the weights and of the backend that computes with them, in the feature cache. Features of one name are taken
    /// to be equal.
    pub cache_name: String,
}

impl<'a> Model<'a> {
    /// Describes a checkpoint, whose file has these bytes, on a backend. The backend's name also says how it computes, if that
    /// changes the features.
    pub fn new(
        name: impl Into<String>,
        checkpoint: &'a Checkpoint<'_>,
        bytes: &[u8],
        network: &'a dyn Embed,
        backend: &str,
    ) -> Self {
        let checkpoint_hash = fnv1a(bytes);
        Model {
            name: name.into(),
            network,
            spec: checkpoint.spec(),
            has_projector: checkpoint.has_projector(),
            cache_name: format!("checkpoint {checkpoint_hash}, backend {backend}"),
            checkpoint_hash,
        }
    }

    /// Returns those of the layers that are meaningful for this model. Without its own projector, this is only the embedding.
    pub fn layers(&self, layers: &[FeatureLayer]) -> Vec<FeatureLayer> {
        let is_own = |layer: &FeatureLayer| self.has_projector || *layer == FeatureLayer::Embedding;
        layers.iter().copied().filter(is_own).collect()
    }

    /// Returns the layers to evaluate: the embedding and, if the projector is the model's own, the projection. The projector's
    /// first layer is included only if the checkpoint or the protocol names it.
    pub fn evaluated_layers(&self, protocol: &Protocol) -> Vec<FeatureLayer> {
        self.layers(&evaluated_layers(self.spec.layer, protocol))
    }

    /// Returns what a result for this model depends on. Reads all images, the first time.
    pub fn origin(&self, protocol: &Protocol, splits: &Splits, seed: u64) -> Origin {
        Origin {
            protocol: protocol.name.into(),
            protocol_hash: protocol.hash(),
            checkpoint_hash: self.checkpoint_hash.clone(),
            data: [splits.train.fingerprint(), splits.test.fingerprint()],
            seed,
        }
    }
}

/// Returns the layers to evaluate of a model with its own projector, whose checkpoint names the layer `own`: see
/// [`Model::evaluated_layers`]. The embedding comes first.
pub fn evaluated_layers(own: FeatureLayer, protocol: &Protocol) -> Vec<FeatureLayer> {
    let all = [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection];
    all.into_iter()
        .filter(|layer| *layer != FeatureLayer::FirstLayer || [own, protocol.layer].contains(layer))
        .collect()
}

impl fmt::Debug for Model<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Model")
            .field("name", &self.name)
            .field("has_projector", &self.has_projector)
            .field("checkpoint_hash", &self.checkpoint_hash)
            .field("cache_name", &self.cache_name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_layer_is_evaluated_where_something_names_it() {
        let layers = |own, protocol| evaluated_layers(own, &Protocol::preset(protocol).unwrap());
        let all = [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection];
        assert_eq!(layers(FeatureLayer::Embedding, "bagssl"), [FeatureLayer::Embedding, FeatureLayer::Projection]);
        assert_eq!(layers(FeatureLayer::FirstLayer, "bagssl"), all);
        assert_eq!(layers(FeatureLayer::Embedding, "emp-ssl"), all);
    }
}
