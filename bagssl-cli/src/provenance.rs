//! The origin of a result: the command line and the date.

/// Returns the command line.
pub(crate) fn command() -> String {
    std::iter::once("bagssl".into()).chain(std::env::args().skip(1)).collect::<Vec<_>>().join(" ")
}

/// Returns today's date in UTC, as year-month-day.
///
/// # Source
/// Conversion from a day count to the civil calendar: Hinnant, *chrono-Compatible Low-Level Date
/// Algorithms*.
pub(crate) fn date() -> String {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    civil(seconds / 86_400)
}

fn civil(days_since_1970: u64) -> String {
    let days = days_since_1970 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_by_hand() {
        assert_eq!(civil(0), "1970-01-01");
        assert_eq!(civil(11_016), "2000-02-29");
        assert_eq!(civil(20_780), "2026-11-23");
    }
}
