use std::process::Command;

use crate::password::cost_of;
use crate::{PasswordError, Scheme, hash_password, verify_password};

/// Made by `openssl passwd -6`, `doveadm pw` and libxcrypt; the password is `change-me` but in the named cases.
const HASHES: [&str; 4] = ["$6$abcdefgh$", "{SHA512-CRYPT}$6$", "{CRYPT}$2y$", "{ARGON2ID}$argon2id$"];

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn hashes_of_other_programs_verify() {
    let made = [
        output("openssl", &["passwd", "-6", "-salt", "abcdefgh", "change-me"]),
        output("doveadm", &["pw", "-s", "SHA512-CRYPT", "-r", "10000", "-p", "change-me"]),
        output("doveadm", &["pw", "-s", "BLF-CRYPT", "-p", "change-me"]).replace("{BLF-CRYPT}", "{CRYPT}"),
        output("doveadm", &["pw", "-s", "ARGON2ID", "-p", "change-me"]),
    ];
    for (stored, begins) in made.iter().zip(HASHES) {
        assert!(stored.starts_with(begins), "{stored}");
        let bare = stored.rsplit_once('}').map_or(stored.as_str(), |(_, hash)| hash);
        for form in [stored.as_str(), bare] {
            assert_eq!(verify_password(form, b"change-me"), Ok(true), "{form}");
            for wrong in [&b"change-mE"[..], b"", b"change-me\0", b"change-me "] {
                assert_eq!(verify_password(form, wrong), Ok(false), "{form}");
            }
        }
    }
}

#[test]
fn forms_of_crypt_verify_with_or_without_prefix_and_others_are_named_faults() {
    // From crypt(5) and the specification of SHA-crypt; openwall's vectors of bcrypt.
    let cases: &[(&str, &[u8], Result<bool, PasswordError>)] = &[
        (
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
            b"Hello world!",
            Ok(true),
        ),
        (
            "{sha512-crypt}$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
            b"Hello world!",
            Ok(true),
        ),
        ("$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", b"Hello world!", Ok(true)),
        ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", b"U*U", Ok(true)),
        ("{BLF-CRYPT}$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", b"U*U", Ok(true)),
        ("$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", b"U*V", Ok(false)),
        ("{PLAIN}a:b}c", b"a:b}c", Ok(true)),
        ("{plain}abc", b"abcd", Ok(false)),
        ("abc", b"abc", Err(PasswordError::Scheme)),
        ("", b"", Err(PasswordError::Scheme)),
        ("{MD5}abc", b"abc", Err(PasswordError::Scheme)),
        ("$1$abc$def", b"abc", Err(PasswordError::Scheme)),
        ("$6$onlysalt", b"abc", Err(PasswordError::Malformed)),
        ("$6$rounds=999999999$salt$abc", b"abc", Err(PasswordError::Cost)),
        ("$2b$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", b"U*U", Err(PasswordError::Cost)),
        ("$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", b"abc", Err(PasswordError::Cost)),
        ("$argon2id$v=19$m=262144,t=64,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", b"abc", Err(PasswordError::Cost)),
        ("$6$rounds=2000001$salt$abc", b"abc", Err(PasswordError::Cost)),
        ("$2b$15$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", b"U*U", Err(PasswordError::Cost)),
        ("$argon2id$nonsense", b"abc", Err(PasswordError::Malformed)),
    ];
    for (stored, password, expected) in cases {
        assert_eq!(verify_password(stored, password), *expected, "{stored}");
    }
}

#[test]
fn what_is_hashed_here_verifies_here_and_in_dovecot() {
    for (scheme, begins, dovecot) in [
        (Scheme::Sha512Crypt, "$6$", "SHA512-CRYPT"),
        (Scheme::Bcrypt, "$2b$", "BLF-CRYPT"),
        (Scheme::Argon2id, "$argon2id$", "ARGON2ID"),
    ] {
        let stored = hash_password("pässword".as_bytes(), scheme).unwrap();
        assert!(stored.starts_with(begins), "{stored}");
        assert_eq!(verify_password(&stored, "pässword".as_bytes()), Ok(true));
        assert_eq!(verify_password(&stored, b"password"), Ok(false));
        assert_ne!(stored, hash_password("pässword".as_bytes(), scheme).unwrap(), "a fresh salt");
        let prefixed = format!("{{{dovecot}}}{stored}");
        let said = output("doveadm", &["pw", "-t", &prefixed, "-p", "pässword"]);
        assert!(said.contains("verified"), "{said}");
    }
    assert!(hash_password(&[b'x'; 100], Scheme::Bcrypt).is_err(), "bcrypt would look at 72 octets only");
    assert_eq!("SHA512-CRYPT".parse(), Ok(Scheme::Sha512Crypt));
    assert_eq!("md5".parse::<Scheme>(), Err(PasswordError::Scheme));
}

#[test]
fn the_cost_of_a_hash_is_its_scheme_and_parameters() {
    for (stored, cost) in [
        ("$6$salt$digest", Some("$6")),
        ("$6$rounds=50000$salt$digest", Some("$6$rounds=50000")),
        ("{BLF-CRYPT}$2b$11$saltanddigest", Some("$2b$11")),
        ("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", Some("$argon2id$v=19$m=19456,t=2,p=1")),
        ("{PLAIN}x", Some("")),
        ("{MD5}x", None),
    ] {
        assert_eq!(cost_of(stored), cost, "{stored}");
    }
}
