//! `bagssl eval cooccurrence`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use bagssl_eval::cooccurrence::{Trained, World};
use bagssl_eval::report::{Block, Cells, Page};
use serde_json::json;

use super::page::PageArgs;

/// The theory where all is known: does the spectral contrastive loss learn which patches occur together?
///
/// Makes a world of patches with a known joint distribution p(x, x'), checks that the co-occurrence loss is 2 w L_S plus a
/// constant at lambda = w / 2, trains projections with L_S from several starts, and compares what they reach with the least
/// possible value, which the greatest positive eigenvalues give. All of it again where the two patches of a pair are always
/// different ones, so that the distribution has negative eigenvalues. Ends with exit code 1 if a start stays more than 1 % above.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Patches in the world
    #[arg(long, value_name = "N", default_value_t = 48)]
    patches: usize,
    /// Kinds of images, each with a distribution of its own
    #[arg(long, value_name = "N", default_value_t = 12)]
    kinds: usize,
    /// Length of a projection
    #[arg(long, value_name = "N", default_value_t = 8)]
    dim: usize,
    /// The weight w of the co-occurrence loss
    #[arg(long, value_name = "W", default_value_t = 1.0)]
    weight: f64,
    /// Random starts
    #[arg(long, value_name = "N", default_value_t = 3)]
    starts: u64,
    /// Seed of the world; the starts follow it
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    page: PageArgs,
}

/// How far above the optimum counts as there.
const TOLERANCE: f64 = 0.01;

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    args.page.check_files("cooccurrence")?;
    if !(1..=100).contains(&args.starts) {
        bail!("--starts: expected 1 to 100, got {}", args.starts);
    }
    if args.patches > 512 || args.dim > 512 {
        bail!("--patches, --dim: expected at most 512, got {} and {}", args.patches, args.dim);
    }
    if !(args.weight > 0.0 && args.weight.is_finite()) {
        bail!("--weight: expected a positive number, got {}", args.weight);
    }
    let lambda = args.weight / 2.0;
    let definite = World::random(args.patches, args.kinds, args.seed)?;
    let indefinite = definite.without_repeats()?;
    let (mut blocks, mut data, mut worst) = (vec![], vec![], 0.0_f64);
    for (name, world) in [("p(x, x') with repeats", &definite), ("different patches only", &indefinite)] {
        let optimum = world.optimum(args.dim, lambda);
        let starts = (args.seed..).take(args.starts as usize);
        let trained = starts.map(|start| world.train(args.dim, lambda, start)).collect::<Result<Vec<_>, _>>()?;
        worst = trained.iter().fold(worst, |worst, trained| worst.max(trained.excess));
        let gap = trained.iter().map(|trained| gap(world, trained, args.weight)).fold(0.0, f64::max);
        blocks.push(block(name, world, &trained, optimum, gap));
        data.push(json!({
            "world": name, "optimum": optimum, "eigenvalues": world.eigenvalues(), "trained": trained,
            "largest_difference_of_the_losses": gap,
        }));
    }
    let holds = worst <= TOLERANCE;
    let said = if holds { "within" } else { "not within" };
    let percent = 100.0 * worst;
    let lead = format!("Every start comes {said} 1 % of the optimum; the farthest is {percent:.2e} % above.");
    let lead = if holds { lead } else { format!("Not every start comes within 1 % of the optimum: {percent:.2} %.") };
    let page = Page {
        title: "Co-occurrence: a world where all is known".into(),
        lead: vec![
            lead,
            format!(
                "{} patches, {} kinds of images, projections of {} dimensions, w = {}, lambda = w / 2.",
                args.patches, args.kinds, args.dim, args.weight
            ),
        ],
        blocks,
        origins: vec![format!("seed {}; arXiv:2206.08954, the proposition", args.seed)],
    };
    args.page.show("cooccurrence", page, json!({"holds": holds, "worst_excess": worst, "worlds": data}))?;
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// `|L_C - (2 w L_S + const)|`, as a share of what is summed.
fn gap(world: &World, trained: &Trained, weight: f64) -> f64 {
    let both = world.cooccurrence_loss(&trained.table, trained.dim, weight);
    let spectral = world.spectral_loss(&trained.table, trained.dim, weight / 2.0);
    (both - 2.0 * weight * spectral - world.constant()).abs() / (both.abs() + world.constant())
}

fn block(name: &str, world: &World, trained: &[Trained], optimum: f64, gap: f64) -> Block {
    let eigenvalues = world.eigenvalues();
    let (first, last) = (&eigenvalues[..eigenvalues.len().min(5)], eigenvalues[eigenvalues.len() - 1]);
    let rows = trained.iter().enumerate().map(|(start, trained)| {
        let converged = if trained.converged { "yes" } else { "no" };
        let figures = [format!("{:.8}", trained.loss), format!("{:.2e} %", 100.0 * trained.excess)];
        [vec![format!("{start}"), converged.into()], figures.to_vec(), vec![trained.steps.to_string()]].concat()
    });
    Block {
        title: name.into(),
        text: vec![
            format!("Greatest eigenvalues {first:.3?}, least {last:.3}."),
            format!(
                "Optimum of L_S: {optimum:.8}. L_C and 2 w L_S + const differ by {gap:.1e} of their terms at most."
            ),
        ],
        grids: vec![Cells {
            caption: "What training by L_S reaches from random projections.".into(),
            head: ["start", "converged", "L_S", "above the optimum", "steps"].map(String::from).to_vec(),
            rows: rows.collect(),
            words: 2,
        }],
        ..Block::default()
    }
}
