//! `bagssl eval locality`.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use bagssl_core::bag::Bag;
use bagssl_core::embed::FeatureLayer;
use bagssl_data::{Dataset, grid_of_all};
use bagssl_eval::analysis::locality::{Layout, Locality, locality};
use bagssl_eval::classify::protocol::{Origin, Protocol as How};
use bagssl_eval::report::{Block, Cells, Page, PatchSheet};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Analysis, Bars, ClaimArgs, NO_PROJECTOR, PageArgs, Subject, analysis, on_each};
use crate::evaluate::{self, Near};
use crate::input::bag::BagArgs;
use crate::input::splits::Splits;
use crate::input::tiles::Tiles;

/// Measure whether the embedding retains more of a patch's position than the projection
///
/// Uses a grid of patches that all images share. Reports how often the nearest patch of the same
/// image is adjacent. Also reports how well a linear regression, fitted on training images,
/// predicts a patch's row and column in test images. Adjacent patches share pixels if the stride is
/// less than their side; the default stride is a quarter of the side. The page also shows the
/// nearest patches of other test images for some patches.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) claim: ClaimArgs,
    #[command(flatten)]
    pub(crate) bag: BagArgs,
}

#[derive(Serialize, Deserialize)]
struct All {
    checkpoints: Vec<LocalityReport>,
}

#[derive(Serialize, Deserialize)]
struct LocalityReport {
    name: String,
    preset: String,
    origin: Origin,
    grid: [usize; 2],
    spaces: BTreeMap<FeatureLayer, Locality>,
    bag: Bag,
    /// Test patches, as `[image, patch]`, with the nearest patches of other images by cosine.
    #[serde(rename = "neighbours")]
    neighbors: BTreeMap<FeatureLayer, Vec<Near>>,
}

/// If a regression explains less than this percentage of the variance, it counts as no prediction.
const LEAST: f64 = 2.0;
/// The number of query patches to show, and the number of neighbors of each.
const SHOWN: (usize, usize) = (6, 9);
const TAPS: [FeatureLayer; 3] = [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection];

impl Analysis for Args {
    fn name(&self) -> &'static str {
        "locality"
    }

    fn output(&self) -> &PageArgs {
        &self.claim.page
    }

    fn find(&self, bars: Bars<'_>) -> Result<Value> {
        let checkpoints = on_each(&self.claim, How::preset("bagssl")?, &self.bag, &TAPS, bars, look)?;
        Ok(json!(All { checkpoints }))
    }

    fn page(&self, found: &Value) -> Result<Page> {
        let All { checkpoints } = analysis::read(found)?;
        let test = Splits::open(&self.claim.data)?.test;
        let sheets = checkpoints.iter().map(|found| self.sheets(found, &test)).collect::<Result<Vec<_>>>()?;
        Ok(page(&checkpoints, sheets.concat()))
    }
}

impl Args {
    /// Returns one sheet of patches per layer.
    fn sheets(&self, found: &LocalityReport, test: &Arc<Dataset>) -> Result<Vec<PatchSheet>> {
        let tiles = Tiles::new(test.clone(), found.bag, self.claim.seed, self.claim.color())?;
        let sheet = |(tap, near): (&FeatureLayer, &Vec<Near>)| {
            let rows = near.iter().map(|near| tiles.row(near)).collect::<Result<_>>()?;
            Ok(PatchSheet { title: format!("{}, {}", found.name, words(*tap)), rows })
        };
        found.neighbors.iter().map(sheet).collect()
    }
}

fn look(subject: &Subject<'_>) -> Result<LocalityReport> {
    let Bag::Grid { spec, stride } = subject.protocol.bag else {
        bail!("--random: expected a grid of patches, as places are compared");
    };
    let halves = [&*subject.halves.test, &*subject.halves.train];
    let grid = grid_of_all(&halves, spec, stride, subject.protocol.on_bad_image)?;
    let layout = Layout { rows: grid.rows() as usize, columns: grid.columns() as usize };
    let taps = subject.taps(&TAPS);
    let [train, test] = subject.both(subject.protocol.bag, &taps)?;
    let of = |index: usize| Ok((taps[index], locality(&train[index], &test[index], layout)?));
    let near = |index: usize| Ok((taps[index], evaluate::nearest(&test[index], SHOWN)?));
    Ok(LocalityReport {
        name: subject.name.clone(),
        preset: subject.spec().provenance.preset.clone(),
        origin: subject.origin.clone(),
        grid: [layout.rows, layout.columns],
        spaces: (0..taps.len()).map(of).collect::<Result<_>>()?,
        bag: subject.protocol.bag,
        neighbors: (0..taps.len()).map(near).collect::<Result<_>>()?,
    })
}

/// Summarizes the results of one checkpoint.
fn sentence(found: &LocalityReport) -> String {
    let of = |tap| found.spaces.get(&tap);
    let Some(embedding) = of(FeatureLayer::Embedding) else { return format!("{}: no embedding.", found.name) };
    let Some(projection) = of(FeatureLayer::Projection) else {
        return format!(
            "{}: the patch nearest in the embedding is adjacent in {:.1} % (by chance {:.1} %); {NO_PROJECTOR}.",
            found.name, embedding.adjacent, embedding.adjacent_by_chance
        );
    };
    let place = |it: &Locality| 50.0 * (it.row + it.column);
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
        found.name, embedding.adjacent, projection.adjacent, embedding.adjacent_by_chance
    )
}

/// Returns a layer's name for titles.
fn words(tap: FeatureLayer) -> &'static str {
    if tap == FeatureLayer::FirstLayer { "first layer of the projector" } else { tap.name() }
}

fn page(found: &[LocalityReport], sheets: Vec<PatchSheet>) -> Page {
    let rows = found.iter().flat_map(|found| {
        found.spaces.iter().map(|(tap, &Locality { adjacent, adjacent_by_chance, row, column })| {
            let words =
                [found.name.clone(), tap.name().into(), format!("{}\u{a0}x\u{a0}{}", found.grid[0], found.grid[1])];
            let percent = [adjacent, adjacent_by_chance].map(|value| format!("{value:.1}"));
            [words.to_vec(), percent.to_vec(), [row, column].map(|value| format!("{value:.3}")).to_vec()].concat()
        })
    });
    let places = Block {
        title: "Where a patch lies".into(),
        grids: vec![Cells {
            caption: "Adjacent: how often the patch of the same test image that is nearest by cosine is one of the up to eight \
                      around it. Row, column: the share of the variance of a patch's place that a linear regression explains \
                      on test images, fitted on training images; 1 is perfect, 0 no better than the mean."
                .into(),
            head: ["checkpoint", "feature", "grid", "adjacent %", "by chance %", "row", "column"]
                .map(String::from)
                .to_vec(),
            rows: rows.collect(),
            words: 3,
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
        lead: found.iter().map(sentence).collect(),
        blocks,
        origins: found.iter().map(|found| format!("{}: {}", found.name, found.origin.line())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grid of 3 rows and 4 columns. The embedding predicts the row, the projection does not.
    fn found(taps: &[(FeatureLayer, f64)]) -> LocalityReport {
        let origin = crate::claims::some_origin();
        let of = |&(tap, row)| (tap, Locality { adjacent: 70.0 + row, adjacent_by_chance: 44.0, row, column: 0.25 });
        LocalityReport {
            name: "run".into(),
            preset: "bagssl".into(),
            origin,
            grid: [3, 4],
            spaces: taps.iter().map(of).collect(),
            bag: Bag::Whole,
            neighbors: BTreeMap::new(),
        }
    }

    #[test]
    fn the_answer_and_its_rows() {
        let page = page(&[found(&[(FeatureLayer::Embedding, 0.75), (FeatureLayer::Projection, 0.0)])], vec![]);
        assert!(page.lead[0].contains("the embedding tells more"), "{}", page.lead[0]);
        assert!(page.lead[0].contains("50 % of its variance against 12 %"), "{}", page.lead[0]);
        let rows = &page.blocks[0].grids[0].rows;
        assert_eq!(rows[0], ["run", "embedding", "3\u{a0}x\u{a0}4", "70.8", "44.0", "0.750", "0.250"]);
        assert_eq!((rows[1][1].as_str(), rows.len(), page.blocks.len()), ("projection", 2, 1));
    }

    #[test]
    fn a_model_without_a_projector_has_one_row_and_says_why() {
        let page = page(&[found(&[(FeatureLayer::Embedding, 0.5)])], vec![]);
        assert!(
            page.lead[0].contains("no projector of its own") && !page.lead[0].contains("tells"),
            "{}",
            page.lead[0]
        );
        assert_eq!(page.blocks[0].grids[0].rows.len(), 1);
    }
}
