//! Convolutions in f32 as matrix products (im2col), for passes without an exact cuDNN plan.
//!
//! The window's inputs at each output pixel become a row of a matrix (`source/columns.cu`), for as
//! many images at a time as memory allows. cuBLAS does the rest. Let the weight be
//! `[outputs, columns]`, the rows `[pixels, columns]` and the outputs `[pixels, outputs]`. Then
//! `outputs = rows @ weight^T`, the gradient of the rows is `outputs' @ weight`, and the gradient
//! of the weight is `outputs'^T @ rows`.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use super::{Key, MOST_WORKSPACE, Pass, Ran};
use crate::ops::form::Math;
use crate::ops::gemm::Product;
use crate::ops::map::{arguments, grid};
use crate::runtime::context::Context;
use crate::runtime::driver::Outcome;

/// Whether this module runs all passes that it supports.
static ALWAYS: AtomicBool = AtomicBool::new(false);

/// Runs `work` with all f32 convolutions computed here instead of by cuDNN. For tests. No other
/// work may run concurrently, and all queued work must be done when this returns.
pub(crate) fn without_cudnn<T>(work: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            ALWAYS.store(false, SeqCst);
        }
    }
    ALWAYS.store(true, SeqCst);
    let _reset = Reset;
    work()
}

/// Whether [`without_cudnn`] is active.
pub(crate) fn is_asked_for() -> bool {
    ALWAYS.load(SeqCst)
}

/// Whether this module supports a pass.
pub(crate) fn can(key: &Key) -> bool {
    !key.bf16
}

/// Has the layout of the struct in `source/columns.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
struct Columns {
    size: [i32; 2],
    channels: i32,
    outputs: [i32; 2],
    kernel: [i32; 2],
    stride: [i32; 2],
    padding: [i32; 2],
}

/// A pass expressed as matrix products.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Form {
    columns: Columns,
    images: i64,
    outputs: i64,
    /// The length of a row of the matrix.
    width: i64,
    /// The number of rows per image.
    pixels: i64,
    math: Math,
    pass: Pass,
}

/// Images processed in one product: the index of the first, and the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    first: i64,
    images: i64,
}

impl Form {
    fn new(key: &Key) -> Self {
        let both = |pair: [i64; 2]| pair.map(|size| size as i32);
        let ([images, channels, height, width], [_, outputs, down, across]) = (key.input, key.output());
        let columns = Columns {
            size: both([height, width]),
            channels: channels as i32,
            outputs: both([down, across]),
            kernel: both(key.kernel),
            stride: both(key.stride),
            padding: both(key.padding),
        };
        let width = key.kernel[0] * key.kernel[1] * channels;
        Form { columns, images, outputs, width, pixels: down * across, math: key.math, pass: key.pass }
    }

    /// Whether the matrix equals the map itself.
    fn is_the_map(&self) -> bool {
        let Columns { kernel, stride, padding, .. } = self.columns;
        (kernel, stride, padding) == ([1, 1], [1, 1], [0, 0])
    }

    /// Returns the bytes of an image's rows.
    fn bytes(&self) -> usize {
        (self.pixels * self.width) as usize * size_of::<f32>()
    }

    /// Splits all images into parts of at least one image, whose rows fit in `most` bytes.
    fn parts(&self, most: usize) -> Vec<Part> {
        let together = ((most / self.bytes().max(1)) as i64).clamp(1, self.images.max(1));
        let part = |first: i64| Part { first, images: together.min(self.images - first) };
        (0..self.images).step_by(together as usize).map(part).collect()
    }

    /// Returns the matrix product of a pass over `images` images.
    fn product(&self, images: i64) -> Product {
        let (pixels, outputs, width) = ((images * self.pixels) as i32, self.outputs as i32, self.width as i32);
        let ([rows, columns, inner], transposed) = match self.pass {
            Pass::Forward => ([pixels, outputs, width], [false, true]),
            Pass::InputGradient => ([pixels, width, outputs], [false, false]),
            Pass::WeightGradient => ([outputs, width, pixels], [true, false]),
        };
        Product { count: 1, rows, columns, inner, transposed, bf16: false, math: self.math }
    }
}

/// Enqueues a pass over input, weight and output. It writes one of them.
///
/// # Safety
/// As [`Plans::run`](crate::ops::convolution::Plans::run). The maps must be f32.
pub(crate) unsafe fn run(context: &mut Context, key: &Key, [input, weight, output]: [u64; 3]) -> Outcome {
    let form = Form::new(key);
    let parts = form.parts(MOST_WORKSPACE);
    let most = parts.first().map_or(0, |part| part.images as usize);
    let scratch = if form.is_the_map() { 0 } else { context.workspace.reserve(form.bytes() * most)? };
    let image = i64::from(form.columns.size[0]) * i64::from(form.columns.size[1]) * i64::from(form.columns.channels);
    for Part { first, images } in parts {
        let at = |start: u64, values: i64| start + (first * values * size_of::<f32>() as i64) as u64;
        let (input, output) = (at(input, image), at(output, form.pixels * form.outputs));
        let rows = if form.is_the_map() { input } else { scratch };
        let (product, values) = (form.product(images), images * form.pixels * form.width);
        // SAFETY: guaranteed by the caller. The matrix has room for `values` values, and the parts
        // of the maps have `images` images.
        unsafe {
            if rows != input && form.pass != Pass::InputGradient {
                let shape = (grid(values), 256);
                context.launch("columns_f32", shape, arguments![input, rows, form.columns, values])?;
            }
            match form.pass {
                Pass::Forward => context.blas.multiply(product, [rows, weight, output], &context.stream)?,
                Pass::InputGradient => context.blas.multiply(product, [output, weight, rows], &context.stream)?,
                // The gradients of the parts are summed.
                Pass::WeightGradient => {
                    context.blas.multiply_onto(product, [output, rows, weight], first > 0, &context.stream)?;
                }
            }
            if rows != input && form.pass == Pass::InputGradient {
                let (count, shape) = (images * image, (grid(images * image), 256));
                context.launch("columns_gradient_f32", shape, arguments![rows, input, form.columns, count])?;
            }
        }
    }
    Ok(())
}

impl Context {
    /// Enqueues a pass of a convolution: through cuDNN, or as matrix products if cuDNN has no plan.
    ///
    /// # Safety
    /// As [`Plans::run`](super::Plans::run).
    pub(crate) unsafe fn convolve(&mut self, key: Key, pointers: [u64; 3]) -> Outcome {
        if !(is_asked_for() && can(&key)) {
            // SAFETY: guaranteed by the caller.
            match unsafe { self.plans.run(key, pointers, &self.stream, &mut self.workspace)? } {
                Ran::Done => return Ok(()),
                Ran::NoPlan(why) if !can(&key) => return Err(why),
                Ran::NoPlan(_) => {}
            }
        }
        // SAFETY: guaranteed by the caller. `can` only accepts f32 maps.
        unsafe { run(self, &key, pointers) }
    }
}

#[cfg(test)]
mod tests {
    use bagssl_core::plan::Window;

    use super::*;

    fn form(pass: Pass, images: usize, window: Window) -> Form {
        Form::new(&Key::new(pass, false, Math::Exact, [images, 8, 9, 7], 16, window))
    }

    const ODD: Window = Window { kernel: [3, 2], stride: [2, 1], padding: [1, 0] };

    #[test]
    fn products_have_the_sizes_of_the_matrices() {
        // Maps have 5 x 6 output pixels, windows have 3 * 2 * 8 values.
        let sizes = |pass| {
            let Product { rows, columns, inner, transposed, .. } = form(pass, 4, ODD).product(3);
            ([rows, columns, inner], transposed)
        };
        assert_eq!(sizes(Pass::Forward), ([90, 16, 48], [false, true]));
        assert_eq!(sizes(Pass::InputGradient), ([90, 48, 16], [false, false]));
        assert_eq!(sizes(Pass::WeightGradient), ([16, 48, 90], [true, false]));
        assert_eq!(form(Pass::Forward, 4, ODD).bytes(), 30 * 48 * 4);
    }

    #[test]
    fn parts_cover_all_images_once() {
        let form = form(Pass::Forward, 7, ODD);
        let parts = |most: usize| form.parts(most).iter().map(|part| (part.first, part.images)).collect::<Vec<_>>();
        assert_eq!(parts(3 * form.bytes()), [(0, 3), (3, 3), (6, 1)]);
        assert_eq!(parts(7 * form.bytes()), [(0, 7)]);
        assert_eq!(parts(1), (0..7).map(|first| (first, 1)).collect::<Vec<_>>());
    }

    #[test]
    fn a_window_of_one_pixel_needs_no_matrix_and_bf16_is_for_cudnn() {
        assert!(form(Pass::Forward, 1, Window::square(1, 1, 0)).is_the_map());
        assert!(!form(Pass::Forward, 1, Window::square(1, 2, 0)).is_the_map());
        assert!(!form(Pass::Forward, 1, Window::square(1, 1, 1)).is_the_map());
        let key = |bf16| Key::new(Pass::Forward, bf16, Math::Exact, [1, 8, 9, 7], 16, ODD);
        assert!(can(&key(false)) && !can(&key(true)));
        assert!(without_cudnn(is_asked_for) && !is_asked_for());
    }
}
