//! The points of a map: how many images they are of, their features, and their neighbors.

use anyhow::{Result, bail};
use bagssl_core::embed::Rows;

/// Returns the number of images whose points fit the limit, at `each` points per image. It is at
/// least two, because the nearest neighbors are searched in other images.
pub(super) fn images_of(limit: u32, each: usize) -> Result<usize> {
    match limit as usize / each {
        0 | 1 => bail!("--limit: expected at least {}, for two images of {each} patches, got {limit}", 2 * each),
        images => Ok(images),
    }
}

/// Normalizes rows to unit length. Rows of zeros stay unchanged.
pub(super) fn unit(mut rows: Rows) -> Rows {
    for row in rows.values.chunks_mut(rows.dim) {
        let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        if length > 0.0 {
            row.iter_mut().for_each(|value| *value /= length);
        }
    }
    rows
}

/// Returns how often a point's most similar point of another image has the same class, in percent,
/// or `None` if there is only one image. `kinds` has the image and class of each point.
pub(super) fn same_class(kinds: &[(usize, u32)], similarity: impl Fn(usize, usize) -> f64) -> Option<f64> {
    if kinds.iter().all(|kind| kind.0 == kinds[0].0) {
        return None;
    }
    let nearest = |point: usize| {
        let others = (0..kinds.len()).filter(|&other| kinds[other].0 != kinds[point].0);
        others.max_by(|&a, &b| similarity(point, a).total_cmp(&similarity(point, b)))
    };
    let same = (0..kinds.len()).filter(|&point| nearest(point).is_some_and(|other| kinds[other].1 == kinds[point].1));
    Some(100.0 * same.count() as f64 / kinds.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbors_of_a_class_by_hand() {
        let places: [f64; 4] = [0.0, 1.0, 1.5, 9.0];
        let similarity = |a: usize, b: usize| -(places[a] - places[b]).abs();
        // Points 0 and 2 are nearest to 1; points 1 and 3 are nearest to 2.
        let of = |labels: &[u32]| labels.iter().copied().enumerate().collect::<Vec<_>>();
        assert_eq!(same_class(&of(&[0, 0, 1, 1]), similarity), Some(50.0));
        assert_eq!(same_class(&of(&[0, 1, 0, 1]), similarity), Some(0.0));
        // Two patches of one image: their neighbors are searched in other images only.
        assert_eq!(same_class(&[(7, 0), (7, 0), (8, 1), (9, 1)], similarity), Some(25.0));
        assert_eq!(same_class(&[(7, 0), (7, 0)], similarity), None);
    }

    #[test]
    fn a_limit_holds_at_least_two_images() {
        assert_eq!((images_of(60, 4).unwrap(), images_of(59, 25).unwrap(), images_of(2, 1).unwrap()), (15, 2, 2));
        for limit in [10, 49] {
            let error = images_of(limit, 25).unwrap_err().to_string();
            let expected = "--limit: expected at least 50, for two images of 25 patches, got ";
            assert_eq!(error, format!("{expected}{limit}"));
        }
    }

    #[test]
    fn rows_have_unit_length() {
        assert_eq!(unit(Rows { values: vec![3.0, 4.0, 0.0, 0.0], dim: 2 }).values, [0.6, 0.8, 0.0, 0.0]);
    }
}
