//! Command-line argument for the groups of images that the bootstrap draws as a unit.

use bagssl::Groups;
use clap::ValueEnum;

/// The criterion that groups images. A confidence interval is too narrow if it treats dependent
/// images as independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum GroupsChoice {
    /// Groups of touching tiles if all image names are names of tiles, else each image on its own
    #[default]
    Auto,
    /// Each image on its own
    Image,
    /// All images of a class, such as when each class is one photograph
    Class,
    /// Tiles that touch or overlap in their photograph, identified by names such as
    /// s768-x04-y10.jpg
    Tiles,
}

impl From<GroupsChoice> for Groups {
    fn from(choice: GroupsChoice) -> Groups {
        match choice {
            GroupsChoice::Auto => Groups::Auto,
            GroupsChoice::Image => Groups::Image,
            GroupsChoice::Class => Groups::Class,
            GroupsChoice::Tiles => Groups::Tiles,
        }
    }
}
