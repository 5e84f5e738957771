//! Measures the quality of a network's representation, for `eval` and `reproduce`.

use std::collections::BTreeMap;

use anyhow::Result;
use bagssl_core::bag::Bag;
use bagssl_core::color::Color;
use bagssl_core::embed::{Embed, FeatureLayer};
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::Filter;
use bagssl_eval::analysis::convergence::{Closeness, convergence};
use bagssl_eval::analysis::health::Health;
use bagssl_eval::analysis::neighbors::{PatchId, neighbors};
use bagssl_eval::baselines::{Histogram, Pixels};
use bagssl_eval::classify::confusion::Confusion;
use bagssl_eval::features::samples::{Fit, Score};
use bagssl_eval::features::{Features, Order, extract, keep_common};
use bagssl_eval::report::{Space, View};
use bagssl_eval::stats::{Interval, grouped_bootstrap};
use serde::{Deserialize, Serialize};

use crate::eval_settings::{EvalSettings, Input};
use crate::extraction::{Extraction, bags};
use crate::input::source::first_size;
use crate::input::splits::Splits;

/// The kNN and linear accuracy, in percent, of one feature, color and view.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Scored {
    pub(crate) space: Space,
    #[serde(rename = "colour")]
    pub(crate) color: Color,
    pub(crate) view: View,
    pub(crate) patches: usize,
    pub(crate) knn: f64,
    pub(crate) linear: f64,
    /// Details of the kNN and the linear accuracy, in this order.
    #[serde(default)]
    pub(crate) details: Option<[Detail; 2]>,
}

/// Details of an accuracy, in percent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Detail {
    pub(crate) top5: f64,
    /// The 95 % interval of a cluster bootstrap over groups of test images, in percent. `None` if
    /// there is only one group.
    pub(crate) interval: Option<Interval>,
    /// Whether the regression reached its optimum. `None` for classifiers without a fit.
    pub(crate) fit: Option<Fit>,
    /// The confusion matrix.
    pub(crate) confusion: Confusion,
}

impl Detail {
    pub(crate) fn from_score(score: &Score, labels: &[u32], groups: &[u32], seed: u64) -> Result<Self> {
        Ok(Detail {
            top5: score.top5,
            interval: grouped_bootstrap(&score.hits(labels), groups, DRAWS, seed)?,
            fit: score.fit,
            confusion: Confusion::new(&score.predictions, labels)?,
        })
    }
}

/// The number of bootstrap resamples.
pub(crate) const DRAWS: usize = 2000;

/// A test patch, as `[image, patch]`.
pub(crate) type Place = [usize; 2];

/// A patch and its nearest patches, with their similarities.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Near {
    pub(crate) query: Place,
    pub(crate) found: Vec<(Place, f32)>,
}

/// All measurements of one network.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) scores: Vec<Scored>,
    pub(crate) convergence: Vec<Closeness>,
    pub(crate) health: BTreeMap<Space, Health>,
    #[serde(rename = "neighbours")]
    pub(crate) neighbors: BTreeMap<Space, Vec<Near>>,
}

/// Returns the report's space for a feature layer.
pub(crate) fn space(tap: FeatureLayer) -> Space {
    match tap {
        FeatureLayer::Embedding => Space::Embedding,
        FeatureLayer::FirstLayer => Space::FirstLayer,
        FeatureLayer::Projection => Space::Projection,
    }
}

/// Returns the layers to measure of a model with its own projector, the embedding first. The
/// projector's first layer is included only if `about` contains it.
pub(crate) fn taps(about: &[FeatureLayer]) -> Vec<FeatureLayer> {
    let all = [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection];
    all.into_iter().filter(|tap| *tap != FeatureLayer::FirstLayer || about.contains(tap)).collect()
}

/// The number of query patches to show, and the number of neighbors of each.
const SHOWN: (usize, usize) = (10, 9);

/// Returns the patch counts to measure: those of 1, 4 and 16 that are less than `all`, then `all`.
pub(crate) fn counts(all: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = [1, 4, 16].into_iter().filter(|&count| count < all).collect();
    counts.push(all);
    counts
}

/// Returns the powers of two that are less than `all`, then `all`.
pub(crate) fn convergence_counts(all: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = (0..).map(|power| 1 << power).take_while(|&count| count < all).collect();
    counts.push(all);
    counts
}

/// Measures a network at some layers, the embedding first. It embeds [`images_to_embed`] images.
pub(crate) fn measure(extraction: &Extraction<'_>, halves: &Splits, taps: &[FeatureLayer]) -> Result<Measured> {
    let protocol = extraction.protocol;
    let mut measured = Measured::default();
    let (groups, _) = protocol.groups.group_ids(&halves.test)?;
    for color in Color::ALL {
        let features = |bag, dataset| extraction.features(dataset, bag, color, taps);
        let mut patches = [features(protocol.bag, &halves.train)?, features(protocol.bag, &halves.test)?];
        let mut whole = [features(Bag::Whole, &halves.train)?, features(Bag::Whole, &halves.test)?];
        // An image that is smaller than a patch has no patches, but it does have a whole-image
        // view.
        for (patches, whole) in patches.iter_mut().zip(&mut whole) {
            keep_common([patches, whole])?;
        }
        for (index, space) in taps.iter().map(|&tap| space(tap)).enumerate() {
            let (train, test) = (&patches[0][index], &patches[1][index]);
            for count in counts(train.patches().min(test.patches())) {
                measured.scores.push(score(train, test, count, (space, color, View::Patches), (protocol, &groups))?);
            }
            let whole = [&whole[0][index], &whole[1][index]];
            measured.scores.push(score(whole[0], whole[1], 1, (space, color, View::Whole), (protocol, &groups))?);
            if color == Color::Rgb {
                measured.health.insert(space, Health::new(test));
                measured.neighbors.insert(space, nearest(test, SHOWN)?);
            }
        }
        if color == Color::Rgb {
            let (patches, whole) = (&patches[1][0], whole[1][0].mean()?);
            let order = Order::Random { seed: protocol.seed };
            let counts = convergence_counts(patches.patches());
            measured.convergence = convergence(patches, &whole, &counts, order)?;
        }
    }
    Ok(measured)
}

/// Returns the number of images that [`measure`] embeds.
pub(crate) fn images_to_embed(halves: &Splits) -> u64 {
    let views = 2;
    ((halves.train.len() + halves.test.len()) * Color::ALL.len() * views) as u64
}

fn score(
    train: &Features,
    test: &Features,
    count: usize,
    (space, color, view): (Space, Color, View),
    (protocol, groups): (EvalSettings, &[u32]),
) -> Result<Scored> {
    let order = Order::Random { seed: protocol.seed };
    let of_images = test.images();
    let (train, test) = (train.samples(count, order)?, test.samples(count, order)?);
    let groups: Vec<u32> = of_images.iter().map(|&image| groups[image as usize]).collect();
    let [knn, linear] = protocol.how.evaluate(&train, &test, protocol.seed)?;
    let detail = |score: &Score| Detail::from_score(score, test.labels(), &groups, protocol.seed);
    let details = Some([detail(&knn)?, detail(&linear)?]);
    Ok(Scored { space, color, view, patches: count, knn: knn.accuracy, linear: linear.accuracy, details })
}

/// Returns the `found` nearest patches of other images for `shown` query patches: the middle patch
/// of the first image of each class.
pub(crate) fn nearest(features: &Features, (shown, found): (usize, usize)) -> Result<Vec<Near>> {
    let mut seen = std::collections::BTreeSet::new();
    let queries: Vec<PatchId> = features
        .labels()
        .iter()
        .enumerate()
        .filter(|(_, label)| seen.insert(**label))
        .map(|(image, _)| PatchId { image, patch: features.patches() / 2 })
        .take(shown)
        .collect();
    let found = neighbors(features, &queries, found, true)?;
    // Images may have been skipped, so convert positions in the features to positions in the data
    // set.
    let place = |id: PatchId| [features.images()[id.image] as usize, id.patch];
    let near = queries.iter().zip(found).map(|(&query, found)| Near {
        query: place(query),
        found: found.into_iter().map(|near| (place(near.id), near.similarity)).collect(),
    });
    Ok(near.collect())
}

/// Measures the two baselines without a network (pixels and histogram) on whole images.
pub(crate) fn baselines(halves: &Splits, protocol: EvalSettings) -> Result<[Measured; 2]> {
    // Use the size of the images, within limits: raw pixels have 3 * side^2 features.
    let short = first_size(&halves.train)?.short_side();
    let input =
        |most: u32| Input { side: short.clamp(8, most), normalization: Normalization::HALF, filter: Filter::Bilinear };
    let inputs = [input(32), input(64)];
    let mut measured = [Measured::default(), Measured::default()];
    let (groups, _) = protocol.groups.group_ids(&halves.test)?;
    for color in Color::ALL {
        let pixels = Pixels { normalization: Normalization::HALF, color };
        let histogram = Histogram::new(Normalization::HALF, color, Histogram::BINS)?;
        let networks = [&pixels as &dyn Embed, &histogram].into_iter().zip(inputs);
        for ((network, input), measured) in networks.zip(&mut measured) {
            let features = |dataset| -> Result<Features> {
                let loader = bags(input, dataset, Bag::Whole, Color::Rgb, protocol)?;
                Ok(extract(network, loader.batches(), &[FeatureLayer::Embedding], &mut |_| ())?.remove(0))
            };
            let (train, test) = (features(&halves.train)?, features(&halves.test)?);
            measured.scores.push(score(&train, &test, 1, (Space::Input, color, View::Whole), (protocol, &groups))?);
        }
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Images 4 and 7 of a data set, the others skipped, with three patches each. The query is the
    /// middle patch. The nearest patch of the other image is its last one.
    #[test]
    fn neighbors_are_told_by_their_places_in_the_data_set() {
        let angles = [90f32, 10.0, 120.0, 60.0, 45.0, 20.0];
        let values = angles.iter().flat_map(|angle| [angle.to_radians().cos(), angle.to_radians().sin()]).collect();
        let rows = bagssl_core::embed::Rows { values, dim: 2 };
        let features = Features::new(FeatureLayer::Embedding, rows, 3, vec![4, 7], vec![1, 0]).unwrap();
        let near = nearest(&features, (1, 2)).unwrap();
        assert_eq!(near.len(), 1);
        assert_eq!(near[0].query, [4, 1]);
        assert_eq!(near[0].found.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [[7, 2], [7, 1]]);
        assert_eq!(nearest(&features, (5, 1)).unwrap()[1].query, [7, 1]);
    }

    #[test]
    fn the_first_layer_is_measured_where_something_is_about_it() {
        assert_eq!(
            taps(&[FeatureLayer::Embedding, FeatureLayer::Embedding]),
            [FeatureLayer::Embedding, FeatureLayer::Projection]
        );
        assert_eq!(
            taps(&[FeatureLayer::Embedding, FeatureLayer::FirstLayer]),
            [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection]
        );
        assert_eq!(space(FeatureLayer::FirstLayer).name(), FeatureLayer::FirstLayer.name());
    }

    #[test]
    fn counts_end_with_all() {
        assert_eq!(counts(25), [1, 4, 16, 25]);
        assert_eq!(counts(16), [1, 4, 16]);
        assert_eq!(counts(1), [1]);
        assert_eq!(convergence_counts(25), [1, 2, 4, 8, 16, 25]);
    }
}
