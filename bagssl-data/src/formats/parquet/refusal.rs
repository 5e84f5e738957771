//! The reason why a file is refused.

/// The reason why a file is refused: what was expected and what was found.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(super) expected: &'static str,
    pub(super) got: String,
}

pub(super) fn refusal(expected: &'static str, got: impl ToString) -> Refusal {
    Refusal { expected, got: got.to_string() }
}
