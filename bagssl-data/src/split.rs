//! The two splits of a data set, and the folder names that select them.

/// The training or the validation split of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Images to train on.
    Train,
    /// Held-out images.
    Validation,
}

impl Split {
    /// Both splits.
    pub const ALL: [Self; 2] = [Split::Train, Split::Validation];

    /// The folder names of a split. The first one that contains images is used.
    pub(crate) fn folders(self) -> &'static [&'static str] {
        match self {
            Split::Train => &["train", "training"],
            Split::Validation => &["val", "valid", "validation", "test", "testing"],
        }
    }

    /// The folder names with an ending, for error messages.
    pub(crate) fn names(self, ending: &str) -> String {
        let (last, first) = self.folders().split_last().expect("a half has a name");
        let first: Vec<String> = first.iter().map(|name| format!("{name}{ending}")).collect();
        format!("{} or {last}{ending}", first.join(", "))
    }

    /// Advice for error messages if the split is missing.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Split::Train => "",
            Split::Validation => "; `bagssl data split` creates both splits",
        }
    }
}
