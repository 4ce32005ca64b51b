use types::{Address, Domain};

use crate::header::fields;

/// Addresses of one From field that are read; RFC 5322 sets no bound.
pub const AUTHORS_MAX: usize = 100;
/// Comments inside comments.
const COMMENT_DEPTH_MAX: usize = 20;

/// Says why the authors of a message are not known (S12): the message cannot be held to anybody's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorError {
    /// There is no From field, or no address in it.
    #[error("message has no From address")]
    Missing,
    /// RFC 5322 section 3.6: From occurs once.
    #[error("message has several From fields")]
    Several,
    /// Not an address list (RFC 5322 section 3.4).
    #[error("From is not a list of addresses")]
    Syntax,
    /// More than [`AUTHORS_MAX`].
    #[error("From has more than {AUTHORS_MAX} addresses")]
    TooMany,
}

/// The addresses of the From field of a header section: one or more.
///
/// Display names, encoded words and comments are passed over; the members of groups count (RFC 6854). Source routes are refused.
pub fn author_addresses(header: &[u8]) -> Result<Vec<Address>, AuthorError> {
    let mut from = fields(header).filter(|field| field.is("from"));
    let field = from.next().ok_or(AuthorError::Missing)?;
    if from.next().is_some() {
        return Err(AuthorError::Several);
    }
    let tokens = tokens(&String::from_utf8_lossy(field.value()))?;
    let addresses = Parser { tokens: &tokens, at: 0 }.address_list()?;
    if addresses.is_empty() { Err(AuthorError::Missing) } else { Ok(addresses) }
}

/// A lexical token of RFC 5322 section 3.2, comments and white space taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Atom(String),
    Quoted(String),
    Literal(String),
    Special(char),
}

fn tokens(value: &str) -> Result<Vec<Token>, AuthorError> {
    let mut tokens = Vec::new();
    let mut characters = value.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => {}
            '(' => skip_comment(&mut characters)?,
            '"' => tokens.push(Token::Quoted(until(&mut characters, '"')?)),
            '[' => tokens.push(Token::Literal(format!("[{}]", until(&mut characters, ']')?))),
            '<' | '>' | '@' | ',' | ':' | ';' | '.' => tokens.push(Token::Special(c)),
            c if is_atom_character(c) => {
                let mut atom = String::from(c);
                while let Some(next) = characters.next_if(|next| is_atom_character(*next)) {
                    atom.push(next);
                }
                tokens.push(Token::Atom(atom));
            }
            _ => return Err(AuthorError::Syntax),
        }
    }
    Ok(tokens)
}

fn is_atom_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_control())
}

/// Reads a quoted string or a literal up to its end, with quoted pairs resolved and folding removed.
fn until(characters: &mut impl Iterator<Item = char>, end: char) -> Result<String, AuthorError> {
    let mut text = String::new();
    while let Some(c) = characters.next() {
        match c {
            c if c == end => return Ok(text),
            '\\' => text.push(characters.next().ok_or(AuthorError::Syntax)?),
            '\r' | '\n' => {}
            c => text.push(c),
        }
    }
    Err(AuthorError::Syntax)
}

fn skip_comment(characters: &mut impl Iterator<Item = char>) -> Result<(), AuthorError> {
    let mut depth = 1;
    while let Some(c) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            '(' if depth == COMMENT_DEPTH_MAX => return Err(AuthorError::Syntax),
            '(' => depth += 1,
            ')' if depth == 1 => return Ok(()),
            ')' => depth -= 1,
            _ => {}
        }
    }
    Err(AuthorError::Syntax)
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn take_special(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(&Token::Special(wanted));
        self.at += usize::from(found);
        found
    }

    fn address_list(&mut self) -> Result<Vec<Address>, AuthorError> {
        let mut found = Vec::new();
        loop {
            // RFC 5322 section 4.4: elements of a list may be empty.
            while self.take_special(',') {}
            if self.peek().is_none() {
                return Ok(found);
            }
            self.address(&mut found)?;
            if self.peek().is_some() && !self.take_special(',') {
                return Err(AuthorError::Syntax);
            }
        }
    }

    /// A mailbox or a group.
    fn address(&mut self, found: &mut Vec<Address>) -> Result<(), AuthorError> {
        let words = self.words();
        if words.is_empty() || !self.take_special(':') {
            return self.mailbox(words, found);
        }
        loop {
            while self.take_special(',') {}
            if self.take_special(';') {
                return Ok(());
            }
            let words = self.words();
            self.mailbox(words, found)?;
            if !matches!(self.peek(), Some(Token::Special(',' | ';'))) {
                return Err(AuthorError::Syntax);
            }
        }
    }

    /// `words` is what was read of it: its display name or its local part.
    fn mailbox(&mut self, words: &[Token], found: &mut Vec<Address>) -> Result<(), AuthorError> {
        let address = if self.take_special('<') {
            let local = self.words();
            let address = self.address_spec(local)?;
            if !self.take_special('>') {
                return Err(AuthorError::Syntax);
            }
            address
        } else {
            self.address_spec(words)?
        };
        if found.len() == AUTHORS_MAX {
            return Err(AuthorError::TooMany);
        }
        found.push(address);
        Ok(())
    }

    /// What follows the local part: `@` and a domain.
    fn address_spec(&mut self, local: &[Token]) -> Result<Address, AuthorError> {
        if !self.take_special('@') {
            return Err(AuthorError::Syntax);
        }
        let local = dotted(local, true)?;
        let domain = match self.peek() {
            Some(Token::Literal(literal)) => {
                self.at += 1;
                literal.clone()
            }
            _ => dotted(self.words(), false)?,
        };
        let domain = Domain::parse(&domain).map_err(|_| AuthorError::Syntax)?;
        Address::from_parts(&local, domain).map_err(|_| AuthorError::Syntax)
    }

    /// Atoms, quoted strings and dots: a phrase, or a local part, or a domain.
    fn words(&mut self) -> &'a [Token] {
        let start = self.at;
        while matches!(self.peek(), Some(Token::Atom(_) | Token::Quoted(_) | Token::Special('.'))) {
            self.at += 1;
        }
        &self.tokens[start..self.at]
    }
}

/// Words with single dots between them, and nothing else (RFC 5322 sections 3.4.1 and 4.4).
fn dotted(words: &[Token], quotes: bool) -> Result<String, AuthorError> {
    let mut text = String::new();
    for (i, word) in words.iter().enumerate() {
        match word {
            Token::Atom(atom) if i % 2 == 0 => text.push_str(atom),
            Token::Quoted(quoted) if i % 2 == 0 && quotes => text.push_str(quoted),
            Token::Special('.') if i % 2 == 1 => text.push('.'),
            _ => return Err(AuthorError::Syntax),
        }
    }
    if words.len() % 2 == 1 { Ok(text) } else { Err(AuthorError::Syntax) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(header: &str, expected: Result<&[&str], AuthorError>) {
        let found = author_addresses(header.as_bytes())
            .map(|addresses| addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(found, expected.map(|list| list.iter().map(ToString::to_string).collect()), "{header:?}");
    }

    #[test]
    fn every_author_of_the_one_from_field_is_found() {
        let cases: &[(&str, Result<&[&str], AuthorError>)] = &[
            ("From: a@b.org", Ok(&["a@b.org"])),
            ("from : <A@B.org>", Ok(&["A@b.org"])),
            ("From: Alice Example <a@b.org>", Ok(&["a@b.org"])),
            ("From: \"boss@ok.org\" <a@evil.org>", Ok(&["a@evil.org"])),
            ("From: \"a \\\" <x@y.org>\" <a@b.org>", Ok(&["a@b.org"])),
            ("From: =?utf-8?q?boss=40ok?= <a@b.org>", Ok(&["a@b.org"])),
            ("From: John Q. Public <a@b.org>", Ok(&["a@b.org"])),
            ("From: (boss@ok.org (really)) a@b.org (x \\) y)", Ok(&["a@b.org"])),
            ("From: a@b.org,\r\n c@d.org", Ok(&["a@b.org", "c@d.org"])),
            ("From: , a@b.org,, c@d.org,", Ok(&["a@b.org", "c@d.org"])),
            ("From: Group: a@b.org, C <c@d.org>;, e@f.org", Ok(&["a@b.org", "c@d.org", "e@f.org"])),
            ("From: \"a b\"@c.org", Ok(&["\"a b\"@c.org"])),
            ("From: a . b @ c . org", Ok(&["a.b@c.org"])),
            ("From: a@[192.0.2.1]", Ok(&["a@[192.0.2.1]"])),
            ("From: Müller <müller@bücher.example>", Ok(&["müller@xn--bcher-kva.example"])),
            ("Subject: x\r\nFROM: a@b.org\r\nTo: c@d.org", Ok(&["a@b.org"])),
            ("From: undisclosed:;", Err(AuthorError::Missing)),
            ("From:", Err(AuthorError::Missing)),
            ("From: (nobody)", Err(AuthorError::Missing)),
            ("Subject: x", Err(AuthorError::Missing)),
            ("", Err(AuthorError::Missing)),
            ("From: a@b.org\r\nFrom: c@d.org", Err(AuthorError::Several)),
            ("From: a@b.org\r\nFROM : c@d.org", Err(AuthorError::Several)),
            ("From: <a@evil.org>:<boss@ok.org>", Err(AuthorError::Syntax)),
            ("From: <a@evil.org> <boss@ok.org>", Err(AuthorError::Syntax)),
            ("From: a@evil.org boss@ok.org", Err(AuthorError::Syntax)),
            ("From: a@evil.org <boss@ok.org>", Err(AuthorError::Syntax)),
            ("From: <@x.org:a@b.org>", Err(AuthorError::Syntax)),
            ("From: <@x.org,@y.org:a@b.org>", Err(AuthorError::Syntax)),
            ("From: a@b@c.org", Err(AuthorError::Syntax)),
            ("From: a b@c.org", Err(AuthorError::Syntax)),
            ("From: a..b@c.org", Err(AuthorError::Syntax)),
            ("From: a@b.org.", Err(AuthorError::Syntax)),
            ("From: a", Err(AuthorError::Syntax)),
            ("From: <>", Err(AuthorError::Syntax)),
            ("From: <a@b.org", Err(AuthorError::Syntax)),
            ("From: \"a@b.org", Err(AuthorError::Syntax)),
            ("From: (a@b.org", Err(AuthorError::Syntax)),
            ("From: Group: a@b.org", Err(AuthorError::Syntax)),
            ("From: Group: Inner: a@b.org;;", Err(AuthorError::Syntax)),
            ("From: a@b.org\0", Err(AuthorError::Syntax)),
            ("From: =?utf-8?q?boss@ok.org?=", Err(AuthorError::Syntax)),
        ];
        for (header, expected) in cases {
            check(header, *expected);
            check(&format!("{header}\r\n"), *expected);
        }
    }

    #[test]
    fn long_lists_and_deep_comments_are_refused() {
        check(&format!("From: {}", "a@b.org,".repeat(AUTHORS_MAX + 1)), Err(AuthorError::TooMany));
        check(&format!("From: {}a@b.org", "(".repeat(100_000)), Err(AuthorError::Syntax));
    }

    proptest! {
        #[test]
        fn no_from_field_makes_the_parser_stumble(value in "[a-c@<>:;,.()\"\\\\ \r\n]{0,40}") {
            let _ = author_addresses(format!("From: {value}").as_bytes());
        }

        #[test]
        fn an_address_is_found_behind_any_quoted_name(name in "[^\r\n]{0,30}") {
            let quoted: String = name.chars().flat_map(|c| ['\\', c]).collect();
            let found = author_addresses(format!("From: \"{quoted}\" <a@b.org>").as_bytes()).unwrap();
            prop_assert_eq!(found, vec![Address::parse("a@b.org").unwrap()]);
        }
    }
}
