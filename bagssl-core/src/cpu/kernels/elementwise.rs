//! The passes of batch norm over a map `[pixel, channel]`: plain loops that the compiler vectorizes
//! for each instruction set.
#![allow(clippy::needless_range_loop, reason = "one index for slices of one length is what becomes vectors")]

/// The compiled passes of one instruction set. Each field is the function of the same name.
#[allow(clippy::type_complexity, reason = "the signatures are those of the functions below")]
pub(crate) struct Table {
    pub(crate) add_sums: unsafe fn(&[f32], &mut [f32]),
    pub(crate) add_squares: unsafe fn(&[f32], &[f32], &mut [f32]),
    pub(crate) normalize: unsafe fn(&[f32], &Norm<'_>, Option<&[f32]>, bool, &mut [f32]),
    pub(crate) add_gradient_sums: unsafe fn(&[f32], &[f32], Option<&[f32]>, &[f32], &mut [f32], &mut [f32]),
    pub(crate) norm_gradient:
        unsafe fn(&[f32], &[f32], Option<&[f32]>, &NormGradient<'_>, &mut [f32], Option<&mut [f32]>),
}

/// The normalization of each channel: `(value - mean) * factor + shift`.
pub(crate) struct Norm<'a> {
    pub(crate) mean: &'a [f32],
    pub(crate) factor: &'a [f32],
    pub(crate) shift: &'a [f32],
}

/// The gradient of each channel: `factor * (gradient - offset - (value - mean) * slope)`.
pub(crate) struct NormGradient<'a> {
    pub(crate) mean: &'a [f32],
    pub(crate) factor: &'a [f32],
    pub(crate) offset: &'a [f32],
    pub(crate) slope: &'a [f32],
}

/// Adds the values of each channel to its sum. The length of `sums` is the number of channels.
#[inline(always)]
pub(crate) fn add_sums(values: &[f32], sums: &mut [f32]) {
    for pixel in values.chunks_exact(sums.len()) {
        for (sum, value) in sums.iter_mut().zip(pixel) {
            *sum += value;
        }
    }
}

/// Adds the squared distances of each channel's values from its mean to its sum.
#[inline(always)]
pub(crate) fn add_squares(values: &[f32], mean: &[f32], sums: &mut [f32]) {
    for pixel in values.chunks_exact(sums.len()) {
        for ((sum, value), mean) in sums.iter_mut().zip(pixel).zip(mean) {
            let distance = value - mean;
            *sum += distance * distance;
        }
    }
}

/// Computes `relu?(norm(values) + residual?)`.
#[inline(always)]
pub(crate) fn normalize(values: &[f32], norm: &Norm<'_>, residual: Option<&[f32]>, relu: bool, outputs: &mut [f32]) {
    let channels = norm.mean.len();
    let lower_bound = if relu { 0.0 } else { f32::NEG_INFINITY };
    let (mean, factor, shift) = (norm.mean, &norm.factor[..channels], &norm.shift[..channels]);
    let pixels = values.chunks_exact(channels).zip(outputs.chunks_exact_mut(channels));
    match residual {
        None => {
            for (value, output) in pixels {
                for channel in 0..channels {
                    let normed = (value[channel] - mean[channel]) * factor[channel] + shift[channel];
                    output[channel] = normed.max(lower_bound);
                }
            }
        }
        Some(residual) => {
            for ((value, output), residual) in pixels.zip(residual.chunks_exact(channels)) {
                for channel in 0..channels {
                    let normed = (value[channel] - mean[channel]) * factor[channel] + shift[channel];
                    output[channel] = (normed + residual[channel]).max(lower_bound);
                }
            }
        }
    }
}

/// The gradient through a ReLU with this output.
#[inline(always)]
fn through(gradient: f32, output: f32) -> f32 {
    if output > 0.0 { gradient } else { 0.0 }
}

/// Adds to the sums of each channel its gradients, and its gradients times the values' distances
/// from the mean. `outputs` are the outputs of the ReLU, if any.
#[inline(always)]
pub(crate) fn add_gradient_sums(
    values: &[f32],
    gradients: &[f32],
    outputs: Option<&[f32]>,
    mean: &[f32],
    sums: &mut [f32],
    products: &mut [f32],
) {
    let channels = mean.len();
    let (sums, products) = (&mut sums[..channels], &mut products[..channels]);
    let pixels = values.chunks_exact(channels).zip(gradients.chunks_exact(channels));
    match outputs {
        None => {
            for (value, gradient) in pixels {
                for channel in 0..channels {
                    sums[channel] += gradient[channel];
                    products[channel] += gradient[channel] * (value[channel] - mean[channel]);
                }
            }
        }
        Some(outputs) => {
            for ((value, gradient), output) in pixels.zip(outputs.chunks_exact(channels)) {
                for channel in 0..channels {
                    let gradient = through(gradient[channel], output[channel]);
                    sums[channel] += gradient;
                    products[channel] += gradient * (value[channel] - mean[channel]);
                }
            }
        }
    }
}

/// Computes the gradient of a norm's input, and that of its residual (the gradient through the
/// ReLU).
#[inline(always)]
pub(crate) fn norm_gradient(
    values: &[f32],
    gradients: &[f32],
    outputs: Option<&[f32]>,
    norm: &NormGradient<'_>,
    inputs: &mut [f32],
    residual: Option<&mut [f32]>,
) {
    let channels = norm.mean.len();
    let (mean, factor) = (norm.mean, &norm.factor[..channels]);
    let (offset, slope) = (&norm.offset[..channels], &norm.slope[..channels]);
    let pixels = values.chunks_exact(channels).zip(inputs.chunks_exact_mut(channels));
    let back = |gradient: f32, value: f32, channel: usize| {
        factor[channel] * (gradient - offset[channel] - (value - mean[channel]) * slope[channel])
    };
    match outputs {
        None => {
            for ((value, input), gradient) in pixels.zip(gradients.chunks_exact(channels)) {
                for channel in 0..channels {
                    input[channel] = back(gradient[channel], value[channel], channel);
                }
            }
            if let Some(residual) = residual {
                residual.copy_from_slice(gradients);
            }
        }
        Some(outputs) => {
            let pixels = pixels.zip(gradients.chunks_exact(channels)).zip(outputs.chunks_exact(channels));
            match residual {
                None => {
                    for (((value, input), gradient), output) in pixels {
                        for channel in 0..channels {
                            let gradient = through(gradient[channel], output[channel]);
                            input[channel] = back(gradient, value[channel], channel);
                        }
                    }
                }
                Some(residual) => {
                    for ((((value, input), gradient), output), residual) in
                        pixels.zip(residual.chunks_exact_mut(channels))
                    {
                        for channel in 0..channels {
                            let gradient = through(gradient[channel], output[channel]);
                            residual[channel] = gradient;
                            input[channel] = back(gradient, value[channel], channel);
                        }
                    }
                }
            }
        }
    }
}

/// Compiles the passes with an attribute and collects them in a table.
macro_rules! compiled_for {
    ($attribute:meta) => {
        use crate::cpu::kernels::elementwise::{self as passes, Norm, NormGradient};
        #[$attribute]
        unsafe fn add_sums(values: &[f32], sums: &mut [f32]) {
            passes::add_sums(values, sums);
        }
        #[$attribute]
        unsafe fn add_squares(values: &[f32], mean: &[f32], sums: &mut [f32]) {
            passes::add_squares(values, mean, sums);
        }
        #[$attribute]
        unsafe fn normalize(
            values: &[f32],
            norm: &Norm<'_>,
            residual: Option<&[f32]>,
            relu: bool,
            outputs: &mut [f32],
        ) {
            passes::normalize(values, norm, residual, relu, outputs);
        }
        #[$attribute]
        unsafe fn add_gradient_sums(
            values: &[f32],
            gradients: &[f32],
            outputs: Option<&[f32]>,
            mean: &[f32],
            sums: &mut [f32],
            products: &mut [f32],
        ) {
            passes::add_gradient_sums(values, gradients, outputs, mean, sums, products);
        }
        #[$attribute]
        unsafe fn norm_gradient(
            values: &[f32],
            gradients: &[f32],
            outputs: Option<&[f32]>,
            norm: &NormGradient<'_>,
            inputs: &mut [f32],
            residual: Option<&mut [f32]>,
        ) {
            passes::norm_gradient(values, gradients, outputs, norm, inputs, residual);
        }
        pub(crate) const ELEMENTWISE: passes::Table =
            passes::Table { add_sums, add_squares, normalize, add_gradient_sums, norm_gradient };
    };
}
pub(crate) use compiled_for;
