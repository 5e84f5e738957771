//! Matrix views of slices, and their product. All matrix products of this crate go through this
//! module.

use nalgebra::{DMatrixViewMut, Dyn, MatrixView, RealField};

/// A view of a row-major slice as a matrix or its transpose.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    turned: bool,
}

impl<'a, T: RealField + Copy> Matrix<'a, T> {
    /// Creates a `[rows, columns]` matrix over a row-major slice.
    pub(crate) fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix of {rows}x{columns}");
        Matrix { data, rows, columns, turned: false }
    }

    /// Returns the transpose.
    pub(crate) fn t(self) -> Self {
        Matrix { rows: self.columns, columns: self.rows, turned: !self.turned, ..self }
    }

    /// Returns the transpose as a nalgebra view. nalgebra is column-major, so a row-major slice is
    /// its own transpose.
    fn turned_view(&self) -> MatrixView<'a, T, Dyn, Dyn, Dyn, Dyn> {
        let (row_step, column_step) = if self.turned { (self.rows, 1) } else { (1, self.columns) };
        let (rows, columns) = (Dyn(self.columns), Dyn(self.rows));
        MatrixView::from_slice_with_strides_generic(self.data, rows, columns, Dyn(row_step), Dyn(column_step))
    }
}

/// Below this size, nalgebra multiplies column by column, and assumes that the rows of its left
/// factor are contiguous (version 0.35 reads past the end otherwise). Its own threshold is 6; this
/// one leaves a margin.
const SMALL: usize = 16;

/// Computes `out = a b + keep * out`, row-major.
///
/// # Panics
/// If the shapes do not match.
pub(crate) fn multiply<T: RealField + Copy>(a: Matrix<'_, T>, b: Matrix<'_, T>, keep: T, out: &mut [T]) {
    assert_eq!(a.columns, b.rows, "inner dimensions of a product");
    assert_eq!(out.len(), a.rows * b.columns, "product values");
    // Compute out^T = b^T a^T. Each transpose is a view without a copy.
    let small = a.rows.min(a.columns).min(b.columns) < SMALL;
    let mut out = DMatrixViewMut::from_slice(out, b.columns, a.rows);
    if b.turned && small {
        out.gemm(T::one(), &b.turned_view().clone_owned(), &a.turned_view(), keep);
    } else {
        out.gemm(T::one(), &b.turned_view(), &a.turned_view(), keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transposed(data: &[f64], rows: usize, columns: usize) -> Vec<f64> {
        (0..rows * columns).map(|at| data[at % rows * columns + at / rows]).collect()
    }

    /// Sizes below and above the threshold of the blocked product, for all four combinations of
    /// transposed factors.
    #[test]
    fn products_equal_the_definition() {
        for [rows, inner, columns] in [[2, 3, 4], [11, 7, 9], [1, 20, 13], [40, 3, 50], [17, 30, 19]] {
            let left: Vec<f64> = (0..rows * inner).map(|i| (i as f64 * 0.7).sin()).collect();
            let right: Vec<f64> = (0..inner * columns).map(|i| (i as f64 * 1.3).cos()).collect();
            let (left_turned, right_turned) = (transposed(&left, rows, inner), transposed(&right, inner, columns));
            let element = |row: usize, column: usize| -> f64 {
                (0..inner).map(|i| left[row * inner + i] * right[i * columns + column]).sum()
            };
            let expected: Vec<f64> = (0..rows * columns).map(|at| 0.5 + element(at / columns, at % columns)).collect();
            for a in [Matrix::new(&left, rows, inner), Matrix::new(&left_turned, inner, rows).t()] {
                for b in [Matrix::new(&right, inner, columns), Matrix::new(&right_turned, columns, inner).t()] {
                    let mut out = vec![1.0; rows * columns];
                    multiply(a, b, 0.5, &mut out);
                    assert!(out.iter().zip(&expected).all(|(out, expected)| (out - expected).abs() < 1e-12));
                }
            }
        }
    }
}
