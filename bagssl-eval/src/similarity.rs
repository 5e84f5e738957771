//! Cosine similarity and exact nearest neighbours, in chunks, on all cores.

use bagssl_core::embed::Rows;
use rayon::prelude::*;

use crate::matrix::{Matrix, multiply};

/// Values of one chunk of similarities: 4 MiB for each thread.
const CHUNK: usize = 1 << 20;

/// The rows at unit length; a row of zeros stays what it is, so that its similarity to anything is 0.
pub(crate) fn unit_rows(rows: &Rows) -> Rows {
    let mut unit = rows.clone();
    for row in unit.values.chunks_exact_mut(rows.dim) {
        let length = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
        }
    }
    unit
}

/// For each query, the `count` items (all, if there are fewer) of greatest similarity, with it: the greatest first, among
/// equals the one that comes first. `keep(query, item)` may leave items out.
///
/// # Shapes
/// Both are rows of unit length and of the same `dim`.
pub(crate) fn nearest(
    queries: &Rows,
    items: &Rows,
    count: usize,
    keep: impl Fn(usize, usize) -> bool + Sync,
) -> Vec<Vec<(usize, f32)>> {
    let dim = queries.dim;
    let chunk = (CHUNK / items.len().max(1)).clamp(1, 256);
    let items_view = Matrix::new(&items.values, items.len(), dim);
    let of_chunk = |(number, rows): (usize, &[f32])| {
        let mut similarities = vec![0.0; rows.len() / dim * items.len()];
        multiply(Matrix::new(rows, rows.len() / dim, dim), items_view.t(), 0.0, &mut similarities);
        let of_query = |(row, similarities): (usize, &[f32])| {
            let query = number * chunk + row;
            let kept = similarities.iter().copied().enumerate().filter(|&(item, _)| keep(query, item));
            greatest(kept.collect(), count)
        };
        similarities.chunks_exact(items.len()).enumerate().map(of_query).collect::<Vec<_>>()
    };
    queries.values.par_chunks(chunk * dim).enumerate().flat_map_iter(of_chunk).collect()
}

fn greatest(mut found: Vec<(usize, f32)>, count: usize) -> Vec<(usize, f32)> {
    let closer = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if count < found.len() {
        found.select_nth_unstable_by(count, closer);
        found.truncate(count);
    }
    found.sort_unstable_by(closer);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_stay_zeros() {
        let rows = unit_rows(&Rows { values: vec![3.0, 4.0, 0.0, 0.0, -2e38, 2e38], dim: 2 });
        assert_eq!(rows.values[..4], [0.6, 0.8, 0.0, 0.0]);
        assert!((rows.values[5] - 0.5f32.sqrt()).abs() < 1e-7, "no overflow");
    }

    #[test]
    fn neighbours_by_hand() {
        let items = Rows { values: vec![1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 1.0], dim: 2 };
        let queries = Rows { values: vec![0.0, 1.0, 0.6, 0.8], dim: 2 };
        let found = nearest(&queries, &items, 3, |_, _| true);
        assert_eq!(found, [[(1, 1.0), (3, 1.0), (0, 0.0)], [(1, 0.8), (3, 0.8), (0, 0.6)]]);
        let others = nearest(&queries, &items, 9, |query, item| query + 1 != item);
        assert_eq!(others[0], [(3, 1.0), (0, 0.0), (2, 0.0)]);
        assert_eq!(others[1], [(1, 0.8), (3, 0.8), (0, 0.6)]);
    }

    /// More queries than a chunk holds: each finds itself.
    #[test]
    fn chunks_keep_their_places() {
        let values = (0..700 * 3).map(|i| ((i * i) as f32 * 0.1).sin()).collect();
        let rows = unit_rows(&Rows { values, dim: 3 });
        let found = nearest(&rows, &rows, 1, |_, _| true);
        assert_eq!(found.len(), 700);
        assert!(found.iter().enumerate().all(|(row, near)| near[0].1 > 0.999_999 && {
            let (a, b) = (rows.row(row), rows.row(near[0].0));
            a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-3)
        }));
    }
}
