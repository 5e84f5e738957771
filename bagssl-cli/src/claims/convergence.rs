//! `bagssl eval convergence`.

use anyhow::Result;
use bagssl_core::bag::Bag;
use bagssl_core::embed::FeatureLayer;
use bagssl_eval::analysis::convergence::{Closeness, convergence};
use bagssl_eval::classify::protocol::{Origin, Protocol as How};
use bagssl_eval::features::table::Table;
use bagssl_eval::features::{Order, keep_common};
use bagssl_eval::report::{Block, Cells, Lines, Page};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Analysis, Bars, ClaimArgs, PageArgs, Subject, analysis, on_each};
use crate::evaluate::convergence_counts;
use crate::input::bag::BagArgs;

/// Measure whether an image's embedding is the mean of its patches' embeddings
///
/// On test images, compares the mean of k patches, in random order, with the embedding of the whole
/// image and of the largest centered square, by cosine and relative distance. The paper finds that
/// they converge for multi-scale training.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) claim: ClaimArgs,
    #[command(flatten)]
    pub(crate) bag: BagArgs,
}

#[derive(Serialize, Deserialize)]
struct All {
    checkpoints: Vec<ConvergenceReport>,
}

#[derive(Serialize, Deserialize)]
struct ConvergenceReport {
    name: String,
    preset: String,
    origin: Origin,
    whole: Vec<Closeness>,
    #[serde(rename = "centre")]
    center: Vec<Closeness>,
    /// The mean cosine between different whole images, as a reference for the other cosines. `None`
    /// if there is only one image.
    between_images: Option<f64>,
}

impl Analysis for Args {
    fn name(&self) -> &'static str {
        "convergence"
    }

    fn output(&self) -> &PageArgs {
        &self.claim.page
    }

    fn find(&self, bars: Bars<'_>) -> Result<Value> {
        let how = How::preset("bagssl")?;
        let checkpoints = on_each(&self.claim, how, &self.bag, &[FeatureLayer::Embedding], bars, look)?;
        Ok(json!(All { checkpoints }))
    }

    fn page(&self, found: &Value) -> Result<Page> {
        let All { checkpoints } = analysis::read(found)?;
        Ok(page(&checkpoints))
    }
}

fn look(subject: &Subject<'_>) -> Result<ConvergenceReport> {
    let test = &subject.halves.test;
    let of = |bag| subject.features(test, bag, &[FeatureLayer::Embedding]);
    let (mut patches, mut whole, mut center) = (of(subject.protocol.bag)?, of(Bag::Whole)?, of(Bag::Center)?);
    // An image that is smaller than a patch has no patches, but it does have a whole-image view.
    keep_common([&mut patches, &mut whole, &mut center])?;
    let counts = convergence_counts(patches[0].patches());
    let order = Order::Random { seed: subject.claim.seed };
    let to = |rows: Table| convergence(&patches[0], &rows, &counts, order);
    Ok(ConvergenceReport {
        name: subject.name.clone(),
        preset: subject.spec().provenance.preset.clone(),
        origin: subject.origin.clone(),
        whole: to(whole[0].mean()?)?,
        center: to(center[0].mean()?)?,
        between_images: bagssl_eval::analysis::health::Health::new(&whole[0]).cosine_between,
    })
}

fn page(found: &[ConvergenceReport]) -> Page {
    let lead = found.iter().filter_map(|found| {
        let (first, last) = (found.whole.first()?, found.whole.last()?);
        let between = found.between_images.map(|cosine| format!("; whole images to each other {cosine:.3}"));
        Some(format!(
            "{}: the mean of {} patches has a cosine of {:.3} to the whole image's embedding (one patch {:.3}{}), and a \
             distance of {:.0} % of its length (one patch {:.0} %).",
            found.name,
            last.patches,
            last.cosine,
            first.cosine,
            between.unwrap_or_default(),
            100.0 * last.distance,
            100.0 * first.distance
        ))
    });
    let block = |title: &str, of: fn(&ConvergenceReport) -> &[Closeness]| {
        let rows = found.iter().flat_map(|found| {
            of(found).iter().map(|point| {
                let figures = [point.cosine, point.deviation, point.distance].map(|value| format!("{value:.3}"));
                [vec![found.name.clone(), point.patches.to_string()], figures.to_vec()].concat()
            })
        });
        let lines = |value: fn(&Closeness) -> f64| {
            let points = |found| of(found).iter().map(|point| (point.patches as f64, value(point), 0.0)).collect();
            found.iter().map(|found| (found.name.clone(), points(found))).collect()
        };
        let plot = |y_label: &str, caption: &str, value| Lines {
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
            grids: vec![Cells {
                caption: "Mean over the test images; deviation from image to image; distance over the length of the image's embedding."
                    .into(),
                head: ["checkpoint", "patches", "cosine", "deviation", "distance"].map(String::from).to_vec(),
                rows: rows.collect(),
                words: 1,
            }],
            plots: vec![
                plot("cosine", "Does the curve rise toward 1?", |point| point.cosine),
                plot("relative distance", "Does the curve fall toward 0?", |point| point.distance),
            ],
            ..Block::default()
        }
    };
    let mut blocks = vec![block("Mean of k patches against the whole image", |found| &found.whole)];
    if found.iter().all(|found| found.whole == found.center) {
        blocks[0].text.push("The images are square: the largest square in their middle is the whole image.".into());
    } else {
        blocks.push(block("Mean of k patches against the center crop", |found| &found.center));
    }
    Page {
        title: "Whole image and mean of its patches".into(),
        lead: lead.collect(),
        blocks,
        origins: found.iter().map(|found| format!("{}: {}", found.name, found.origin.line())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(whole: f64, center: f64) -> ConvergenceReport {
        let point = |cosine| vec![Closeness { patches: 4, cosine, deviation: 0.0, distance: 0.5 }];
        ConvergenceReport {
            name: "run".into(),
            preset: "bagssl".into(),
            origin: crate::claims::some_origin(),
            whole: point(whole),
            center: point(center),
            between_images: Some(0.25),
        }
    }

    #[test]
    fn one_image_is_compared_with_no_other() {
        let lead = |between_images| page(&[ConvergenceReport { between_images, ..found(0.75, 0.75) }]).lead.remove(0);
        assert!(
            lead(Some(0.25)).contains("(one patch 0.750; whole images to each other 0.250), and a distance of 50 %")
        );
        assert!(lead(None).contains("(one patch 0.750), and a distance of 50 %"), "{}", lead(None));
    }

    #[test]
    fn what_is_the_same_is_shown_once() {
        let square = page(&[found(0.75, 0.75)]);
        assert_eq!((square.blocks.len(), square.blocks[0].text.len()), (1, 1));
        let wide = page(&[found(0.75, 0.75), found(0.75, 0.5)]);
        assert_eq!((wide.blocks.len(), wide.blocks[0].text.len()), (2, 0));
        assert_eq!(wide.blocks[1].grids[0].rows[1][..3], ["run", "4", "0.500"]);
        assert_eq!(wide.blocks[0].plots[1].lines[0].1, [(4.0, 0.5, 0.0)]);
    }
}
