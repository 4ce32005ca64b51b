//! Passwords as crypt(3) forms that Dovecot shares, with or without its `{SCHEME}` prefix.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash as Phc;
use argon2::password_hash::{Error as CryptError, PasswordHasher, PasswordVerifier};
use sha_crypt::ShaCrypt;
use subtle::ConstantTimeEq as _;

/// Rounds of a SHA-crypt hash that are computed at most, about a second: more is a mistake that would hold a thread for minutes.
const SHA_CRYPT_ROUNDS_MAX: u32 = 2_000_000;
/// Rounds of new SHA-512-crypt hashes: about 20 ms.
const SHA_CRYPT_ROUNDS: u32 = 50_000;
/// Cost of a bcrypt hash that is computed at most: 2^14 rounds, about a second.
const BCRYPT_COST_MAX: u32 = 14;
/// Cost of new bcrypt hashes.
const BCRYPT_COST: u32 = 11;
/// Memory of an argon2 hash that is computed at most, in KiB: 256 MiB.
const ARGON2_MEMORY_KIB_MAX: u32 = 256 << 10;
/// Passes of an argon2 hash that are computed at most.
const ARGON2_PASSES_MAX: u32 = 64;
/// Memory times passes of an argon2 hash that is computed at most, in KiB: 1 GiB is about a second.
const ARGON2_WORK_KIB_MAX: u32 = 1 << 20;
/// Octets of salt in new hashes; crypt(3) uses no more.
const SALT_OCTETS: usize = 12;

/// How a new password is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// `$6$`: what every crypt(3) and Dovecot verify.
    #[default]
    Sha512Crypt,
    /// `$2b$`.
    Bcrypt,
    /// `$argon2id$`, as a PHC string.
    Argon2id,
}

impl std::str::FromStr for Scheme {
    type Err = PasswordError;

    fn from_str(text: &str) -> Result<Self, PasswordError> {
        match text.to_ascii_lowercase().as_str() {
            "sha512-crypt" | "sha512" => Ok(Self::Sha512Crypt),
            "bcrypt" | "blf-crypt" => Ok(Self::Bcrypt),
            "argon2id" => Ok(Self::Argon2id),
            _ => Err(PasswordError::Scheme),
        }
    }
}

/// A stored password cannot be compared with: a fault of ours, not of who logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// None of the schemes that are known.
    #[error("unknown password scheme: SHA512-CRYPT, BLF-CRYPT, ARGON2ID, CRYPT and PLAIN are known")]
    Scheme,
    /// The scheme is known, what follows is not of it.
    #[error("password hash is malformed")]
    Malformed,
    /// Its cost is beyond the named limits.
    #[error("password hash costs more than is computed")]
    Cost,
}

/// A password cannot be hashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("password cannot be hashed: {0}")]
pub struct HashError(String);

/// Hashes a password under a fresh salt. The result has no `{SCHEME}` prefix: it is what crypt(3) writes. Slow by intent.
pub fn hash_password(password: &[u8], scheme: Scheme) -> Result<String, HashError> {
    let failed = |error: &dyn std::fmt::Display| HashError(error.to_string());
    let mut salt = [0_u8; SALT_OCTETS];
    rand::fill(&mut salt);
    match scheme {
        Scheme::Sha512Crypt => {
            let parameters = sha_crypt::Params::new(SHA_CRYPT_ROUNDS).map_err(|e| failed(&e))?;
            let crypt = ShaCrypt::new(sha_crypt::Algorithm::Sha512Crypt, parameters);
            let hash = crypt.hash_password_with_salt(password, &salt).map_err(|e| failed(&e))?;
            Ok(hash.as_str().to_owned())
        }
        // 72 octets is all that bcrypt looks at: longer passwords would be shorter than they seem.
        Scheme::Bcrypt => bcrypt::non_truncating_hash(password, BCRYPT_COST).map_err(|e| failed(&e)),
        Scheme::Argon2id => {
            let hash: Phc = Argon2::default().hash_password_with_salt(password, &salt).map_err(|e| failed(&e))?;
            Ok(hash.to_string())
        }
    }
}

/// Whether a stored form is of a known scheme and its cost within the limits: what [`verify_password`] asks first.
pub fn check_password(stored: &str) -> Result<(), PasswordError> {
    Stored::parse(stored).map(drop)
}

/// Compares a password with a stored form. Slow by intent: not for async threads.
pub fn verify_password(stored: &str, password: &[u8]) -> Result<bool, PasswordError> {
    match Stored::parse(stored)? {
        Stored::Plain(plain) => Ok(plain.as_bytes().ct_eq(password).into()),
        Stored::ShaCrypt(hash) => {
            outcome(PasswordVerifier::<str>::verify_password(&ShaCrypt::default(), password, hash))
        }
        Stored::Argon2id(hash) => {
            let hash = Phc::new(hash).map_err(|_| PasswordError::Malformed)?;
            outcome(PasswordVerifier::<Phc>::verify_password(&Argon2::default(), password, &hash))
        }
        Stored::Bcrypt(hash) => bcrypt::verify(password, hash).map_err(|_| PasswordError::Malformed),
    }
}

fn outcome(result: Result<(), CryptError>) -> Result<bool, PasswordError> {
    match result {
        Ok(()) => Ok(true),
        Err(CryptError::PasswordInvalid) => Ok(false),
        Err(_) => Err(PasswordError::Malformed),
    }
}

/// A stored password, taken apart as far as its scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored<'a> {
    Plain(&'a str),
    ShaCrypt(&'a str),
    Bcrypt(&'a str),
    Argon2id(&'a str),
}

impl<'a> Stored<'a> {
    /// Reads the scheme and checks that its cost is bounded.
    pub(crate) fn parse(stored: &'a str) -> Result<Self, PasswordError> {
        let (prefix, hash) = match stored.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((scheme, hash)) => (Some(scheme.to_ascii_uppercase()), hash),
            None => (None, stored),
        };
        let found = match prefix.as_deref() {
            Some("PLAIN" | "CLEAR" | "CLEARTEXT") => return Ok(Self::Plain(hash)),
            None | Some("CRYPT" | "SHA512-CRYPT" | "SHA256-CRYPT" | "BLF-CRYPT" | "ARGON2ID") => Self::of_hash(hash)?,
            Some(_) => return Err(PasswordError::Scheme),
        };
        found.check_cost()?;
        Ok(found)
    }

    fn of_hash(hash: &'a str) -> Result<Self, PasswordError> {
        let begins = |ids: &[&str]| ids.iter().any(|id| hash.starts_with(id));
        if begins(&["$6$", "$5$"]) {
            Ok(Self::ShaCrypt(hash))
        } else if begins(&["$2a$", "$2b$", "$2y$"]) {
            Ok(Self::Bcrypt(hash))
        } else if begins(&["$argon2id$"]) {
            Ok(Self::Argon2id(hash))
        } else {
            Err(PasswordError::Scheme)
        }
    }

    fn check_cost(self) -> Result<(), PasswordError> {
        let bounded = |value: u32, max: u32| if value > max { Err(PasswordError::Cost) } else { Ok(()) };
        match self {
            Self::Plain(_) => Ok(()),
            Self::ShaCrypt(hash) => match hash.split('$').nth(2).and_then(|field| field.strip_prefix("rounds=")) {
                Some(rounds) => bounded(rounds.parse().map_err(|_| PasswordError::Malformed)?, SHA_CRYPT_ROUNDS_MAX),
                None => Ok(()),
            },
            Self::Bcrypt(hash) => {
                let cost = hash.split('$').nth(2).and_then(|cost| cost.parse().ok());
                bounded(cost.ok_or(PasswordError::Malformed)?, BCRYPT_COST_MAX)
            }
            Self::Argon2id(hash) => {
                let hash = Phc::new(hash).map_err(|_| PasswordError::Malformed)?;
                let parameters = argon2::Params::try_from(&hash).map_err(|_| PasswordError::Malformed)?;
                bounded(parameters.m_cost(), ARGON2_MEMORY_KIB_MAX)?;
                bounded(parameters.t_cost(), ARGON2_PASSES_MAX)?;
                bounded(parameters.m_cost().saturating_mul(parameters.t_cost()), ARGON2_WORK_KIB_MAX)
            }
        }
    }

    /// Dovecot's name of the scheme.
    pub(crate) fn dovecot_scheme(self) -> &'static str {
        match self {
            Self::Plain(_) => "PLAIN",
            Self::ShaCrypt(hash) if hash.starts_with("$5$") => "SHA256-CRYPT",
            Self::ShaCrypt(_) => "SHA512-CRYPT",
            Self::Bcrypt(_) => "BLF-CRYPT",
            Self::Argon2id(_) => "ARGON2ID",
        }
    }

    /// The form without prefix.
    pub(crate) fn hash(self) -> &'a str {
        match self {
            Self::Plain(hash) | Self::ShaCrypt(hash) | Self::Bcrypt(hash) | Self::Argon2id(hash) => hash,
        }
    }
}

/// What tells how long a verification takes: scheme and cost, without salt and digest.
pub(crate) fn cost_of(stored: &str) -> Option<&str> {
    let stored = Stored::parse(stored).ok()?;
    let hash = stored.hash();
    let fields = match stored {
        Stored::Plain(_) => return Some(""),
        Stored::ShaCrypt(hash) if hash.contains("$rounds=") => 2,
        Stored::ShaCrypt(_) => 1,
        Stored::Bcrypt(_) => 2,
        Stored::Argon2id(_) => 3,
    };
    let end = hash.match_indices('$').nth(fields).map_or(hash.len(), |(at, _)| at);
    hash.get(..end)
}
