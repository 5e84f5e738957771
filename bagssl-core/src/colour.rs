//! Colour or not: the same images, as they are and greyed.

/// Whether images are taken in colour. Grey takes away the short cut that colour is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(rename_all = "lowercase"))]
pub enum Colour {
    /// As they are.
    #[default]
    Rgb,
    /// Grey in all three channels: the same network can look at it.
    Grey,
}

impl Colour {
    /// Both.
    pub const ALL: [Self; 2] = [Colour::Rgb, Colour::Grey];

    /// The name, as in reports.
    pub fn name(self) -> &'static str {
        match self {
            Colour::Rgb => "rgb",
            Colour::Grey => "grey",
        }
    }
}
