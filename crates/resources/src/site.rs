//! The small site that `posthouse init` writes. `examples/small-site` is one.

/// The documents of a small site, as (file name, text), for a host name, a domain and the password hash of its first user.
///
/// The three are put in as they are: callers pass what they have parsed, as text.
pub fn render_small_site(hostname: &str, domain: &str, password_hash: &str) -> Vec<(String, String)> {
    [
        ("platform.yaml", PLATFORM),
        ("listeners.yaml", LISTENERS),
        ("domains.yaml", DOMAINS),
        ("users.yaml", USERS),
        ("transports.yaml", TRANSPORTS),
    ]
    .into_iter()
    .map(|(name, text)| {
        let text = text.trim_start().replace("@HOSTNAME@", hostname).replace("@DOMAIN@", domain);
        (name.to_owned(), text.replace("@HASH@", password_hash))
    })
    .collect()
}

const PLATFORM: &str = r#"
# The installation. There is exactly one MailPlatform in a folder.
#
#   posthouse check DIR   says what is wrong in this folder, each fault at its line
#   posthouse run DIR     runs it; files that change are taken without a restart
#
# Documents can stand in any number of *.yaml files, in any order, separated by lines with ---.
# docs/configuration.md lists every kind, field and default.
apiVersion: posthouse.dev/v1alpha1
kind: MailPlatform
metadata:
  name: main
spec:
  # The name of this host, as other servers find it in DNS.
  hostname: @HOSTNAME@
  # Mail for postmaster is always taken and goes here.
  postmaster: alice@@DOMAIN@
  tls:
    # Make a certificate on the first start, for listeners that name none. Clients cannot verify it: good enough to try
    # things out. For other people name a real one at the listener: tls.secretName, or tls.files.
    selfSigned: true
  admin:
    # Metrics and probes, read-only: /metrics, /livez, /readyz.
    address: 127.0.0.1:9090
  # Mail for the rest of the world goes to the MX of each domain. Where your provider wants it to go through a smart host,
  # write a MailTransport of kind relay (see transports.yaml) and name it here:
  # relayTransport: smarthost
"#;

const LISTENERS: &str = r#"
# Where other servers bring mail for @DOMAIN@. Servers of the world come to port 25:
# leave out address and port when this is more than a trial.
apiVersion: posthouse.dev/v1alpha1
kind: MailListener
metadata:
  name: mx
spec:
  protocol: smtp
  address: 127.0.0.1
  port: 2525
  tls:
    # STARTTLS is offered, and mail is taken without it as well: RFC 3207 forbids a public server to insist.
    mode: opportunistic
---
# Where people's mail programs bring mail, with their password. The usual port is 587.
apiVersion: posthouse.dev/v1alpha1
kind: MailListener
metadata:
  name: submission
spec:
  protocol: submission
  address: 127.0.0.1
  port: 2587
  tls:
    # No password and no mail before STARTTLS.
    mode: required
  auth:
    required: true
  # The address of the sender's computer is nobody's business.
  receivedClient: false
"#;

const DOMAINS: &str = r#"
# A domain whose mail is ours. Addresses in it that nobody has are refused while the sender is still there.
apiVersion: posthouse.dev/v1alpha1
kind: MailDomain
metadata:
  name: main
spec:
  domain: @DOMAIN@
  # More names for the same mailboxes:
  # aliases: [example.net]
  delivery:
    # Name of a MailTransport: see transports.yaml.
    transport: mailboxes
  subAddress:
    # alice+shopping@@DOMAIN@ is alice@@DOMAIN@.
    delimiters: "+"
"#;

const USERS: &str = r#"
# A mailbox, and who may use it.
apiVersion: posthouse.dev/v1alpha1
kind: MailUser
metadata:
  name: alice
spec:
  # The mailbox, and the name to log in with.
  address: alice@@DOMAIN@
  # Other addresses of the same mailbox:
  aliases:
    - info@@DOMAIN@
  # Mail can be sent on; keepCopy leaves it here as well:
  # forwards: [alice@example.com]
  # keepCopy: true
  passwordSecretRef:
    name: alice
    key: hash
---
# The hash of a password, never the password. Make one with: posthouse hash-password
# Dovecot understands it too, so that one password is good for sending and for reading.
apiVersion: v1
kind: Secret
metadata:
  name: alice
stringData:
  hash: "@HASH@"
"#;

const TRANSPORTS: &str = r#"
# How mail reaches the mailboxes of @DOMAIN@: a Maildir for each, below the state folder (posthouse run --state).
apiVersion: posthouse.dev/v1alpha1
kind: MailTransport
metadata:
  name: mailboxes
spec:
  maildir:
    # %d is the domain, %n what stands before the @.
    path: mail/%d/%n
# With Dovecot, which people read their mail from, it is this instead of maildir:
#   lmtp:
#     socket: /run/dovecot/lmtp
#
# A smart host, for mail to the rest of the world:
# ---
# apiVersion: posthouse.dev/v1alpha1
# kind: MailTransport
# metadata:
#   name: smarthost
# spec:
#   relay:
#     hosts: ["smtp.provider.example:587"]
#     authSecretRef:
#       name: smarthost
# ---
# apiVersion: v1
# kind: Secret
# metadata:
#   name: smarthost
# stringData:
#   username: some-name
#   password: some-password
"#;
