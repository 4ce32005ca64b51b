use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ValueError;

/// A password hash in a crypt(3) form. Does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub rules::Secret);

impl PasswordHash {
    /// Name of the text form in schemas.
    pub const FORMAT: &'static str = "password-hash";
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromStr for PasswordHash {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        check_password_hash(text)?;
        Ok(Self(rules::Secret::new(text)))
    }
}

impl Serialize for PasswordHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.reveal())
    }
}

impl<'de> Deserialize<'de> for PasswordHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for PasswordHash {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PasswordHash".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "password-hash" })
    }
}

/// What policy computes at most; a user with a costlier hash could not log in.
const SHA_CRYPT_ROUNDS_MAX: u32 = 2_000_000;
/// As above.
const BCRYPT_COST_MAX: u32 = 14;
/// As above, in KiB: memory.
const ARGON2_MEMORY_KIB_MAX: u32 = 256 << 10;
/// As above, in KiB: memory times passes.
const ARGON2_WORK_KIB_MAX: u32 = 1 << 20;
/// As above: passes.
const ARGON2_PASSES_MAX: u32 = 64;

/// Checks the form of a hash that Dovecot shares: SHA-512-crypt, bcrypt or argon2id, with or without `{SCHEME}`.
/// The text is never part of the answer.
pub(crate) fn check_password_hash(text: &str) -> Result<(), ValueError> {
    const REMEDY: &str = "make one with posthouse hash-password, or with doveadm pw -s SHA512-CRYPT";
    let (scheme, hash) = match text.strip_prefix('{') {
        None => ("CRYPT", text),
        Some(rest) => {
            rest.split_once('}').ok_or_else(|| ValueError::new("the password hash has a { without }", REMEDY))?
        }
    };
    let sha512 = hash.starts_with("$6$");
    let bcrypt = ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix));
    let argon2id = hash.starts_with("$argon2id$");
    let scheme_fits = match scheme.to_ascii_uppercase().as_str() {
        "CRYPT" => sha512 || bcrypt || argon2id,
        "SHA512-CRYPT" => sha512,
        "BLF-CRYPT" => bcrypt,
        "ARGON2ID" => argon2id,
        _ => return Err(ValueError::new(format!("password scheme {{{scheme}}} is not known"), REMEDY)),
    };
    if !scheme_fits {
        let what = "the password hash is not of the form SHA-512-crypt ($6$), bcrypt ($2b$) or argon2id";
        return Err(ValueError::new(what, REMEDY));
    }
    let whole = if sha512 {
        is_sha512_crypt(hash)
    } else if bcrypt {
        is_bcrypt(hash)
    } else {
        is_argon2id(hash)
    };
    let what = "the password hash is cut off or damaged, or costs more than is computed (about a second)";
    if whole { Ok(()) } else { Err(ValueError::new(what, REMEDY)) }
}

fn is_crypt_text(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/')
}

fn is_sha512_crypt(hash: &str) -> bool {
    let mut parts: Vec<&str> = hash.split('$').skip(2).collect();
    if let Some(rounds) = parts.first().and_then(|part| part.strip_prefix("rounds=")) {
        if !rounds.parse::<u32>().is_ok_and(|rounds| (1000..=SHA_CRYPT_ROUNDS_MAX).contains(&rounds)) {
            return false;
        }
        parts.remove(0);
    }
    matches!(parts[..], [salt, sum] if salt.len() <= 16 && sum.len() == 86 && is_crypt_text(sum))
}

fn is_bcrypt(hash: &str) -> bool {
    let mut parts = hash.split('$').skip(2);
    let (Some(cost), Some(rest), None) = (parts.next(), parts.next(), parts.next()) else { return false };
    let cost_fits = cost.len() == 2 && cost.parse::<u32>().is_ok_and(|cost| (4..=BCRYPT_COST_MAX).contains(&cost));
    cost_fits && rest.len() == 53 && is_crypt_text(rest)
}

fn is_argon2id(hash: &str) -> bool {
    let parts: Vec<&str> = hash.split('$').skip(2).collect();
    // RFC 9106 section 3.1, and what the PHC string format allows.
    let octets = |text: &str, bounds: std::ops::RangeInclusive<usize>| {
        STANDARD_NO_PAD.decode(text).is_ok_and(|octets| bounds.contains(&octets.len()))
    };
    matches!(parts[..], [version, costs, salt, sum]
        if version == "v=19" && are_argon2_costs(costs) && octets(salt, 8..=48) && octets(sum, 10..=64))
}

/// `m=KiB,t=passes,p=lanes`, each a number without zeros in front.
fn are_argon2_costs(costs: &str) -> bool {
    let mut names = ["m=", "t=", "p="].into_iter();
    let numbers: Option<Vec<u32>> = costs
        .split(',')
        .map(|cost| {
            let digits = cost.strip_prefix(names.next()?)?;
            let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        })
        .collect();
    let Some([memory, passes, lanes]) = numbers.as_deref() else { return false };
    let memory_fits = *memory <= ARGON2_MEMORY_KIB_MAX && *memory >= lanes.saturating_mul(8);
    memory_fits && *passes <= ARGON2_PASSES_MAX && memory.saturating_mul(*passes) <= ARGON2_WORK_KIB_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_hashes_are_of_a_form_that_dovecot_shares() {
        let sha = format!("$6$saltsalt${}", "a".repeat(86));
        let rounds = format!("$6$rounds=5000$saltsalt${}", "a".repeat(86));
        let bcrypt = format!("$2y$10${}", "a".repeat(53));
        let argon = "$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo";
        for good in [
            sha.clone(),
            rounds.clone(),
            bcrypt.clone(),
            argon.to_owned(),
            format!("{{SHA512-CRYPT}}{sha}"),
            format!("{{blf-crypt}}{bcrypt}"),
            format!("{{ARGON2ID}}{argon}"),
            format!("{{CRYPT}}{sha}"),
        ] {
            assert_eq!(check_password_hash(&good), Ok(()), "{good}");
        }
        for bad in [
            "".to_owned(),
            "change-me".to_owned(),
            "{PLAIN}change-me".to_owned(),
            "{SHA512-CRYPT".to_owned(),
            format!("{{BLF-CRYPT}}{sha}"),
            sha[..50].to_owned(),
            format!("$6$rounds=1$saltsalt${}", "a".repeat(86)),
            bcrypt.replace("$10$", "$99$"),
            argon.replace("v=19", "v=1"),
            argon.replace("m=65536,t=3", "m=262144,t=64"),
            argon.replace("m=65536", "m=065536"),
            argon.replace(",p=1", ""),
            argon.replace("hoYXNo", "g"),
            rounds.replace("5000", "2000001"),
            bcrypt.replace("$10$", "$15$"),
            "$1$saltsalt$abc".to_owned(),
        ] {
            let error = check_password_hash(&bad).unwrap_err();
            assert!(bad.is_empty() || !error.to_string().contains(&bad), "the fault shows the secret: {error}");
        }
    }
}
