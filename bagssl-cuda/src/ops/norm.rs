//! Batch norm. The statistics and the gradient sums are also separate operations, for workers that
//! share a batch: the workers exchange these reductions in between.

use bagssl_core::plan::NORM_EPSILON;
use burn::tensor::DType;

use super::map::{Map, Padding, arguments, dims};
use crate::runtime::context::Context;
use crate::runtime::driver::{Grid, Outcome};
use crate::runtime::job::{Cube, Job, Pointers, Slot};

/// Returns the names of a kernel's variants: bf16 with 8 or 1 values per thread, f32 with 4 or 1.
macro_rules! names {
    ($base:literal) => {
        [concat!($base, "_bf16_8"), concat!($base, "_bf16_1"), concat!($base, "_f32_4"), concat!($base, "_f32_1")]
    };
}
pub(crate) use names;

/// The tiling of a map by the batch norm kernels: values per vectorized read (`together`), vectors
/// per block row (`width`), rows per block (`lines`), and blocks across all channels (`across`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tiles {
    together: usize,
    pub(crate) width: usize,
    lines: usize,
    across: usize,
}

impl Tiles {
    pub(crate) fn new(channels: usize, dtype: DType) -> Self {
        let most = super::map::multiple(dtype);
        let together = if channels.is_multiple_of(most) { most } else { 1 };
        let groups = channels / together;
        let width = groups.min(64);
        Tiles { together, width, lines: 256 / width, across: groups.div_ceil(width) }
    }

    pub(crate) fn block(self) -> u32 {
        (self.width * self.lines) as u32
    }

    /// Returns a grid in which each thread handles about `rows_each` rows, with at most about
    /// `most` blocks.
    pub(crate) fn grid(self, rows: usize, rows_each: usize, most: usize) -> Grid {
        let down = rows.div_ceil(self.lines * rows_each).min((most / self.across).max(1));
        [down as u32, self.across as u32]
    }

    /// Selects the kernel variant for these tiles, from bf16 (8 and 1 values) and f32 (4 and 1).
    pub(crate) fn kernel(self, dtype: DType, names: [&'static str; 4]) -> &'static str {
        let [bf16, bf16_one, f32, f32_one] = names;
        match (dtype == DType::BF16, self.together > 1) {
            (true, true) => bf16,
            (true, false) => bf16_one,
            (false, true) => f32,
            (false, false) => f32_one,
        }
    }
}

/// The maximum number of blocks of kernels that reduce, and of kernels that only write.
const SUMMING: usize = 528;
pub(crate) const WRITING: usize = 2112;

/// Returns the grid and block of the kernels that merge the sums of other kernels' blocks.
fn merging(channels: usize) -> (Grid, u32) {
    ([channels.div_ceil(32) as u32, 1], 1024)
}

/// Allocates an output with a value per channel. Returns its slot and tensor.
fn values(job: &mut Job, map: Map) -> (Slot, Cube) {
    job.write(&[map.channels], DType::F32)
}

/// Computes the mean and variance of a map. Returns their slots and tensors.
fn measure(job: &mut Job, dtype: DType, x: Map) -> [(Slot, Cube); 2] {
    let outputs = [values(job, x), values(job, x)];
    let tiles = Tiles::new(x.channels, dtype);
    let grid = tiles.grid(x.rows(), 8, SUMMING);
    let (parts, _) = job.write(&[grid[0] as usize * 3 * x.channels], DType::F32);
    let [mean, variance] = outputs.each_ref().map(|(slot, _)| *slot);
    job.then(move |context, at| {
        let (from, parts, mean, variance) = (x.at(at), at.of(parts), at.of(mean), at.of(variance));
        let (rows, channels, width) = (x.rows() as i64, x.channels as i32, tiles.width as i32);
        let (kernel, blocks) = (tiles.kernel(dtype, names!("norm_statistics")), grid[0] as i32);
        // SAFETY: the map has `rows * channels` values of the kernel's type. `parts` has three
        // values per block and channel. Mean and variance have one value per channel.
        unsafe {
            context.launch(kernel, (grid, tiles.block()), arguments![from, parts, rows, channels, width])?;
            let arguments = arguments![parts, blocks, channels, mean, variance];
            context.launch("norm_merge", merging(x.channels), arguments)
        }
    });
    outputs
}

/// Computes the output of a norm. `values` are scale, shift, mean and variance.
fn apply(
    job: &mut Job,
    (dtype, x, shape): (DType, Map, [usize; 4]),
    values: [Slot; 4],
    residual: Option<Cube>,
    relu: bool,
) -> Cube {
    let residual = residual.map(|residual| Map::read(job, residual, dtype, Padding::NONE).slot);
    let (y, shown) = Map::write(job, shape, dtype, Padding::NONE);
    let tiles = Tiles::new(x.channels, dtype);
    job.then(move |context, at| {
        let [scale, shift, mean, variance] = values.map(|slot| at.of(slot));
        let (from, residual, to) = (x.at(at), at.of_any(residual), y.at(at));
        let (rows, channels, width) = (x.rows() as i64, x.channels as i32, tiles.width as i32);
        let (epsilon, relu) = (NORM_EPSILON as f32, i32::from(relu));
        let kernel = tiles.kernel(dtype, names!("norm_apply"));
        let shape = (tiles.grid(x.rows(), 4, WRITING), tiles.block());
        // SAFETY: the maps have `rows * channels` values of the kernel's type. All other tensors
        // have a value per channel.
        unsafe {
            let arguments =
                arguments![from, residual, to, mean, variance, scale, shift, epsilon, rows, channels, width, relu];
            context.launch(kernel, shape, arguments)
        }
    });
    shown
}

/// From input, scale and shift, computes the output, its mean and its variance.
pub(crate) fn norm([input, scale, shift]: [Cube; 3], residual: Option<Cube>, relu: bool) -> Vec<Cube> {
    let (dtype, shape) = (input.dtype, dims(&input));
    let mut job = Job::new("batch norm", &input);
    let x = Map::read(&mut job, input, dtype, Padding::NONE);
    let [scale, shift] = [scale, shift].map(|values| job.read_contiguous(values));
    let [(mean, means), (variance, variances)] = measure(&mut job, dtype, x);
    let shown = apply(&mut job, (dtype, x, shape), [scale, shift, mean, variance], residual, relu);
    job.submit();
    vec![shown, means, variances]
}

/// From the input, computes its mean and variance.
pub(crate) fn statistics(input: Cube) -> Vec<Cube> {
    let dtype = input.dtype;
    let mut job = Job::new("batch norm", &input);
    let x = Map::read(&mut job, input, dtype, Padding::NONE);
    let [(_, means), (_, variances)] = measure(&mut job, dtype, x);
    job.submit();
    vec![means, variances]
}

/// From input, scale, shift, mean and variance, computes the output.
pub(crate) fn norm_with(inputs: [Cube; 5], residual: Option<Cube>, relu: bool) -> Cube {
    let [input, values @ ..] = inputs;
    let (dtype, shape) = (input.dtype, dims(&input));
    let mut job = Job::new("batch norm", &input);
    let x = Map::read(&mut job, input, dtype, Padding::NONE);
    let values = values.map(|values| job.read_contiguous(values));
    let shown = apply(&mut job, (dtype, x, shape), values, residual, relu);
    job.submit();
    shown
}

/// The inputs of the backward pass.
#[derive(Debug, Clone, Copy)]
struct Backward {
    dtype: DType,
    tiles: Tiles,
    /// The gradient of the output, and the input.
    dy: Map,
    x: Map,
    /// The output, if its sign is needed.
    y: Option<Slot>,
    /// Scale, shift, mean and variance.
    values: [Slot; 4],
    /// The method by which the kernels determine the output's sign: 0 for no ReLU, 1 to recompute
    /// it, 2 to read it.
    mask: i32,
}

impl Backward {
    /// Reads the inputs in the order gradient, input, output, scale, shift, mean, variance.
    fn read(job: &mut Job, inputs: [Cube; 7], relu: bool, has_residual: bool) -> Self {
        let [gradient, input, output, values @ ..] = inputs;
        let dtype = input.dtype;
        let dy = Map::read(job, gradient, dtype, Padding::NONE);
        let x = Map::read(job, input, dtype, Padding::NONE);
        // Without a residual, the output's sign is recomputed from the input, which saves reading
        // the output.
        let mask = if !relu { 0 } else { 1 + i32::from(has_residual) };
        let y = (mask == 2).then(|| Map::read(job, output, dtype, Padding::NONE).slot);
        let values = values.map(|values| job.read_contiguous(values));
        Backward { dtype, tiles: Tiles::new(x.channels, dtype), dy, x, y, values, mask }
    }

    /// Computes the gradients of scale and shift. Returns their slots and tensors.
    fn sum(self, job: &mut Job) -> [(Slot, Cube); 2] {
        let Backward { dtype, tiles, dy, x, y, values: read, mask } = self;
        let outputs = [values(job, x), values(job, x)];
        let [dscale, dshift] = outputs.each_ref().map(|(slot, _)| *slot);
        let grid = tiles.grid(x.rows(), 8, SUMMING);
        let (parts, _) = job.write(&[grid[0] as usize * 2 * x.channels], DType::F32);
        job.then(move |context, at| {
            let [scale, shift, mean, variance] = read.map(|slot| at.of(slot));
            let (dy, from, y, parts) = (dy.at(at), x.at(at), at.of_any(y), at.of(parts));
            let (dscale, dshift) = (at.of(dscale), at.of(dshift));
            let (rows, channels, width) = (x.rows() as i64, x.channels as i32, tiles.width as i32);
            let (kernel, blocks) = (tiles.kernel(dtype, names!("norm_sums")), grid[0] as i32);
            let epsilon = NORM_EPSILON as f32;
            // SAFETY: the maps have `rows * channels` values of the kernel's type (`y` is only read
            // if `mask` is 2). `parts` has two values per block and channel. All other tensors have
            // a value per channel.
            unsafe {
                let arguments =
                    arguments![dy, from, y, mean, variance, scale, shift, epsilon, parts, rows, channels, width, mask];
                context.launch(kernel, (grid, tiles.block()), arguments)?;
                let arguments = arguments![parts, blocks, channels, dshift, dscale];
                context.launch("norm_sums_merge", merging(x.channels), arguments)
            }
        });
        outputs
    }

    /// Computes the gradients of the input and, if there was one, of the residual. `dscale` and
    /// `dshift` are the gradients of scale and shift, summed over `count` values.
    fn apply(
        self,
        job: &mut Job,
        shape: [usize; 4],
        [dscale, dshift]: [Slot; 2],
        count: usize,
        residual: bool,
    ) -> Vec<Cube> {
        let (dx, shown) = Map::write(job, shape, self.dtype, Padding::NONE);
        let residual = residual.then(|| Map::write(job, shape, self.dtype, Padding::NONE));
        let dresidual = residual.as_ref().map(|(map, _)| map.slot);
        job.then(move |context, at| {
            self.launch(context, at, [Some(dscale), Some(dshift), Some(dx.slot), dresidual], count)
        });
        [Some(shown), residual.map(|(_, shown)| shown)].into_iter().flatten().collect()
    }

    /// `slots` are the gradients of scale and shift, and the gradients of input and residual to
    /// write.
    fn launch(self, context: &mut Context, at: &Pointers, slots: [Option<Slot>; 4], count: usize) -> Outcome {
        let Backward { dtype, tiles, dy, x, y, values, mask } = self;
        let [scale, shift, mean, variance] = values.map(|slot| at.of(slot));
        let [dscale, dshift, dx, dresidual] = slots.map(|slot| at.of_any(slot));
        let (dy, from, y) = (dy.at(at), x.at(at), at.of_any(y));
        let (rows, channels, width) = (x.rows() as i64, x.channels as i32, tiles.width as i32);
        let (epsilon, share) = (NORM_EPSILON as f32, 1.0 / count as f32);
        let kernel = tiles.kernel(dtype, names!("norm_gradient"));
        let shape = (tiles.grid(x.rows(), 4, WRITING), tiles.block());
        // SAFETY: as in `sum`. The gradients of input and residual are maps of the input's size.
        unsafe {
            let arguments = arguments![
                dy, from, y, mean, variance, scale, shift, epsilon, dshift, dscale, share, dx, dresidual, rows,
                channels, width, mask
            ];
            context.launch(kernel, shape, arguments)
        }
    }
}

/// From gradient, input, output, scale, shift, mean and variance, computes the gradients of input,
/// scale, shift and the residual, if any.
pub(crate) fn gradient(inputs: [Cube; 7], relu: bool, has_residual: bool) -> Vec<Cube> {
    let shape = dims(&inputs[1]);
    let mut job = Job::new("batch norm, its gradients", &inputs[1]);
    let backward = Backward::read(&mut job, inputs, relu, has_residual);
    let [(dscale, scales), (dshift, shifts)] = backward.sum(&mut job);
    let maps = backward.apply(&mut job, shape, [dscale, dshift], backward.x.rows(), has_residual);
    job.submit();
    let mut maps = maps.into_iter();
    let input = maps.next().expect("the input has a gradient");
    [input, scales, shifts].into_iter().chain(maps).collect()
}

/// From the same inputs, computes only the gradients of scale and shift.
pub(crate) fn sums(inputs: [Cube; 7], relu: bool, has_residual: bool) -> Vec<Cube> {
    let mut job = Job::new("batch norm, its gradients", &inputs[1]);
    let backward = Backward::read(&mut job, inputs, relu, has_residual);
    let [(_, scales), (_, shifts)] = backward.sum(&mut job);
    job.submit();
    vec![scales, shifts]
}

/// From the same inputs and the gradients of scale and shift, summed over `count` values, computes
/// the gradients of the input and the residual, if any.
pub(crate) fn gradient_with(
    inputs: [Cube; 7],
    sums: [Cube; 2],
    relu: bool,
    has_residual: bool,
    count: usize,
) -> Vec<Cube> {
    let shape = dims(&inputs[1]);
    let mut job = Job::new("batch norm, its gradients", &inputs[1]);
    let backward = Backward::read(&mut job, inputs, relu, has_residual);
    let sums = sums.map(|sum| job.read_contiguous(sum));
    let maps = backward.apply(&mut job, shape, sums, count, has_residual);
    job.submit();
    maps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_all_channels_and_fit_a_block() {
        for (channels, dtype, together) in [
            (64, DType::BF16, 8),
            (2048, DType::BF16, 8),
            (5, DType::BF16, 1),
            (4096, DType::F32, 4),
            (6, DType::F32, 1),
        ] {
            let tiles = Tiles::new(channels, dtype);
            assert_eq!(tiles.together, together);
            assert!(tiles.width * tiles.across * together >= channels, "{tiles:?}");
            assert!(tiles.block() <= 256 && tiles.lines >= 4, "{tiles:?}");
            for rows in [1, 100, 1 << 21] {
                let [down, across] = tiles.grid(rows, 8, SUMMING);
                assert!(down >= 1 && across as usize == tiles.across);
                assert!(down as usize * tiles.across <= SUMMING.max(tiles.across));
            }
        }
        let tiles = Tiles::new(6, DType::F32);
        assert_eq!(tiles.kernel(DType::F32, names!("norm_apply")), "norm_apply_f32_1");
        assert_eq!(Tiles::new(64, DType::BF16).kernel(DType::BF16, names!("norm_sums")), "norm_sums_bf16_8");
    }
}
