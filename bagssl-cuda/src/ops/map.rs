//! Feature maps in the layout of the kernels: channels last and contiguous.

use burn::tensor::{DType, TensorMetadata};
use cubecl::zspace::metadata::Metadata;

use crate::runtime::driver::Grid;
use crate::runtime::job::{Cube, Job, Pointers, Slot, is_aligned};

/// Returns pointers to the arguments of a kernel. They are valid as long as the list: until the end
/// of the enclosing statement, or of the block if the list is bound by `let`.
macro_rules! arguments {
    ($($value:expr),* $(,)?) => {
        &mut [$(&mut { $value } as *mut _ as *mut std::ffi::c_void),*]
    };
}
pub(crate) use arguments;

/// A map of a job, stored as `[images, height, width, channels]` without gaps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Map {
    pub(crate) slot: Slot,
    pub(crate) images: usize,
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

/// Multiples to which the images and channels of a map are padded with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Padding {
    pub(crate) images: usize,
    pub(crate) channels: usize,
}

impl Padding {
    /// No padding.
    pub(crate) const NONE: Padding = Padding { images: 1, channels: 1 };

    /// Padding of the channels, as the tensor cores require.
    pub(crate) fn of_channels(dtype: DType) -> Self {
        Padding { images: 1, channels: multiple(dtype) }
    }

    /// Padding of a weight, whose images are the output channels.
    pub(crate) fn of_weight(dtype: DType) -> Self {
        Padding { images: multiple(dtype), channels: multiple(dtype) }
    }
}

/// Returns the number of values of a type in 16 bytes.
pub(crate) fn multiple(dtype: DType) -> usize {
    if dtype == DType::BF16 { 8 } else { 4 }
}

impl Map {
    /// Reads a tensor `[images, channels, height, width]` of any layout as a map of type `dtype`.
    /// Copies it only if its layout, type or padding does not fit.
    pub(crate) fn read(job: &mut Job, tensor: Cube, dtype: DType, padding: Padding) -> Self {
        Map::pack(job, tensor, dtype, padding).0
    }

    /// The same, and returns the tensor that is read: the given one, or the copy including its
    /// padding.
    pub(crate) fn pack(job: &mut Job, tensor: Cube, dtype: DType, padding: Padding) -> (Self, Cube) {
        if !lies_so(&tensor, dtype, padding) {
            return Map::copy(job, tensor, dtype, padding);
        }
        let [images, channels, height, width] = dims(&tensor);
        (Map { slot: job.read(tensor.clone()), images, channels, height, width }, tensor)
    }

    /// Copies a tensor. Returns the copy as a map and as a tensor including its padding.
    fn copy(job: &mut Job, tensor: Cube, dtype: DType, padding: Padding) -> (Self, Cube) {
        let dims = dims(&tensor);
        let [images, channels, height, width] = dims;
        let strides = strides(&tensor);
        let to = [images.next_multiple_of(padding.images), channels.next_multiple_of(padding.channels)];
        let kernel = match (tensor.dtype, dtype) {
            (DType::BF16, DType::BF16) => "pack_bf16_bf16",
            (DType::F32, DType::BF16) => "pack_f32_bf16",
            (DType::BF16, DType::F32) => "pack_bf16_f32",
            _ => "pack_f32_f32",
        };
        let from = job.read(tensor);
        let (map, shown) = Map::write(job, [to[0], to[1], height, width], dtype, Padding::NONE);
        let [image, channel, row, column] = strides.map(|stride| stride as i64);
        let strides = [image, channel, row, column];
        let dims = dims.map(|dim| dim as i64);
        let padded = to.map(|dim| dim as i64);
        let last = (0..4).map(|axis| i128::from(dims[axis] - 1) * i128::from(strides[axis])).sum();
        let narrow = is_narrow([count_of([padded[0], padded[1], dims[2], dims[3]]), last]);
        job.then(move |context, at| {
            let count = padded[0] * padded[1] * dims[2] * dims[3];
            let shape = (grid(count), 256);
            // SAFETY: the output has `count` values, and the strides are those of the input's
            // memory. `narrow` is 1 only if indices into both fit in 32 bits.
            unsafe {
                context.launch(
                    kernel,
                    shape,
                    arguments![at.of(from), map.at(at), strides, dims, padded[0], padded[1], narrow],
                )
            }
        });
        (map, shown)
    }

    /// Creates a map, and a tensor `[images, channels, height, width]` that views its first
    /// `channels` channels.
    pub(crate) fn write(
        job: &mut Job,
        [images, channels, height, width]: [usize; 4],
        dtype: DType,
        padding: Padding,
    ) -> (Self, Cube) {
        let padded = channels.next_multiple_of(padding.channels);
        let (slot, tensor) = job.write(&[images, height, width, padded], dtype);
        let meta = Metadata::new(vec![images, channels, height, width], strides_of([padded, height, width]).to_vec());
        let shown = Cube::new(tensor.client, tensor.handle, meta, tensor.device, dtype);
        (Map { slot, images, channels: padded, height, width }, shown)
    }

    /// Copies this map's first images and channels into a new contiguous tensor
    /// `[images, channels, height, width]`.
    pub(crate) fn unpack(self, job: &mut Job, shape: [usize; 4], from: DType, to: DType) -> Cube {
        let kernel = match (from, to) {
            (DType::BF16, DType::BF16) => "unpack_bf16_bf16",
            (DType::F32, DType::BF16) => "unpack_f32_bf16",
            (DType::BF16, DType::F32) => "unpack_bf16_f32",
            _ => "unpack_f32_f32",
        };
        let (slot, tensor) = job.write(&shape, to);
        let dims = shape.map(|dim| dim as i64);
        let narrow = is_narrow([count_of(dims), count_of([dims[0], self.channels as i64, dims[2], dims[3]])]);
        job.then(move |context, at| {
            let shape = (grid(dims.iter().product()), 256);
            // SAFETY: the output has the given dimensions, and the map has at least as many images
            // and channels.
            unsafe {
                context.launch(
                    kernel,
                    shape,
                    arguments![at.of(self.slot), at.of(slot), dims, self.channels as i64, narrow],
                )
            }
        });
        tensor
    }

    /// Returns images times height times width.
    pub(crate) fn rows(self) -> usize {
        self.images * self.height * self.width
    }

    /// Returns the number of values.
    pub(crate) fn count(self) -> i64 {
        (self.rows() * self.channels) as i64
    }

    pub(crate) fn at(self, pointers: &Pointers) -> u64 {
        pointers.of(self.slot)
    }
}

/// Returns a tensor's dimensions. An [`Operation`](super::operation::Operation) has checked that
/// there are four.
pub(crate) fn dims(tensor: &Cube) -> [usize; 4] {
    let shape = tensor.shape();
    std::array::from_fn(|axis| shape[axis])
}

fn strides(tensor: &Cube) -> [usize; 4] {
    std::array::from_fn(|axis| tensor.meta.strides()[axis])
}

/// The strides of a new map. Where it is of one pixel, they are those of `[images, channels, 1, 1]` too, in which Burn sees that
/// there are no gaps: rows that a norm gives are read by a product as they lie.
fn strides_of([channels, height, width]: [usize; 3]) -> [usize; 4] {
    let pixel = if height * width == 1 { 1 } else { channels };
    [height * width * channels, 1, width * pixel, pixel]
}

/// Whether a tensor is a map of that type without a copy: there is nothing to fill up, and its channels lie last.
fn lies_so(tensor: &Cube, dtype: DType, padding: Padding) -> bool {
    let dims @ [images, channels, ..] = dims(tensor);
    let is_full = images.is_multiple_of(padding.images) && channels.is_multiple_of(padding.channels);
    is_full && tensor.dtype == dtype && is_aligned(tensor) && lies_channels_last(dims, strides(tensor))
}

/// Whether `[images, channels, height, width]` with these strides is contiguous as
/// `[images, height, width, channels]`. The stride of a dimension of size 1 is ignored.
fn lies_channels_last([images, channels, height, width]: [usize; 4], strides: [usize; 4]) -> bool {
    let expected = [height * width * channels, 1, width * channels, channels];
    let dims = [images, channels, height, width];
    (0..4).all(|axis| dims[axis] == 1 || strides[axis] == expected[axis])
}

/// Whether indices up to these fit in 32 bits, for the kernels of `source/layout.cu`. The limit is
/// 2^31, so that a grid stride beyond the last index does not overflow either.
fn is_narrow(largest: [i128; 2]) -> i32 {
    i32::from(largest.iter().all(|&index| index < 1 << 31))
}

fn count_of(dims: [i64; 4]) -> i128 {
    dims.iter().map(|&dim| i128::from(dim)).product()
}

/// Returns the blocks of 256 threads for `count` values. Threads process several values each if
/// there are many.
pub(crate) fn grid(count: i64) -> Grid {
    [(count.max(1) as u64).div_ceil(256).min(1 << 16) as u32, 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_last_is_seen_by_the_strides() {
        assert!(lies_channels_last([2, 3, 5, 7], [105, 1, 21, 3]));
        assert!(!lies_channels_last([2, 3, 5, 7], [105, 35, 7, 1]));
        // Height and width swapped, a gap between pixels, overlapping images.
        assert!(!lies_channels_last([2, 3, 7, 5], [105, 1, 3, 21]));
        assert!(!lies_channels_last([2, 3, 5, 7], [140, 1, 28, 4]));
        assert!(!lies_channels_last([2, 3, 5, 7], [0, 1, 21, 3]));
        // Maps of one pixel, whatever the strides of that pixel. A map of one channel has both
        // layouts.
        assert!(lies_channels_last([4, 3, 1, 1], [3, 1, 1, 1]));
        assert!(lies_channels_last([4, 3, 1, 1], [3, 1, 3, 3]));
        assert!(lies_channels_last([2, 1, 5, 7], [35, 35, 7, 1]));
    }

    #[test]
    fn new_maps_have_their_channels_last_and_rows_no_gaps() {
        assert_eq!(strides_of([3, 5, 7]), [105, 1, 21, 3]);
        assert_eq!([strides_of([3, 1, 7]), strides_of([3, 5, 1])], [[21, 1, 21, 3], [15, 1, 3, 3]]);
        assert_eq!(strides_of([128, 1, 1]), [128, 1, 1, 1]);
        for [channels, height, width] in [[3, 5, 7], [3, 1, 7], [3, 5, 1], [128, 1, 1], [1, 1, 1]] {
            assert!(lies_channels_last([2, channels, height, width], strides_of([channels, height, width])));
        }
    }

    #[test]
    fn arguments_live_as_long_as_the_pointers_to_them() {
        let bound = arguments![7_u64, [1_i64, 2], 3_i32];
        let other = arguments![8_u64, [4_i64, 5], 6_i32];
        let read = |list: &[*mut std::ffi::c_void]| {
            // SAFETY: each pointer is to a value of this type, in this order.
            unsafe { (*list[0].cast::<u64>(), *list[1].cast::<[i64; 2]>(), *list[2].cast::<i32>()) }
        };
        std::hint::black_box([0_u8; 4096]);
        assert_eq!((read(bound), read(other)), ((7, [1, 2], 3), (8, [4, 5], 6)));
    }

    #[test]
    fn indices_are_narrow_where_all_fit() {
        assert_eq!(is_narrow([count_of([512, 512, 3, 3]), 0]), 1);
        assert_eq!([is_narrow([(1 << 31) - 1, 0]), is_narrow([1 << 31, 0]), is_narrow([0, 1 << 31])], [1, 0, 0]);
        assert_eq!(is_narrow([count_of([i64::MAX / 2, 4, 1, 1]), 0]), 0);
        // The last index plus a stride of the largest grid.
        assert!((1_u64 << 31) + (u64::from(grid(i64::MAX)[0]) * 256) <= u64::from(u32::MAX));
    }

    #[test]
    fn grids_cover_their_values() {
        assert_eq!([grid(1), grid(256), grid(257)], [[1, 1], [1, 1], [2, 1]]);
        assert_eq!(grid(i64::MAX), [1 << 16, 1]);
        assert_eq!([multiple(DType::BF16), multiple(DType::F32)], [8, 4]);
    }
}
