//! Words that the pages of several claims share.

use bagssl_eval::stats::Interval;

/// The note about a model without its own projector.
pub const NO_PROJECTOR: &str = "it has no projector of its own (the identity stands for one), so that the projector's features \
                                would repeat the embedding; they are left out";

/// Formats a value with its interval, as in "12.3 (10.1 to 14.2)".
pub(super) fn with_interval(value: f64, interval: Option<Interval>) -> String {
    let interval = interval.map_or(String::new(), |it| format!(" ({:.1} to {:.1})", it.low, it.high));
    format!("{value:.1}{interval}")
}

/// Returns a placeholder for tests of pages, which only pass it on.
#[cfg(test)]
pub(super) fn some_origin() -> bagssl_eval::Origin {
    bagssl_eval::Origin {
        protocol: "p".into(),
        protocol_hash: "h".into(),
        checkpoint_hash: "c".into(),
        data: ["a".into(), "b".into()],
        seed: 0,
    }
}
