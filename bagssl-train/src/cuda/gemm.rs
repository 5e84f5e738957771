//! Products of matrices through cuBLAS.

use std::ffi::c_void;
use std::ptr::null_mut;

use cudarc::cublas::sys::{
    self, cublasComputeType_t as Compute, cublasGemmAlgo_t, cublasHandle_t, cublasOperation_t as Turn, cublasStatus_t,
    cudaDataType_t as Data,
};

use super::driver::{Outcome, Stream};
use super::operation::Math;

/// cuBLAS on one GPU, loaded at the first product.
#[derive(Debug)]
pub(super) struct Blas {
    handle: cublasHandle_t,
}

impl Default for Blas {
    fn default() -> Self {
        Blas { handle: null_mut() }
    }
}

/// A product of matrices that lie row by row: `[rows, inner]` times `[inner, columns]`, each of them turned or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Product {
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) inner: i32,
    pub(super) transposed: [bool; 2],
    pub(super) bf16: bool,
    pub(super) math: Math,
}

impl Product {
    /// From a row to the next in memory: of the left, the right and the product.
    fn pitches(self) -> [i32; 3] {
        let [left, right] = self.transposed;
        [if left { self.rows } else { self.inner }, if right { self.inner } else { self.columns }, self.columns]
    }
}

impl Blas {
    /// Enqueues `output = left @ right`, in f32.
    ///
    /// # Safety
    /// The pointers must be to matrices of the product's sizes, the factors of its type, until the stream has run it.
    pub(super) unsafe fn multiply(
        &mut self,
        product: Product,
        [left, right, output]: [u64; 3],
        stream: &Stream,
    ) -> Outcome {
        self.load()?;
        let turn = |turned: bool| if turned { Turn::CUBLAS_OP_T } else { Turn::CUBLAS_OP_N };
        let data = if product.bf16 { Data::CUDA_R_16BF } else { Data::CUDA_R_32F };
        let compute = match (product.bf16, product.math) {
            (false, Math::Tf32) => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => Compute::CUBLAS_COMPUTE_32F,
        };
        let (one, zero) = (1_f32, 0_f32);
        let (one, zero): (*const c_void, *const c_void) = ((&raw const one).cast(), (&raw const zero).cast());
        let Product { rows, columns, inner, transposed, .. } = product;
        let [left_pitch, right_pitch, output_pitch] = product.pitches();
        // SAFETY: the caller's promise; handle and stream are of this context. cuBLAS reads columns where we have rows,
        // so that it is given the transposed product, right times left.
        unsafe {
            checked(sys::cublasSetStream_v2(self.handle, stream.raw().cast()), "cublasSetStream")?;
            let status = sys::cublasGemmEx(
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
                left as *const c_void,
                data,
                left_pitch,
                zero,
                output as *mut c_void,
                Data::CUDA_R_32F,
                output_pitch,
                compute,
                cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            );
            checked(status, "cublasGemmEx")
        }
    }

    fn load(&mut self) -> Outcome {
        if !self.handle.is_null() {
            return Ok(());
        }
        // SAFETY: the library is there before it is called; the call writes one handle.
        unsafe {
            if !sys::is_culib_present() {
                return Err(
                    "libcublas not found; install cuBLAS of CUDA 12 or add its folder to LD_LIBRARY_PATH".into()
                );
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
            Product { rows: 2, columns: 3, inner: 5, transposed, bf16: false, math: Math::Exact }.pitches()
        };
        // [2, 5] @ [5, 3]; [5, 2]^T @ [5, 3]; [2, 5] @ [3, 5]^T; both.
        assert_eq!(pitches([false, false]), [5, 3, 3]);
        assert_eq!(pitches([true, false]), [2, 3, 3]);
        assert_eq!(pitches([false, true]), [5, 5, 3]);
        assert_eq!(pitches([true, true]), [2, 5, 3]);
    }
}
