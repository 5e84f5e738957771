//! What all claims about models share.

use bagssl_core::embed::FeatureLayer;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::eval_options::EvalOptions;
use crate::model::Model;
use crate::splits::Splits;

/// A claim about models, with its own settings.
pub trait Claim {
    /// What is measured of one model.
    type Measurement;
    /// The results for all models.
    type Report: Serialize + DeserializeOwned;

    /// Returns the layers that are measured. A model without its own projector needs only the embedding.
    fn layers(&self) -> &'static [FeatureLayer];

    /// Measures one model. The models of a report need not be in memory at the same time.
    ///
    /// # Errors
    /// [`Error::NoGrid`](crate::Error::NoGrid) if the claim needs a grid of patches and `options` ask for others;
    /// the errors of [`evaluate`](crate::evaluate).
    fn measure(&self, model: &Model<'_>, splits: &Splits, options: &EvalOptions<'_>) -> Result<Self::Measurement>;

    /// Joins the measurements of all models, which were made with the same splits and options.
    ///
    /// # Errors
    /// Those of the claim.
    fn report(&self, measurements: Vec<Self::Measurement>, options: &EvalOptions<'_>) -> Result<Self::Report>;

    /// Measures all models and joins the measurements.
    ///
    /// # Errors
    /// Those of [`Claim::measure`] and [`Claim::report`].
    fn check(&self, models: &[Model<'_>], splits: &Splits, options: &EvalOptions<'_>) -> Result<Self::Report> {
        let measurements = models.iter().map(|model| self.measure(model, splits, options)).collect::<Result<_>>()?;
        self.report(measurements, options)
    }
}

/// All layers of a model.
pub(super) const ALL_LAYERS: [FeatureLayer; 3] =
    [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection];
