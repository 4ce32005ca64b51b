//! Users of the host, as passwd(5) lists them.

/// A user that deliveries are made as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Name and home; `None` for a number that nobody has.
    pub(crate) account: Option<(String, String)>,
}

/// Finds a user by name or number in the text of a passwd file. A number that is not listed is its own group.
pub(crate) fn find(passwd: &str, name: &str) -> Option<User> {
    let number: Option<u32> = name.parse().ok();
    let listed = passwd.lines().filter_map(parse).find(|user| match &user.account {
        Some((listed, _)) if listed == name => true,
        _ => number == Some(user.uid),
    });
    listed.or_else(|| number.map(|uid| User { uid, gid: uid, account: None }))
}

fn parse(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let (name, _password, uid, gid, _gecos, home) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()?, account: Some((name.into(), home.into())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken:x:y\nalice:x:1000:100:A,,,:/home/alice:/bin/sh\n";
        let alice = User { uid: 1000, gid: 100, account: Some(("alice".into(), "/home/alice".into())) };
        for (name, expected) in [
            ("alice", Some(alice.clone())),
            ("1000", Some(alice)),
            ("1001", Some(User { uid: 1001, gid: 1001, account: None })),
            ("nobody", None),
            ("broken", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(find(passwd, name), expected, "{name}");
        }
    }
}
