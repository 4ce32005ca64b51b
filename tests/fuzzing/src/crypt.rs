//! Stored passwords: crypt(3) forms and `{SCHEME}`.

use policy::{check_password, verify_password};
use resources::values::PasswordHash;

/// Octets of a stored form: no scheme has more, a plain password apart.
const STORED_OCTETS_MAX: usize = 512;
/// What is computed here at most, in units of [`cost`]: some milliseconds.
const COST_MAX: u64 = 40;

/// A stored form, 0xFF, a password. Properties: what a hash costs is bounded before it is computed (S10: no seconds, no
/// gigabytes); what may be compared with is compared with, and only the right password fits a plain one; what the
/// compiler takes as a hash can be compared with.
pub fn crypt(data: &[u8]) {
    let mut input = crate::input::Input::new(data);
    let (stored, password) = (input.part(), input.part());
    let Ok(stored) = std::str::from_utf8(stored) else { return };
    if stored.len() > STORED_OCTETS_MAX {
        return;
    }
    let checked = check_password(stored);
    if stored.parse::<PasswordHash>().is_ok() {
        assert_eq!(checked, Ok(()), "the compiler takes {stored:?}, and nobody can log in by it");
    }
    if let Err(error) = checked {
        assert_eq!(verify_password(stored, password), Err(error));
        return;
    }
    let (milliseconds, kibibytes) = cost(stored);
    assert!(
        milliseconds <= 4_000 && kibibytes <= 256 << 10,
        "{stored:?} costs about {milliseconds} ms, {kibibytes} KiB"
    );
    if milliseconds > COST_MAX || password.len() > 100 {
        return;
    }
    let verified = verify_password(stored, password);
    if let Some((scheme, plain)) = stored.strip_prefix('{').and_then(|rest| rest.split_once('}'))
        && ["PLAIN", "CLEAR", "CLEARTEXT"].contains(&scheme.to_ascii_uppercase().as_str())
    {
        assert_eq!(verified, Ok(plain.as_bytes() == password));
    }
}

/// About how much time and memory a verification takes, by another reading of the text than the crate's own.
fn cost(stored: &str) -> (u64, u64) {
    let hash = match stored.split_once('}') {
        Some((scheme, hash)) if scheme.starts_with('{') => hash,
        _ => stored,
    };
    let number =
        |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0_u64);
    let named = |name: &str| hash.split(['$', ',']).find_map(|field| field.strip_prefix(name)).map(number);
    let fields: Vec<&str> = hash.split('$').collect();
    match fields.get(1) {
        Some(&("5" | "6")) if hash.starts_with('$') => {
            let rounds = fields.get(2).and_then(|field| field.strip_prefix("rounds=")).map(number);
            (rounds.unwrap_or(5000) / 1500, 0)
        }
        Some(&("2a" | "2b" | "2y")) if hash.starts_with('$') => {
            let rounds = fields.get(2).map_or(0, |cost| number(cost)).min(40);
            ((1 << rounds) / 16, 4)
        }
        Some(&"argon2id") if hash.starts_with('$') => {
            let memory = named("m=").unwrap_or(19 << 10);
            (memory * named("t=").unwrap_or(2) / 400, memory)
        }
        _ => (0, 0),
    }
}
