//! Tables and texts for people.

use std::io::{self, Write};
use std::time::Duration;

/// Columns a cell may take: what is longer is cut, `--json` has it whole.
const CELL_COLUMNS_MAX: usize = 60;

/// Rows under headings, as wide as what is in them.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with its headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| printable(cell)).map(cut).collect());
    }

    /// Writes it; the last column is not padded.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max())
            .map(Option::unwrap_or_default)
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn cut(cell: String) -> String {
    if cell.chars().count() <= CELL_COLUMNS_MAX {
        return cell;
    }
    cell.chars().take(CELL_COLUMNS_MAX - 1).chain(['…']).collect()
}

/// What came from outside is shown without what would steer the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `2026-11-22T18:53:01.042Z`.
pub fn moment(unix_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(unix_ms) {
        Ok(at) => format!("{at:.3}"),
        Err(_) => unix_ms.to_string(),
    }
}

/// `18:53:01.042` in local time.
pub fn time_of_day(unix_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(unix_ms) {
        Ok(at) => at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S%.3f").to_string(),
        Err(_) => unix_ms.to_string(),
    }
}

/// `5d4h`, `4h10m`, `3m20s`, `12s`: two units at most.
pub fn span(duration: Duration) -> String {
    let s = duration.as_secs();
    let units = [("d", s / 86_400), ("h", s / 3600 % 24), ("m", s / 60 % 60), ("s", s % 60)];
    let first = units.iter().position(|(_, n)| *n > 0).unwrap_or(3);
    let shown = units.iter().skip(first).take(2).filter(|(_, n)| *n > 0);
    let text: String = shown.map(|(unit, n)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// The time between two moments in milliseconds, as [`span`].
pub fn span_ms(from_ms: i64, to_ms: i64) -> String {
    span(Duration::from_millis(u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0)))
}

/// `17 B`, `4.2 KiB`, `12 MiB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes;
    let mut rest = 0;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024 {
            break;
        }
        rest = value % 1024;
        value /= 1024;
        unit = next;
    }
    if unit == "B" || value >= 10 { format!("{value} {unit}") } else { format!("{value}.{} {unit}", rest * 10 / 1024) }
}

/// `60s`, `10m`, `4h`, `5d`, or seconds.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time: write for example 90s, 10m, 4h or 5d");
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let n: u64 = digits.parse().map_err(|_| wrong())?;
    n.checked_mul(factor).map(Duration::from_secs).ok_or_else(wrong)
}

/// `1 message`, `2 messages`.
pub fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_shows_no_control_characters() {
        let mut table = Table::new(&["ID", "SENDER"]);
        table.row(["1".to_owned(), "alice@example.org".to_owned()]);
        table.row(["1234".to_owned(), "\u{1b}[31mé\r\n".to_owned()]);
        table.row([String::new(), "x".repeat(100)]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let long = format!("      {}…", "x".repeat(59));
        assert_eq!(text, format!("ID    SENDER\n1     alice@example.org\n1234   [31mé\n{long}\n"));
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let cases =
            [(0, "0s"), (59, "59s"), (60, "1m"), (200, "3m20s"), (3600, "1h"), (15_005, "4h10m"), (446_400, "5d4h")];
        for (s, expected) in cases {
            assert_eq!(span(Duration::from_secs(s)), expected);
        }
        assert_eq!(span_ms(5000, 1000), "0s");
    }

    #[test]
    fn sizes_and_counts_are_for_people() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (4300, "4.1 KiB"), (12 << 20, "12 MiB")];
        for (bytes, expected) in cases {
            assert_eq!(size(bytes), expected);
        }
        assert_eq!((count(1, "message"), count(0, "message")), ("1 message".to_owned(), "0 messages".to_owned()));
    }

    #[test]
    fn times_are_parsed_with_their_unit() {
        let cases =
            [("90", Some(90)), ("90s", Some(90)), ("10m", Some(600)), ("4h", Some(14_400)), ("5d", Some(432_000))];
        for (text, expected) in cases {
            assert_eq!(parse_span(text).ok(), expected.map(Duration::from_secs), "{text}");
        }
        for text in ["", "h", "-1s", "1w", "99999999999999999999d", "1é"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_written_as_rfc_3339() {
        assert_eq!(moment(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(moment(1_795_373_581_042), "2026-11-22T18:53:01.042Z");
    }
}
