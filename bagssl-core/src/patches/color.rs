//! Color or greyscale versions of the same images.

/// Whether images are used in color. Greyscale removes color as a shortcut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(rename_all = "lowercase"))]
pub enum Color {
    /// In color.
    #[default]
    Rgb,
    /// Grey values in all three channels, so that the same network can process them.
    Grey,
}

impl Color {
    /// Both variants.
    pub const ALL: [Self; 2] = [Color::Rgb, Color::Grey];

    /// Returns the name, as in reports.
    pub fn name(self) -> &'static str {
        match self {
            Color::Rgb => "rgb",
            Color::Grey => "grey",
        }
    }
}
