use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rules::{RouteBy, Secret, Table};
use schedule::Schedule;

use super::{Compiler, bad_variable, spec_path};
use crate::kinds::{
    ClientTlsModeSpec, ClientTlsSpec, FileTransport, LmtpTransport, MailTransportSpec, ProgramTransport, RelayMx,
    RelayTransport, Retry, VerifySpec,
};
use crate::object::{Kind, Object, Spec};
use crate::path::FieldPath;
use crate::snapshot::{
    ClientTls, ClientTlsMode, Credentials, HostPort, LmtpTarget, Program, Relay, RelayTo, Transport, TransportKind,
    Verify,
};
use crate::values::HostAndPort;

/// The transport that is there without a document: to the MX of each domain.
pub(super) const BUILT_IN: &str = "mx";
const CONCURRENCY_MAX: usize = 10;
const RECIPIENTS_MAX: usize = 100;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15 * 60);

pub(super) type Transports = BTreeMap<String, Arc<Transport>>;

/// How a transport groups its recipients.
pub(super) fn route_by(transport: &Transport) -> RouteBy {
    match &transport.kind {
        TransportKind::Relay(Relay { to: RelayTo::Mx { .. } | RelayTo::HostTable { .. }, .. }) => RouteBy::Domain,
        _ => RouteBy::Transport,
    }
}

impl Compiler<'_> {
    pub(super) fn transports(&mut self) -> Transports {
        let mut transports = BTreeMap::new();
        for object in self.of_kind(Kind::MailTransport) {
            let Spec::Transport(spec) = &object.spec else { continue };
            if let Some(kind) = self.transport_kind(object, spec) {
                let transport = self.transport(object, spec, kind);
                transports.insert(object.name.clone(), Arc::new(transport));
            }
        }
        transports.entry(BUILT_IN.to_owned()).or_insert_with(|| Arc::new(mx()));
        transports
    }

    /// A transport that recipients of ours leave by.
    pub(super) fn transport_reference(&mut self, object: &Object, path: &FieldPath, name: &str) {
        if name != BUILT_IN {
            self.reference(object, path, Kind::MailTransport, name);
        }
    }

    /// A transport that leads to other servers.
    pub(super) fn relay_reference(&mut self, object: &Object, path: &FieldPath, name: &str) {
        if name == BUILT_IN && self.find(Kind::MailTransport, name).is_none() {
            return;
        }
        let found = self.reference(object, path, Kind::MailTransport, name);
        if let Some(Spec::Transport(spec)) = found.map(|object| &object.spec)
            && spec.relay.is_none()
        {
            let what = format!("MailTransport {name} does not lead to other servers");
            self.fault(object, path, what, "name one of kind relay, or the built-in mx");
        }
    }

    /// Tables of hosts are static, and their values are hosts.
    pub(super) fn host_tables(&mut self, tables: &BTreeMap<String, Arc<Table>>) {
        for object in self.of_kind(Kind::MailTransport) {
            let Spec::Transport(spec) = &object.spec else { continue };
            let Some(name) = spec.relay.as_ref().and_then(|relay| relay.host_table.as_ref()) else { continue };
            let path = spec_path("relay.hostTable");
            self.reference(object, &path, Kind::MailTable, name);
            match tables.get(name).map(AsRef::as_ref) {
                Some(Table::Sqlite(_)) => {
                    let what = format!("MailTable {name} is a query, but a hostTable must be known beforehand");
                    self.fault(object, &path, what, "use a MailTable with map or file");
                }
                Some(Table::Static(table)) => {
                    let mut rows: Vec<_> = table.exact.iter().map(|(key, values)| (key.as_str(), values)).collect();
                    rows.extend(table.wildcards().iter().map(|(pattern, values)| match pattern {
                        rules::Pattern::Exact(key) | rules::Pattern::Wildcard(key) => (key.as_str(), values),
                    }));
                    rows.sort();
                    let is_host = |values: &[String]| {
                        !values.is_empty() && values.iter().all(|value| value.parse::<HostAndPort>().is_ok())
                    };
                    if let Some((key, _)) = rows.iter().find(|(_, values)| !is_host(values)) {
                        let what = format!("MailTable {name} has no host for {key:?}");
                        self.fault(object, &path, what, "its values must be host:port, as in mail.example.org:25");
                    }
                }
                None => {}
            }
        }
    }

    fn transport_kind(&mut self, object: &Object, spec: &MailTransportSpec) -> Option<TransportKind> {
        let given = [
            ("lmtp", spec.lmtp.is_some()),
            ("maildir", spec.maildir.is_some()),
            ("mbox", spec.mbox.is_some()),
            ("program", spec.program.is_some()),
            ("relay", spec.relay.is_some()),
        ];
        let given: Vec<&str> = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        match given[..] {
            [_] => {}
            [] => {
                let what = "the transport does not say how mail leaves";
                self.fault(object, &FieldPath::of("spec"), what, "add one of lmtp, maildir, mbox, program and relay");
            }
            [first, second, ..] => {
                let what = format!("the transport has {first} and {second}");
                self.fault(
                    object,
                    &spec_path(second),
                    what,
                    "keep one of them; write a second MailTransport for the other",
                );
            }
        }
        if let Some(lmtp) = &spec.lmtp {
            return self.lmtp(object, lmtp);
        }
        if let Some(files) = &spec.maildir {
            self.files(object, &spec_path("maildir"), files);
            return Some(TransportKind::Maildir { path: files.path.clone(), as_user: files.as_user.clone() });
        }
        if let Some(files) = &spec.mbox {
            self.files(object, &spec_path("mbox"), files);
            return Some(TransportKind::Mbox { path: files.path.clone(), as_user: files.as_user.clone() });
        }
        if let Some(program) = &spec.program {
            return Some(TransportKind::Program(self.program(object, program)));
        }
        spec.relay.as_ref().map(|relay| TransportKind::Relay(self.relay(object, relay)))
    }

    fn transport(&mut self, object: &Object, spec: &MailTransportSpec, kind: TransportKind) -> Transport {
        let one_recipient =
            matches!(kind, TransportKind::Maildir { .. } | TransportKind::Mbox { .. } | TransportKind::Program(_));
        let one_delivery = matches!(kind, TransportKind::Mbox { .. });
        let path = spec_path("limits");
        for (field, value, is_one) in [
            ("recipientsMax", spec.limits.recipients_max, one_recipient),
            ("concurrencyMax", spec.limits.concurrency_max, one_delivery),
        ] {
            if is_one && value.is_some_and(|value| value != 1) {
                let what = format!("{field} of this kind of transport is always 1");
                self.fault(object, &path.key(field), what, "remove it");
            }
        }
        if spec.limits.attempt_timeout.as_ref().is_some_and(|span| span.0.is_zero()) {
            let what = "attemptTimeout is 0s: every attempt would fail";
            self.fault(object, &path.key("attemptTimeout"), what, "write a longer time");
        }
        let or = |value: Option<u32>, otherwise: usize| value.map_or(otherwise, |value| value as usize);
        Transport {
            name: object.name.clone(),
            kind,
            schedule: self.schedule(object, &spec.retry),
            route_concurrency_max: if one_delivery { 1 } else { or(spec.limits.concurrency_max, CONCURRENCY_MAX) },
            recipients_max: if one_recipient { 1 } else { or(spec.limits.recipients_max, RECIPIENTS_MAX) },
            attempt_timeout: spec.limits.attempt_timeout.as_ref().map_or(ATTEMPT_TIMEOUT, |span| span.0),
        }
    }

    fn schedule(&mut self, object: &Object, retry: &Retry) -> Schedule {
        let path = spec_path("retry");
        if retry.delay_first.0.is_zero() {
            let what = "delayFirst is 0s: the next server would be asked without pause";
            self.fault(object, &path.key("delayFirst"), what, "write a longer time");
        }
        if retry.delay_max.0 < retry.delay_first.0 {
            let what = "delayMax is shorter than delayFirst";
            self.fault(object, &path.key("delayMax"), what, "write a longer time, or a shorter delayFirst");
        }
        schedule(retry)
    }

    fn lmtp(&mut self, object: &Object, lmtp: &LmtpTransport) -> Option<TransportKind> {
        /// The port that LMTP servers use by custom; RFC 2033 section 5 forbids 25.
        const PORT: u16 = 24;
        let path = spec_path("lmtp");
        let tls = self.client_tls(object, &path.key("tls"), &lmtp.tls, ClientTlsMode::Off);
        let target = match (&lmtp.address, &lmtp.socket) {
            (Some(HostAndPort((host, port))), None) => LmtpTarget::Tcp(host.clone(), port.unwrap_or(PORT)),
            (None, Some(socket)) => {
                if tls.mode != ClientTlsMode::Off {
                    self.fault(object, &path.key("tls"), "a Unix socket needs no TLS", "remove tls");
                }
                LmtpTarget::Unix(PathBuf::from(socket))
            }
            (Some(_), Some(_)) => {
                let what = "address and socket are both given";
                self.fault(object, &path.key("socket"), what, "keep one of them");
                return None;
            }
            (None, None) => {
                let what = "lmtp does not say where mail goes";
                self.fault(object, &path, what, "add address: host:port, or socket: /path");
                return None;
            }
        };
        Some(TransportKind::Lmtp { target, tls })
    }

    fn files(&mut self, object: &Object, path: &FieldPath, files: &FileTransport) {
        self.as_user(object, path, files.as_user.as_ref());
        let place = path.key("path");
        if files.path.is_empty() {
            self.fault(object, &place, "path is empty", "write where mail goes, as in mail/%d/%n");
        } else if let Some(variable) = bad_variable(&files.path, "und") {
            let what = format!("{variable:?} is no variable of a path");
            self.fault(object, &place, what, "write %u, %n, %d, or %% for a percent sign");
        } else if files.path.split('/').any(|part| part == "..") {
            self.fault(object, &place, "path leads upwards with ..", "write the path without ..");
        } else if !files.path.replace("%%", "").contains(['%']) {
            let what = "path is the same for everybody: all mail would go into one mailbox";
            self.fault(object, &place, what, "add %u, or %d and %n");
        }
    }

    fn as_user(&mut self, object: &Object, path: &FieldPath, user: Option<&String>) {
        let Some(user) = user else { return };
        let path = path.key("asUser");
        if user.is_empty() || user.contains(char::is_whitespace) {
            self.fault(object, &path, format!("{user:?} is no user"), "write the name or uid of a user of this host");
        } else if !self.environment.is_root {
            let what = format!("mail cannot be written as user {user}: the platform does not run as root");
            self.fault(object, &path, what, "remove asUser, or run the platform as root");
        }
    }

    fn program(&mut self, object: &Object, program: &ProgramTransport) -> Program {
        let path = spec_path("program");
        self.as_user(object, &path, program.as_user.as_ref());
        for (index, argument) in program.argv.iter().enumerate() {
            let place = path.key("argv").index(index);
            if index == 0 && !argument.starts_with('/') {
                let what = format!("{argument:?} is no absolute path");
                self.fault(object, &place, what, "write where the program is, as in /usr/local/bin/filter");
            } else if argument.contains('\0') {
                self.fault(object, &place, "the argument holds a NUL", "write text");
            } else if let Some(variable) = bad_variable(argument, "undsi") {
                let what = format!("{variable:?} is no variable of an argument");
                self.fault(object, &place, what, "write %u, %n, %d, %s, %i, or %% for a percent sign");
            }
        }
        if program.timeout.0.is_zero() {
            let what = "timeout is 0s: the program would be stopped at once";
            self.fault(object, &path.key("timeout"), what, "write a longer time");
        }
        let named = program.environment.iter().enumerate().map(|(i, name)| (path.key("environment").index(i), name));
        let fixed = program.variables.keys().map(|name| (path.key("variables").key(name), name));
        for (place, name) in named.chain(fixed).collect::<Vec<_>>() {
            if name.is_empty() || name.contains(['=', '\0']) {
                let what = format!("{name:?} is no name of an environment variable");
                self.fault(object, &place, what, "write a name such as PATH");
            }
        }
        Program {
            argv: program.argv.clone(),
            as_user: program.as_user.clone(),
            timeout: program.timeout.0,
            output_max_bytes: usize::try_from(program.output_max.0).unwrap_or(usize::MAX),
            environment: program.environment.clone(),
            variables: program.variables.clone(),
        }
    }

    fn relay(&mut self, object: &Object, relay: &RelayTransport) -> Relay {
        let path = spec_path("relay");
        let has_auth = relay.auth_secret_ref.is_some();
        let otherwise = if has_auth { ClientTlsMode::Required } else { ClientTlsMode::Opportunistic };
        let tls = self.client_tls(object, &path.key("tls"), &relay.tls, otherwise);
        let auth = relay.auth_secret_ref.as_ref().and_then(|secret| {
            let place = path.key("authSecretRef");
            let user = self.text(object, &place, &secret.name, &secret.user_key);
            // One fault is enough where the Secret is not there.
            self.find(Kind::Secret, &secret.name)?;
            let password = self.text(object, &place, &secret.name, &secret.password_key);
            Some(Credentials { user: user?.to_owned(), password: Secret::new(password?) })
        });
        if has_auth && relay.hosts.is_empty() {
            let what = "a password is given, but no host to give it to";
            self.fault(object, &path.key("authSecretRef"), what, "add hosts: a password goes to named servers only");
        }
        if has_auth && tls.mode == ClientTlsMode::Off && !relay.allow_auth_without_tls {
            let what = "a password is given, but TLS is off: it would never be sent";
            self.fault(object, &path.key("tls"), what, "set tls.mode: required, or allowAuthWithoutTls: true");
        }
        let port = match tls.mode {
            ClientTlsMode::Implicit => 465,
            _ if has_auth => 587,
            _ => 25,
        };
        Relay {
            to: self.relay_to(object, &path, relay, port),
            tls,
            auth,
            auth_without_tls: relay.allow_auth_without_tls,
            helo: relay.helo.as_ref().map(|name| name.0.clone()),
        }
    }

    fn relay_to(&mut self, object: &Object, path: &FieldPath, relay: &RelayTransport, port_otherwise: u16) -> RelayTo {
        if !relay.hosts.is_empty() {
            for (field, given) in [("mx", relay.mx.is_some()), ("hostTable", relay.host_table.is_some())] {
                if given {
                    let what = format!("hosts and {field} are both given");
                    self.fault(object, &path.key(field), what, "keep one of them");
                }
            }
            let host = |HostAndPort((host, port)): &HostAndPort| HostPort {
                host: host.clone(),
                port: port.unwrap_or(port_otherwise),
            };
            return RelayTo::Hosts(relay.hosts.iter().map(host).collect());
        }
        let RelayMx { port, refuse } = relay.mx.clone().unwrap_or_default();
        let refuse = refuse.into_iter().map(|network| network.0).collect();
        match &relay.host_table {
            Some(table) => RelayTo::HostTable { table: table.clone(), mx_port: port, refuse },
            None => RelayTo::Mx { port, refuse },
        }
    }

    fn client_tls(
        &mut self,
        object: &Object,
        path: &FieldPath,
        spec: &ClientTlsSpec,
        otherwise: ClientTlsMode,
    ) -> ClientTls {
        let mode = match spec.mode {
            None => otherwise,
            Some(ClientTlsModeSpec::Off) => ClientTlsMode::Off,
            Some(ClientTlsModeSpec::Opportunistic) => ClientTlsMode::Opportunistic,
            Some(ClientTlsModeSpec::Required) => ClientTlsMode::Required,
            Some(ClientTlsModeSpec::Implicit) => ClientTlsMode::Implicit,
        };
        let verify = match spec.verify {
            Some(VerifySpec::Full) => Verify::Full,
            Some(VerifySpec::None) => Verify::None,
            // What falls back to no TLS at all gains nothing from refusing a certificate.
            None if mode == ClientTlsMode::Opportunistic => Verify::None,
            None => Verify::Full,
        };
        let authorities =
            self.authorities(object, path, spec.authorities_secret_ref.as_ref(), spec.authorities_file.as_ref());
        ClientTls { mode, verify, authorities }
    }
}

fn schedule(retry: &Retry) -> Schedule {
    Schedule {
        delay_first: retry.delay_first.0,
        delay_max: retry.delay_max.0,
        age_max: retry.age_max.0,
        warn_after: Some(retry.warn_after.0).filter(|after| !after.is_zero()),
    }
}

fn mx() -> Transport {
    let RelayMx { port, refuse } = RelayMx::default();
    Transport {
        name: BUILT_IN.to_owned(),
        kind: TransportKind::Relay(Relay {
            to: RelayTo::Mx { port, refuse: refuse.into_iter().map(|network| network.0).collect() },
            tls: ClientTls { mode: ClientTlsMode::Opportunistic, verify: Verify::None, authorities: None },
            auth: None,
            auth_without_tls: false,
            helo: None,
        }),
        schedule: schedule(&Retry::default()),
        route_concurrency_max: CONCURRENCY_MAX,
        recipients_max: RECIPIENTS_MAX,
        attempt_timeout: ATTEMPT_TIMEOUT,
    }
}
