//! Co-occurrence: what a contrastive loss learns in a world whose patches and joint distribution
//! are known.
//!
//! # Source
//! The proposition of BagSSL, arXiv:2206.08954.

use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

use crate::draw::Draw;
use crate::error::{Error, Result};
use crate::numerics::lbfgs::{Stop, max_abs, minimize};

/// The tolerance for symmetry and for the sum of the probabilities.
const ROUNDING: f64 = 1e-9;

/// A finite set of patches, and the joint distribution `p(x, x')` of two patches of one image. It
/// is symmetric, so that both patches have the marginal `p(x)`, which is positive.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    joint: DMatrix<f64>,
    marginal: Vec<f64>,
}

/// A table of projections trained with the spectral loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainedTable {
    /// The projection of each patch, `[patch, dim]`.
    #[serde(skip)]
    pub table: Vec<f64>,
    /// The length of a projection.
    pub dim: usize,
    /// The final loss.
    pub loss: f64,
    /// The difference to the optimum, relative to the optimum's magnitude; the loss itself if the
    /// optimum is 0.
    pub excess: f64,
    /// The number of L-BFGS iterations.
    pub steps: usize,
    /// Whether the gradient is close to 0.
    pub converged: bool,
}

impl World {
    /// Creates a world from a table of probabilities, `[patch, patch]`.
    ///
    /// # Errors
    /// [`Error::Setting`] unless the table is square, symmetric, has probabilities that sum to 1,
    /// and every patch occurs.
    pub fn new(joint: Vec<f64>, patches: usize) -> Result<Self> {
        let bad = |expected: &str, got: String| Error::Setting { name: "world", expected: expected.into(), got };
        if patches == 0 || joint.len() != patches * patches {
            return Err(bad("a square table with at least one patch", format!("{} values", joint.len())));
        }
        if let Some(value) = joint.iter().find(|value| !(0.0..=1.0).contains(*value)) {
            return Err(bad("probabilities", value.to_string()));
        }
        let sum: f64 = joint.iter().sum();
        if (sum - 1.0).abs() > ROUNDING {
            return Err(bad("probabilities whose sum is 1", sum.to_string()));
        }
        let joint = DMatrix::from_vec(patches, patches, joint);
        if (&joint - joint.transpose()).amax() > ROUNDING {
            return Err(bad("p(x, x') = p(x', x)", "an asymmetric table".into()));
        }
        let marginal: Vec<f64> = joint.column_iter().map(|column| column.sum()).collect();
        if let Some(patch) = marginal.iter().position(|&share| share <= 0.0) {
            return Err(bad("patches with positive probability", format!("patch {patch} with probability 0")));
        }
        Ok(World { joint, marginal })
    }

    /// Creates a random world of several kinds of images. Each kind draws its two patches
    /// independently from its own distribution. The distribution has exponential random weights,
    /// cubed so that a few patches dominate. Such a table is positive semi-definite.
    ///
    /// # Errors
    /// [`Error::Setting`] unless `patches` and `kinds` are 1 to 4096.
    pub fn random(patches: usize, kinds: usize, seed: u64) -> Result<Self> {
        for (name, value) in [("patches", patches), ("kinds", kinds)] {
            if value == 0 || value > 4096 {
                return Err(Error::Setting { name, expected: "1 to 4096".into(), got: value.to_string() });
            }
        }
        let mut random = Draw::World.stream(seed);
        let mut joint = DMatrix::zeros(patches, patches);
        for _ in 0..kinds {
            let shares: Vec<f64> = (0..patches).map(|_| (-(1.0 - random.unit_f64()).ln()).powi(3)).collect();
            let shares = nalgebra::DVector::from_vec(shares);
            let sum = shares.sum();
            joint += &shares * shares.transpose() / (sum * sum * kinds as f64);
        }
        let sum = joint.sum();
        World::new((joint / sum).as_slice().to_vec(), patches)
    }

    /// Returns the same world, but with two different patches in every pair, like two positions in
    /// an image. The diagonal is 0, so that the table has negative eigenvalues.
    ///
    /// # Errors
    /// [`Error::Setting`] if a patch is left without partners.
    pub fn without_repeats(&self) -> Result<Self> {
        let mut joint = self.joint.clone();
        joint.fill_diagonal(0.0);
        let sum = joint.sum();
        if sum <= 0.0 {
            let got = "a single patch".into();
            return Err(Error::Setting { name: "world", expected: "at least two patches".into(), got });
        }
        World::new((joint / sum).as_slice().to_vec(), self.patches())
    }

    /// The number of patches.
    pub fn patches(&self) -> usize {
        self.marginal.len()
    }

    /// The joint distribution, `[patch, patch]`.
    pub fn joint(&self) -> &[f64] {
        self.joint.as_slice()
    }

    /// Returns the eigenvalues of `D^(-1/2) P D^(-1/2)`, `D = diag p`, in descending order. The
    /// first is 1.
    pub fn eigenvalues(&self) -> Vec<f64> {
        let scaled = DMatrix::from_fn(self.patches(), self.patches(), |a, b| {
            self.joint[(a, b)] / (self.marginal[a] * self.marginal[b]).sqrt()
        });
        let mut values: Vec<f64> = scaled.symmetric_eigenvalues().iter().copied().collect();
        values.sort_unstable_by(|a, b| b.total_cmp(a));
        values
    }

    /// Returns the spectral contrastive loss
    /// `L_S = -E_p(x,x')[<z, z'>] + lambda E_p(x)p(x')[<z, z'>^2]` of a table of projections.
    ///
    /// # Panics
    /// If the table is not `[patch, dim]`.
    pub fn spectral_loss(&self, table: &[f64], dim: usize, lambda: f64) -> f64 {
        let products = self.products(table, dim);
        let of = |(a, b): (usize, usize)| {
            let product: f64 = products[(a, b)];
            lambda * self.marginal[a] * self.marginal[b] * product * product - self.joint[(a, b)] * product
        };
        self.pairs().map(of).sum()
    }

    /// Returns the co-occurrence loss `L_C = E_p(x)p(x')[(w <z, z'> - p(x,x') / (p(x) p(x')))^2]`.
    ///
    /// # Panics
    /// If the table is not `[patch, dim]`.
    pub fn cooccurrence_loss(&self, table: &[f64], dim: usize, weight: f64) -> f64 {
        let products = self.products(table, dim);
        let of = |(a, b): (usize, usize)| {
            let chance = self.marginal[a] * self.marginal[b];
            chance * (weight * products[(a, b)] - self.joint[(a, b)] / chance).powi(2)
        };
        self.pairs().map(of).sum()
    }

    /// Returns the constant `L_C - 2 w L_S` at `lambda = w / 2`, for any projections:
    /// `sum of p(x,x')^2 / (p(x) p(x'))`.
    pub fn constant(&self) -> f64 {
        self.pairs().map(|(a, b)| self.joint[(a, b)].powi(2) / (self.marginal[a] * self.marginal[b])).sum()
    }

    /// Returns the minimum spectral loss of projections of length `dim`. Each of the `dim` largest
    /// positive eigenvalues `s` contributes `-s^2 / (4 lambda)`.
    pub fn optimum(&self, dim: usize, lambda: f64) -> f64 {
        let largest = self.eigenvalues().into_iter().take(dim).filter(|value| *value > 0.0);
        -largest.map(|value| value * value).sum::<f64>() / (4.0 * lambda)
    }

    /// Trains a table of projections with the spectral loss, from small random values with seed
    /// `start`.
    ///
    /// # Errors
    /// [`Error::Setting`] unless `dim` is 1 to 4096 and `lambda` is positive.
    pub fn train(&self, dim: usize, lambda: f64, start: u64) -> Result<TrainedTable> {
        if dim == 0 || dim > 4096 {
            return Err(Error::Setting { name: "dim", expected: "1 to 4096".into(), got: dim.to_string() });
        }
        if !(lambda > 0.0 && lambda.is_finite()) {
            let got = lambda.to_string();
            return Err(Error::Setting { name: "lambda", expected: "a positive number".into(), got });
        }
        let mut random = Draw::Start.stream(start);
        let first = (0..self.patches() * dim).map(|_| 0.1 * random.normal_pair().0).collect();
        let loss = |table: &[f64], gradient: &mut [f64]| {
            self.gradient(table, dim, lambda, gradient);
            self.spectral_loss(table, dim, lambda)
        };
        let stop = Stop { tolerance: 1e-8, iterations: 10_000 };
        let end = minimize(loss, first, stop);
        let optimum = self.optimum(dim, lambda);
        let above = end.value - optimum;
        let excess = if optimum < 0.0 { above / -optimum } else { above };
        // A gradient below 1e-5 of the loss no longer changes it.
        let converged = max_abs(&end.gradient) <= 1e-5 * end.value.abs().max(1e-3);
        Ok(TrainedTable { loss: end.value, excess, steps: end.iterations, converged, table: end.point, dim })
    }

    /// Computes the gradient, `-2 P Z + 4 lambda D Z (Z^T D Z)`.
    fn gradient(&self, table: &[f64], dim: usize, lambda: f64, gradient: &mut [f64]) {
        let table = DMatrix::from_row_slice(self.patches(), dim, table);
        let mut weighted = table.clone();
        weighted.row_iter_mut().zip(&self.marginal).for_each(|(mut row, share)| row *= *share);
        let square = table.transpose() * &weighted;
        let found = weighted * square * (4.0 * lambda) - &self.joint * table * 2.0;
        gradient.iter_mut().zip(found.transpose().iter()).for_each(|(to, from)| *to = *from);
    }

    fn products(&self, table: &[f64], dim: usize) -> DMatrix<f64> {
        assert_eq!(table.len(), self.patches() * dim, "one projection per patch");
        let table = DMatrix::from_row_slice(self.patches(), dim, table);
        &table * table.transpose()
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let patches = self.patches();
        (0..patches * patches).map(move |at| (at / patches, at % patches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two patches, p(x, x') = 0.4, 0.1; 0.1, 0.4: the marginals are 0.5, the eigenvalues 1 and
    /// 0.6. Projections 1 and -2 have the products 1, -2; -2, 4.
    ///
    /// L_S at lambda 2 is -(0.4 - 0.4 + 1.6) + 2 * (1 + 8 + 16) / 4 = 10.9.
    ///
    /// At w = 4, the co-occurrences 1.6 and 0.4 give
    /// L_C = ((4 - 1.6)^2 + 2 (-8 - 0.4)^2 + (16 - 1.6)^2) / 4 = 88.56,
    /// and the constant is 2 * 0.64 + 2 * 0.04 = 1.36.
    #[test]
    fn losses_by_hand() {
        let world = World::new(vec![0.4, 0.1, 0.1, 0.4], 2).unwrap();
        let near = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-12, "{got}, expected {expected}");
        near(world.spectral_loss(&[1.0, -2.0], 1, 2.0), 10.9);
        near(world.cooccurrence_loss(&[1.0, -2.0], 1, 4.0), 88.56);
        near(world.constant(), 1.36);
        near(88.56, 2.0 * 4.0 * 10.9 + 1.36);
        near(world.eigenvalues()[0], 1.0);
        near(world.eigenvalues()[1], 0.6);
        near(world.optimum(1, 0.5), -0.5);
        near(world.optimum(5, 0.5), -0.68);
    }

    /// Patches that occur only with each other: the eigenvalues are 1 and -1, and the second is out
    /// of reach.
    #[test]
    fn negative_eigenvalues_are_out_of_reach() {
        let world = World::new(vec![0.0, 0.5, 0.5, 0.0], 2).unwrap();
        assert!((world.optimum(2, 0.5) + 0.5).abs() < 1e-12);
        let trained = world.train(2, 0.5, 1).unwrap();
        assert!(trained.converged && trained.excess.abs() < 1e-9, "{trained:?}");
        assert!((trained.table[0] - trained.table[2]).abs() < 1e-4, "both patches have the same projection");
    }

    #[test]
    fn three_starts_come_within_a_percent_of_the_optimum() {
        let definite = World::random(24, 8, 3).unwrap();
        let indefinite = definite.without_repeats().unwrap();
        assert!(definite.eigenvalues().iter().all(|&value| value > -1e-12));
        assert!(indefinite.eigenvalues().last().unwrap() < &-0.01);
        for (world, dim) in [(&definite, 4), (&definite, 24), (&indefinite, 4), (&indefinite, 24)] {
            for start in 0..3 {
                let trained = world.train(dim, 0.5, start).unwrap();
                assert!((-1e-9..0.01).contains(&trained.excess), "{dim}, start {start}: {trained:?}");
                assert!(trained.converged && trained.steps > 3);
            }
        }
    }

    #[test]
    fn invalid_worlds_are_refused() {
        for (joint, patches) in [
            (vec![], 0),
            (vec![1.0], 2),
            (vec![0.4, 0.2, 0.1, 0.3], 2),
            (vec![0.4, 0.1, 0.1, 0.3], 2),
            (vec![1.2, -0.1, -0.1, 0.0], 2),
            (vec![1.0, 0.0, 0.0, 0.0], 2),
            (vec![f64::NAN], 1),
        ] {
            assert!(World::new(joint.clone(), patches).is_err(), "{joint:?}");
        }
        assert!(World::random(0, 2, 0).is_err() && World::random(2, 0, 0).is_err());
        assert!(World::new(vec![1.0], 1).unwrap().without_repeats().is_err());
        let world = World::random(3, 2, 0).unwrap();
        assert!(world.train(0, 0.5, 0).is_err() && world.train(2, 0.0, 0).is_err());
    }

    proptest! {
        /// The proposition, on random symmetric tables, positive definite or not.
        #[test]
        fn one_loss_is_the_other(
            patches in 2usize..9, dim in 1usize..6, seed in 0u64..1000, weight in 0.05f64..20.0, repeats: bool,
        ) {
            let mut random = Draw::World.stream(seed);
            let mut joint = DMatrix::from_fn(patches, patches, |_, _| random.unit_f64() + 1e-3);
            joint = &joint + joint.transpose();
            let world = World::new((&joint / joint.sum()).as_slice().to_vec(), patches).unwrap();
            let world = if repeats { world } else { world.without_repeats().unwrap() };
            let table: Vec<f64> = (0..patches * dim).map(|_| 2.0 * random.normal_pair().0).collect();
            let both = world.cooccurrence_loss(&table, dim, weight);
            let sum = 2.0 * weight * world.spectral_loss(&table, dim, weight / 2.0) + world.constant();
            prop_assert!((both - sum).abs() <= 1e-12 * (both.abs() + world.constant()), "{both} and {sum}");
        }

        #[test]
        fn gradients_are_finite_differences(seed in 0u64..100, dim in 1usize..4) {
            let world = World::random(5, 3, seed).unwrap();
            let mut random = Draw::Start.stream(seed);
            let table: Vec<f64> = (0..5 * dim).map(|_| random.normal_pair().0).collect();
            let mut gradient = vec![0.0; table.len()];
            world.gradient(&table, dim, 0.7, &mut gradient);
            for place in 0..table.len() {
                let at = |step: f64| {
                    let mut moved = table.clone();
                    moved[place] += step;
                    world.spectral_loss(&moved, dim, 0.7)
                };
                let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
                prop_assert!((difference - gradient[place]).abs() < 1e-6, "{difference}, {}", gradient[place]);
            }
        }

        /// No table has a loss below the optimum.
        #[test]
        fn the_optimum_is_a_bound(seed in 0u64..200, dim in 1usize..7, scale in 0.1f64..2.0, repeats: bool) {
            let world = World::random(6, 3, seed).unwrap();
            let world = if repeats { world } else { world.without_repeats().unwrap() };
            let mut random = Draw::Start.stream(seed);
            let table: Vec<f64> = (0..6 * dim).map(|_| scale * random.normal_pair().0).collect();
            prop_assert!(world.spectral_loss(&table, dim, 0.5) >= world.optimum(dim, 0.5) - 1e-12);
        }
    }
}
