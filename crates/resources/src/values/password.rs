use std::fmt;
use std::str::FromStr;

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
    if whole { Ok(()) } else { Err(ValueError::new("the password hash is cut off or damaged", REMEDY)) }
}

fn is_crypt_text(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/')
}

fn is_sha512_crypt(hash: &str) -> bool {
    let mut parts: Vec<&str> = hash.split('$').skip(2).collect();
    if let Some(rounds) = parts.first().and_then(|part| part.strip_prefix("rounds=")) {
        if !rounds.parse::<u32>().is_ok_and(|rounds| (1000..=999_999_999).contains(&rounds)) {
            return false;
        }
        parts.remove(0);
    }
    matches!(parts[..], [salt, sum] if salt.len() <= 16 && sum.len() == 86 && is_crypt_text(sum))
}

fn is_bcrypt(hash: &str) -> bool {
    let mut parts = hash.split('$').skip(2);
    let (Some(cost), Some(rest), None) = (parts.next(), parts.next(), parts.next()) else { return false };
    let cost_fits = cost.len() == 2 && cost.parse::<u32>().is_ok_and(|cost| (4..=31).contains(&cost));
    cost_fits && rest.len() == 53 && is_crypt_text(rest)
}

fn is_argon2id(hash: &str) -> bool {
    let parts: Vec<&str> = hash.split('$').skip(2).collect();
    let base64 =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/');
    matches!(parts[..], [version, costs, salt, sum]
        if version == "v=19" && costs.starts_with("m=") && base64(salt) && base64(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_hashes_are_of_a_form_that_dovecot_shares() {
        let sha = format!("$6$saltsalt${}", "a".repeat(86));
        let rounds = format!("$6$rounds=5000$saltsalt${}", "a".repeat(86));
        let bcrypt = format!("$2y$10${}", "a".repeat(53));
        let argon = "$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2g";
        for good in [
            sha.clone(),
            rounds,
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
            "$1$saltsalt$abc".to_owned(),
        ] {
            let error = check_password_hash(&bad).unwrap_err();
            assert!(bad.is_empty() || !error.to_string().contains(&bad), "the fault shows the secret: {error}");
        }
    }
}
