//! Does the embedding retain more of a patch's position than the projection?

use std::collections::BTreeMap;

use bagssl_core::bag::Bag;
use bagssl_core::color::Color;
use bagssl_core::embed::FeatureLayer;
use bagssl_data::common_grid;
use bagssl_eval::Origin;
use bagssl_eval::analysis::{GridLayout, Locality as LayerLocality, locality};
use bagssl_eval::report::{Block, Page, PatchSheet, TextTable};
use serde::{Deserialize, Serialize};

use super::claim::{ALL_LAYERS, Claim};
use super::subject::Subject;
use super::wording::NO_PROJECTOR;
use crate::error::{Error, Result};
use crate::eval_options::EvalOptions;
use crate::evaluation::{NearestPatches, nearest};
use crate::model::Model;
use crate::splits::Splits;
use crate::thumbnails::Thumbnails;

/// Measures how often the nearest patch of the same image is adjacent, and how well a linear regression, fitted on training
/// images, predicts a patch's row and column in test images.
///
/// All images must share one grid of patches. Adjacent patches share pixels if the stride is less than their side.
///
/// # Source
/// BagSSL, arXiv:2206.08954.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locality {
    /// Whether images are in color or converted to grayscale.
    pub color: Color,
}

/// How local the patch embeddings are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalityReport {
    /// The results of each model.
    pub checkpoints: Vec<ModelLocality>,
}

/// The results of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelLocality {
    /// The model's name.
    pub name: String,
    /// The preset that the model was trained with.
    pub preset: String,
    /// What the result depends on.
    pub origin: Origin,
    /// The rows and columns of the grid of patches.
    pub grid: [usize; 2],
    /// The locality of each layer.
    #[serde(rename = "spaces")]
    pub layers: BTreeMap<FeatureLayer, LayerLocality>,
    /// The patches of an image.
    pub bag: Bag,
    /// The nearest patches of other test images for some patches, for each layer.
    #[serde(rename = "neighbours")]
    pub neighbors: BTreeMap<FeatureLayer, Vec<NearestPatches>>,
}

/// If a regression explains less than this percentage of the variance, it counts as no prediction.
const LEAST: f64 = 2.0;
/// The number of query patches to show, and the number of neighbors of each.
const SHOWN: (usize, usize) = (6, 9);

impl Default for Locality {
    /// Images in color.
    fn default() -> Self {
        Locality { color: Color::Rgb }
    }
}

impl Claim for Locality {
    type Measurement = ModelLocality;
    type Report = LocalityReport;

    fn layers(&self) -> &'static [FeatureLayer] {
        &ALL_LAYERS
    }

    fn measure(&self, model: &Model<'_>, splits: &Splits, options: &EvalOptions<'_>) -> Result<ModelLocality> {
        let subject = Subject::new(model, splits, options, self.color)?;
        let Bag::Grid { spec, stride } = subject.bag else { return Err(Error::NoGrid) };
        let grid = common_grid(&[&splits.test, &splits.train], spec, stride, options.on_bad_image)?;
        let layout = GridLayout { rows: grid.rows() as usize, columns: grid.columns() as usize };
        let layers = model.layers(self.layers());
        let [train, test] = subject.train_and_test(subject.bag, &layers)?;
        let place = |index: usize| Ok((layers[index], locality(&train[index], &test[index], layout)?));
        let near = |index: usize| Ok((layers[index], nearest(&test[index], SHOWN)?));
        Ok(ModelLocality {
            name: model.name.clone(),
            preset: model.spec.provenance.preset.clone(),
            grid: [layout.rows, layout.columns],
            layers: (0..layers.len()).map(place).collect::<Result<_>>()?,
            bag: subject.bag,
            neighbors: (0..layers.len()).map(near).collect::<Result<_>>()?,
            origin: subject.origin,
        })
    }

    fn report(&self, checkpoints: Vec<ModelLocality>, _: &EvalOptions<'_>) -> Result<LocalityReport> {
        Ok(LocalityReport { checkpoints })
    }
}

impl LocalityReport {
    /// Renders the report, which was made with these test images and settings, with pictures of patches and their nearest
    /// neighbors.
    ///
    /// # Errors
    /// [`Error::Data`] if an image can no longer be read.
    pub fn page(&self, splits: &Splits, color: Color, seed: u64) -> Result<Page> {
        let sheets = |model: &ModelLocality| -> Result<Vec<PatchSheet>> {
            model.sheets(&Thumbnails::new(splits.test.clone(), model.bag, seed, color)?)
        };
        let sheets = self.checkpoints.iter().map(sheets).collect::<Result<Vec<_>>>()?.concat();
        Ok(page(&self.checkpoints, sheets))
    }
}

impl ModelLocality {
    /// Returns one sheet of patches per layer.
    fn sheets(&self, thumbnails: &Thumbnails) -> Result<Vec<PatchSheet>> {
        let sheet = |(layer, near): (&FeatureLayer, &Vec<NearestPatches>)| {
            let rows = near.iter().map(|near| thumbnails.row(near)).collect::<Result<_>>()?;
            Ok(PatchSheet { title: format!("{}, {}", self.name, layer_title(*layer)), rows })
        };
        self.neighbors.iter().map(sheet).collect()
    }
}

/// Summarizes the results of a model.
fn sentence(model: &ModelLocality) -> String {
    let locality = |layer| model.layers.get(&layer);
    let Some(embedding) = locality(FeatureLayer::Embedding) else { return format!("{}: no embedding.", model.name) };
    let Some(projection) = locality(FeatureLayer::Projection) else {
        return format!(
            "{}: the patch nearest in the embedding is adjacent in {:.1} % (by chance {:.1} %); {NO_PROJECTOR}.",
            model.name, embedding.adjacent, embedding.adjacent_by_chance
        );
    };
    let place = |it: &LayerLocality| 50.0 * (it.row + it.column);
    let (near, far) = (place(embedding), place(projection));
    let places = match near > far {
        _ if near.max(far) < LEAST => {
            "neither embedding nor projection tells by a linear regression where in its image a patch lies".into()
        }
        true => format!(
            "the embedding tells more of a patch's place than the projection ({near:.0} % of its variance against {far:.0} %)"
        ),
        false => format!(
            "the embedding tells no more of a patch's place than the projection ({near:.0} % of its variance against {far:.0} %)"
        ),
    };
    let often = if embedding.adjacent > projection.adjacent { "more" } else { "not more" };
    format!(
        "{}: {places}; the patch nearest in the embedding is {often} often adjacent than that nearest in the projection ({:.1} % against {:.1} %, by chance {:.1} %).",
        model.name, embedding.adjacent, projection.adjacent, embedding.adjacent_by_chance
    )
}

/// Returns a layer's name for titles.
fn layer_title(layer: FeatureLayer) -> &'static str {
    if layer == FeatureLayer::FirstLayer { "first layer of the projector" } else { layer.name() }
}

fn page(models: &[ModelLocality], sheets: Vec<PatchSheet>) -> Page {
    let rows = models.iter().flat_map(|model| {
        model.layers.iter().map(|(layer, &LayerLocality { adjacent, adjacent_by_chance, row, column })| {
            let words =
                [model.name.clone(), layer.name().into(), format!("{}\u{a0}x\u{a0}{}", model.grid[0], model.grid[1])];
            let percent = [adjacent, adjacent_by_chance].map(|value| format!("{value:.1}"));
            [words.to_vec(), percent.to_vec(), [row, column].map(|value| format!("{value:.3}")).to_vec()].concat()
        })
    });
    let places = Block {
        title: "Where a patch lies".into(),
        tables: vec![TextTable {
            caption: "Adjacent: how often the patch of the same test image that is nearest by cosine is one of the up to eight \
                      around it. Row, column: the share of the variance of a patch's place that a linear regression explains \
                      on test images, fitted on training images; 1 is perfect, 0 no better than the mean."
                .into(),
            head: ["checkpoint", "feature", "grid", "adjacent %", "by chance %", "row", "column"]
                .map(String::from)
                .to_vec(),
            rows: rows.collect(),
            text_columns: 3,
        }],
        ..Block::default()
    };
    let near = Block {
        title: "What lies near a patch".into(),
        text: vec![
            "A test patch, framed, and the nearest patches of other test images, with class and cosine; a filled mark says that \
             the class is the same. What keeps locality finds patches that look alike, with the same edge in the same place."
                .into(),
        ],
        sheets,
        ..Block::default()
    };
    let blocks = if near.sheets.is_empty() { vec![places] } else { vec![places, near] };
    Page {
        title: "Locality of patch embeddings".into(),
        lead: models.iter().map(sentence).collect(),
        blocks,
        origins: models.iter().map(|model| format!("{}: {}", model.name, model.origin.line())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grid of 3 rows and 4 columns. The embedding predicts the row, the projection does not.
    fn measured(layers: &[(FeatureLayer, f64)]) -> ModelLocality {
        let origin = crate::claims::wording::some_origin();
        let of = |&(layer, row)| {
            (layer, LayerLocality { adjacent: 70.0 + row, adjacent_by_chance: 44.0, row, column: 0.25 })
        };
        ModelLocality {
            name: "run".into(),
            preset: "bagssl".into(),
            origin,
            grid: [3, 4],
            layers: layers.iter().map(of).collect(),
            bag: Bag::Whole,
            neighbors: BTreeMap::new(),
        }
    }

    #[test]
    fn the_answer_and_its_rows() {
        let page = page(&[measured(&[(FeatureLayer::Embedding, 0.75), (FeatureLayer::Projection, 0.0)])], vec![]);
        assert!(page.lead[0].contains("the embedding tells more"), "{}", page.lead[0]);
        assert!(page.lead[0].contains("50 % of its variance against 12 %"), "{}", page.lead[0]);
        let rows = &page.blocks[0].tables[0].rows;
        assert_eq!(rows[0], ["run", "embedding", "3\u{a0}x\u{a0}4", "70.8", "44.0", "0.750", "0.250"]);
        assert_eq!((rows[1][1].as_str(), rows.len(), page.blocks.len()), ("projection", 2, 1));
    }

    #[test]
    fn a_model_without_a_projector_has_one_row_and_says_why() {
        let page = page(&[measured(&[(FeatureLayer::Embedding, 0.5)])], vec![]);
        assert!(
            page.lead[0].contains("no projector of its own") && !page.lead[0].contains("tells"),
            "{}",
            page.lead[0]
        );
        assert_eq!(page.blocks[0].tables[0].rows.len(), 1);
    }
}
