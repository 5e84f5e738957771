//! The two splits of a data set, and the names that they may have.

/// One of the two halves of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// What is learned from.
    Train,
    /// What is held out.
    Validation,
}

impl Split {
    /// Both.
    pub const ALL: [Self; 2] = [Split::Train, Split::Validation];

    /// The names that a split's folder may have; the first that has images counts.
    pub(crate) fn folders(self) -> &'static [&'static str] {
        match self {
            Split::Train => &["train", "training"],
            Split::Validation => &["val", "valid", "validation", "test", "testing"],
        }
    }

    /// These names, for whoever has none of them.
    pub(crate) fn names(self, ending: &str) -> String {
        let (last, first) = self.folders().split_last().expect("a half has a name");
        let first: Vec<String> = first.iter().map(|name| format!("{name}{ending}")).collect();
        format!("{} or {last}{ending}", first.join(", "))
    }

    /// What helps who has no such half.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Split::Train => "",
            Split::Validation => "; `bagssl data split` makes two halves of a folder of images",
        }
    }
}
