//! Matrix products through cuBLAS.

use std::ffi::c_void;
use std::ptr::null_mut;

use bagssl_core::profile;
use cudarc::cublas::sys::{
    self, cublasComputeType_t as Compute, cublasGemmAlgo_t, cublasHandle_t, cublasOperation_t as Turn, cublasStatus_t,
    cudaDataType_t as Data,
};

use super::form::Math;
use crate::runtime::driver::{Outcome, Stream};

/// cuBLAS on one GPU, loaded at the first product.
#[derive(Debug)]
pub(crate) struct Blas {
    handle: cublasHandle_t,
}

impl Default for Blas {
    fn default() -> Self {
        Blas { handle: null_mut() }
    }
}

/// A batch of `count` row-major matrix products `[rows, inner] @ [inner, columns]`. Each factor may
/// be transposed. The matrices of a batch follow each other in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Product {
    pub(crate) count: i32,
    pub(crate) rows: i32,
    pub(crate) columns: i32,
    pub(crate) inner: i32,
    pub(crate) transposed: [bool; 2],
    pub(crate) bf16: bool,
    pub(crate) math: Math,
}

impl Product {
    /// Returns the row strides in memory of the left factor, the right factor and the product.
    fn pitches(self) -> [i32; 3] {
        let [left, right] = self.transposed;
        [if left { self.rows } else { self.inner }, if right { self.inner } else { self.columns }, self.columns]
    }

    /// Returns the strides between matrices, in the same order.
    fn strides(self) -> [i64; 3] {
        let Product { rows, columns, inner, .. } = self;
        [(rows, inner), (inner, columns), (rows, columns)].map(|(a, b)| i64::from(a) * i64::from(b))
    }
}

impl Blas {
    /// Enqueues `output = left @ right` for each pair, in f32.
    ///
    /// # Safety
    /// The pointers must be to `count` matrices of the product's sizes, with factors of its type,
    /// until the stream has run the product.
    pub(crate) unsafe fn multiply(&mut self, product: Product, pointers: [u64; 3], stream: &Stream) -> Outcome {
        // SAFETY: guaranteed by the caller.
        unsafe { self.multiply_onto(product, pointers, false, stream) }
    }

    /// The same, or `output += left @ right` if `add` is set.
    ///
    /// # Safety
    /// As [`Blas::multiply`].
    pub(crate) unsafe fn multiply_onto(
        &mut self,
        product: Product,
        [left, right, output]: [u64; 3],
        add: bool,
        stream: &Stream,
    ) -> Outcome {
        self.load()?;
        profile::count("products of cuBLAS", 1);
        let turn = |turned: bool| if turned { Turn::CUBLAS_OP_T } else { Turn::CUBLAS_OP_N };
        let data = if product.bf16 { Data::CUDA_R_16BF } else { Data::CUDA_R_32F };
        let compute = match (product.bf16, product.math) {
            (false, Math::Tf32) => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => Compute::CUBLAS_COMPUTE_32F,
        };
        let (one, old) = (1_f32, if add { 1_f32 } else { 0_f32 });
        let (one, old): (*const c_void, *const c_void) = ((&raw const one).cast(), (&raw const old).cast());
        let Product { count, rows, columns, inner, transposed, .. } = product;
        let [left_pitch, right_pitch, output_pitch] = product.pitches();
        let [left_stride, right_stride, output_stride] = product.strides();
        // SAFETY: guaranteed by the caller. The handle and the stream belong to this context.
        // cuBLAS is column-major, so the transposed product is computed: right times left.
        unsafe {
            checked(sys::cublasSetStream_v2(self.handle, stream.raw().cast()), "cublasSetStream")?;
            let status = sys::cublasGemmStridedBatchedEx(
                self.handle,
                turn(transposed[1]),
                turn(transposed[0]),
                columns,
                rows,
                inner,
                one,
                right as *const c_void,
                data,
                right_pitch,
                right_stride,
                left as *const c_void,
                data,
                left_pitch,
                left_stride,
                old,
                output as *mut c_void,
                Data::CUDA_R_32F,
                output_pitch,
                output_stride,
                count,
                compute,
                cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            );
            checked(status, "cublasGemmStridedBatchedEx")
        }
    }

    fn load(&mut self) -> Outcome {
        if !self.handle.is_null() {
            return Ok(());
        }
        // SAFETY: the library is loaded before it is called, and the call writes one handle.
        unsafe {
            if !sys::is_culib_present() {
                return Err("libcublas.so not found; `bagssl doctor` lists the searched paths".into());
            }
            checked(sys::cublasCreate_v2(&mut self.handle), "cublasCreate")
        }
    }
}

fn checked(status: cublasStatus_t, what: &str) -> Outcome {
    if status == cublasStatus_t::CUBLAS_STATUS_SUCCESS { Ok(()) } else { Err(format!("{what}: {status:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pitches_are_the_lengths_of_rows_in_memory() {
        let pitches = |transposed| {
            Product { count: 4, rows: 2, columns: 3, inner: 5, transposed, bf16: false, math: Math::Exact }.pitches()
        };
        // [2, 5] @ [5, 3]; [5, 2]^T @ [5, 3]; [2, 5] @ [3, 5]^T; both transposed.
        assert_eq!(pitches([false, false]), [5, 3, 3]);
        assert_eq!(pitches([true, false]), [2, 3, 3]);
        assert_eq!(pitches([false, true]), [5, 5, 3]);
        assert_eq!(pitches([true, true]), [2, 5, 3]);
        let product = Product {
            count: 4,
            rows: 2,
            columns: 3,
            inner: 5,
            transposed: [true, false],
            bf16: false,
            math: Math::Exact,
        };
        assert_eq!(product.strides(), [10, 15, 6]);
    }
}
