//! `bagssl eval locality`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, bail};
use bagssl_core::bag::{Bag, Grid};
use bagssl_core::embed::Tap;
use bagssl_eval::locality::{Layout, Locality, locality};
use bagssl_eval::protocol::{Origin, Protocol as How};
use bagssl_eval::report::{Block, Cells, Page};
use serde::Serialize;
use serde_json::json;

use super::{ClaimArgs, Subject, on_each};
use crate::bag::BagArgs;

/// Does the embedding keep more of where a patch lies than the projection?
///
/// On a grid of patches: how often the nearest patch of the same image is an adjacent one, and how well a linear regression,
/// fitted on training images, tells a patch's row and column in test images. Adjacent patches share pixels where the stride is
/// less than their side, by default a quarter of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    claim: ClaimArgs,
    #[command(flatten)]
    bag: BagArgs,
}

#[derive(Serialize)]
struct Found {
    name: String,
    preset: String,
    origin: Origin,
    grid: [usize; 2],
    spaces: BTreeMap<&'static str, Locality>,
}

/// Percent of the variance under which a regression is said to tell nothing.
const LEAST: f64 = 2.0;
const TAPS: [Tap; 3] = [Tap::Embedding, Tap::FirstLayer, Tap::Projection];

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    args.claim.page.check_files("locality")?;
    let found = on_each(&args.claim, How::preset("bagssl")?, &args.bag, &TAPS, look)?;
    args.claim.page.show("locality", page(&found), json!({"checkpoints": found}))?;
    Ok(ExitCode::SUCCESS)
}

fn look(subject: &Subject<'_>) -> Result<Found> {
    let Bag::Grid { spec, stride } = subject.protocol.bag else {
        bail!("--random: expected a grid of patches, as places are compared");
    };
    let grid = Grid::new(spec, subject.halves.test.decode(0)?.size(), stride)?;
    let layout = Layout { rows: grid.rows() as usize, columns: grid.columns() as usize };
    let [train, test] = subject.both(subject.protocol.bag, &TAPS)?;
    let of = |index: usize| Ok((TAPS[index].name(), locality(&train[index], &test[index], layout)?));
    Ok(Found {
        name: subject.name.clone(),
        preset: subject.spec().provenance.preset.clone(),
        origin: subject.origin.clone(),
        grid: [layout.rows, layout.columns],
        spaces: (0..TAPS.len()).map(of).collect::<Result<_>>()?,
    })
}

fn page(found: &[Found]) -> Page {
    let lead = found.iter().map(|found| {
        let [embedding, projection] = [Tap::Embedding, Tap::Projection].map(|tap| found.spaces[tap.name()]);
        let place = |it: Locality| 50.0 * (it.row + it.column);
        let (near, far) = (place(embedding), place(projection));
        let places = match near > far {
            _ if near.max(far) < LEAST => "neither embedding nor projection tells by a linear regression where in its image a patch lies".into(),
            true => format!("the embedding tells more of a patch's place than the projection ({near:.0} % of its variance against {far:.0} %)"),
            false => format!("the embedding tells no more of a patch's place than the projection ({near:.0} % of its variance against {far:.0} %)"),
        };
        let often = if embedding.adjacent > projection.adjacent { "more" } else { "not more" };
        format!(
            "{}: {places}; the patch nearest in the embedding is {often} often adjacent than that nearest in the projection ({:.1} % against {:.1} %, by chance {:.1} %).",
            found.name, embedding.adjacent, projection.adjacent, embedding.adjacent_by_chance
        )
    });
    let rows = found.iter().flat_map(|found| {
        TAPS.map(|tap| {
            let Locality { adjacent, adjacent_by_chance, row, column } = found.spaces[tap.name()];
            let words = [found.name.clone(), tap.name().into(), format!("{} x {}", found.grid[0], found.grid[1])];
            let percent = [adjacent, adjacent_by_chance].map(|value| format!("{value:.1}"));
            [words.to_vec(), percent.to_vec(), [row, column].map(|value| format!("{value:.3}")).to_vec()].concat()
        })
    });
    Page {
        title: "Locality of patch embeddings".into(),
        lead: lead.collect(),
        blocks: vec![Block {
            title: "Where a patch lies".into(),
            text: vec![],
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
        }],
        origins: found.iter().map(|found| format!("{}: {}", found.name, found.origin.line())).collect(),
    }
}
