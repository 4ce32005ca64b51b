//! What a peer offers in its reply to EHLO or LHLO.

use types::Reply;

/// The extensions of a peer that we have a use for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtp_utf8: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 1870; `Some(0)`: offered without a limit.
    pub size: Option<u64>,
    /// RFC 4954, mechanism PLAIN.
    pub auth_plain: bool,
    /// RFC 4954, mechanism LOGIN.
    pub auth_login: bool,
}

impl Extensions {
    /// Reads the lines behind the first one.
    pub(super) fn read(reply: &Reply) -> Self {
        let mut found = Self::default();
        for line in reply.text().lines().skip(1) {
            // "AUTH=LOGIN" is a form of old servers.
            let mut words = line.split([' ', '=', '\t']).filter(|word| !word.is_empty());
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => found.pipelining = true,
                "STARTTLS" => found.starttls = true,
                "8BITMIME" => found.eight_bit_mime = true,
                "SMTPUTF8" => found.smtp_utf8 = true,
                "DSN" => found.dsn = true,
                "SIZE" => found.size = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0)),
                "AUTH" => {
                    for mechanism in words {
                        found.auth_plain |= mechanism.eq_ignore_ascii_case("PLAIN");
                        found.auth_login |= mechanism.eq_ignore_ascii_case("LOGIN");
                    }
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_read_in_any_case_and_the_first_line_is_no_keyword() {
        let reply =
            Reply::new(250, None, "PIPELINING is my name\nsize 1000\nAUTH=LOGIN\nauth cram-md5 plain\n8BitMime\nX-DSN");
        let expected = Extensions {
            size: Some(1000),
            auth_login: true,
            auth_plain: true,
            eight_bit_mime: true,
            ..Default::default()
        };
        assert_eq!(Extensions::read(&reply), expected);
        for (line, size) in [("SIZE", Some(0)), ("SIZE 0", Some(0)), ("SIZE -1", Some(0)), ("SIZER 5", None)] {
            assert_eq!(Extensions::read(&Reply::new(250, None, format!("x\n{line}"))).size, size, "{line}");
        }
    }
}
