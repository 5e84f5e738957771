//! Why a file is refused.

/// Why a file is refused: what was expected, what came.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(super) expected: &'static str,
    pub(super) got: String,
}

pub(super) fn refusal(expected: &'static str, got: impl ToString) -> Refusal {
    Refusal { expected, got: got.to_string() }
}
