//! Convolutions on bordered maps: as one matrix product ("direct", an implicit GEMM), or by
//! Winograd's F(4x4, 3x3).
//!
//! # Sources
//! Winograd's method for convolutions: Lavin, Gray, *Fast Algorithms for Convolutional Neural
//! Networks*, CVPR 2016. The points of its transforms are in `microkernel`.
#![allow(unsafe_code, reason = "calls kernels on raw pointers; bounds follow from the maps' forms")]

use std::prelude::v1::*;

use core::cell::UnsafeCell;

use super::isa::Micro;
use super::microkernel::{MAX_LANES, MAX_ROWS, PLANES, Square, TILE, Tile, WinogradOutput, winograd_filters};
use crate::cpu::exec::threads::Threads;
use crate::cpu::layout::feature_map::{Buffer, CHANNELS, Map};
use crate::cpu::layout::values::Values;
use crate::plan::Window;

/// The algorithm of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Direct,
    Winograd,
}

impl Method {
    /// Returns whether Winograd's method supports a window.
    pub(crate) fn winograd_fits(window: Window) -> bool {
        window.kernel == [3, 3] && window.stride == [1, 1]
    }

    /// Chooses the faster method by a measured rule (docs/benchmarks.md): Winograd's weights are
    /// four times larger, so it pays only from a certain number of output pixels on.
    pub(crate) fn choose(window: Window, stored_inputs: usize, pixels: usize) -> Self {
        let pays = stored_inputs >= CHANNELS && pixels >= 128;
        if Self::winograd_fits(window) && pays { Method::Winograd } else { Method::Direct }
    }
}

/// A convolution with packed weights.
pub(crate) struct Conv {
    pub(crate) window: Window,
    /// Number of stored input channels.
    pub(crate) inputs: usize,
    /// Number of stored output channels.
    pub(crate) outputs: usize,
    pub(crate) method: Method,
    micro: &'static Micro,
    /// Whether weights and inputs are multiplied as pairs of bf16.
    bf16: bool,
    bias: Buffer,
    /// Direct: `[panel, kernel row, kernel pixel, input, column]`. Winograd:
    /// `[plane, panel, input, column]`.
    weights: Buffer,
}

/// The weights of a convolution in the plan's layout.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    /// `[output, input, height, width]`
    pub(crate) values: &'a Values<'a>,
    /// Optional factor for the weights of each output.
    pub(crate) factors: Option<&'a [f64]>,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) window: Window,
}

/// The operations after the sums.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue {
    /// A map of at least the output's size.
    pub(crate) residual: Option<Map>,
    pub(crate) relu: bool,
}

/// Scratch memory of the workers, reused between jobs.
pub(crate) struct Scratch(Vec<WorkerScratch>);

#[derive(Default)]
struct WorkerScratch {
    transformed: UnsafeCell<Buffer>,
    products: UnsafeCell<Buffer>,
    /// A map in bf16, used only by the owner of the entire convolution.
    half: UnsafeCell<Buffer>,
}

// SAFETY: a worker's cells are used only by its own jobs, which do not overlap (`Threads`). `half`
// is filled and read in the calls of one convolution, and only its owner uses it.
unsafe impl Sync for Scratch {}

impl Scratch {
    pub(crate) fn new(workers: usize) -> Self {
        Scratch((0..workers).map(|_| WorkerScratch::default()).collect())
    }

    pub(crate) fn workers(&self) -> usize {
        self.0.len()
    }

    /// Returns the number of allocated bytes.
    pub(crate) fn bytes(&mut self) -> usize {
        let words = |own: &mut WorkerScratch| {
            own.transformed.get_mut().len() + own.products.get_mut().len() + own.half.get_mut().len()
        };
        4 * self.0.iter_mut().map(words).sum::<usize>()
    }
}

/// Extra length of the rows of transformed tiles, so that they do not map to the same cache sets.
const STAGGER: usize = CHANNELS;

/// Rounds two values from adjacent rows of a panel to bf16 and packs them into one word.
fn pair(even: f32, odd: f32) -> f32 {
    let half = |value: f32| (value.to_bits() + 0x7fff + (value.to_bits() >> 16 & 1)) >> 16;
    f32::from_bits(half(even) | half(odd) << 16)
}

/// Number of inputs that are packed per iteration (even, for pairs).
const PACKED_INPUTS: usize = 8;

/// Memory whose parts are written by different jobs.
struct Target(*mut f32);

// SAFETY: all uses write disjoint parts, and the memory outlives the jobs.
unsafe impl Sync for Target {}

impl Conv {
    /// Packs weights for maps that store `stored` channels per pixel (at least as many as in the
    /// plan).
    pub(crate) fn new(
        threads: &dyn Threads,
        weights: Weights<'_>,
        bias: &[f32],
        stored: usize,
        method: Method,
        micro: &'static Micro,
    ) -> Self {
        let Weights { values, factors, inputs, outputs, window } = weights;
        let columns = outputs.next_multiple_of(CHANNELS);
        let bf16 = micro.bf16 && stored.is_multiple_of(CHANNELS);
        let taps = window.kernel[0] * window.kernel[1];
        let mut padded = Buffer::new(columns);
        padded.as_mut_slice()[..outputs].copy_from_slice(bias);
        let share = if bf16 { 2 } else { 1 };
        // Each plane is a matrix of rows by columns, split into panels of columns.
        let (planes, rows_of_plane) = match method {
            Method::Direct => (1, taps * stored),
            Method::Winograd => (PLANES, stored),
        };
        let plane = rows_of_plane / share * columns;
        let mut packed = Buffer::new(planes * plane);
        let target = Target(packed.as_mut_ptr());
        threads.each(columns.div_ceil(micro.columns), &|panel, _| {
            let target = &target;
            let first = panel * micro.columns;
            let width = micro.columns.min(columns - first);
            let real = width.min(outputs.saturating_sub(first));
            let rows_of = if method == Method::Direct { taps } else { PLANES };
            // Process a few inputs at a time. Each yields `rows_of` rows.
            let mut filters = vec![0.0; PACKED_INPUTS * taps];
            let mut lanes = vec![[0.0; MAX_LANES]; PACKED_INPUTS * taps];
            let mut rows = vec![[0.0; MAX_LANES]; PACKED_INPUTS * rows_of];
            for input in (0..inputs).step_by(PACKED_INPUTS) {
                let count = PACKED_INPUTS.min(inputs - input);
                let filters = &mut filters[..count * taps];
                for lane in 0..real {
                    let output = first + lane;
                    values.read((output * inputs + input) * taps, filters);
                    let factor = factors.map_or(1.0, |factors| factors[output]);
                    for (lanes, &value) in lanes.iter_mut().zip(&*filters) {
                        lanes[lane] = f64::from(value) * factor;
                    }
                }
                for (lanes, rows) in lanes.chunks_exact(taps).zip(rows.chunks_exact_mut(rows_of)).take(count) {
                    match method {
                        Method::Winograd => winograd_filters(lanes, rows),
                        Method::Direct => rows.iter_mut().zip(lanes).for_each(|(row, lanes)| {
                            row.iter_mut().zip(lanes).for_each(|(value, &lane)| *value = lane as f32);
                        }),
                    }
                }
                for index in 0..rows_of {
                    for inner in (0..count).step_by(share) {
                        let (start, row) = match method {
                            Method::Direct => (0, index * stored + input + inner),
                            Method::Winograd => (index * plane, input + inner),
                        };
                        let place = start + first * (rows_of_plane / share) + row / share * width;
                        // SAFETY: each job writes the rows of its own panel.
                        let to = unsafe { core::slice::from_raw_parts_mut(target.0.add(place), width) };
                        let even = &rows[inner * rows_of + index];
                        if !bf16 {
                            to.copy_from_slice(&even[..width]);
                            continue;
                        }
                        let none = [0.0; MAX_LANES];
                        let odd = if inner + 1 < count { &rows[(inner + 1) * rows_of + index] } else { &none };
                        to.iter_mut().zip(even.iter().zip(odd)).for_each(|(to, (&even, &odd))| *to = pair(even, odd));
                    }
                }
            }
        });
        Conv { window, inputs: stored, outputs: columns, method, micro, bf16, bias: padded, weights: packed }
    }

    /// Returns the number of bytes of the packed weights.
    pub(crate) fn bytes(&self) -> usize {
        4 * (self.weights.len() + self.bias.len())
    }

    /// Returns the border of zeros that an input needs for outputs of this size: the width before
    /// the first pixel, and the extent after it, counted from the first pixel.
    pub(crate) fn border(window: Window, method: Method, output: [usize; 2]) -> (usize, [usize; 2]) {
        let before = window.padding[0].max(window.padding[1]);
        let after = [0, 1].map(|axis| {
            let last = match method {
                Method::Direct => (output[axis] - 1) * window.stride[axis] + window.kernel[axis],
                Method::Winograd => output[axis].next_multiple_of(TILE) + 2,
            };
            last - window.padding[axis].min(last)
        });
        (before, after)
    }

    /// Convolves `images` images. `owner` is a worker that runs no other convolution at the same
    /// time.
    ///
    /// The maps must have this convolution's channels. The input must have the border of zeros that
    /// [`Conv::border`] returns.
    pub(crate) fn run(
        &self,
        threads: &dyn Threads,
        (scratch, owner): (&Scratch, usize),
        images: usize,
        input: Map,
        output: Map,
        after: Epilogue,
    ) {
        debug_assert!(input.channels == self.inputs && output.channels == self.outputs);
        debug_assert!(threads.count() <= scratch.workers());
        match self.method {
            Method::Direct => self.direct(threads, (scratch, owner), images, input, output, after),
            Method::Winograd => self.winograd(threads, scratch, images, input, output, after),
        }
    }

    /// Returns the number of vectors of a panel.
    fn vectors(&self, panel: usize) -> usize {
        (self.outputs - panel * self.micro.columns).min(self.micro.columns) / self.micro.lanes
    }

    /// Copies an input to bf16: the same pixels and border in half the words.
    fn halved(
        &self,
        threads: &dyn Threads,
        (scratch, owner): (&Scratch, usize),
        images: usize,
        input: Map,
        output: [usize; 2],
    ) -> Map {
        let (before, after) = Conv::border(self.window, Method::Direct, output);
        let pixels = before + after[1];
        let rows = before + after[0];
        let form = crate::cpu::layout::feature_map::Form {
            size: input.size,
            channels: input.channels / 2,
            before,
            extent: [rows, pixels],
        };
        // SAFETY: `owner` runs no other convolution.
        let buffer = unsafe { &mut *scratch.0[owner].half.get() };
        buffer.grow(images * form.len());
        let half = form.at(buffer.as_mut_ptr());
        threads.each(images * rows, &|job, _| {
            let (image, row) = (job / rows, (job % rows) as isize - before as isize);
            let left = -(before as isize);
            // SAFETY: the input has this border (see `run`), and each job has its own row.
            unsafe {
                (self.micro.to_bf16)(input.at(image, row, left), pixels * input.channels, half.at(image, row, left));
            }
        });
        half
    }

    fn direct(
        &self,
        threads: &dyn Threads,
        scratch: (&Scratch, usize),
        images: usize,
        input: Map,
        output: Map,
        after: Epilogue,
    ) {
        let micro = self.micro;
        let [height, width] = output.size;
        let rows = images * height * width;
        let panels = self.outputs.div_ceil(micro.columns);
        let (input, tile, share) = if self.bf16 {
            (self.halved(threads, scratch, images, input, output.size), micro.tile, 2)
        } else {
            (input, micro.tile_f32, 1)
        };
        // The pixels of one kernel row form one run.
        let length = self.window.kernel[1] * self.inputs / share;
        let taps: Vec<isize> = (0..self.window.kernel[0]).map(|y| (y * input.row) as isize).collect();
        let panel_words = taps.len() * length;
        // Blocks of rows whose input and panel fit into the second-level cache. With few rows, the
        // columns are split as well.
        let block = (480 / micro.rows * micro.rows).min(rows.next_multiple_of(micro.rows));
        let blocks = rows.div_ceil(block);
        let wanted = 4 * threads.count();
        let parts = if threads.count() == 1 || blocks >= wanted { 1 } else { panels.min(wanted.div_ceil(blocks)) };
        let [stride_y, stride_x] = self.window.stride.map(|stride| stride as isize);
        let [padding_y, padding_x] = self.window.padding.map(|padding| padding as isize);
        threads.each(blocks * parts, &|job, _| {
            let (first, part) = (job / parts * block, job % parts);
            let end = rows.min(first + block);
            for panel in panels * part / parts..panels * (part + 1) / parts {
                let column = panel * micro.columns;
                let mut row = first;
                while row < end {
                    let count = micro.rows.min(end - row);
                    let mut work = Tile {
                        rows: [core::ptr::null(); MAX_ROWS],
                        taps: &taps,
                        length,
                        panel: self.weights.as_ptr().wrapping_add(column * panel_words),
                        bias: Some(self.bias.as_ptr().wrapping_add(column)),
                        residual: after.residual.map(|_| [core::ptr::null(); MAX_ROWS]),
                        relu: after.relu,
                        outputs: [core::ptr::null_mut(); MAX_ROWS],
                    };
                    let (mut image, mut y, mut x) = (row / (height * width), row / width % height, row % width);
                    for index in 0..count {
                        let (at_y, at_x) = (y as isize, x as isize);
                        work.rows[index] = input.at(image, at_y * stride_y - padding_y, at_x * stride_x - padding_x);
                        work.outputs[index] = output.at(image, at_y, at_x).wrapping_add(column);
                        if let (Some(pointers), Some(residual)) = (&mut work.residual, after.residual) {
                            pointers[index] = residual.at(image, at_y, at_x).wrapping_add(column);
                        }
                        x += 1;
                        if x == width {
                            (x, y) = (0, y + 1);
                            if y == height {
                                (y, image) = (0, image + 1);
                            }
                        }
                    }
                    // SAFETY: the maps have the border that the window needs (see `run`), the
                    // weights were packed for it, and each job writes its own rows and columns.
                    unsafe { tile(count, self.vectors(panel), &work) };
                    row += count;
                }
            }
        });
    }

    /// Runs Winograd's method. A job is a block of tiles. With few tiles, a job computes only part
    /// of the columns, and the input is transformed once per part.
    fn winograd(
        &self,
        threads: &dyn Threads,
        scratch: &Scratch,
        images: usize,
        input: Map,
        output: Map,
        after: Epilogue,
    ) {
        let micro = self.micro;
        let [down, across] = output.size.map(|length| length.div_ceil(TILE));
        let tiles = images * down * across;
        let panels = self.outputs.div_ceil(micro.columns);
        // The maximum number of tiles whose transformed inputs and products fit into the
        // second-level cache.
        let most = match self.inputs {
            0..=128 => 24,
            129..=256 => 48,
            _ => 64,
        };
        let blocks = tiles.div_ceil(most);
        let members = threads.count();
        let parts = if blocks >= 2 * members { 1 } else { panels.min(members) };
        let blocks = if parts == 1 { blocks.next_multiple_of(members) } else { blocks };
        let block = tiles.div_ceil(blocks);
        let words = self.inputs / if self.bf16 { 2 } else { 1 };
        let (from_row, to_row) = (words + STAGGER, panels.div_ceil(parts) * micro.columns + STAGGER);
        let (from_plane, to_plane) = (block * from_row + STAGGER, block * to_row + STAGGER);
        let padding = self.window.padding.map(|padding| padding as isize);
        let place = |tile: usize| {
            let (y, x) = (tile / across % down * TILE, tile % across * TILE);
            (tile / (down * across), y as isize, x as isize)
        };
        threads.each(blocks * parts, &|job, worker| {
            let (first, part) = (job / parts * block, job % parts);
            let count = block.min(tiles.saturating_sub(first));
            // SAFETY: the cells of this worker.
            let (from, to) = unsafe {
                let own = &scratch.0[worker];
                let (from, to) = (&mut *own.transformed.get(), &mut *own.products.get());
                from.grow(PLANES * from_plane);
                to.grow(PLANES * to_plane);
                (from.as_mut_ptr(), to.as_mut_ptr())
            };
            // SAFETY: the input has the border that complete tiles need (see `run`), the buffers
            // were just grown to the required length, and each job writes the outputs of its own
            // tiles and columns.
            unsafe {
                for tile in 0..count {
                    let (image, y, x) = place(first + tile);
                    let start = input.at(image, y - padding[0], x - padding[1]);
                    let square = Square { start, row: input.row, pixel: input.pixel };
                    (micro.winograd_input)(square, self.inputs, from.add(tile * from_row), from_plane);
                }
                let (start, end) = (panels * part / parts, panels * (part + 1) / parts);
                for plane in 0..PLANES {
                    for panel in start..end {
                        let column = panel * micro.columns;
                        let weights = self.weights.as_ptr().add((plane * self.outputs + column) * words);
                        let mut tile = 0;
                        while tile < count {
                            let rows = micro.rows.min(count - tile);
                            let a = from.add(plane * from_plane + tile * from_row);
                            let to = to.add(plane * to_plane + tile * to_row + (panel - start) * micro.columns);
                            let work = Tile {
                                rows: core::array::from_fn(|row| a.wrapping_add(row * from_row).cast_const()),
                                taps: &[0],
                                length: words,
                                panel: weights,
                                bias: None,
                                residual: None,
                                relu: false,
                                outputs: core::array::from_fn(|row| to.wrapping_add(row * to_row)),
                            };
                            (if self.bf16 { micro.tile } else { micro.tile_f32 })(rows, self.vectors(panel), &work);
                            tile += rows;
                        }
                    }
                }
                let column = start * micro.columns;
                let columns = (end * micro.columns).min(self.outputs) - column;
                for tile in 0..count {
                    let (image, y, x) = place(first + tile);
                    let square = |map: Map| Square {
                        start: map.at(image, y, x).wrapping_add(column),
                        row: map.row,
                        pixel: map.pixel,
                    };
                    let left = [0, 1].map(|axis| output.size[axis] - [y, x][axis] as usize);
                    let finish = WinogradOutput {
                        bias: self.bias.as_ptr().add(column),
                        residual: after.residual.map(square),
                        relu: after.relu,
                        to: square(output),
                        valid: left.map(|pixels| pixels.min(TILE)),
                    };
                    (micro.winograd_output)(to.add(tile * to_row), to_plane, columns, &finish);
                }
            }
        });
    }
}
