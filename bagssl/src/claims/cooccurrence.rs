//! Does the spectral contrastive loss learn which patches co-occur?

use bagssl_eval::analysis::{TrainedTable, World};
use bagssl_eval::report::{Block, Page, TextTable};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Checks, in a synthetic world, that the spectral contrastive loss learns which patches co-occur.
///
/// Generates a world of patches with a known joint distribution p(x, x'). Checks that the co-occurrence loss L_C is
/// 2 w L_S plus a constant at lambda = w / 2. Trains projections with L_S from several random starts, and compares the losses
/// with the optimum, which follows from the greatest positive eigenvalues. Repeats everything for pairs of always different
/// patches, where the distribution has negative eigenvalues.
///
/// # Source
/// BagSSL, arXiv:2206.08954, the proposition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cooccurrence {
    /// The number of patches in the world, at most 512.
    pub patches: usize,
    /// The number of kinds of images, each with its own distribution of patches.
    pub kinds: usize,
    /// The dimension of the projections, at most 512.
    pub dim: usize,
    /// The weight w of the co-occurrence loss, greater than 0.
    pub weight: f64,
    /// The number of random starts, 1 to 100.
    pub starts: u64,
    /// The seed of the world. The starts use this seed and the following ones.
    pub seed: u64,
}

/// What training in the synthetic world has reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CooccurrenceReport {
    /// Whether every start comes within 1 % of the optimum.
    pub holds: bool,
    /// The greatest relative excess of a start over the optimum.
    pub worst_excess: f64,
    /// The results in the world with repeats, and in that of different patches only.
    pub worlds: Vec<WorldResult>,
}

/// The results of training in one world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorldResult {
    /// The world.
    pub world: String,
    /// The least possible value of L_S.
    pub optimum: f64,
    /// The eigenvalues of the joint distribution, the greatest first.
    pub eigenvalues: Vec<f64>,
    /// What each start has reached.
    pub trained: Vec<TrainedTable>,
    /// The largest difference between L_C and 2 w L_S plus the constant, relative to the sum of the terms.
    #[serde(rename = "largest_difference_of_the_losses")]
    pub max_loss_difference: f64,
}

/// The relative excess over the optimum that counts as reached.
const TOLERANCE: f64 = 0.01;

impl Default for Cooccurrence {
    fn default() -> Self {
        Cooccurrence { patches: 48, kinds: 12, dim: 8, weight: 1.0, starts: 3, seed: 0 }
    }
}

impl Cooccurrence {
    /// Generates the worlds, trains in them, and compares the results with the optimum.
    ///
    /// # Errors
    /// [`Error::Setting`] or [`Error::Eval`] if a number is out of range.
    pub fn check(&self) -> Result<CooccurrenceReport> {
        self.check_settings()?;
        let definite = World::random(self.patches, self.kinds, self.seed)?;
        let indefinite = definite.without_repeats()?;
        let worlds = [("p(x, x') with repeats", &definite), ("different patches only", &indefinite)];
        let worlds = worlds.into_iter().map(|(name, world)| self.train(name, world)).collect::<Result<Vec<_>>>()?;
        let excesses = worlds.iter().flat_map(|world| &world.trained).map(|trained| trained.excess);
        let worst_excess = excesses.fold(0.0, f64::max);
        Ok(CooccurrenceReport { holds: worst_excess <= TOLERANCE, worst_excess, worlds })
    }

    fn check_settings(&self) -> Result<()> {
        let refuse = |name, expected: &str, got: String| Err(Error::Setting { name, expected: expected.into(), got });
        if !(1..=100).contains(&self.starts) {
            return refuse("starts", "1 to 100", self.starts.to_string());
        }
        if self.patches > 512 || self.dim > 512 {
            return refuse("patches, dim", "at most 512", format!("{} and {}", self.patches, self.dim));
        }
        if !(self.weight > 0.0 && self.weight.is_finite()) {
            return refuse("weight", "a positive number", self.weight.to_string());
        }
        Ok(())
    }

    fn train(&self, name: &str, world: &World) -> Result<WorldResult> {
        let lambda = self.weight / 2.0;
        let starts = (self.seed..).take(self.starts as usize);
        let trained = starts.map(|start| Ok(world.train(self.dim, lambda, start)?)).collect::<Result<Vec<_>>>()?;
        let gaps = trained.iter().map(|trained| gap(world, trained, self.weight));
        Ok(WorldResult {
            world: name.into(),
            optimum: world.optimum(self.dim, lambda),
            eigenvalues: world.eigenvalues(),
            max_loss_difference: gaps.fold(0.0, f64::max),
            trained,
        })
    }
}

impl CooccurrenceReport {
    /// Renders the report, which was made with these settings.
    pub fn page(&self, settings: &Cooccurrence) -> Page {
        let CooccurrenceReport { holds, worst_excess, worlds } = self;
        let percent = 100.0 * worst_excess;
        let lead = match holds {
            true => format!("Every start comes within 1 % of the optimum; the farthest is {percent:.2e} % above."),
            false => format!("Not every start comes within 1 % of the optimum: {percent:.2} %."),
        };
        Page {
            title: "Co-occurrence: a world where all is known".into(),
            lead: vec![
                lead,
                format!(
                    "{} patches, {} kinds of images, projections of {} dimensions, w = {}, lambda = w / 2.",
                    settings.patches, settings.kinds, settings.dim, settings.weight
                ),
            ],
            blocks: worlds.iter().map(block).collect(),
            origins: vec![format!("seed {}; arXiv:2206.08954, the proposition", settings.seed)],
        }
    }
}

/// Returns `|L_C - (2 w L_S + const)|`, relative to the sum of the terms.
fn gap(world: &World, trained: &TrainedTable, weight: f64) -> f64 {
    let train_and_test = world.cooccurrence_loss(&trained.table, trained.dim, weight);
    let spectral = world.spectral_loss(&trained.table, trained.dim, weight / 2.0);
    (train_and_test - 2.0 * weight * spectral - world.constant()).abs() / (train_and_test.abs() + world.constant())
}

fn block(result: &WorldResult) -> Block {
    let WorldResult { world, optimum, eigenvalues, trained, max_loss_difference: gap } = result;
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
        tables: vec![TextTable {
            caption: "What training by L_S reaches from random projections.".into(),
            head: ["start", "converged", "L_S", "above the optimum", "steps"].map(String::from).to_vec(),
            rows: rows.collect(),
            text_columns: 2,
        }],
        ..Block::default()
    }
}
