//! L-BFGS: minimizes a smooth function of many variables.
//!
//! This is our own: for the same regression, the crate argmin 0.11 evaluates the function 58 times
//! instead of 17, and its weights differ by 0.004, so that figures would change (2026-11-28).
//!
//! # Source
//! Nocedal and Wright, *Numerical Optimization*, 2nd edition, algorithm 7.4 (the two-loop
//! recursion) and section 7.2. The line search by bisection is from Lewis and Overton, *Nonsmooth
//! optimization via quasi-Newton methods*, 2013.

use std::collections::VecDeque;

/// The number of stored steps.
const MEMORY: usize = 10;
/// The most vectors of the length of the point that are there at a time: stored steps and changes, a
/// step and a change more, the point and its gradient, those of the best trial and of the next one,
/// and the direction.
pub(crate) const VECTORS: usize = 2 * MEMORY + 2 + 3 * 2 + 1 + 3;
/// The parameter of the sufficient decrease (Armijo) condition.
const DECREASE: f64 = 1e-4;
/// The parameter of the curvature condition: the slope after a step is at most this fraction of the
/// slope before.
const SLOPE: f64 = 0.9;
/// The maximum number of function evaluations per line search.
const TRIALS: usize = 40;

/// The stopping criteria.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    /// Stop when the largest component of the gradient is at most this.
    pub(crate) tolerance: f64,
    /// The maximum number of iterations.
    pub(crate) iterations: usize,
}

/// The final point.
#[derive(Debug, Clone)]
pub(crate) struct Minimum {
    pub(crate) point: Vec<f64>,
    pub(crate) value: f64,
    pub(crate) gradient: Vec<f64>,
    pub(crate) iterations: usize,
}

/// A step and the change of the gradient along it.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    curvature: f64,
}

/// Minimizes `function`, which returns its value and writes its gradient. Stops at the tolerance,
/// at the maximum number of iterations, or when rounding errors prevent any descent.
pub(crate) fn minimize(function: impl Fn(&[f64], &mut [f64]) -> f64, start: Vec<f64>, stop: Stop) -> Minimum {
    let mut gradient = vec![0.0; start.len()];
    let value = function(&start, &mut gradient);
    let mut at = Minimum { point: start, value, gradient, iterations: 0 };
    let mut memory = VecDeque::with_capacity(MEMORY);
    while max_abs(&at.gradient) > stop.tolerance && at.iterations < stop.iterations {
        let direction = descent(&at.gradient, &memory);
        let first = if memory.is_empty() { 1.0 / norm(&at.gradient) } else { 1.0 };
        let Some(next) = line_search(&function, &at, &direction, first) else { break };
        let step = difference(&next.point, &at.point);
        let change = difference(&next.gradient, &at.gradient);
        let curvature = dot(&step, &change);
        if curvature > 0.0 {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            memory.push_back(Pair { step, change, curvature });
        }
        at = next;
    }
    at
}

/// Returns the negative gradient, multiplied by the approximate inverse Hessian.
fn descent(gradient: &[f64], memory: &VecDeque<Pair>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|value| -value).collect();
    let mut along = Vec::with_capacity(memory.len());
    for pair in memory.iter().rev() {
        let share = dot(&pair.step, &direction) / pair.curvature;
        add_scaled(&mut direction, -share, &pair.change);
        along.push(share);
    }
    if let Some(last) = memory.back() {
        let scale = last.curvature / dot(&last.change, &last.change);
        direction.iter_mut().for_each(|value| *value *= scale);
    }
    for (pair, share) in memory.iter().zip(along.into_iter().rev()) {
        let back = dot(&pair.change, &direction) / pair.curvature;
        add_scaled(&mut direction, share - back, &pair.step);
    }
    direction
}

/// Returns a point that satisfies the weak Wolfe conditions, or else the last point with sufficient
/// decrease, or `None` if no point has.
fn line_search(
    function: &impl Fn(&[f64], &mut [f64]) -> f64,
    at: &Minimum,
    direction: &[f64],
    first: f64,
) -> Option<Minimum> {
    let slope = dot(&at.gradient, direction);
    let (mut low, mut high, mut length) = (0.0, f64::INFINITY, first);
    let mut best = None;
    for _ in 0..TRIALS {
        let mut point = at.point.clone();
        add_scaled(&mut point, length, direction);
        let mut gradient = vec![0.0; point.len()];
        let value = function(&point, &mut gradient);
        let slope_there = dot(&gradient, direction);
        if value <= at.value + DECREASE * length * slope {
            low = length;
            best = Some(Minimum { point, value, gradient, iterations: at.iterations + 1 });
            if slope_there >= SLOPE * slope {
                break;
            }
        } else {
            high = length;
        }
        length = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * low };
    }
    best
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn add_scaled(to: &mut [f64], share: f64, what: &[f64]) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += share * what);
}

/// Returns the largest absolute value.
pub(crate) fn max_abs(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOP: Stop = Stop { tolerance: 1e-9, iterations: 500 };

    /// The minimum is 3 at (1, -2); the curvatures are 1 and 1000.
    #[test]
    fn a_narrow_bowl() {
        let bowl = |x: &[f64], gradient: &mut [f64]| {
            let (a, b) = (x[0] - 1.0, x[1] + 2.0);
            gradient.copy_from_slice(&[a, 1e6 * b]);
            3.0 + 0.5 * (a * a + 1e6 * b * b)
        };
        let end = minimize(bowl, vec![50.0, 70.0], STOP);
        assert!((end.point[0] - 1.0).abs() < 1e-8 && (end.point[1] + 2.0).abs() < 1e-8, "{end:?}");
        assert!((end.value - 3.0).abs() < 1e-12 && end.iterations < 50);
    }

    /// Rosenbrock 1960: a curved valley with its minimum at (1, 1).
    #[test]
    fn a_curved_valley() {
        let valley = |x: &[f64], gradient: &mut [f64]| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            gradient.copy_from_slice(&[-2.0 * a - 400.0 * x[0] * b, 200.0 * b]);
            a * a + 100.0 * b * b
        };
        let end = minimize(valley, vec![-1.2, 1.0], STOP);
        assert!(max_abs(&end.gradient) <= 1e-9 && end.iterations < 100, "{end:?}");
        assert!((end.point[0] - 1.0).abs() < 1e-6 && (end.point[1] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn minimize_stops_at_limit_and_in_a_minimum() {
        let bowl = |x: &[f64], gradient: &mut [f64]| {
            gradient[0] = x[0].powi(3);
            x[0].powi(4) / 4.0
        };
        assert_eq!(minimize(bowl, vec![5.0], Stop { iterations: 3, ..STOP }).iterations, 3);
        assert_eq!(minimize(bowl, vec![0.0], STOP).iterations, 0);
    }
}
