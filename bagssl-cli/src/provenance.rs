//! The origin of a result: the command line and the date.

/// Returns the command line.
pub(crate) fn command() -> String {
    std::iter::once("bagssl".into()).chain(std::env::args().skip(1)).collect::<Vec<_>>().join(" ")
}

/// Returns today's date in UTC, as year-month-day.
pub(crate) fn date() -> String {
    date_of(std::time::SystemTime::now())
}

fn date_of(time: std::time::SystemTime) -> String {
    let mut text = humantime::format_rfc3339_seconds(time).to_string();
    text.truncate("2026-11-23".len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn dates_by_hand() {
        for (days, date) in [(0, "1970-01-01"), (11_016, "2000-02-29"), (20_780, "2026-11-23")] {
            assert_eq!(date_of(UNIX_EPOCH + Duration::from_secs(days * 86_400 + 86_399)), date);
        }
    }
}
