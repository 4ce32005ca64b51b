use std::ffi::OsString;
use std::path::PathBuf;

/// What the command line of sendmail says. Its options are older than any parser: values may follow at once or apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SendmailArgs {
    /// State folder; not an option of sendmail's.
    pub state: Option<PathBuf>,
    /// A line with a single dot is text.
    pub ignore_dots: bool,
    /// Recipients are those of To, Cc and Bcc too.
    pub recipients_of_header: bool,
    /// Envelope sender.
    pub sender: Option<String>,
    /// Name in a From that is added.
    pub full_name: Option<String>,
    /// NOTIFY of every recipient (RFC 3461 section 4.1).
    pub notify: Option<String>,
    /// RET (RFC 3461 section 4.3).
    pub dsn_return: Option<String>,
    /// ENVID (RFC 3461 section 4.4).
    pub envid: Option<String>,
    /// As given.
    pub recipients: Vec<String>,
}

/// Options that take a value which changes nothing here: body type, configuration, debugging, macros, hop count, label,
/// protocol, tracing.
const IGNORED_WITH_VALUE: &str = "BCDMLhpX";
/// Options without a value that change nothing here: no aliases, no receipt, verbose, read headers, and the like.
const IGNORED: &str = "GmnUv";

pub(super) fn parse(arguments: Vec<OsString>) -> Result<SendmailArgs, String> {
    let mut args = SendmailArgs::default();
    let mut rest = arguments.into_iter().map(|argument| {
        argument.into_string().map_err(|argument| format!("`{}` is not UTF-8", argument.to_string_lossy()))
    });
    let mut only_recipients = false;
    while let Some(argument) = rest.next() {
        let argument = argument?;
        let option = argument.strip_prefix('-').filter(|option| !only_recipients && !option.is_empty());
        match option {
            None => args.recipients.push(argument),
            Some("-") => only_recipients = true,
            Some("-state") => args.state = Some(PathBuf::from(value("--state", "", rest.next())?)),
            Some(option) if option.starts_with("-state=") => {
                args.state = Some(PathBuf::from(&option["-state=".len()..]))
            }
            Some(option) => one(&mut args, &argument, option, &mut rest)?,
        }
    }
    Ok(args)
}

fn one(
    args: &mut SendmailArgs,
    argument: &str,
    option: &str,
    rest: &mut impl Iterator<Item = Result<String, String>>,
) -> Result<(), String> {
    let (letter, attached) = option.split_at(option.chars().next().map_or(0, char::len_utf8));
    let mut take = || value(argument, attached, if attached.is_empty() { rest.next() } else { None });
    match letter {
        // Letters without value may stand together: -ti.
        "t" | "i" => {
            args.recipients_of_header |= letter == "t";
            args.ignore_dots |= letter == "i";
            if !attached.is_empty() {
                one(args, argument, attached, rest)?;
            }
        }
        "f" | "r" => args.sender = Some(take()?),
        "F" => args.full_name = Some(take()?),
        "N" => args.notify = Some(keyword(&take()?)?),
        "R" => args.dsn_return = Some(keyword(&take()?)?),
        "V" => args.envid = Some(take()?),
        "O" => drop(take()?),
        // -oi is -i; every other -o sets what the platform's configuration says.
        "o" => args.ignore_dots |= attached == "i",
        "b" if attached == "m" => {}
        "b" => return Err(format!("{argument} is not done here: `posthouse queue` and `posthouse run` do it")),
        "q" => return Err("the queue runs by itself: see `posthouse queue retry`".to_owned()),
        letter if IGNORED.contains(letter) => {}
        letter if IGNORED_WITH_VALUE.contains(letter) => drop(take()?),
        _ => return Err(format!("{argument} is not an option of sendmail's")),
    }
    Ok(())
}

fn value(option: &str, attached: &str, next: Option<Result<String, String>>) -> Result<String, String> {
    if !attached.is_empty() {
        return Ok(attached.to_owned());
    }
    next.unwrap_or_else(|| Err(format!("{option} needs a value")))
}

/// What goes into a command must not be able to end it.
fn keyword(text: &str) -> Result<String, String> {
    let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b',');
    if good { Ok(text.to_ascii_uppercase()) } else { Err(format!("`{text}` is not a word of RFC 3461")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<SendmailArgs, String> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn command_lines_of_real_programs_are_understood() {
        let base = SendmailArgs::default;
        let to = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let cases = [
            // cron (Debian), mailx, git send-email, PHP, mutt, anacron
            (
                "-FCronDaemon -i -B8BITMIME -oem root",
                SendmailArgs {
                    ignore_dots: true,
                    full_name: Some("CronDaemon".into()),
                    recipients: to(&["root"]),
                    ..base()
                },
            ),
            (
                "-oi -f alice@example.org -- bob@example.net",
                SendmailArgs {
                    ignore_dots: true,
                    sender: Some("alice@example.org".into()),
                    recipients: to(&["bob@example.net"]),
                    ..base()
                },
            ),
            ("-i a@b c@d", SendmailArgs { ignore_dots: true, recipients: to(&["a@b", "c@d"]), ..base() }),
            ("-t -i", SendmailArgs { ignore_dots: true, recipients_of_header: true, ..base() }),
            (
                "-ti -falice@example.org",
                SendmailArgs {
                    ignore_dots: true,
                    recipients_of_header: true,
                    sender: Some("alice@example.org".into()),
                    ..base()
                },
            ),
            (
                "-oem -oi -f <> -N success,failure -R hdrs -V id1 -- a@b",
                SendmailArgs {
                    ignore_dots: true,
                    sender: Some("<>".into()),
                    notify: Some("SUCCESS,FAILURE".into()),
                    dsn_return: Some("HDRS".into()),
                    envid: Some("id1".into()),
                    recipients: to(&["a@b"]),
                    ..base()
                },
            ),
            (
                "-bm -v -h 3 -O DeliveryMode=b -r x@y z",
                SendmailArgs { sender: Some("x@y".into()), recipients: to(&["z"]), ..base() },
            ),
            ("--state /s -- -odd", SendmailArgs { state: Some("/s".into()), recipients: to(&["-odd"]), ..base() }),
            ("--state=/s -", SendmailArgs { state: Some("/s".into()), recipients: to(&["-"]), ..base() }),
        ];
        for (line, expected) in cases {
            assert_eq!(parsed(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_is_not_done_here_is_refused() {
        for line in ["-bs", "-bp", "-bd", "-q", "-q15m", "-f", "-Z", "-N never;RSET", "--nonsense"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
