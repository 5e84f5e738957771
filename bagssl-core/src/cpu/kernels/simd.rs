//! The vector operations that the kernels use.
#![allow(unsafe_code, reason = "vector instructions and raw loads; see each trait function's contract")]

/// A vector of `f32`.
///
/// # Safety
/// Every function requires the instruction set of its type: it must be inlined into a function with
/// the matching `target_feature`, which must only be called where that feature was detected. Loads
/// and stores access [`Vector::LANES`] values starting at the pointer. These must lie in one
/// allocation and need no alignment.
pub(crate) trait Vector: Copy {
    /// Number of values per vector.
    const LANES: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, addend: *mut f32);
    /// `self * factor + addend`
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// `from - self * factor`
    unsafe fn mul_sub_from(self, factor: Self, from: Self) -> Self;
    unsafe fn mul(self, factor: Self) -> Self;
    unsafe fn add(self, addend: Self) -> Self;
    unsafe fn sub(self, subtrahend: Self) -> Self;
    unsafe fn max(self, with: Self) -> Self;
}

#[cfg(target_arch = "x86_64")]
macro_rules! x86_vector {
    ($type:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $fma:ident, $fnma:ident, $mul:ident, $add:ident, $sub:ident, $max:ident) => {
        // SAFETY: each body is one intrinsic of the type's instruction set, as the trait's contract
        // requires.
        impl Vector for $type {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                unsafe { $splat(value) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn store(self, addend: *mut f32) {
                unsafe { $store(addend, self) }
            }
            #[inline(always)]
            unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
                unsafe { $fma(self, factor, addend) }
            }
            #[inline(always)]
            unsafe fn mul_sub_from(self, factor: Self, from: Self) -> Self {
                unsafe { $fnma(self, factor, from) }
            }
            #[inline(always)]
            unsafe fn mul(self, factor: Self) -> Self {
                unsafe { $mul(self, factor) }
            }
            #[inline(always)]
            unsafe fn add(self, addend: Self) -> Self {
                unsafe { $add(self, addend) }
            }
            #[inline(always)]
            unsafe fn sub(self, subtrahend: Self) -> Self {
                unsafe { $sub(self, subtrahend) }
            }
            #[inline(always)]
            unsafe fn max(self, with: Self) -> Self {
                unsafe { $max(self, with) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use core::arch::x86_64::*;

    x86_vector!(
        __m512,
        16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        _mm512_fnmadd_ps,
        _mm512_mul_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_max_ps
    );
    x86_vector!(
        __m256,
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        _mm256_fnmadd_ps,
        _mm256_mul_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_max_ps
    );
}

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod aarch64 {
    use super::Vector;
    use core::arch::aarch64::*;

    // SAFETY: each body is one NEON intrinsic, as the trait's contract requires.
    impl Vector for float32x4_t {
        const LANES: usize = 4;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { vdupq_n_f32(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn store(self, addend: *mut f32) {
            unsafe { vst1q_f32(addend, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            unsafe { vfmaq_f32(addend, self, factor) }
        }
        #[inline(always)]
        unsafe fn mul_sub_from(self, factor: Self, from: Self) -> Self {
            unsafe { vfmsq_f32(from, self, factor) }
        }
        #[inline(always)]
        unsafe fn mul(self, factor: Self) -> Self {
            unsafe { vmulq_f32(self, factor) }
        }
        #[inline(always)]
        unsafe fn add(self, addend: Self) -> Self {
            unsafe { vaddq_f32(self, addend) }
        }
        #[inline(always)]
        unsafe fn sub(self, subtrahend: Self) -> Self {
            unsafe { vsubq_f32(self, subtrahend) }
        }
        #[inline(always)]
        unsafe fn max(self, with: Self) -> Self {
            // If one operand is NaN, return the other, as on other machines.
            unsafe { vmaxnmq_f32(self, with) }
        }
    }
}

/// An array that the compiler maps to the target's vectors.
#[derive(Clone, Copy)]
pub(crate) struct Array<const N: usize>([f32; N]);

impl<const N: usize> Array<N> {
    #[inline(always)]
    fn with(self, other: Self, operation: impl Fn(f32, f32) -> f32) -> Self {
        Array(core::array::from_fn(|lane| operation(self.0[lane], other.0[lane])))
    }
}

// SAFETY: an array needs no instruction set. Loads and stores access as many values as the trait
// states.
impl<const N: usize> Vector for Array<N> {
    const LANES: usize = N;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Array([value; N])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Array(from.cast::<[f32; N]>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn store(self, addend: *mut f32) {
        unsafe { addend.cast::<[f32; N]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        Array(core::array::from_fn(|lane| self.0[lane] * factor.0[lane] + addend.0[lane]))
    }
    #[inline(always)]
    unsafe fn mul_sub_from(self, factor: Self, from: Self) -> Self {
        Array(core::array::from_fn(|lane| from.0[lane] - self.0[lane] * factor.0[lane]))
    }
    #[inline(always)]
    unsafe fn mul(self, factor: Self) -> Self {
        self.with(factor, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn add(self, addend: Self) -> Self {
        self.with(addend, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, subtrahend: Self) -> Self {
        self.with(subtrahend, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn max(self, with: Self) -> Self {
        self.with(with, |a, b| if a > b { a } else { b })
    }
}
