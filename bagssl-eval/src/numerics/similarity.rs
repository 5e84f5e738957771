//! Cosine similarity and exact nearest neighbors, in chunks, on all cores.

use bagssl_core::embed::Rows;
use rayon::prelude::*;

use crate::features::table::RowsView;
use crate::numerics::matrix::{Matrix, multiply};

/// The number of item values compared in one block: 16 MiB, plus a normalized copy.
const BLOCK: usize = 1 << 22;
/// The number of similarities per chunk of queries on one thread: 4 MiB.
const CHUNK: usize = 1 << 20;

/// Returns the rows scaled to unit length. A row of zeros stays zero, so that its similarity to any
/// row is 0.
pub(crate) fn unit_rows<'a>(rows: impl Into<RowsView<'a>>) -> Rows {
    let rows = rows.into();
    let mut unit = Rows { values: rows.values.to_vec(), dim: rows.dim };
    for row in unit.values.chunks_exact_mut(rows.dim) {
        let length = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
        }
    }
    unit
}

/// Returns the `count` items of greatest cosine similarity for each query (all items if there are
/// fewer), with their similarities, in descending order. Ties are in the order of the items.
/// `keep(query, item)` can exclude items. The items are read once, in order, one block at a time.
///
/// # Shapes
/// `queries` and `items` have rows of the same `dim`. The queries have unit length.
pub(crate) fn nearest<'a>(
    queries: &Rows,
    items: impl Into<RowsView<'a>>,
    count: usize,
    keep: impl Fn(usize, usize) -> bool + Sync,
) -> Vec<Vec<(usize, f32)>> {
    let (items, dim) = (items.into(), queries.dim);
    let mut found: Vec<Nearest> = vec![Nearest::new(); queries.len()];
    let block = (BLOCK / dim.max(1)).max(1);
    for (number, items) in items.values.chunks(block * dim).enumerate() {
        let (first, items) = (number * block, unit_rows(RowsView { values: items, dim }));
        let chunk = (CHUNK / items.len()).clamp(1, 256);
        let of_chunk = |(number, (found, rows)): (usize, (&mut [Nearest], &[f32]))| {
            let similarities = products(rows, &items);
            let mut near = Nearest::new();
            for (row, (found, similarities)) in found.iter_mut().zip(similarities.chunks_exact(items.len())).enumerate()
            {
                let query = number * chunk + row;
                // An item equal to the last one found would come after it, so it cannot enter a
                // full list.
                let least = (found.len() >= count).then(|| found.last().map_or(f32::INFINITY, |last| last.1));
                let more = similarities.iter().enumerate().map(|(item, &similarity)| (first + item, similarity));
                let is_nearer = |similarity: f32| least.is_none_or(|least| similarity > least);
                // Many candidates enter, few stay. The list is copied so that the capacity for all
                // candidates is not allocated per query.
                near.clone_from(found);
                near.extend(more.filter(|&(item, similarity)| is_nearer(similarity) && keep(query, item)));
                keep_greatest(&mut near, count);
                found.clone_from(&near);
            }
        };
        found.par_chunks_mut(chunk).zip(queries.values.par_chunks(chunk * dim)).enumerate().for_each(of_chunk);
    }
    found
}

/// Returns the most bytes that [`nearest`] takes for one query over `count` items: a block of items,
/// the copy of it that the product makes, and lists of all items with their similarities.
pub(crate) fn work_bytes(dim: usize, count: usize) -> u64 {
    // The similarity; four entries of lists, as one of three grows by doubling; the class.
    const OF_ITEM: u64 = 4 * size_of::<(usize, f32)>() as u64 + 8;
    let block = BLOCK.max(dim).min(dim.saturating_mul(count)) as u64;
    (2 * size_of::<f32>() as u64 * block).saturating_add(OF_ITEM.saturating_mul(count as u64))
}

/// Items with their similarities, in descending order of similarity.
type Nearest = Vec<(usize, f32)>;

/// Returns the dot products of all rows with all items, `[row, item]`.
fn products(rows: &[f32], items: &Rows) -> Vec<f32> {
    let count = rows.len() / items.dim;
    let mut products = vec![0.0; count * items.len()];
    let items = Matrix::new(&items.values, items.len(), items.dim);
    multiply(Matrix::new(rows, count, rows.len() / count), items.t(), 0.0, &mut products);
    products
}

fn keep_greatest(found: &mut Nearest, count: usize) {
    let closer = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if count < found.len() {
        found.select_nth_unstable_by(count, closer);
        found.truncate(count);
    }
    found.sort_unstable_by(closer);
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
    fn neighbors_by_hand() {
        let items = Rows { values: vec![1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 1.0], dim: 2 };
        let queries = Rows { values: vec![0.0, 1.0, 0.6, 0.8], dim: 2 };
        let found = nearest(&queries, &items, 3, |_, _| true);
        assert_eq!(found, [[(1, 1.0), (3, 1.0), (0, 0.0)], [(1, 0.8), (3, 0.8), (0, 0.6)]]);
        let others = nearest(&queries, &items, 9, |query, item| query + 1 != item);
        assert_eq!(others[0], [(3, 1.0), (0, 0.0), (2, 0.0)]);
        assert_eq!(others[1], [(1, 0.8), (3, 0.8), (0, 0.6)]);
    }

    /// With more queries than in a chunk, each query finds itself.
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

    /// With more items than in a block, some of them equal, the result matches the definition.
    #[test]
    fn blocks_are_joined() {
        let dim = 700;
        let count = 2 * BLOCK / dim + 5;
        let values: Vec<f32> =
            (0..count * dim).map(|i| ((i / dim % 4001) as f32 + (i % dim) as f32 * 0.37).sin()).collect();
        let items = Rows { values, dim };
        let queries = unit_rows(RowsView { values: &items.values[..3 * dim], dim });
        let keep = |query: usize, item: usize| item % 7 != query;
        let found = nearest(&queries, &items, 9, keep);
        let unit = unit_rows(&items);
        for (query, found) in found.iter().enumerate() {
            let dot = |item: usize| -> f32 { queries.row(query).iter().zip(unit.row(item)).map(|(a, b)| a * b).sum() };
            let mut all: Vec<(usize, f32)> =
                (0..count).filter(|&item| keep(query, item)).map(|item| (item, dot(item))).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            assert_eq!(found.len(), 9);
            assert!(found.iter().zip(&all).all(|(found, all)| (found.1 - all.1).abs() < 1e-4));
            assert!(
                found.windows(2).all(|pair| pair[0].1 > pair[1].1 || (pair[0].1 == pair[1].1 && pair[0].0 < pair[1].0))
            );
            assert!(found.iter().all(|&(item, similarity)| keep(query, item) && (dot(item) - similarity).abs() < 1e-4));
            assert!(found.iter().any(|&(item, _)| item >= 4001), "an equal one of a later block");
        }
    }
}
