//! Pooling, and the conversion of images to maps and back.
#![allow(unsafe_code, reason = "pixels of maps that threads share")]

use std::prelude::v1::*;

use crate::cpu::layout::feature_map::Map;
use crate::plan::Window;

/// Returns the stored channels of a pixel.
///
/// # Safety
/// The pixel must lie in the map or its border, and no thread may write it at the same time.
unsafe fn pixel<'a>(map: Map, y: usize, x: usize) -> &'a [f32] {
    unsafe { core::slice::from_raw_parts(map.at(0, y as isize, x as isize), map.channels) }
}

/// # Safety
/// The pixel must lie in the map, and no other thread may access it at the same time.
unsafe fn pixel_mut<'a>(map: Map, y: usize, x: usize) -> &'a mut [f32] {
    unsafe { core::slice::from_raw_parts_mut(map.at(0, y as isize, x as isize), map.channels) }
}

/// Copies an image `[channel, height, width]` into the first image of a map. Padding channels
/// become 0.
pub(crate) fn load(image: &[f32], channels: usize, to: Map) {
    let [height, width] = to.size;
    for y in 0..height {
        for x in 0..width {
            // SAFETY: each job loads its own image.
            let pixel = unsafe { pixel_mut(to, y, x) };
            for (channel, value) in pixel.iter_mut().enumerate() {
                *value = if channel < channels { image[(channel * height + y) * width + x] } else { 0.0 };
            }
        }
    }
}

/// Appends the first image of a map as `[height, width, channel]`.
pub(crate) fn unload(from: Map, channels: usize, to: &mut Vec<f32>) {
    for y in 0..from.size[0] {
        for x in 0..from.size[1] {
            // SAFETY: all jobs are done.
            to.extend_from_slice(&unsafe { pixel(from, y, x) }[..channels]);
        }
    }
}

/// Computes the maximum over a window, ignoring pixels outside the map.
pub(crate) fn max(input: Map, output: Map, window: Window) {
    let span = |axis: usize, at: usize| {
        let first = at * window.stride[axis];
        let end = (first + window.kernel[axis]).saturating_sub(window.padding[axis]).min(input.size[axis]);
        first.saturating_sub(window.padding[axis])..end
    };
    for y in 0..output.size[0] {
        for x in 0..output.size[1] {
            // SAFETY: each job has its own image, and input and output are different maps.
            let to = unsafe { pixel_mut(output, y, x) };
            to.fill(f32::NEG_INFINITY);
            for from_y in span(0, y) {
                for from_x in span(1, x) {
                    // SAFETY: as above.
                    let from = unsafe { pixel(input, from_y, from_x) };
                    for (most, &value) in to.iter_mut().zip(from) {
                        *most = if value > *most { value } else { *most };
                    }
                }
            }
        }
    }
}

/// Computes the mean over all pixels, into a map of one pixel.
pub(crate) fn mean(input: Map, output: Map) {
    // SAFETY: each job has its own image, and input and output are different maps.
    let to = unsafe { pixel_mut(output, 0, 0) };
    to.fill(0.0);
    for y in 0..input.size[0] {
        for x in 0..input.size[1] {
            // SAFETY: as above.
            let from = unsafe { pixel(input, y, x) };
            for (sum, value) in to.iter_mut().zip(from) {
                *sum += value;
            }
        }
    }
    let share = 1.0 / (input.size[0] * input.size[1]) as f32;
    to.iter_mut().for_each(|sum| *sum *= share);
}
