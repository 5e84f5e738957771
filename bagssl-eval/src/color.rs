//! Color or not: the same images, as they are and greyed.

pub use bagssl_core::color::Color;

/// The brightness of a color; a grey (all three equal) keeps its value.
///
/// # Source
/// ITU-R BT.601.
pub fn luma([red, green, blue]: [f32; 3]) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}
