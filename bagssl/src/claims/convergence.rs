//! Is an image's embedding the mean of its patches' embeddings?

use bagssl_core::bag::Bag;
use bagssl_core::color::Color;
use bagssl_core::embed::FeatureLayer;
use bagssl_eval::Origin;
use bagssl_eval::Table;
use bagssl_eval::analysis::Health;
use bagssl_eval::analysis::{ConvergencePoint, convergence};
use bagssl_eval::report::{Block, LinePlot, Page, TextTable};
use bagssl_eval::{Order, intersect_images};
use serde::{Deserialize, Serialize};

use super::claim::Claim;
use super::subject::Subject;
use crate::error::Result;
use crate::eval_options::EvalOptions;
use crate::evaluation::convergence_counts;
use crate::model::Model;
use crate::splits::Splits;

/// Compares the mean of k patches of a test image, in random order, with the embedding of the whole image and of the largest
/// centered square. The paper finds that they converge for multi-scale training.
///
/// # Source
/// BagSSL, arXiv:2206.08954.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convergence {
    /// Whether images are in color or converted to grayscale.
    pub color: Color,
}

/// How the means of patches converge to the embedding of the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConvergenceReport {
    /// The results of each model.
    pub checkpoints: Vec<ModelConvergence>,
}

/// The results of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConvergence {
    /// The model's name.
    pub name: String,
    /// The preset that the model was trained with.
    pub preset: String,
    /// What the result depends on.
    pub origin: Origin,
    /// How close the mean of 1, 2, 4, .. patches is to the embedding of the whole image.
    pub whole: Vec<ConvergencePoint>,
    /// How close it is to the embedding of the largest square in the middle.
    #[serde(rename = "centre")]
    pub center: Vec<ConvergencePoint>,
    /// The mean cosine between different whole images, as a reference for the other cosines. `None`
    /// if there is only one image.
    #[serde(rename = "between_images")]
    pub cosine_between_images: Option<f64>,
}

impl Default for Convergence {
    /// Images in color.
    fn default() -> Self {
        Convergence { color: Color::Rgb }
    }
}

impl Claim for Convergence {
    type Measurement = ModelConvergence;
    type Report = ConvergenceReport;

    fn layers(&self) -> &'static [FeatureLayer] {
        &[FeatureLayer::Embedding]
    }

    fn measure(&self, model: &Model<'_>, splits: &Splits, options: &EvalOptions<'_>) -> Result<ModelConvergence> {
        let subject = Subject::new(model, splits, options, self.color)?;
        let features = |bag| subject.features(&splits.test, bag, &[FeatureLayer::Embedding]);
        let (mut patches, mut whole, mut center) =
            (features(subject.bag)?, features(Bag::Whole)?, features(Bag::Center)?);
        // An image that is smaller than a patch has no patches, but it does have a whole-image view.
        intersect_images([&mut patches, &mut whole, &mut center])?;
        let counts = convergence_counts(patches[0].patches());
        let order = Order::Random { seed: options.seed };
        let to = |rows: Table| convergence(&patches[0], &rows, &counts, order);
        Ok(ModelConvergence {
            name: model.name.clone(),
            preset: model.spec.provenance.preset.clone(),
            whole: to(whole[0].mean()?)?,
            center: to(center[0].mean()?)?,
            cosine_between_images: Health::new(&whole[0]).cosine_between,
            origin: subject.origin,
        })
    }

    fn report(&self, checkpoints: Vec<ModelConvergence>, _: &EvalOptions<'_>) -> Result<ConvergenceReport> {
        Ok(ConvergenceReport { checkpoints })
    }
}

impl ConvergenceReport {
    /// Renders the report.
    pub fn page(&self) -> Page {
        page(&self.checkpoints)
    }
}

fn page(models: &[ModelConvergence]) -> Page {
    let lead = models.iter().filter_map(|model| {
        let (first, last) = (model.whole.first()?, model.whole.last()?);
        let between = model.cosine_between_images.map(|cosine| format!("; whole images to each other {cosine:.3}"));
        Some(format!(
            "{}: the mean of {} patches has a cosine of {:.3} to the whole image's embedding (one patch {:.3}{}), and a \
             distance of {:.0} % of its length (one patch {:.0} %).",
            model.name,
            last.patches,
            last.cosine,
            first.cosine,
            between.unwrap_or_default(),
            100.0 * last.distance,
            100.0 * first.distance
        ))
    });
    let block = |title: &str, curve: fn(&ModelConvergence) -> &[ConvergencePoint]| {
        let rows = models.iter().flat_map(|model| {
            curve(model).iter().map(|point| {
                let figures = [point.cosine, point.deviation, point.distance].map(|value| format!("{value:.3}"));
                [vec![model.name.clone(), point.patches.to_string()], figures.to_vec()].concat()
            })
        });
        let lines = |value: fn(&ConvergencePoint) -> f64| {
            let points = |model| curve(model).iter().map(|point| (point.patches as f64, value(point), 0.0)).collect();
            models.iter().map(|model| (model.name.clone(), points(model))).collect()
        };
        let plot = |y_label: &str, caption: &str, value| LinePlot {
            title: format!("{title}: {y_label}"),
            caption: caption.into(),
            x_label: "patches averaged".into(),
            y_label: y_label.into(),
            logarithmic: true,
            lines: lines(value),
        };
        Block {
            title: title.into(),
            text: vec![],
            tables: vec![TextTable {
                caption: "Mean over the test images; deviation from image to image; distance over the length of the image's embedding."
                    .into(),
                head: ["checkpoint", "patches", "cosine", "deviation", "distance"].map(String::from).to_vec(),
                rows: rows.collect(),
                text_columns: 1,
            }],
            plots: vec![
                plot("cosine", "Does the curve rise toward 1?", |point| point.cosine),
                plot("relative distance", "Does the curve fall toward 0?", |point| point.distance),
            ],
            ..Block::default()
        }
    };
    let mut blocks = vec![block("Mean of k patches against the whole image", |model| &model.whole)];
    if models.iter().all(|model| model.whole == model.center) {
        blocks[0].text.push("The images are square: the largest square in their middle is the whole image.".into());
    } else {
        blocks.push(block("Mean of k patches against the center crop", |model| &model.center));
    }
    Page {
        title: "Whole image and mean of its patches".into(),
        lead: lead.collect(),
        blocks,
        origins: models.iter().map(|model| format!("{}: {}", model.name, model.origin.line())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(whole: f64, center: f64) -> ModelConvergence {
        let point = |cosine| vec![ConvergencePoint { patches: 4, cosine, deviation: 0.0, distance: 0.5 }];
        ModelConvergence {
            name: "run".into(),
            preset: "bagssl".into(),
            origin: crate::claims::wording::some_origin(),
            whole: point(whole),
            center: point(center),
            cosine_between_images: Some(0.25),
        }
    }

    #[test]
    fn single_image_has_no_comparison() {
        let lead = |cosine_between_images| {
            page(&[ModelConvergence { cosine_between_images, ..measured(0.75, 0.75) }]).lead.remove(0)
        };
        assert!(
            lead(Some(0.25)).contains("(one patch 0.750; whole images to each other 0.250), and a distance of 50 %")
        );
        assert!(lead(None).contains("(one patch 0.750), and a distance of 50 %"), "{}", lead(None));
    }

    #[test]
    fn equal_curves_are_shown_once() {
        let square = page(&[measured(0.75, 0.75)]);
        assert_eq!((square.blocks.len(), square.blocks[0].text.len()), (1, 1));
        let wide = page(&[measured(0.75, 0.75), measured(0.75, 0.5)]);
        assert_eq!((wide.blocks.len(), wide.blocks[0].text.len()), (2, 0));
        assert_eq!(wide.blocks[1].tables[0].rows[1][..3], ["run", "4", "0.500"]);
        assert_eq!(wide.blocks[0].plots[1].lines[0].1, [(4.0, 0.5, 0.0)]);
    }
}
