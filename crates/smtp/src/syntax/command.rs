use types::Address;

use super::envelope::{BodyType, MailFrom, Notify, RcptTo, Recipient, Ret};
use super::path::{Path, PathError, parse_path};
use super::sasl::Mechanism;
use super::xtext::decode_xtext;

/// RFC 5321 section 4.5.3.1.2: octets of the argument of HELO, EHLO and LHLO.
const HELO_OCTETS_MAX: usize = 255;
/// RFC 3461 section 4.4.
const ENVID_OCTETS_MAX: usize = 100;
/// RFC 3461 section 4.2.
const ORCPT_OCTETS_MAX: usize = 500;
/// RFC 1870 section 4: `1*20DIGIT`. The same bound serves for BDAT.
const SIZE_DIGITS_MAX: usize = 20;
/// Methods of HTTP and the first word of a PROXY header: whoever says this wants no mail server.
const FOREIGN_VERBS: [&str; 11] =
    ["GET", "POST", "HEAD", "PUT", "DELETE", "CONNECT", "OPTIONS", "PATCH", "TRACE", "PRI", "PROXY"];

/// A command line that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// With the client's name.
    Ehlo(&'a str),
    /// With the client's name.
    Helo(&'a str),
    /// RFC 2033; with the client's name.
    Lhlo(&'a str),
    /// RFC 5321 section 4.1.1.2.
    Mail(MailFrom),
    /// RFC 5321 section 4.1.1.3.
    Rcpt {
        /// What it said.
        rcpt: RcptTo,
        /// It is not ASCII: allowed only where MAIL said SMTPUTF8.
        needs_utf8: bool,
    },
    /// RFC 5321 section 4.1.1.4.
    Data,
    /// RFC 3030 section 2.
    Bdat {
        /// Octets that follow the line.
        size: u64,
        /// The last chunk.
        last: bool,
    },
    /// RFC 5321 section 4.1.1.5.
    Rset,
    /// RFC 5321 section 4.1.1.6.
    Vrfy,
    /// RFC 5321 section 4.1.1.7.
    Expn,
    /// RFC 5321 section 4.1.1.8.
    Help,
    /// RFC 5321 section 4.1.1.9.
    Noop,
    /// RFC 5321 section 4.1.1.10.
    Quit,
    /// RFC 3207.
    StartTls,
    /// RFC 4954.
    Auth {
        /// `None`: one that is not offered.
        mechanism: Option<Mechanism>,
        /// As it came: base64, or `=` for an empty one.
        initial: Option<&'a str>,
    },
    /// Another protocol is spoken here.
    Foreign,
}

/// A command line that is answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// One reply line without CRLF.
    pub reply: &'static str,
    /// What follows cannot be read as commands any more.
    pub close: bool,
}

const fn refuse(reply: &'static str) -> Refusal {
    Refusal { reply, close: false }
}

const UNKNOWN: Refusal = refuse("500 5.5.1 command not recognised");
const BAD_LINE: Refusal = refuse("500 5.5.2 command line is empty or not plain text");
const NO_ARGUMENT: Refusal = refuse("501 5.5.4 this command takes no argument");
const BAD_NAME: Refusal = refuse("501 5.5.4 a host name or an address literal is needed");
const NOT_UTF8: Refusal = refuse("553 5.6.7 address is not ASCII and SMTPUTF8 was not asked for");
const BAD_MAIL: Refusal = refuse("501 5.1.7 syntax: MAIL FROM:<address>");
const BAD_SENDER: Refusal = refuse("553 5.1.7 sender address is not valid");
const BAD_RCPT: Refusal = refuse("501 5.1.3 syntax: RCPT TO:<address>");
const BAD_RECIPIENT: Refusal = refuse("553 5.1.3 recipient address is not valid");
const UNKNOWN_PARAMETER: Refusal = refuse("555 5.5.4 parameter not recognised");
const BAD_PARAMETER: Refusal = refuse("501 5.5.4 parameter is not valid");
const TWICE: Refusal = refuse("501 5.5.4 parameter given twice");
const NEEDS_ARGUMENT: Refusal = refuse("501 5.5.4 argument is missing");
/// Nobody knows where the chunk ends, so what follows might be the text of a message.
const BAD_BDAT: Refusal = Refusal { reply: "501 5.5.4 syntax: BDAT octets [LAST]", close: true };

/// Parses one command line, given without its CRLF.
pub fn parse_command(line: &[u8]) -> Result<Command<'_>, Refusal> {
    let text = std::str::from_utf8(line).map_err(|_| BAD_LINE)?;
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err(BAD_LINE);
    }
    // RFC 5321 section 4.1.1: trailing white space is tolerated.
    let text = text.trim_end_matches(' ');
    let (verb, argument) = text.split_once(' ').unwrap_or((text, ""));
    let argument = argument.trim_start_matches(' ');
    if verb.is_empty() {
        return Err(BAD_LINE);
    }
    let is = |word: &str| verb.eq_ignore_ascii_case(word);
    match () {
        () if is("MAIL") => parse_mail(argument),
        () if is("RCPT") => parse_rcpt(argument),
        () if is("EHLO") => Ok(Command::Ehlo(parse_name(argument)?)),
        () if is("HELO") => Ok(Command::Helo(parse_name(argument)?)),
        () if is("LHLO") => Ok(Command::Lhlo(parse_name(argument)?)),
        () if is("DATA") => plain(Command::Data, argument),
        () if is("BDAT") => parse_bdat(argument),
        () if is("RSET") => plain(Command::Rset, argument),
        () if is("NOOP") => Ok(Command::Noop),
        () if is("QUIT") => plain(Command::Quit, argument),
        () if is("STARTTLS") => plain(Command::StartTls, argument),
        () if is("AUTH") => parse_auth(argument),
        () if is("VRFY") && argument.is_empty() => Err(NEEDS_ARGUMENT),
        () if is("VRFY") => Ok(Command::Vrfy),
        () if is("EXPN") => Ok(Command::Expn),
        () if is("HELP") => Ok(Command::Help),
        () if FOREIGN_VERBS.iter().any(|word| is(word)) => Ok(Command::Foreign),
        () => Err(UNKNOWN),
    }
}

fn plain<'a>(command: Command<'a>, argument: &str) -> Result<Command<'a>, Refusal> {
    if argument.is_empty() { Ok(command) } else { Err(NO_ARGUMENT) }
}

/// A name of a client is copied into `Received:` and into logs, so it holds nothing but what names and literals hold.
/// It need not be a valid name: many clients send one that is not, and it proves nothing.
fn parse_name(argument: &str) -> Result<&str, Refusal> {
    let fits = (1..=HELO_OCTETS_MAX).contains(&argument.len());
    let letters = argument.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:%".contains(&b));
    if fits && letters { Ok(argument) } else { Err(BAD_NAME) }
}

fn parse_bdat(argument: &str) -> Result<Command<'_>, Refusal> {
    let mut words = argument.split(' ').filter(|word| !word.is_empty());
    let size = words.next().ok_or(BAD_BDAT)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(BAD_BDAT),
    };
    // Nobody sends a chunk of 2^63 octets and means it.
    let size = digits(size).filter(|size| i64::try_from(*size).is_ok()).ok_or(BAD_BDAT)?;
    if words.next().is_some() { Err(BAD_BDAT) } else { Ok(Command::Bdat { size, last }) }
}

/// A decimal number; one too large for 64 bits becomes the largest.
fn digits(text: &str) -> Option<u64> {
    let plain = (1..=SIZE_DIGITS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(u64::MAX))
}

fn parse_auth(argument: &str) -> Result<Command<'_>, Refusal> {
    let mut words = argument.split(' ').filter(|word| !word.is_empty());
    let mechanism = Mechanism::parse(words.next().ok_or(NEEDS_ARGUMENT)?);
    let initial = words.next();
    if words.next().is_some() { Err(BAD_PARAMETER) } else { Ok(Command::Auth { mechanism, initial }) }
}

/// `FROM:` or `TO:`, then a path; a space between them is against RFC 5321 section 3.3, but seen.
fn path_behind<'a>(argument: &'a str, word: &str) -> Option<&'a str> {
    let head = argument.get(..word.len())?;
    head.eq_ignore_ascii_case(word).then(|| argument[word.len()..].trim_start_matches(' '))
}

fn parse_mail(argument: &str) -> Result<Command<'_>, Refusal> {
    let text = path_behind(argument, "FROM:").ok_or(BAD_MAIL)?;
    let (path, rest) = parse_path(text).map_err(|error| match error {
        PathError::Brackets => BAD_MAIL,
        PathError::Route | PathError::Address(_) | PathError::Shell => BAD_SENDER,
    })?;
    let sender = match path {
        Path::Null => None,
        Path::Postmaster => return Err(BAD_SENDER),
        Path::Address(address) => Some(address),
    };
    let mut mail = MailFrom { sender, ..MailFrom::default() };
    for (keyword, value) in parameters(rest).ok_or(BAD_MAIL)? {
        mail_parameter(&mut mail, keyword, value)?;
    }
    if !argument.is_ascii() && !mail.smtp_utf8 {
        return Err(NOT_UTF8);
    }
    Ok(Command::Mail(mail))
}

fn mail_parameter(mail: &mut MailFrom, keyword: &str, value: Option<&str>) -> Result<(), Refusal> {
    let is = |word: &str| keyword.eq_ignore_ascii_case(word);
    if is("SMTPUTF8") {
        return match (value, std::mem::replace(&mut mail.smtp_utf8, true)) {
            (None, false) => Ok(()),
            (None, true) => Err(TWICE),
            (Some(_), _) => Err(BAD_PARAMETER),
        };
    }
    let given = || value.ok_or(BAD_PARAMETER);
    if is("SIZE") {
        set(&mut mail.size, digits(given()?))
    } else if is("BODY") {
        let body = given()?;
        if mail.body != BodyType::Unspecified {
            return Err(TWICE);
        }
        mail.body = match () {
            () if body.eq_ignore_ascii_case("7BIT") => BodyType::SevenBit,
            () if body.eq_ignore_ascii_case("8BITMIME") => BodyType::EightBit,
            () => return Err(UNKNOWN_PARAMETER),
        };
        Ok(())
    } else if is("RET") {
        let ret = given()?;
        set(
            &mut mail.ret,
            match () {
                () if ret.eq_ignore_ascii_case("FULL") => Some(Ret::Full),
                () if ret.eq_ignore_ascii_case("HDRS") => Some(Ret::Headers),
                () => None,
            },
        )
    } else if is("ENVID") {
        set(&mut mail.envid, parse_envid(given()?))
    } else if is("AUTH") {
        set(&mut mail.auth, parse_auth_parameter(given()?))
    } else {
        Err(UNKNOWN_PARAMETER)
    }
}

/// Fills a place that must be empty with a value that must be valid.
fn set<T>(place: &mut Option<T>, value: Option<T>) -> Result<(), Refusal> {
    if place.is_some() {
        return Err(TWICE);
    }
    *place = Some(value.ok_or(BAD_PARAMETER)?);
    Ok(())
}

/// RFC 3461 section 4.4: what is encoded is printable ASCII.
fn parse_envid(value: &str) -> Option<String> {
    if !(1..=ENVID_OCTETS_MAX).contains(&value.len()) {
        return None;
    }
    decode_xtext(value).ok().filter(|text| text.is_ascii())
}

/// RFC 4954 section 5: a mailbox as xtext, or `<>`.
fn parse_auth_parameter(value: &str) -> Option<String> {
    let decoded = decode_xtext(value).ok()?;
    (decoded == "<>" || Address::parse(&decoded).is_ok()).then_some(decoded)
}

fn parse_rcpt(argument: &str) -> Result<Command<'_>, Refusal> {
    let text = path_behind(argument, "TO:").ok_or(BAD_RCPT)?;
    let (path, rest) = parse_path(text).map_err(|error| match error {
        PathError::Brackets => BAD_RCPT,
        PathError::Route | PathError::Address(_) | PathError::Shell => BAD_RECIPIENT,
    })?;
    let recipient = match path {
        Path::Null => return Err(BAD_RECIPIENT),
        Path::Postmaster => Recipient::Postmaster,
        Path::Address(address) => Recipient::Address(address),
    };
    let mut rcpt = RcptTo { recipient, orcpt: None, notify: None };
    for (keyword, value) in parameters(rest).ok_or(BAD_RCPT)? {
        let value = || value.ok_or(BAD_PARAMETER);
        if keyword.eq_ignore_ascii_case("NOTIFY") {
            set(&mut rcpt.notify, parse_notify(value()?))?;
        } else if keyword.eq_ignore_ascii_case("ORCPT") {
            set(&mut rcpt.orcpt, parse_orcpt(value()?))?;
        } else {
            return Err(UNKNOWN_PARAMETER);
        }
    }
    Ok(Command::Rcpt { rcpt, needs_utf8: !argument.is_ascii() })
}

/// RFC 3461 section 4.1: `NEVER` alone, or a list without repetition.
fn parse_notify(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::NEVER);
    }
    let mut notify: Option<Notify> = None;
    for word in value.split(',') {
        let wish = [("SUCCESS", Notify::SUCCESS), ("FAILURE", Notify::FAILURE), ("DELAY", Notify::DELAY)]
            .into_iter()
            .find_map(|(name, wish)| name.eq_ignore_ascii_case(word).then_some(wish))?;
        if notify.is_some_and(|before| before.contains(wish)) {
            return None;
        }
        notify = Some(notify.map_or(wish, |before| before.and(wish)));
    }
    notify
}

/// RFC 3461 section 4.2: `type;address`, the address as xtext.
fn parse_orcpt(value: &str) -> Option<String> {
    if value.len() > ORCPT_OCTETS_MAX {
        return None;
    }
    let (kind, address) = value.split_once(';')?;
    let letters = kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if kind.is_empty() || !letters || address.is_empty() {
        return None;
    }
    let decoded = decode_xtext(address).ok()?;
    Some(format!("{kind};{decoded}"))
}

/// Keywords and values behind a path (RFC 5321 section 4.1.2, `esmtp-param`); `None` where something sticks to the path.
fn parameters(text: &str) -> Option<impl Iterator<Item = (&str, Option<&str>)>> {
    let text = match text.strip_prefix(' ') {
        Some(rest) => rest,
        None if text.is_empty() => text,
        None => return None,
    };
    Some(text.split(' ').filter(|word| !word.is_empty()).map(|word| match word.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (word, None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A short form of what a line parses to: `reply code enhanced` for a refusal.
    fn seen(line: &str) -> String {
        match parse_command(line.as_bytes()) {
            Err(refusal) => {
                let mut words = refusal.reply.split(' ');
                format!("{} {}", words.next().unwrap(), words.next().unwrap())
            }
            Ok(Command::Mail(mail)) => {
                let sender = mail.sender.map(|a| a.to_string()).unwrap_or_default();
                let mut text = format!("mail {sender}");
                text += &mail.size.map(|v| format!(" size {v}")).unwrap_or_default();
                text += match mail.body {
                    BodyType::Unspecified => "",
                    BodyType::SevenBit => " 7bit",
                    BodyType::EightBit => " 8bit",
                };
                text += if mail.smtp_utf8 { " utf8" } else { "" };
                text += &mail.ret.map(|v| format!(" {v:?}")).unwrap_or_default();
                text += &mail.envid.map(|v| format!(" envid {v}")).unwrap_or_default();
                text + &mail.auth.map(|v| format!(" auth {v}")).unwrap_or_default()
            }
            Ok(Command::Rcpt { rcpt, needs_utf8 }) => {
                let mut text = format!("rcpt {}", rcpt.recipient);
                text += &rcpt.orcpt.map(|v| format!(" orcpt {v}")).unwrap_or_default();
                text += &rcpt.notify.map(|v| format!(" notify {}", v.bits())).unwrap_or_default();
                text + if needs_utf8 { " utf8" } else { "" }
            }
            Ok(other) => format!("{other:?}"),
        }
    }

    fn check(cases: &[(&str, &str)]) {
        for (line, expected) in cases {
            assert_eq!(seen(line), *expected, "{line:?}");
        }
    }

    #[test]
    fn every_verb_is_known_in_any_case_and_takes_its_argument() {
        check(&[
            ("EHLO mx.example.org", "Ehlo(\"mx.example.org\")"),
            ("ehlo [192.0.2.1]", "Ehlo(\"[192.0.2.1]\")"),
            ("EHLO [IPv6:fe80::1%en0]", "Ehlo(\"[IPv6:fe80::1%en0]\")"),
            ("Helo my_host", "Helo(\"my_host\")"),
            ("LHLO x ", "Lhlo(\"x\")"),
            ("EHLO", "501 5.5.4"),
            ("EHLO a b", "501 5.5.4"),
            ("EHLO a|b", "501 5.5.4"),
            ("EHLO a\nb", "500 5.5.2"),
            ("EHLO bücher", "501 5.5.4"),
            ("DATA", "Data"),
            ("DATA now", "501 5.5.4"),
            ("rset", "Rset"),
            ("RSET x", "501 5.5.4"),
            ("NOOP", "Noop"),
            ("NOOP anything at all", "Noop"),
            ("QUIT", "Quit"),
            ("QUIT x", "501 5.5.4"),
            ("VRFY alice", "Vrfy"),
            ("VRFY", "501 5.5.4"),
            ("EXPN list", "Expn"),
            ("HELP", "Help"),
            ("HELP MAIL", "Help"),
            ("STARTTLS", "StartTls"),
            ("STARTTLS now", "501 5.5.4"),
            ("AUTH PLAIN", "Auth { mechanism: Some(Plain), initial: None }"),
            ("auth login =", "Auth { mechanism: Some(Login), initial: Some(\"=\") }"),
            ("AUTH SCRAM-SHA-1 x", "Auth { mechanism: None, initial: Some(\"x\") }"),
            ("AUTH", "501 5.5.4"),
            ("AUTH PLAIN a b", "501 5.5.4"),
            ("GET / HTTP/1.1", "Foreign"),
            ("POST /", "Foreign"),
            ("CONNECT x:25 HTTP/1.1", "Foreign"),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1", "Foreign"),
            ("ETRN x", "500 5.5.1"),
            ("MAILFROM:<>", "500 5.5.1"),
            ("", "500 5.5.2"),
            ("   ", "500 5.5.2"),
            (" NOOP", "500 5.5.2"),
            ("NOOP\0", "500 5.5.2"),
            ("NO\u{7f}OP", "500 5.5.2"),
            ("NOOP\t", "500 5.5.2"),
        ]);
        assert_eq!(parse_command(b"EHLO \xff").unwrap_err().reply, BAD_LINE.reply);
    }

    #[test]
    fn bdat_counts_octets_exactly_or_closes() {
        check(&[
            ("BDAT 5", "Bdat { size: 5, last: false }"),
            ("BDAT 0 LAST", "Bdat { size: 0, last: true }"),
            ("bdat 12 last", "Bdat { size: 12, last: true }"),
            ("BDAT 9223372036854775807", "Bdat { size: 9223372036854775807, last: false }"),
            ("BDAT", "501 5.5.4"),
            ("BDAT LAST", "501 5.5.4"),
            ("BDAT -1", "501 5.5.4"),
            ("BDAT +1", "501 5.5.4"),
            ("BDAT 0x10", "501 5.5.4"),
            ("BDAT 9223372036854775808", "501 5.5.4"),
            ("BDAT 99999999999999999999", "501 5.5.4"),
            ("BDAT 999999999999999999999", "501 5.5.4"),
            ("BDAT 5 FIRST", "501 5.5.4"),
            ("BDAT 5 LAST LAST", "501 5.5.4"),
        ]);
        assert!(parse_command(b"BDAT -1").unwrap_err().close);
    }

    #[test]
    fn mail_takes_a_reverse_path_and_its_parameters() {
        let long_envid = format!("MAIL FROM:<> ENVID={}", "a".repeat(101));
        check(&[
            ("MAIL FROM:<a@b>", "mail a@b"),
            ("mail from: <a@b>", "mail a@b"),
            ("MAIL  FROM:<a@b>  ", "mail a@b"),
            ("MAIL FROM:<>", "mail "),
            ("MAIL FROM:<@x,@y:a@b>", "mail a@b"),
            ("MAIL FROM:<A@B> SIZE=100 BODY=8BITMIME", "mail A@b size 100 8bit"),
            ("MAIL FROM:<a@b> body=7bit smtputf8", "mail a@b 7bit utf8"),
            ("MAIL FROM:<a@b> RET=HDRS ENVID=x+2By", "mail a@b Headers envid x+y"),
            ("MAIL FROM:<a@b> RET=full AUTH=<>", "mail a@b Full auth <>"),
            ("MAIL FROM:<a@b> AUTH=e+3Dmc@b", "mail a@b auth e=mc@b"),
            ("MAIL FROM:<a@b> SIZE=99999999999999999999", "mail a@b size 18446744073709551615"),
            ("MAIL FROM:<ü@b> SMTPUTF8", "mail ü@b utf8"),
            ("MAIL FROM:<ü@b>", "553 5.6.7"),
            ("MAIL FROM:<a@bücher.example>", "553 5.6.7"),
            ("MAIL FROM:a@b", "501 5.1.7"),
            ("MAIL FROM:<a@b", "501 5.1.7"),
            ("MAIL FROM:<a@b>SIZE=1", "501 5.1.7"),
            ("MAIL FROM", "501 5.1.7"),
            ("MAIL", "501 5.1.7"),
            ("MAIL TO:<a@b>", "501 5.1.7"),
            ("MAIL FROM :<a@b>", "501 5.1.7"),
            ("MAIL FROM:<;sleep 66;>", "553 5.1.7"),
            ("MAIL FROM:<$(id)@x>", "553 5.1.7"),
            ("MAIL FROM:<postmaster>", "553 5.1.7"),
            ("MAIL FROM:<a@b> SIZE", "501 5.5.4"),
            ("MAIL FROM:<a@b> SIZE=", "501 5.5.4"),
            ("MAIL FROM:<a@b> SIZE=-1", "501 5.5.4"),
            ("MAIL FROM:<a@b> SIZE=1 SIZE=1", "501 5.5.4"),
            ("MAIL FROM:<a@b> SIZE=100000000000000000000", "501 5.5.4"),
            ("MAIL FROM:<a@b> BODY=7BIT BODY=7BIT", "501 5.5.4"),
            ("MAIL FROM:<a@b> BODY=BINARYMIME", "555 5.5.4"),
            ("MAIL FROM:<a@b> SMTPUTF8=1", "501 5.5.4"),
            ("MAIL FROM:<a@b> SMTPUTF8 SMTPUTF8", "501 5.5.4"),
            ("MAIL FROM:<a@b> RET=ALL", "501 5.5.4"),
            ("MAIL FROM:<a@b> ENVID=", "501 5.5.4"),
            ("MAIL FROM:<a@b> ENVID=a+0D+0Ab", "501 5.5.4"),
            ("MAIL FROM:<a@b> ENVID=+C3+BC", "501 5.5.4"),
            (&long_envid, "501 5.5.4"),
            ("MAIL FROM:<a@b> AUTH=\"", "501 5.5.4"),
            ("MAIL FROM:<a@b> AUTH=nobody", "501 5.5.4"),
            ("MAIL FROM:<a@b> HOLDFOR=5", "555 5.5.4"),
            ("MAIL FROM:<a@b> NOTIFY=NEVER", "555 5.5.4"),
            ("MAIL FROM:<a@b> =", "555 5.5.4"),
        ]);
    }

    #[test]
    fn rcpt_takes_a_forward_path_and_its_parameters() {
        let long_orcpt = format!("RCPT TO:<a@b> ORCPT=rfc822;{}", "a".repeat(500));
        check(&[
            ("RCPT TO:<a@b>", "rcpt a@b"),
            ("rcpt to: <a@b>", "rcpt a@b"),
            ("RCPT TO:<Postmaster>", "rcpt postmaster"),
            ("RCPT TO:<a@b> NOTIFY=NEVER", "rcpt a@b notify 1"),
            ("RCPT TO:<a@b> NOTIFY=success,DELAY,FAILURE", "rcpt a@b notify 14"),
            ("RCPT TO:<a@b> ORCPT=rfc822;a+2Bc@b", "rcpt a@b orcpt rfc822;a+c@b"),
            ("RCPT TO:<ü@b>", "rcpt ü@b utf8"),
            ("RCPT TO:<>", "553 5.1.3"),
            ("RCPT TO:a@b", "501 5.1.3"),
            ("RCPT FROM:<a@b>", "501 5.1.3"),
            ("RCPT", "501 5.1.3"),
            ("RCPT TO:<a>", "553 5.1.3"),
            ("RCPT TO:<a@b> NOTIFY=NEVER,DELAY", "501 5.5.4"),
            ("RCPT TO:<a@b> NOTIFY=DELAY,DELAY", "501 5.5.4"),
            ("RCPT TO:<a@b> NOTIFY=", "501 5.5.4"),
            ("RCPT TO:<a@b> NOTIFY=DELAY NOTIFY=DELAY", "501 5.5.4"),
            ("RCPT TO:<a@b> ORCPT=rfc822", "501 5.5.4"),
            ("RCPT TO:<a@b> ORCPT=;a@b", "501 5.5.4"),
            ("RCPT TO:<a@b> ORCPT=rfc822;", "501 5.5.4"),
            ("RCPT TO:<a@b> ORCPT=rfc822;a+0D+0ABcc:x@y", "501 5.5.4"),
            (&long_orcpt, "501 5.5.4"),
            ("RCPT TO:<a@b> SIZE=1", "555 5.5.4"),
        ]);
    }

    #[test]
    fn addresses_at_their_limits() {
        // S15 of the hostile input: one octet more than RFC 5321 section 4.5.3.1 has is refused.
        let local = |octets| format!("RCPT TO:<{}@example.org>", "a".repeat(octets));
        let domain = |octets: usize| {
            let name = format!("{}.{}", "d.".repeat(100), "e".repeat(60));
            format!("RCPT TO:<a@{}{}>", "f".repeat(octets - name.len()), name)
        };
        for (line, expected) in [
            (local(64), "rcpt"),
            (local(65), "553 5.1.3"),
            (domain(262), "553 5.1.3"),
            (format!("RCPT TO:<{}@{}>", "l".repeat(64), ["d".repeat(47).as_str(); 4].join(".")), "553 5.1.3"),
            (format!("RCPT TO:<{}@{}>", "l".repeat(62), ["d".repeat(47).as_str(); 4].join(".")), "rcpt"),
            ("RCPT TO:<\"\"@x>".into(), "553 5.1.3"),
            ("RCPT TO:<\"a b\"@x>".into(), "rcpt"),
            ("RCPT TO:<\"a\\\"b\"@x>".into(), "rcpt"),
            ("RCPT TO:<a\0b@x>".into(), "500 5.5.2"),
        ] {
            assert!(seen(&line).starts_with(expected), "{line:?}: {}", seen(&line));
        }
    }

    #[test]
    fn relay_probes_are_literal_local_parts_or_refused() {
        // S14: whether any of these may be relayed is policy's to say; here they must not become another address.
        check(&[
            ("RCPT TO:<user%dom@us>", "rcpt user%dom@us"),
            ("RCPT TO:<\"user@dom\"@us>", "rcpt \"user@dom\"@us"),
            ("RCPT TO:<@us:user@dom>", "rcpt user@dom"),
            ("RCPT TO:<dom!user@us>", "rcpt dom!user@us"),
            ("RCPT TO:<user@[127.0.0.1]>", "rcpt user@[127.0.0.1]"),
            ("RCPT TO:<user@us@dom>", "553 5.1.3"),
            ("RCPT TO:<user@>", "553 5.1.3"),
            ("RCPT TO:<user@us.>", "553 5.1.3"),
            ("RCPT TO:<user@DOM>", "rcpt user@dom"),
            ("RCPT TO:<user@dom:25>", "553 5.1.3"),
            ("RCPT TO:<\"user@dom\">", "553 5.1.3"),
        ]);
    }
}
