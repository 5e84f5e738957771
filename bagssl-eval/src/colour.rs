//! Colour or not: the same images, as they are and greyed.

use serde::{Deserialize, Serialize};

/// Whether images are taken in colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    /// As they are.
    Rgb,
    /// Greyed, which takes away the short cut that colour is.
    Grey,
}

impl Colour {
    /// The name, as in reports.
    pub fn name(self) -> &'static str {
        match self {
            Colour::Rgb => "rgb",
            Colour::Grey => "grey",
        }
    }
}

/// The brightness of a colour; a grey (all three equal) keeps its value.
///
/// # Source
/// ITU-R BT.601.
pub fn luma([red, green, blue]: [f32; 3]) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}
