//! A model that a claim measures, with the data and the settings.

use std::sync::Arc;

use bagssl_core::bag::Bag;
use bagssl_core::color::Color;
use bagssl_core::embed::FeatureLayer;
use bagssl_data::Dataset;
use bagssl_eval::Features;
use bagssl_eval::Origin;

use crate::error::Result;
use crate::eval_options::{EvalOptions, Event};
use crate::feature_extraction::extract_features;
use crate::model::Model;
use crate::splits::Splits;

/// A model that a claim measures.
pub(super) struct Subject<'a> {
    pub(super) model: &'a Model<'a>,
    pub(super) splits: &'a Splits,
    pub(super) options: &'a EvalOptions<'a>,
    pub(super) color: Color,
    /// The patches that represent an image.
    pub(super) bag: Bag,
    pub(super) origin: Origin,
}

impl<'a> Subject<'a> {
    pub(super) fn new(
        model: &'a Model<'a>,
        splits: &'a Splits,
        options: &'a EvalOptions<'a>,
        color: Color,
    ) -> Result<Self> {
        let bag = options.bag(&model.spec.patch, &splits.test)?;
        let origin = model.origin(&options.protocol, splits, options.seed);
        Ok(Subject { model, splits, options, color, bag, origin })
    }

    /// Returns the features of each image's bag in one split, for each layer.
    pub(super) fn features(&self, dataset: &Arc<Dataset>, bag: Bag, layers: &[FeatureLayer]) -> Result<Vec<Features>> {
        self.options.report(Event::Planned(dataset.len() as u64));
        extract_features(self.model, dataset, bag, self.color, layers, self.options)
    }

    /// Returns the features of both splits, training first.
    pub(super) fn train_and_test(&self, bag: Bag, layers: &[FeatureLayer]) -> Result<[Vec<Features>; 2]> {
        Ok([self.features(&self.splits.train, bag, layers)?, self.features(&self.splits.test, bag, layers)?])
    }

    /// Returns the groups of the test images in `features`.
    pub(super) fn groups(&self, features: &Features) -> Result<Vec<u32>> {
        let (groups, _) = self.options.groups.group_ids(&self.splits.test)?;
        Ok(features.images().iter().map(|&image| groups[image as usize]).collect())
    }
}
