//! The innermost loops, generic over the vector: a tile of a matrix product, the transforms of
//! Winograd's convolution, and a tile of a weight gradient.
#![allow(unsafe_code, reason = "raw pointers into maps: an index check per product would halve the speed")]
#![allow(clippy::needless_range_loop, reason = "loops over constants, which are unrolled, index several arrays alike")]

use super::simd::Vector;

/// The maximum number of rows of a tile.
pub(crate) const MAX_ROWS: usize = 12;

/// A tile of outputs: some rows (pixels, or Winograd's tiles) by one packed panel of columns
/// (output channels).
///
/// The caller must guarantee that all pointers are valid: the values of row `i` at
/// `rows[i] + tap .. + length` for each tap, the panel's `taps.len() * length` rows, and the
/// outputs and residuals of the panel's width. All must lie within their allocations. No other
/// thread may write the inputs or access the outputs.
pub(crate) struct Tile<'a> {
    /// The start of each row's values, before the tap's offset.
    pub(crate) rows: [*const f32; MAX_ROWS],
    /// The offset of each run of values, the same for all rows.
    pub(crate) taps: &'a [isize],
    /// The number of values per run (for bf16: of pairs).
    pub(crate) length: usize,
    /// The panel, `[tap, value of the run, column]`.
    pub(crate) panel: *const f32,
    /// One value per column, added to every row.
    pub(crate) bias: Option<*const f32>,
    /// Values to add, in the layout of the outputs.
    pub(crate) residual: Option<[*const f32; MAX_ROWS]>,
    /// Whether to apply a ReLU.
    pub(crate) relu: bool,
    /// The destination of each row's results.
    pub(crate) outputs: [*mut f32; MAX_ROWS],
}

/// Computes a tile of `R` rows and `V` vectors.
///
/// # Safety
/// See [`Tile`] and [`Vector`].
#[inline(always)]
pub(crate) unsafe fn tile<T: Vector, const R: usize, const V: usize>(tile: &Tile<'_>) {
    unsafe {
        let mut sums = [[T::splat(0.0); V]; R];
        let mut panel = tile.panel;
        for &tap in tile.taps {
            let rows: [*const f32; R] = core::array::from_fn(|row| tile.rows[row].offset(tap));
            for value in 0..tile.length {
                let columns: [T; V] = core::array::from_fn(|vector| T::load(panel.add(vector * T::LANES)));
                for row in 0..R {
                    let factor = T::splat(*rows[row].add(value));
                    for vector in 0..V {
                        sums[row][vector] = factor.mul_add(columns[vector], sums[row][vector]);
                    }
                }
                panel = panel.add(V * T::LANES);
            }
        }
        finish(tile, sums);
    }
}

/// Adds bias and residual, applies the ReLU, and stores the results.
#[inline(always)]
unsafe fn finish<T: Vector, const R: usize, const V: usize>(tile: &Tile<'_>, mut sums: [[T; V]; R]) {
    unsafe {
        if let Some(bias) = tile.bias {
            for vector in 0..V {
                let bias = T::load(bias.add(vector * T::LANES));
                for row in &mut sums {
                    row[vector] = row[vector].add(bias);
                }
            }
        }
        if let Some(residual) = &tile.residual {
            for row in 0..R {
                for vector in 0..V {
                    sums[row][vector] = sums[row][vector].add(T::load(residual[row].add(vector * T::LANES)));
                }
            }
        }
        let lower_bound = T::splat(if tile.relu { 0.0 } else { f32::NEG_INFINITY });
        for row in 0..R {
            for vector in 0..V {
                sums[row][vector].max(lower_bound).store(tile.outputs[row].add(vector * T::LANES));
            }
        }
    }
}

/// Computes a tile in bf16: rows and panel hold pairs of bf16, one pair per 32-bit word. Sums stay
/// in f32.
///
/// # Safety
/// See [`Tile`]. Requires `avx512bf16`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn tile_bf16<const R: usize, const V: usize>(tile: &Tile<'_>) {
    use core::arch::x86_64::*;
    unsafe {
        let pairs = |words: __m512| core::mem::transmute::<__m512, __m512bh>(words);
        let mut sums = [[_mm512_setzero_ps(); V]; R];
        let mut panel = tile.panel;
        for &tap in tile.taps {
            let rows: [*const f32; R] = core::array::from_fn(|row| tile.rows[row].offset(tap));
            for value in 0..tile.length {
                let columns: [__m512bh; V] =
                    core::array::from_fn(|vector| pairs(_mm512_loadu_ps(panel.add(vector * 16))));
                for row in 0..R {
                    let word = *rows[row].add(value).cast::<i32>();
                    let factor = pairs(_mm512_castsi512_ps(_mm512_set1_epi32(word)));
                    for vector in 0..V {
                        sums[row][vector] = _mm512_dpbf16_ps(sums[row][vector], factor, columns[vector]);
                    }
                }
                panel = panel.add(V * 16);
            }
        }
        finish(tile, sums);
    }
}

/// How the transforms store a vector: unchanged, or rounded to bf16 in half the space.
pub(crate) trait StoreTile<T> {
    /// Number of values per 32-bit word.
    const SHARE: usize;
    /// # Safety
    /// Like [`Vector::store`].
    unsafe fn store(vector: T, to: *mut f32);
}

/// Stores values unchanged.
pub(crate) struct Whole;

impl<T: Vector> StoreTile<T> for Whole {
    const SHARE: usize = 1;
    #[inline(always)]
    unsafe fn store(vector: T, to: *mut f32) {
        unsafe { vector.store(to) }
    }
}

/// Stores values as bf16, rounded to nearest.
#[cfg(target_arch = "x86_64")]
pub(crate) struct StoreBf16;

#[cfg(target_arch = "x86_64")]
impl StoreTile<core::arch::x86_64::__m512> for StoreBf16 {
    const SHARE: usize = 2;
    #[inline(always)]
    unsafe fn store(vector: core::arch::x86_64::__m512, to: *mut f32) {
        use core::arch::x86_64::*;
        unsafe {
            let halves = core::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(vector));
            _mm256_storeu_si256(to.cast(), halves);
        }
    }
}

// Winograd's F(4x4, 3x3) with the points 0, +-A, +-B and infinity. It has half the rounding error
// of the usual points 0, +-1, +-2 at the same cost.
const A: f64 = core::f64::consts::FRAC_1_SQRT_2;
const B: f64 = core::f64::consts::SQRT_2;
/// Number of products per tile of 4x4 outputs: its 6x6 transformed values.
pub(crate) const PLANES: usize = 36;
/// The side of the square of outputs of one tile.
pub(crate) const TILE: usize = 4;

/// The input transform in one direction.
#[inline(always)]
unsafe fn input_transform<T: Vector>(d: [T; 6]) -> [T; 6] {
    unsafe {
        let (half, two, both) = (T::splat(0.5), T::splat(2.0), T::splat(2.5));
        let (a, b) = (T::splat(A as f32), T::splat(B as f32));
        let (even, odd) = (two.mul_sub_from(d[2], d[4]), two.mul_sub_from(d[1], d[3]));
        let (even_b, odd_b) = (half.mul_sub_from(d[2], d[4]), half.mul_sub_from(d[1], d[3]));
        [
            both.mul_sub_from(d[2], d[4]).add(d[0]),
            a.mul_add(odd, even),
            a.mul_sub_from(odd, even),
            b.mul_add(odd_b, even_b),
            b.mul_sub_from(odd_b, even_b),
            both.mul_sub_from(d[3], d[5]).add(d[1]),
        ]
    }
}

/// The output transform in one direction.
#[inline(always)]
unsafe fn output_transform<T: Vector>(m: [T; 6]) -> [T; 4] {
    unsafe {
        let (a, b) = (T::splat(A as f32), T::splat(B as f32));
        let (a2, b2) = (T::splat((A * A) as f32), T::splat((B * B) as f32));
        let (a3, b3) = (T::splat((A * A * A) as f32), T::splat((B * B * B) as f32));
        let (sum_a, difference_a) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (sum_b, difference_b) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(sum_a).add(sum_b),
            a.mul_add(difference_a, b.mul(difference_b)),
            a2.mul_add(sum_a, b2.mul(sum_b)),
            a3.mul_add(difference_a, b3.mul_add(difference_b, m[5])),
        ]
    }
}

/// A square of a map: its start, and the distances between its rows and between its pixels.
#[derive(Clone, Copy)]
pub(crate) struct Square {
    pub(crate) start: *mut f32,
    pub(crate) row: usize,
    pub(crate) pixel: usize,
}

/// Transforms a 6x6 square of `channels` channels. Writes the result to the same position in 36
/// planes, `plane` words apart.
///
/// # Safety
/// See [`Vector`]. The square and the destinations must lie within their allocations, and
/// `channels` must be a multiple of the lanes.
#[inline(always)]
pub(crate) unsafe fn winograd_input<T: Vector, S: StoreTile<T>>(
    from: Square,
    channels: usize,
    to: *mut f32,
    plane: usize,
) {
    unsafe {
        for channel in (0..channels).step_by(T::LANES) {
            // Use loops, not closures: closures are not always inlined and would then lack the
            // instruction set.
            let mut columns = [[T::splat(0.0); 6]; 6];
            for (x, transformed) in columns.iter_mut().enumerate() {
                let column = from.start.add(x * from.pixel + channel);
                let mut values = [T::splat(0.0); 6];
                for (y, value) in values.iter_mut().enumerate() {
                    *value = T::load(column.add(y * from.row));
                }
                *transformed = input_transform(values);
            }
            for y in 0..6 {
                let mut values = [T::splat(0.0); 6];
                for x in 0..6 {
                    values[x] = columns[x][y];
                }
                let row = input_transform(values);
                for x in 0..6 {
                    S::store(row[x], to.add((y * 6 + x) * plane + channel / S::SHARE));
                }
            }
        }
    }
}

/// The epilogue and destination of a Winograd tile.
pub(crate) struct WinogradOutput {
    pub(crate) bias: *const f32,
    /// A square with the output's positions.
    pub(crate) residual: Option<Square>,
    pub(crate) relu: bool,
    pub(crate) to: Square,
    /// The number of rows and columns of the tile that lie inside the map.
    pub(crate) valid: [usize; 2],
}

/// Transforms 36 planes back into a 4x4 square, and applies bias, residual and ReLU.
///
/// # Safety
/// Like [`winograd_input`].
#[inline(always)]
pub(crate) unsafe fn winograd_output<T: Vector>(from: *const f32, plane: usize, channels: usize, out: &WinogradOutput) {
    unsafe {
        let lower_bound = T::splat(if out.relu { 0.0 } else { f32::NEG_INFINITY });
        for channel in (0..channels).step_by(T::LANES) {
            let mut columns = [[T::splat(0.0); 4]; 6];
            for (x, transformed) in columns.iter_mut().enumerate() {
                let mut values = [T::splat(0.0); 6];
                for (y, value) in values.iter_mut().enumerate() {
                    *value = T::load(from.add((y * 6 + x) * plane + channel));
                }
                *transformed = output_transform(values);
            }
            let bias = T::load(out.bias.add(channel));
            for y in 0..TILE {
                if y >= out.valid[0] {
                    break;
                }
                let mut values = [T::splat(0.0); 6];
                for x in 0..6 {
                    values[x] = columns[x][y];
                }
                let row = output_transform(values);
                for x in 0..TILE {
                    if x >= out.valid[1] {
                        break;
                    }
                    let mut value = row[x].add(bias);
                    if let Some(residual) = out.residual {
                        value = value.add(T::load(residual.start.add(y * residual.row + x * residual.pixel + channel)));
                    }
                    value.max(lower_bound).store(out.to.start.add(y * out.to.row + x * out.to.pixel + channel));
                }
            }
        }
    }
}

/// The number of columns of the widest panel.
pub(crate) const MAX_LANES: usize = 32;

/// Transforms [`MAX_LANES`] 3x3 filters in parallel, computed in f64 when weights are packed.
pub(crate) fn winograd_filters(filters: &[[f64; MAX_LANES]], planes: &mut [[f32; MAX_LANES]]) {
    const G: [[f64; 3]; 6] = [
        [1.0, 0.0, 0.0],
        [-1.0 / 1.5, -A / 1.5, -0.5 / 1.5],
        [-1.0 / 1.5, A / 1.5, -0.5 / 1.5],
        [1.0 / 6.0, B / 6.0, 2.0 / 6.0],
        [1.0 / 6.0, -B / 6.0, 2.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];
    // Vertical direction first: G times the filter.
    for (y, factors) in G.iter().enumerate() {
        let mut half = [[0.0; MAX_LANES]; 3];
        for (column, half) in half.iter_mut().enumerate() {
            for lane in 0..MAX_LANES {
                half[lane] = factors[0] * filters[column][lane]
                    + factors[1] * filters[3 + column][lane]
                    + factors[2] * filters[6 + column][lane];
            }
        }
        for (x, factors) in G.iter().enumerate() {
            for lane in 0..MAX_LANES {
                let sum = factors[0] * half[0][lane] + factors[1] * half[1][lane] + factors[2] * half[2][lane];
                planes[y * 6 + x][lane] = sum as f32;
            }
        }
    }
}

/// A tile of a weight gradient: products of input values and output gradients, summed over the
/// pixels of several rows.
pub(crate) struct GradientTile<'a> {
    /// For each row of pixels, the start of the inputs and of the gradients.
    pub(crate) runs: &'a [(*const f32, *const f32)],
    /// The offset of the tile's values in each input run.
    pub(crate) value: isize,
    /// The offset of the tile's channels in each gradient run.
    pub(crate) column: usize,
    /// Number of pixels per run, and the distances between adjacent pixels in inputs and gradients.
    pub(crate) pixels: usize,
    pub(crate) input_step: usize,
    pub(crate) gradient_step: usize,
    /// The destination to which the tile is added, and the distance between its rows.
    pub(crate) sums: *mut f32,
    pub(crate) row: usize,
}

/// Accumulates a tile of `R` input values by `V` vectors of output channels.
///
/// # Safety
/// See [`Vector`]. All pixels of all runs and the sums must lie within their allocations.
#[inline(always)]
pub(crate) unsafe fn gradient_tile<T: Vector, const R: usize, const V: usize>(tile: &GradientTile<'_>) {
    unsafe {
        let mut sums: [[T; V]; R] = core::array::from_fn(|row| {
            core::array::from_fn(|vector| T::load(tile.sums.add(row * tile.row + vector * T::LANES)))
        });
        for &(input, gradient) in tile.runs {
            let (mut input, mut gradient) = (input.offset(tile.value), gradient.add(tile.column));
            for _ in 0..tile.pixels {
                let columns: [T; V] = core::array::from_fn(|vector| T::load(gradient.add(vector * T::LANES)));
                for row in 0..R {
                    let factor = T::splat(*input.add(row));
                    for vector in 0..V {
                        sums[row][vector] = factor.mul_add(columns[vector], sums[row][vector]);
                    }
                }
                // After the last pixel this points past the end, but is not read.
                input = input.wrapping_add(tile.input_step);
                gradient = gradient.wrapping_add(tile.gradient_step);
            }
        }
        for row in 0..R {
            for vector in 0..V {
                sums[row][vector].store(tile.sums.add(row * tile.row + vector * T::LANES));
            }
        }
    }
}
