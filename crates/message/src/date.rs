use jiff::tz::TimeZone;
use types::Timestamp;

/// 9999-12-30, the last day that jiff knows in every zone: RFC 5322 dates have four-digit years.
const UNIX_MS_MAX: i64 = 253_402_207_199_000;

/// A date in UTC as RFC 5322 section 3.3 writes it: `Sun, 22 Nov 2026 18:53:52 +0000`.
///
/// Moments that such a date cannot say become the nearest one that it can.
pub fn rfc5322_date(at: Timestamp) -> String {
    let unix_ms = at.unix_ms().clamp(0, UNIX_MS_MAX);
    let moment = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    moment.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_in_utc_with_four_digit_years() {
        for (unix_ms, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
            (1795373632999, "Sun, 22 Nov 2026 18:53:52 +0000"),
            (-5, "Thu, 01 Jan 1970 00:00:00 +0000"),
            (i64::MAX, "Thu, 30 Dec 9999 21:59:59 +0000"),
        ] {
            assert_eq!(rfc5322_date(Timestamp::from_unix_ms(unix_ms)), expected);
        }
    }
}
