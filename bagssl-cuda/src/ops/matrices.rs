//! Batched matrix products and inverses.

use burn::tensor::{DType, TensorMetadata};

use super::form::{Form, Math};
use super::gemm::Product;
use super::map::arguments;
use crate::runtime::job::{Cube, Job};

/// The tile side and the threads per block of `source/cholesky.cu`.
const TILE: usize = 64;
const THREADS: u32 = 256;

/// Returns the product with the sizes of `output` and the left factor.
fn product(left: [usize; 3], transposed: [bool; 2], output: [usize; 3]) -> Product {
    let ([_, a, b], [count, rows, columns]) = (left, output.map(|size| size as i32));
    let inner = if transposed[0] { a } else { b } as i32;
    Product { count, rows, columns, inner, transposed, bf16: false, math: Math::Exact }
}

fn three(form: &Form) -> [usize; 3] {
    form.dims().expect("a stack of matrices has three dimensions")
}

pub(crate) fn products(left: Cube, right: Cube, transposed: [bool; 2], output: &Form) -> Cube {
    let shape = left.shape();
    let product = product([shape[0], shape[1], shape[2]], transposed, three(output));
    let mut job = Job::new("products of matrices", &left);
    let factors = [left, right].map(|factor| job.read_contiguous(factor));
    let (to, shown) = job.write(&output.shape, DType::F32);
    job.then(move |context, at| {
        let [left, right] = factors.map(|slot| at.of(slot));
        // SAFETY: the factors have the products' sizes and type, and are contiguous.
        unsafe { context.blas.multiply(product, [left, right, at.of(to)], &context.stream) }
    });
    job.submit();
    shown
}

/// Computes the inverses and log-determinants.
pub(crate) fn inverses(matrices: Cube, outputs: &[Form]) -> Vec<Cube> {
    let shape @ [count, side, _] = three(&outputs[0]);
    let mut job = Job::new("inverses of matrices", &matrices);
    let from = job.read_contiguous(matrices);
    let (factors, _) = job.write(&shape, DType::F32);
    let (roots, _) = job.write(&shape, DType::F32);
    let (to, shown) = job.write(&shape, DType::F32);
    let (logarithms, shown_logarithms) = job.write(&[count], DType::F32);
    let product = product(shape, [true, false], shape);
    job.then(move |context, at| {
        let (from, factors, roots, logarithms) = (at.of(from), at.of(factors), at.of(roots), at.of(logarithms));
        let (tiles, count) = (side.div_ceil(TILE) as u32, count as u32);
        let side = side as i32;
        // SAFETY: all tensors are `count` matrices of this side, except the logarithms, with one
        // value per matrix.
        unsafe {
            for step in -1..tiles as i32 {
                let rows = tiles - (step + 1) as u32;
                if step >= 0 {
                    let shape = ([tiles, count], THREADS);
                    context.launch("cholesky_scale", shape, arguments![factors, roots, side, step])?;
                }
                if rows > 0 {
                    let shape = ([tiles * rows, count], THREADS);
                    context.launch("cholesky_subtract", shape, arguments![from, factors, roots, side, step])?;
                }
            }
            context.launch("cholesky_logarithms", ([count, 1], THREADS), arguments![roots, logarithms, side])?;
            // With L L^T = A and X = L^-1, A^-1 equals X^T X.
            context.blas.multiply(product, [roots, roots, at.of(to)], &context.stream)
        }
    });
    job.submit();
    vec![shown, shown_logarithms]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_has_the_sizes_of_what_it_reads() {
        let of = |left, transposed, output| {
            let Product { count, rows, columns, inner, .. } = product(left, transposed, output);
            [count, rows, columns, inner]
        };
        assert_eq!(of([7, 4, 3], [false, true], [7, 4, 5]), [7, 4, 5, 3]);
        assert_eq!(of([7, 4, 3], [true, false], [7, 3, 6]), [7, 3, 6, 4]);
    }
}
