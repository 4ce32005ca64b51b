//! The SQL of a table: Dovecot's variables become bound parameters.

use std::fmt::Write as _;

/// A query whose variables are parameters: `?1` is the whole key, `?2` what is before its `@`, `?3` what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// For `prepare`; no value is pasted into it.
    pub sql: String,
    /// The highest parameter that occurs; all up to it are to be bound.
    pub parameters: usize,
}

/// What may stand behind a `%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// `%u`, `%{user}`: the whole key.
    Key = 1,
    /// `%n`, `%{username}`: before the `@`; without one, the whole key.
    Local = 2,
    /// `%d`, `%{domain}`: behind the `@`; without one, nothing.
    Domain = 3,
}

/// The query cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Only `%u`, `%n`, `%d` (with `L` or in their long forms) and `%%` are known.
    #[error("unknown variable at `{0}`: %u, %n and %d are known; a percent sign is written %%")]
    Variable(String),
    /// A quoted text has no end.
    #[error("a quoted text has no end")]
    Quote,
    /// There is nothing to run.
    #[error("the query is empty")]
    Empty,
}

impl Query {
    /// Reads a query in Dovecot's form. `'%u'` is the same as `%u`, and `'%n@%d'` is put together by the database: Dovecot
    /// needs the quotes because it pastes.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        if text.trim().is_empty() {
            return Err(QueryError::Empty);
        }
        let mut query = Self { sql: String::with_capacity(text.len()), parameters: 0 };
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = match c {
                '\'' => query.literal(&rest[1..])?,
                '"' => query.copy_until(rest, 1, "\"")?,
                '-' if rest.starts_with("--") => query.copy_line(rest),
                '/' if rest.starts_with("/*") => query.copy_until(rest, 2, "*/")?,
                '%' => match variable(rest)? {
                    (Some(Piece::Variable(variable)), after) => {
                        query.parameter(variable);
                        after
                    }
                    (Some(Piece::Percent) | None, after) => {
                        query.sql.push('%');
                        after
                    }
                },
                other => {
                    query.sql.push(other);
                    &rest[other.len_utf8()..]
                }
            };
        }
        Ok(query)
    }

    /// The values of the parameters for a key.
    pub fn bind(key: &str) -> [&str; 3] {
        match key.rsplit_once('@') {
            Some((local, domain)) => [key, local, domain],
            None => [key, key, ""],
        }
    }

    fn parameter(&mut self, variable: Variable) {
        self.parameters = self.parameters.max(variable as usize);
        // Writing to a String cannot fail.
        let _ = write!(self.sql, "?{}", variable as usize);
    }

    fn copy_until<'a>(&mut self, text: &'a str, skip: usize, end: &str) -> Result<&'a str, QueryError> {
        let at = text[skip..].find(end).ok_or(QueryError::Quote)? + skip + end.len();
        self.sql.push_str(&text[..at]);
        Ok(&text[at..])
    }

    fn copy_line<'a>(&mut self, text: &'a str) -> &'a str {
        let at = text.find('\n').unwrap_or(text.len());
        self.sql.push_str(&text[..at]);
        &text[at..]
    }

    /// A text in single quotes; variables in it are joined to the rest of it.
    fn literal<'a>(&mut self, mut rest: &'a str) -> Result<&'a str, QueryError> {
        let mut parts: Vec<Result<String, Variable>> = Vec::new();
        let mut plain = String::new();
        loop {
            let c = rest.chars().next().ok_or(QueryError::Quote)?;
            match c {
                '\'' if rest.starts_with("''") => {
                    plain.push_str("''");
                    rest = &rest[2..];
                }
                '\'' => {
                    rest = &rest[1..];
                    break;
                }
                '%' => {
                    let (piece, after) = variable(rest)?;
                    match piece {
                        Some(Piece::Variable(variable)) => {
                            if !plain.is_empty() {
                                parts.push(Ok(std::mem::take(&mut plain)));
                            }
                            parts.push(Err(variable));
                        }
                        Some(Piece::Percent) | None => plain.push('%'),
                    }
                    rest = after;
                }
                other => {
                    plain.push(other);
                    rest = &rest[other.len_utf8()..];
                }
            }
        }
        if !plain.is_empty() || parts.is_empty() {
            parts.push(Ok(plain));
        }
        self.join(parts);
        Ok(rest)
    }

    fn join(&mut self, parts: Vec<Result<String, Variable>>) {
        let several = parts.len() > 1;
        self.sql.push_str(if several { "(" } else { "" });
        for (i, part) in parts.into_iter().enumerate() {
            self.sql.push_str(if i > 0 { " || " } else { "" });
            match part {
                Ok(plain) => {
                    let _ = write!(self.sql, "'{plain}'");
                }
                Err(variable) => self.parameter(variable),
            }
        }
        self.sql.push_str(if several { ")" } else { "" });
    }
}

enum Piece {
    Variable(Variable),
    Percent,
}

/// Reads what stands at a `%`: a variable, `%%`, or (`None`) a percent sign by itself, as in `a % b`.
fn variable(text: &str) -> Result<(Option<Piece>, &str), QueryError> {
    let unknown = || QueryError::Variable(text.chars().take(12).collect());
    let rest = &text[1..];
    if let Some(after) = rest.strip_prefix('%') {
        return Ok((Some(Piece::Percent), after));
    }
    if let Some(long) = rest.strip_prefix('{') {
        let (name, after) = long.split_once('}').ok_or_else(unknown)?;
        let variable = match name {
            "user" => Variable::Key,
            "username" | "user | username" => Variable::Local,
            "domain" | "user | domain" => Variable::Domain,
            _ => return Err(unknown()),
        };
        return Ok((Some(Piece::Variable(variable)), after));
    }
    // Dovecot's modifier for lower case: keys are in lower case already.
    let plain = rest.strip_prefix('L').unwrap_or(rest);
    let variable = match plain.chars().next() {
        Some('u') => Variable::Key,
        Some('n') => Variable::Local,
        Some('d') => Variable::Domain,
        Some(c) if c.is_alphanumeric() || plain.len() < rest.len() => return Err(unknown()),
        _ => return Ok((None, rest)),
    };
    Ok((Some(Piece::Variable(variable)), &plain[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_become_parameters_and_are_never_pasted() {
        let cases = [
            ("SELECT a FROM t WHERE k = %u", "SELECT a FROM t WHERE k = ?1", 1),
            ("SELECT a FROM t WHERE k = '%u'", "SELECT a FROM t WHERE k = ?1", 1),
            ("SELECT a WHERE n='%n' AND d='%d'", "SELECT a WHERE n=?2 AND d=?3", 3),
            ("SELECT a WHERE k = '%n@%d'", "SELECT a WHERE k = (?2 || '@' || ?3)", 3),
            ("SELECT a WHERE k LIKE '%%@%d'", "SELECT a WHERE k LIKE ('%@' || ?3)", 3),
            ("SELECT 'it''s %u'", "SELECT ('it''s ' || ?1)", 1),
            ("SELECT '' WHERE 5 % 2", "SELECT '' WHERE 5 % 2", 0),
            ("SELECT a WHERE k = '%Lu'", "SELECT a WHERE k = ?1", 1),
            ("SELECT a WHERE k = '%{user}'", "SELECT a WHERE k = ?1", 1),
            ("SELECT \"50%\" -- %x '\nFROM t /* %y ' */", "SELECT \"50%\" -- %x '\nFROM t /* %y ' */", 0),
        ];
        for (text, sql, parameters) in cases {
            assert_eq!(Query::parse(text), Ok(Query { sql: sql.to_owned(), parameters }), "{text}");
        }
        for text in ["SELECT %x", "SELECT '%w'", "SELECT 'open", "SELECT %{pid}", "SELECT %Lx", " "] {
            assert!(Query::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_is_cut_at_its_last_at_sign() {
        for (key, expected) in [
            ("a@b", ["a@b", "a", "b"]),
            ("x@y@b", ["x@y@b", "x@y", "b"]),
            ("b.c", ["b.c", "b.c", ""]),
            ("@b", ["@b", "", "b"]),
            ("", ["", "", ""]),
        ] {
            assert_eq!(Query::bind(key), expected, "{key}");
        }
    }
}
