//! Instruction sets: compiles the generic kernels for each of them and selects one.
#![allow(unsafe_code, reason = "the only functions with `target_feature`; a table is given out only where it runs")]

use super::elementwise;
use super::microkernel::{self, GradientTile, Square, Tile, WinogradOutput};
use super::simd::Array;

/// The instruction set for which kernels are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum InstructionSet {
    /// The baseline of the target.
    Portable,
    /// NEON (every 64-bit Arm with floating point).
    Neon,
    /// AVX2 and FMA (x86-64 since 2013).
    Avx2,
    /// AVX-512F.
    Avx512,
    /// AVX-512F with products in bf16 and sums in f32: twice the speed with a third of the mantissa
    /// bits of f32.
    Avx512Bf16,
}

impl InstructionSet {
    /// All instruction sets, from slowest to fastest.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512, Self::Avx512Bf16];

    /// Returns the name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
        }
    }

    /// Returns whether this machine supports the set. Detected at run time with the feature `std`,
    /// and at compile time without it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Neon => cfg!(all(target_arch = "aarch64", target_feature = "neon")),
            Self::Avx2 => has::avx2(),
            Self::Avx512 => has::avx512(),
            Self::Avx512Bf16 => has::avx512_bf16(),
        }
    }

    /// Returns the fastest available set that computes in f32.
    pub fn best() -> Self {
        [Self::Avx512, Self::Avx2, Self::Neon].into_iter().find(|set| set.is_available()).unwrap_or(Self::Portable)
    }

    /// Returns whether products are rounded to bf16.
    pub fn is_bf16(self) -> bool {
        self == Self::Avx512Bf16
    }

    /// Returns the kernels, or `None` if this machine does not support the set.
    pub(crate) fn micro(self) -> Option<&'static Micro> {
        if !self.is_available() {
            return None;
        }
        match self {
            Self::Portable => Some(&PORTABLE),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Self::Neon => Some(&NEON),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Some(&AVX2),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Some(&AVX512),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => Some(&AVX512_BF16),
            _ => None,
        }
    }
}

mod has {
    macro_rules! all {
        ($($feature:tt),*) => {{
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            { true $(&& std::is_x86_feature_detected!($feature))* }
            #[cfg(not(all(target_arch = "x86_64", feature = "std")))]
            { cfg!(all(target_arch = "x86_64", $(target_feature = $feature),*)) }
        }};
    }
    pub(crate) fn avx2() -> bool {
        all!("avx2", "fma")
    }
    pub(crate) fn avx512() -> bool {
        all!("avx512f", "avx2", "fma")
    }
    pub(crate) fn avx512_bf16() -> bool {
        avx512() && all!("avx512bf16")
    }
}

/// The kernels of one instruction set. All functions require that set. See the generic functions in
/// [`microkernel`] and [`elementwise`] for their other requirements.
pub(crate) struct Micro {
    /// Number of values per vector.
    pub(crate) lanes: usize,
    /// Number of rows of a full tile.
    pub(crate) rows: usize,
    /// Number of columns of a full panel: two vectors.
    pub(crate) columns: usize,
    /// Whether rows and panels hold pairs of bf16.
    pub(crate) bf16: bool,
    /// Computes a tile with the given numbers of rows and vectors (1 or 2).
    pub(crate) tile: unsafe fn(usize, usize, &Tile<'_>),
    /// Computes a tile in f32, even if `bf16` is set.
    pub(crate) tile_f32: unsafe fn(usize, usize, &Tile<'_>),
    /// Rounds values to bf16. Their number must be a multiple of
    /// [`CHANNELS`](crate::cpu::layout::feature_map::CHANNELS).
    pub(crate) to_bf16: unsafe fn(*const f32, usize, *mut f32),
    pub(crate) winograd_input: unsafe fn(Square, usize, *mut f32, usize),
    pub(crate) winograd_output: unsafe fn(*const f32, usize, usize, &WinogradOutput),
    /// Computes a weight-gradient tile with the given numbers of rows and vectors.
    pub(crate) gradient_tile: unsafe fn(usize, usize, &GradientTile<'_>),
    pub(crate) elementwise: elementwise::Table,
}

/// Calls a function with its numbers of rows and vectors as constants.
macro_rules! by_size {
    ($function:ident, $rows:expr, $vectors:expr, $argument:expr, [$($row:literal)*]) => {
        match ($rows, $vectors) {
            $(
                ($row, 1) => $function::<$row, 1>($argument),
                ($row, 2) => $function::<$row, 2>($argument),
            )*
            (rows, vectors) => unreachable!("a tile of {rows} rows and {vectors} vectors"),
        }
    };
}

/// Instantiates a tile kernel. The f32 kernel takes the vector type as a parameter; the bf16 kernel
/// has only one.
macro_rules! pick {
    ($kernel:ident, $vector:ty, false, $argument:expr, $rows:ident, $vectors:ident) => {
        $kernel::<$vector, $rows, $vectors>($argument)
    };
    ($kernel:ident, $vector:ty, true, $argument:expr, $rows:ident, $vectors:ident) => {
        $kernel::<$rows, $vectors>($argument)
    };
}

macro_rules! table {
    ($name:ident, $module:ident, $vector:ty, $attribute:meta, $rows:literal, $all:tt, $tile:path, $store:ty, $bf16:tt, $to_bf16:path) => {
        mod $module {
            use super::*;
            // SAFETY of all: the caller's contract, and `InstructionSet::micro` has checked the
            // feature.
            #[$attribute]
            pub(crate) unsafe fn tile(rows: usize, vectors: usize, argument: &Tile<'_>) {
                #[$attribute]
                unsafe fn f<const R: usize, const V: usize>(argument: &Tile<'_>) {
                    use $tile as kernel;
                    unsafe { pick!(kernel, $vector, $bf16, argument, R, V) }
                }
                unsafe { by_size!(f, rows, vectors, argument, $all) }
            }
            #[$attribute]
            pub(crate) unsafe fn tile_f32(rows: usize, vectors: usize, argument: &Tile<'_>) {
                #[$attribute]
                unsafe fn f<const R: usize, const V: usize>(argument: &Tile<'_>) {
                    unsafe { microkernel::tile::<$vector, R, V>(argument) }
                }
                unsafe { by_size!(f, rows, vectors, argument, $all) }
            }
            #[$attribute]
            pub(crate) unsafe fn to_bf16(from: *const f32, count: usize, to: *mut f32) {
                unsafe { $to_bf16(from, count, to) }
            }
            #[$attribute]
            pub(crate) unsafe fn winograd_input(from: Square, channels: usize, to: *mut f32, plane: usize) {
                unsafe { microkernel::winograd_input::<$vector, $store>(from, channels, to, plane) }
            }
            #[$attribute]
            pub(crate) unsafe fn winograd_output(
                from: *const f32,
                plane: usize,
                channels: usize,
                output: &WinogradOutput,
            ) {
                unsafe { microkernel::winograd_output::<$vector>(from, plane, channels, output) }
            }
            #[$attribute]
            pub(crate) unsafe fn gradient_tile(rows: usize, vectors: usize, argument: &GradientTile<'_>) {
                #[$attribute]
                unsafe fn f<const R: usize, const V: usize>(argument: &GradientTile<'_>) {
                    unsafe { microkernel::gradient_tile::<$vector, R, V>(argument) }
                }
                unsafe { by_size!(f, rows, vectors, argument, $all) }
            }
            elementwise::compiled_for!($attribute);
        }
        static $name: Micro = Micro {
            lanes: <$vector as super::simd::Vector>::LANES,
            rows: $rows,
            columns: 2 * <$vector as super::simd::Vector>::LANES,
            bf16: $bf16,
            tile: $module::tile,
            tile_f32: $module::tile_f32,
            to_bf16: $module::to_bf16,
            winograd_input: $module::winograd_input,
            winograd_output: $module::winograd_output,
            gradient_tile: $module::gradient_tile,
            elementwise: $module::ELEMENTWISE,
        };
    };
}
/// Placeholder for sets without bf16.
unsafe fn no_bf16(_: *const f32, _: usize, _: *mut f32) {
    unreachable!("only the bf16 kernels convert");
}

/// Rounds to bf16, 16 values at a time.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn round_bf16(from: *const f32, count: usize, to: *mut f32) {
    use microkernel::{StoreBf16, StoreTile};
    unsafe {
        for value in (0..count).step_by(16) {
            StoreBf16::store(<__m512 as super::simd::Vector>::load(from.add(value)), to.add(value / 2));
        }
    }
}

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
use core::arch::aarch64::float32x4_t;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__m256, __m512};

#[cfg(target_arch = "x86_64")]
table!(AVX512, avx512, __m512, target_feature(enable = "avx512f,avx2,fma"), 12, [1 2 3 4 5 6 7 8 9 10 11 12], microkernel::tile, microkernel::Whole, false, no_bf16);
#[cfg(target_arch = "x86_64")]
table!(AVX512_BF16, avx512_bf16, __m512, target_feature(enable = "avx512f,avx512bf16,avx2,fma"), 12, [1 2 3 4 5 6 7 8 9 10 11 12], microkernel::tile_bf16, microkernel::StoreBf16, true, round_bf16);
#[cfg(target_arch = "x86_64")]
table!(AVX2, avx2, __m256, target_feature(enable = "avx2,fma"), 6, [1 2 3 4 5 6], microkernel::tile, microkernel::Whole, false, no_bf16);
// Of the 32 registers, 24 hold sums, 2 hold a row of the panel, the rest hold factors.
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
table!(NEON, neon, float32x4_t, target_feature(enable = "neon"), 12, [1 2 3 4 5 6 7 8 9 10 11 12], microkernel::tile, microkernel::Whole, false, no_bf16);
table!(PORTABLE, portable, Array<4>, inline(never), 4, [1 2 3 4], microkernel::tile, microkernel::Whole, false, no_bf16);
