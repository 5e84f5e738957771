//! Matrices laid over slices, and their product: the one place where this crate multiplies matrices.

use nalgebra::{DMatrixViewMut, Dyn, MatrixView, RealField};

/// A matrix over a row-major slice, or its transpose.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    turned: bool,
}

impl<'a, T: RealField + Copy> Matrix<'a, T> {
    /// The `[rows, columns]` matrix of a row-major slice.
    pub(crate) fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix of {rows}x{columns}");
        Matrix { data, rows, columns, turned: false }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Matrix { rows: self.columns, columns: self.rows, turned: !self.turned, ..self }
    }

    /// The transpose, as nalgebra sees the slice: what is row-major here is column-major there.
    fn turned_view(&self) -> MatrixView<'a, T, Dyn, Dyn, Dyn, Dyn> {
        let (row_step, column_step) = if self.turned { (self.rows, 1) } else { (1, self.columns) };
        let (rows, columns) = (Dyn(self.columns), Dyn(self.rows));
        MatrixView::from_slice_with_strides_generic(self.data, rows, columns, Dyn(row_step), Dyn(column_step))
    }
}

/// Below this side nalgebra multiplies column by column, and there it takes the rows of its left factor to be contiguous
/// (0.35 reads past the end otherwise). Its own threshold is 6; this one leaves room.
const SMALL: usize = 16;

/// `out = a b + keep * out`, row-major.
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn multiply<T: RealField + Copy>(a: Matrix<'_, T>, b: Matrix<'_, T>, keep: T, out: &mut [T]) {
    assert_eq!(a.columns, b.rows, "inner sides of a product");
    assert_eq!(out.len(), a.rows * b.columns, "values of a product");
    // out^T = b^T a^T, and each transpose is a slice as it stands.
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

    /// Sides below and above the size from which the blocked product takes over; all four ways to turn the factors.
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
