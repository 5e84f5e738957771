//! Color or not: the same images, as they are and greyed.

/// Whether images are taken in color. Grey takes away the short cut that color is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(rename_all = "lowercase"))]
pub enum Color {
    /// As they are.
    #[default]
    Rgb,
    /// Grey in all three channels: the same network can look at it.
    Grey,
}

impl Color {
    /// Both.
    pub const ALL: [Self; 2] = [Color::Rgb, Color::Grey];

    /// The name, as in reports.
    pub fn name(self) -> &'static str {
        match self {
            Color::Rgb => "rgb",
            Color::Grey => "grey",
        }
    }
}
