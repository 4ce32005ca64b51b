//! What an exit code means: sysexits(3).

use std::process::ExitStatus;

use types::{Class, EnhancedCode, Reply};

use crate::job::{AttemptResult, Outcome};

/// A code's class, subject and detail, and its words.
type Meaning = (Class, u16, u16, &'static str);

/// What is the mail's fault is permanent; what is the fault of program, host or configuration is ours, so transient, and
/// so is what nobody knows.
const fn meaning(code: i32) -> Meaning {
    match code {
        0 => (Class::Success, 0, 0, "delivered"),
        65 => (Class::Permanent, 6, 0, "the program cannot read the message (EX_DATAERR)"),
        67 => (Class::Permanent, 1, 1, "no such user (EX_NOUSER)"),
        68 => (Class::Permanent, 1, 2, "no such host (EX_NOHOST)"),
        69 => (Class::Permanent, 3, 0, "the program refuses the message (EX_UNAVAILABLE)"),
        77 => (Class::Permanent, 7, 0, "not allowed (EX_NOPERM)"),
        64 => (Class::Transient, 3, 5, "the program was called wrongly (EX_USAGE)"),
        66 => (Class::Transient, 3, 0, "an input of the program is missing (EX_NOINPUT)"),
        70 => (Class::Transient, 3, 0, "the program is broken (EX_SOFTWARE)"),
        71 => (Class::Transient, 3, 0, "the system is in trouble (EX_OSERR)"),
        72 => (Class::Transient, 3, 0, "a file of the system is missing (EX_OSFILE)"),
        73 => (Class::Transient, 2, 0, "the program cannot create its output (EX_CANTCREAT)"),
        74 => (Class::Transient, 3, 0, "input or output failed (EX_IOERR)"),
        75 => (Class::Transient, 3, 0, "try again later (EX_TEMPFAIL)"),
        76 => (Class::Transient, 5, 0, "somebody answered against the protocol (EX_PROTOCOL)"),
        78 => (Class::Transient, 3, 5, "the program is configured wrongly (EX_CONFIG)"),
        126 | 127 => (Class::Transient, 3, 5, "a program was not found or is none"),
        _ => (Class::Transient, 3, 0, "an exit code without a meaning"),
    }
}

/// The result of a program that ended by itself. Its output is the reply; an enhanced code of the same class in front of
/// it replaces ours.
pub(super) fn judge(status: ExitStatus, output: &[u8]) -> AttemptResult {
    let output = String::from_utf8_lossy(output);
    let output = output.replace('\r', "");
    let output = output.trim();
    let Some(code) = status.code() else {
        // Ended by a signal: out of memory, a crash, somebody's hand.
        return result(
            Class::Transient,
            EnhancedCode::new(4, 3, 0),
            format!("the program ended by {status}\n{output}"),
        );
    };
    let (class, subject, detail, words) = meaning(code);
    let number = match class {
        Class::Success => 2,
        Class::Transient => 4,
        Class::Permanent => 5,
    };
    let own = output.split_whitespace().next().and_then(|word| word.parse::<EnhancedCode>().ok());
    let enhanced = own.filter(|own| own.class == number).unwrap_or(EnhancedCode::new(number, subject, detail));
    let text = match (output.is_empty(), class) {
        (true, Class::Success) => words.to_owned(),
        (true, _) => format!("exit code {code}: {words}"),
        (false, _) => output.to_owned(),
    };
    result(class, enhanced, text)
}

fn result(class: Class, enhanced: EnhancedCode, text: String) -> AttemptResult {
    let outcome = match class {
        Class::Success => Outcome::Delivered { relayed: false, final_: true },
        Class::Transient => Outcome::Deferred,
        Class::Permanent => Outcome::Failed,
    };
    // Reply makes controls harmless.
    let reply = Reply::new(200, None, text.trim_end()).text().to_owned();
    AttemptResult { outcome, remote: String::new(), reply, enhanced }
}
