use std::fmt;
use std::str::FromStr;

/// What a reply or an error means for a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// 2xx.
    Success,
    /// 4xx: try again later. What is unknown is transient.
    Transient,
    /// 5xx: trying again will not help.
    Permanent,
}

/// An enhanced status code (RFC 3463), as in `5.1.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnhancedCode {
    /// 2, 4 or 5.
    pub class: u8,
    /// The second number, up to 999.
    pub subject: u16,
    /// The third number, up to 999.
    pub detail: u16,
}

/// The text is not an enhanced status code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an enhanced status code is 2, 4 or 5 and two numbers up to 999, as in 5.7.1")]
pub struct EnhancedCodeError;

impl EnhancedCode {
    /// Puts a code together.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl FromStr for EnhancedCode {
    type Err = EnhancedCodeError;
    fn from_str(text: &str) -> Result<Self, EnhancedCodeError> {
        let mut parts = text.split('.');
        let mut number = || -> Option<u16> {
            let part = parts.next()?;
            let plain = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| part.parse().ok()).flatten()
        };
        let (Some(class @ (2 | 4 | 5)), Some(subject), Some(detail)) = (number(), number(), number()) else {
            return Err(EnhancedCodeError);
        };
        if parts.next().is_some() {
            return Err(EnhancedCodeError);
        }
        Ok(Self { class: class as u8, subject, detail })
    }
}

/// One SMTP or LMTP reply: `code`, an optional enhanced code, and text of one or more lines.
///
/// The text never holds CR, NUL or other controls but LF between lines: [`Reply::new`] replaces them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// RFC 2034; absent in greetings and in replies to HELO.
    pub enhanced: Option<EnhancedCode>,
    text: String,
}

impl Reply {
    /// Puts a reply together; controls in `text` become `?`, LF separates lines.
    pub fn new(code: u16, enhanced: Option<EnhancedCode>, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.bytes().any(|b| (b < b' ' && b != b'\n') || b == 0x7f) {
            text = text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect();
        }
        Self { code, enhanced, text }
    }

    /// A reply with an enhanced code.
    pub fn enhanced(code: u16, class: u8, subject: u16, detail: u16, text: impl Into<String>) -> Self {
        Self::new(code, Some(EnhancedCode::new(class, subject, detail)), text)
    }

    /// The text, lines separated by LF, without codes.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the first digit means: 2xx and 3xx succeed, 5xx is permanent, all else transient.
    pub fn class(&self) -> Class {
        match self.code {
            200..=399 => Class::Success,
            500..=599 => Class::Permanent,
            _ => Class::Transient,
        }
    }
}

impl fmt::Display for Reply {
    /// One line, for logs, reports and people: `550 5.1.1 no such user`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        for line in self.text.lines() {
            write!(f, " {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_codes_are_three_plain_numbers() {
        for (text, expected) in [
            ("5.7.1", Some(EnhancedCode::new(5, 7, 1))),
            ("2.0.0", Some(EnhancedCode::new(2, 0, 0))),
            ("4.999.999", Some(EnhancedCode::new(4, 999, 999))),
            ("3.0.0", None),
            ("5.7", None),
            ("5.7.1.1", None),
            ("5.1000.1", None),
            ("5.+7.1", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_reply_cannot_carry_a_line_break_into_the_dialogue() {
        let reply = Reply::enhanced(550, 5, 1, 1, "no\r\n250 yes\0");
        assert_eq!(reply.text(), "no?\n250 yes?");
        assert_eq!(reply.to_string(), "550 5.1.1 no? 250 yes?");
    }
}
