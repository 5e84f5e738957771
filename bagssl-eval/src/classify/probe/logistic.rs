//! Multinomial logistic regression, solved to its optimum.

use std::borrow::Cow;

use rayon::prelude::*;

use super::row_space::RowSpace;
use super::softmax::{BLOCK, SoftmaxModel, add_cross_entropy, targets};
use crate::error::{Error, Result};
use crate::features::samples::{Fit, Samples};
use crate::features::table::RowsView;
use crate::numerics::lbfgs::{Minimum, Stop, max_abs, minimize};

/// The number of parts in which the rows are summed. It is constant, so that the sum does not
/// depend on the number of threads.
pub(super) const PARTS: usize = 8;

/// Softmax regression on standardized features with an L2 penalty. It minimizes
/// `strength * sum of cross entropies + 1/2 |weights|^2`; the bias is not penalized. Each dimension
/// is standardized to mean 0 and standard deviation 1 over the training samples; constant
/// dimensions are ignored. The optimum is unique, so there is no learning rate, seed or number of
/// epochs to choose.
///
/// # Source
/// The objective is that of scikit-learn's `LogisticRegression` after its `StandardScaler`. With
/// two classes, scikit-learn fits a single weight vector, and its `C` is twice `strength`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logistic {
    /// The inverse regularization strength, `C`; positive. A smaller value regularizes more. 1 is a
    /// common choice.
    pub strength: f64,
    /// The largest component of the gradient (of the objective divided by `strength * samples`) at
    /// which the fit has converged.
    pub tolerance: f64,
    /// The maximum number of L-BFGS iterations. The last point is used, converged or not.
    pub iterations: usize,
}

impl Default for Logistic {
    fn default() -> Self {
        Logistic { strength: 1.0, tolerance: 1e-4, iterations: 1000 }
    }
}

impl Logistic {
    /// Trains a classifier. It takes unmodified features, as the standardization is folded into its
    /// weights.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting is out of range.
    pub fn fit(&self, train: &Samples) -> Result<SoftmaxModel> {
        Ok(self.solve(train)?.0)
    }

    /// Trains like [`Logistic::fit`], and also returns whether the fit has converged.
    ///
    /// # Errors
    /// The errors of [`Logistic::fit`].
    pub(crate) fn solve(&self, train: &Samples) -> Result<(SoftmaxModel, Fit)> {
        self.check()?;
        let scale = Standard::fit(train);
        let mut model = SoftmaxModel::zero(train);
        let targets = targets(train, &model.classes);
        let classes = model.classes.len();
        let wide = model.dim > train.len();
        let space = wide.then(|| RowSpace::factor(scale.apply(train.rows().values), model.dim)).flatten();
        let end = if let Some(space) = space {
            let coordinates = space.coordinates();
            let source = Source::Ready { values: &coordinates, dim: train.len() };
            let mut end = self.minimum(&Problem::new(source, &targets, classes, self.strength));
            let bias = end.point.split_off(classes * train.len());
            model.parameters = space.unfold(&end.point);
            model.parameters.extend(bias);
            end
        } else {
            let source = Source::Raw { rows: train.rows(), scale: &scale };
            let end = self.minimum(&Problem::new(source, &targets, classes, self.strength));
            model.parameters.clone_from(&end.point);
            end
        };
        let gradient = max_abs(&end.gradient);
        let fit = Fit { converged: gradient <= self.tolerance, iterations: end.iterations, gradient };
        Ok((scale.fold_into(model), fit))
    }

    fn minimum(&self, problem: &Problem<'_>) -> Minimum {
        let stop = Stop { tolerance: self.tolerance, iterations: self.iterations };
        let start = vec![0.0; problem.classes * (problem.source.dim() + 1)];
        minimize(|x, gradient| problem.value(x, gradient), start, stop)
    }

    fn check(&self) -> Result<()> {
        for (name, value) in [("logistic.strength", self.strength), ("logistic.tolerance", self.tolerance)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::Setting { name, expected: "a positive number".into(), got: value.to_string() });
            }
        }
        Ok(())
    }
}

/// The rows of a regression.
enum Source<'a> {
    /// Features that are standardized block by block.
    Raw { rows: RowsView<'a>, scale: &'a Standard },
    /// Unmodified rows, `[row, dim]`.
    Ready { values: &'a [f64], dim: usize },
}

impl Source<'_> {
    fn dim(&self) -> usize {
        match self {
            Source::Raw { rows, .. } => rows.dim,
            Source::Ready { dim, .. } => *dim,
        }
    }

    fn block(&self, first: usize, end: usize) -> Cow<'_, [f64]> {
        match self {
            Source::Raw { rows, scale } => scale.apply(&rows.values[first * rows.dim..end * rows.dim]).into(),
            Source::Ready { values, dim } => (&values[first * dim..end * dim]).into(),
        }
    }
}

/// The objective, divided by `strength * samples`.
struct Problem<'a> {
    source: Source<'a>,
    targets: &'a [usize],
    classes: usize,
    penalty: f64,
}

impl<'a> Problem<'a> {
    fn new(source: Source<'a>, targets: &'a [usize], classes: usize, strength: f64) -> Self {
        Problem { source, targets, classes, penalty: 1.0 / (strength * targets.len() as f64) }
    }

    fn value(&self, parameters: &[f64], gradient: &mut [f64]) -> f64 {
        let count = self.targets.len() as f64;
        let parts: Vec<(f64, Vec<f64>)> = (0..PARTS).into_par_iter().map(|part| self.part(part, parameters)).collect();
        gradient.fill(0.0);
        let mut loss = 0.0;
        for (value, part) in parts {
            loss += value / count;
            gradient.iter_mut().zip(part).for_each(|(sum, part)| *sum += part / count);
        }
        let weights = &parameters[..self.classes * self.source.dim()];
        gradient.iter_mut().zip(weights).for_each(|(gradient, weight)| *gradient += self.penalty * weight);
        loss + 0.5 * self.penalty * weights.iter().map(|weight| weight * weight).sum::<f64>()
    }

    /// Returns the summed cross entropy and its gradient over one part of the rows.
    fn part(&self, part: usize, parameters: &[f64]) -> (f64, Vec<f64>) {
        let count = self.targets.len();
        let (first, end) = (count * part / PARTS, count * (part + 1) / PARTS);
        let mut gradient = vec![0.0; parameters.len()];
        let blocks = (first..end).step_by(BLOCK).map(|first| {
            let end = end.min(first + BLOCK);
            let rows = self.source.block(first, end);
            add_cross_entropy(parameters, self.classes, &rows, &self.targets[first..end], &mut gradient)
        });
        (blocks.sum(), gradient)
    }
}

/// The mean and the inverse standard deviation of each dimension; the inverse is 0 for constant
/// dimensions.
#[derive(Debug, Clone)]
struct Standard {
    mean: Vec<f64>,
    inverse: Vec<f64>,
}

impl Standard {
    fn fit(train: &Samples) -> Self {
        let (rows, count) = (train.rows(), train.len() as f64);
        let mut mean = vec![0.0; rows.dim];
        let mut squares = vec![0.0; rows.dim];
        for row in rows.values.chunks_exact(rows.dim) {
            mean.iter_mut().zip(row).for_each(|(mean, &value)| *mean += f64::from(value) / count);
        }
        for row in rows.values.chunks_exact(rows.dim) {
            let deviations = row.iter().zip(&mean).map(|(&value, mean)| (f64::from(value) - mean).powi(2));
            squares.iter_mut().zip(deviations).for_each(|(sum, square)| *sum += square / count);
        }
        // A deviation at the level of rounding errors counts as constant.
        let inverse = |(square, mean): (&f64, &f64)| {
            let deviation = square.sqrt();
            if deviation > mean.abs() * 1e-12 { 1.0 / deviation } else { 0.0 }
        };
        Standard { inverse: squares.iter().zip(&mean).map(inverse).collect(), mean }
    }

    fn apply(&self, rows: &[f32]) -> Vec<f64> {
        let dims = self.mean.iter().zip(&self.inverse).cycle();
        rows.iter().zip(dims).map(|(&value, (mean, inverse))| (f64::from(value) - mean) * inverse).collect()
    }

    /// Returns the same classifier for features that are not standardized.
    fn fold_into(&self, mut model: SoftmaxModel) -> SoftmaxModel {
        let (weights, bias) = model.parameters.split_at_mut(model.classes.len() * model.dim);
        for (row, bias) in weights.chunks_exact_mut(model.dim).zip(bias) {
            for (weight, (mean, inverse)) in row.iter_mut().zip(self.mean.iter().zip(&self.inverse)) {
                *weight *= inverse;
                *bias -= *weight * mean;
            }
        }
        model
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::embed::Rows;
    use bagssl_core::random::{Address, Purpose};
    use proptest::prelude::*;

    fn samples(count: usize, dim: usize, classes: u32, seed: u64) -> Samples {
        let mut random = Address { seed, ..Address::default() }.stream(Purpose::Evaluation);
        let values = (0..count * dim).map(|_| random.normal_pair().0 as f32).collect();
        let labels = (0..count as u32).map(|i| i % classes).collect();
        Samples::new(Rows { values, dim }, labels).unwrap()
    }

    #[test]
    fn bad_settings_are_refused() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Logistic { strength: bad, ..Logistic::default() }.fit(&samples(4, 1, 2, 0)).is_err());
            assert!(Logistic { tolerance: bad, ..Logistic::default() }.fit(&samples(4, 1, 2, 0)).is_err());
        }
    }

    /// Two samples at -1 and 1 with C = 1/2. By symmetry, the weights are -w and w. The derivative
    /// `C * 2 * 2 * (-1 / (1 + exp(2 w))) + 2 w` is 0 where `w (1 + exp(2 w)) = 1`, at w =
    /// 0.40058...
    #[test]
    fn two_samples_by_hand() {
        let train = Samples::new(Rows { values: vec![-1.0, 1.0], dim: 1 }, vec![0, 1]).unwrap();
        let model = Logistic { strength: 0.5, tolerance: 1e-10, ..Logistic::default() }.fit(&train).unwrap();
        let w = model.weights()[1];
        assert!((w * (1.0 + (2.0 * w).exp()) - 1.0).abs() < 1e-8, "{w}");
        assert!((model.weights()[0] + w).abs() < 1e-8 && model.bias().iter().all(|bias| bias.abs() < 1e-8));
    }

    #[test]
    fn a_constant_dimension_counts_for_nothing() {
        let values = vec![-1.0, 0.3, 1.0, 0.3, 2.0, 0.3];
        let train = Samples::new(Rows { values, dim: 2 }, vec![0, 1, 1]).unwrap();
        let model = Logistic::default().fit(&train).unwrap();
        assert_eq!((model.weights()[1], model.weights()[3]), (0.0, 0.0));
        assert!(model.weights()[0] < 0.0);
    }

    /// Six samples of nine dimensions use the row space. Each sample twice is the same problem with
    /// twice the strength, and does not use it.
    #[test]
    fn wide_and_long_agree() {
        let train = samples(6, 9, 3, 4);
        let twice = |values: &[f32]| values.repeat(2);
        let long = Rows { values: twice(train.rows().values), dim: 9 };
        let long = Samples::new(long, train.labels().repeat(2)).unwrap();
        let with = |strength| Logistic { strength, tolerance: 1e-9, ..Logistic::default() };
        let one = with(1.0).fit(&train).unwrap();
        let two = with(0.5).fit(&long).unwrap();
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(one.weights(), two.weights()) && close(one.bias(), two.bias()), "{one:?} {two:?}");
    }

    /// With more dimensions than samples, and with fewer, the fit reports whether it has converged.
    #[test]
    fn unconverged_fits_are_reported() {
        for (count, dim) in [(40, 3), (8, 20)] {
            let train = samples(count, dim, 3, 5);
            let (_, fit) = Logistic::default().solve(&train).unwrap();
            assert!(fit.converged && fit.gradient <= 1e-4 && fit.iterations > 1, "{fit:?}");
            let (_, fit) = Logistic { iterations: 1, ..Logistic::default() }.solve(&train).unwrap();
            assert!(!fit.converged && fit.gradient > 1e-4 && fit.iterations == 1, "{fit:?}");
        }
    }

    proptest! {
        #[test]
        fn the_gradient_is_that_of_the_value(count in 2usize..30, dim in 1usize..7, classes in 1u32..5, seed: u64) {
            let train = samples(count, dim, classes.min(count as u32), seed);
            let classes = train.classes();
            let targets = targets(&train, &classes);
            let scale = Standard::fit(&train);
            let source = Source::Raw { rows: train.rows(), scale: &scale };
            let problem = Problem::new(source, &targets, classes.len(), 0.7);
            let mut random = Address { seed, ..Address::default() }.stream(Purpose::Weights);
            let length = problem.classes * (dim + 1);
            let point: Vec<f64> = (0..length).map(|_| random.normal_pair().0).collect();
            let mut gradient = vec![0.0; length];
            problem.value(&point, &mut gradient);
            for at in 0..length {
                let value = |shift| {
                    let mut point = point.clone();
                    point[at] += shift;
                    problem.value(&point, &mut vec![0.0; length])
                };
                let slope = (value(1e-5) - value(-1e-5)) / 2e-5;
                prop_assert!((slope - gradient[at]).abs() < 1e-7 * (1.0 + slope.abs()), "{slope} {}", gradient[at]);
            }
        }

        #[test]
        fn scale_and_shift_of_a_dimension_do_not_matter(scale in 0.01f32..100.0, shift in -50f32..50.0, seed: u64) {
            let train = samples(30, 2, 3, seed);
            let mut moved = train.rows().to_rows();
            moved.values.iter_mut().step_by(2).for_each(|value| *value = *value * scale + shift * scale);
            let moved = Samples::new(moved, train.labels().to_vec()).unwrap();
            let logistic = Logistic { tolerance: 1e-9, ..Logistic::default() };
            let one = logistic.fit(&train).unwrap().probabilities(train.rows()).unwrap();
            let two = logistic.fit(&moved).unwrap().probabilities(moved.rows()).unwrap();
            prop_assert!(one.iter().zip(&two).all(|(one, two)| (one - two).abs() < 1e-4));
        }
    }
}
