//! Color modes: the same images in color and in grey.

pub(crate) use bagssl_core::color::Color;

/// Returns the luma of a color. A grey color (with equal channels) keeps its value.
///
/// # Source
/// ITU-R BT.601.
pub(crate) fn luma([red, green, blue]: [f32; 3]) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}
