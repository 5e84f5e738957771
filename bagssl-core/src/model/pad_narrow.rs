//! Narrows a tensor along an axis, with padding beyond its ends.

use std::prelude::v1::*;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Returns pixels `start` to `start + length` of an axis. Pixels outside the map are filled with
/// `fill`.
pub(super) fn pad_narrow<B: Backend>(
    map: Tensor<B, 4>,
    axis: usize,
    start: isize,
    length: usize,
    fill: f32,
) -> Tensor<B, 4> {
    let mut dims = map.dims();
    let existing = dims[axis] as isize;
    let end = start + length as isize;
    let (first, last) = (start.clamp(0, existing), end.clamp(0, existing));
    let device = map.device();
    let mut parts = Vec::new();
    let mut outside = |parts: &mut Vec<Tensor<B, 4>>, pixels: isize| {
        if pixels > 0 {
            dims[axis] = pixels as usize;
            parts.push(Tensor::full(dims, fill, &device));
        }
    };
    outside(&mut parts, end.min(0) - start);
    if first < last {
        parts.push(map.narrow(axis, first as usize, (last - first) as usize));
    }
    outside(&mut parts, end - start.max(existing));
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, axis) }
}
