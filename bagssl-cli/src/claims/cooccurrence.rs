//! `bagssl eval cooccurrence`.

use anyhow::{Result, bail};
use bagssl_eval::analysis::cooccurrence::{Trained, World};
use bagssl_eval::report::{Block, Cells, Page};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Analysis, Bars, PageArgs, analysis};

/// Check, in a synthetic world, that the spectral contrastive loss learns which patches co-occur
///
/// Generates a world of patches with a known joint distribution p(x, x'). Checks that the
/// co-occurrence loss is 2 w L_S plus a constant at lambda = w / 2. Trains projections with L_S
/// from several random starts, and compares the losses with the optimum, which follows from the
/// greatest positive eigenvalues. Repeats everything for pairs of always different patches, where
/// the distribution has negative eigenvalues. Exits with code 1 if a start stays more than 1 %
/// above the optimum.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of patches in the world
    #[arg(long, value_name = "N", default_value_t = Args::default().patches)]
    patches: usize,
    /// Number of kinds of images, each with its own distribution of patches
    #[arg(long, value_name = "N", default_value_t = Args::default().kinds)]
    kinds: usize,
    /// Dimension of the projections
    #[arg(long, value_name = "N", default_value_t = Args::default().dim)]
    dim: usize,
    /// Weight w of the co-occurrence loss
    #[arg(long, value_name = "W", default_value_t = Args::default().weight)]
    weight: f64,
    /// Number of random starts
    #[arg(long, value_name = "N", default_value_t = Args::default().starts)]
    starts: u64,
    /// Seed of the world; the starts use this seed and the following ones
    #[arg(long, value_name = "N", default_value_t = Args::default().seed)]
    seed: u64,
    #[command(flatten)]
    page: PageArgs,
}

impl Default for Args {
    fn default() -> Self {
        Args { patches: 48, kinds: 12, dim: 8, weight: 1.0, starts: 3, seed: 0, page: PageArgs::default() }
    }
}

#[derive(Serialize, Deserialize)]
struct CooccurrenceReport {
    holds: bool,
    worst_excess: f64,
    worlds: Vec<Learned>,
}

/// The results of training in one world.
#[derive(Serialize, Deserialize)]
struct Learned {
    world: String,
    optimum: f64,
    eigenvalues: Vec<f64>,
    trained: Vec<Trained>,
    largest_difference_of_the_losses: f64,
}

/// The relative excess over the optimum that counts as reached.
const TOLERANCE: f64 = 0.01;

impl Analysis for Args {
    fn name(&self) -> &'static str {
        "cooccurrence"
    }

    fn output(&self) -> &PageArgs {
        &self.page
    }

    fn find(&self, _: Bars<'_>) -> Result<Value> {
        self.check()?;
        let definite = World::random(self.patches, self.kinds, self.seed)?;
        let indefinite = definite.without_repeats()?;
        let worlds = [("p(x, x') with repeats", &definite), ("different patches only", &indefinite)];
        let worlds = worlds.into_iter().map(|(name, world)| self.learn(name, world)).collect::<Result<Vec<_>>>()?;
        let excesses = worlds.iter().flat_map(|world| &world.trained).map(|trained| trained.excess);
        let worst_excess = excesses.fold(0.0, f64::max);
        Ok(json!(CooccurrenceReport { holds: worst_excess <= TOLERANCE, worst_excess, worlds }))
    }

    fn page(&self, found: &Value) -> Result<Page> {
        let CooccurrenceReport { holds, worst_excess, worlds } = analysis::read(found)?;
        let percent = 100.0 * worst_excess;
        let lead = match holds {
            true => format!("Every start comes within 1 % of the optimum; the farthest is {percent:.2e} % above."),
            false => format!("Not every start comes within 1 % of the optimum: {percent:.2} %."),
        };
        Ok(Page {
            title: "Co-occurrence: a world where all is known".into(),
            lead: vec![
                lead,
                format!(
                    "{} patches, {} kinds of images, projections of {} dimensions, w = {}, lambda = w / 2.",
                    self.patches, self.kinds, self.dim, self.weight
                ),
            ],
            blocks: worlds.iter().map(block).collect(),
            origins: vec![format!("seed {}; arXiv:2206.08954, the proposition", self.seed)],
        })
    }

    fn holds(&self, found: &Value) -> bool {
        found["holds"] == true
    }
}

impl Args {
    /// Returns the default arguments with another seed.
    pub(crate) fn with_seed(seed: u64) -> Self {
        Args { seed, ..Args::default() }
    }

    fn check(&self) -> Result<()> {
        if !(1..=100).contains(&self.starts) {
            bail!("--starts: expected 1 to 100, got {}", self.starts);
        }
        if self.patches > 512 || self.dim > 512 {
            bail!("--patches, --dim: expected at most 512, got {} and {}", self.patches, self.dim);
        }
        if !(self.weight > 0.0 && self.weight.is_finite()) {
            bail!("--weight: expected a positive number, got {}", self.weight);
        }
        Ok(())
    }

    fn learn(&self, name: &str, world: &World) -> Result<Learned> {
        let lambda = self.weight / 2.0;
        let starts = (self.seed..).take(self.starts as usize);
        let trained = starts.map(|start| world.train(self.dim, lambda, start)).collect::<Result<Vec<_>, _>>()?;
        let gaps = trained.iter().map(|trained| gap(world, trained, self.weight));
        Ok(Learned {
            world: name.into(),
            optimum: world.optimum(self.dim, lambda),
            eigenvalues: world.eigenvalues(),
            largest_difference_of_the_losses: gaps.fold(0.0, f64::max),
            trained,
        })
    }
}

/// Returns `|L_C - (2 w L_S + const)|`, relative to the sum of the terms.
fn gap(world: &World, trained: &Trained, weight: f64) -> f64 {
    let both = world.cooccurrence_loss(&trained.table, trained.dim, weight);
    let spectral = world.spectral_loss(&trained.table, trained.dim, weight / 2.0);
    (both - 2.0 * weight * spectral - world.constant()).abs() / (both.abs() + world.constant())
}

fn block(learned: &Learned) -> Block {
    let Learned { world, optimum, eigenvalues, trained, largest_difference_of_the_losses: gap } = learned;
    let (first, last) = (&eigenvalues[..eigenvalues.len().min(5)], eigenvalues[eigenvalues.len() - 1]);
    let rows = trained.iter().enumerate().map(|(start, trained)| {
        let converged = if trained.converged { "yes" } else { "no" };
        let figures = [format!("{:.8}", trained.loss), format!("{:.2e} %", 100.0 * trained.excess)];
        [vec![format!("{start}"), converged.into()], figures.to_vec(), vec![trained.steps.to_string()]].concat()
    });
    Block {
        title: world.clone(),
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
