use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use rules::{ListenerRules, Policy};

use super::{Compiler, name_path, policies, spec_path};
use crate::kinds::{
    ClientCertificateMode, ClientIdentityMode, LineEnding, ListenerLimits, ListenerProtocol, ListenerTls,
    ListenerTlsMode, MailListenerSpec, MailPlatformSpec, MinVersion,
};
use crate::object::{Kind, Object, Spec};
use crate::path::FieldPath;
use crate::snapshot::{
    Auth, Certificate, ClientCertificates, Endpoint, Identity, Limits, LineEnds, Listener, Protocol, Tls, TlsMode,
    TlsVersion,
};

/// RFC 5321 section 4.5.3.1.4.
const COMMAND_LINE_MIN: u64 = 512;
/// RFC 5321 section 4.5.3.1.6.
const TEXT_LINE_MIN: u64 = 1000;
/// Name of the built-in listener of `posthouse sendmail`, which ingress opens.
pub(super) const SENDMAIL_LISTENER: &str = "sendmail";

pub(super) type Certificates = BTreeMap<String, Arc<Certificate>>;
type Listeners = BTreeMap<String, Arc<Listener>>;

/// A place that is listened on already.
struct Taken<'a> {
    by: String,
    object: &'a Object,
    endpoint: Endpoint,
}

impl<'a> Compiler<'a> {
    pub(super) fn listeners(
        &mut self,
        platform: Option<&MailPlatformSpec>,
        policies: &BTreeMap<String, Arc<Policy>>,
    ) -> (Listeners, BTreeMap<String, ListenerRules>, Certificates) {
        let (mut listeners, mut rules, mut certificates) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut taken = self.taken_by_platform(platform);
        for object in self.of_kind(Kind::MailListener) {
            let Spec::Listener(spec) = &object.spec else { continue };
            if object.name == SENDMAIL_LISTENER {
                let what = "the name sendmail belongs to the built-in listener of posthouse sendmail";
                self.fault(object, &name_path(), what, "choose another name");
                continue;
            }
            let endpoint = self.endpoint(object, spec);
            self.check_taken(object, spec, &endpoint, &mut taken);
            let listener = self.listener(object, spec, endpoint, platform, &mut certificates);
            let policy = spec.policy_ref.as_deref();
            if let Some(name) = policy {
                self.policy_reference(object, &spec_path("policyRef"), name);
            }
            let name = policy.or(platform.and_then(|spec| spec.policy_ref.as_deref())).unwrap_or(policies::BUILT_IN);
            // A policy that is not there refuses everything: it must not fail open.
            let policy = policies.get(name).cloned().unwrap_or_default();
            if let Some(listener) = listener {
                rules.insert(object.name.clone(), listener_rules(spec, &listener, policy));
                listeners.insert(object.name.clone(), Arc::new(listener));
            }
        }
        if platform.is_none_or(|spec| spec.sendmail.socket) {
            let name = platform.and_then(|spec| spec.policy_ref.as_deref()).unwrap_or(policies::BUILT_IN);
            let policy = policies.get(name).cloned().unwrap_or_default();
            rules.entry(SENDMAIL_LISTENER.to_owned()).or_insert_with(|| sendmail_rules(policy));
        }
        (listeners, rules, certificates)
    }

    fn taken_by_platform(&self, platform: Option<&MailPlatformSpec>) -> Vec<Taken<'a>> {
        let object = self.of_kind(Kind::MailPlatform).first().copied();
        let admin = platform.map(|spec| &spec.admin).filter(|admin| admin.enabled);
        let (Some(object), Some(admin)) = (object, admin) else { return Vec::new() };
        let address = admin.address.0;
        let endpoint = Endpoint::Tcp { addresses: vec![address.ip()], port: address.port(), v6_only: false };
        vec![Taken { by: "the admin port of the MailPlatform".to_owned(), object, endpoint }]
    }

    fn endpoint(&mut self, object: &Object, spec: &MailListenerSpec) -> Endpoint {
        if let Some(socket) = &spec.socket {
            let others = [
                ("address", spec.address.is_some()),
                ("addresses", !spec.addresses.is_empty()),
                ("port", spec.port.is_some()),
            ];
            for (field, _) in others.iter().filter(|(_, given)| *given) {
                let what = format!("socket and {field} are both given");
                self.fault(
                    object,
                    &spec_path(field),
                    what,
                    "keep one of them: a listener is a Unix socket or a TCP port",
                );
            }
            if socket.is_empty() {
                self.fault(object, &spec_path("socket"), "socket is empty", "write the path of a Unix socket");
            }
            return Endpoint::Unix(PathBuf::from(socket));
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        let written = spec.address.iter().map(|ip| (spec_path("address"), ip.0));
        let more = spec.addresses.iter().enumerate().map(|(i, ip)| (spec_path("addresses").index(i), ip.0));
        for (path, address) in written.chain(more) {
            if addresses.contains(&address) {
                self.fault(object, &path, format!("address {address} is given twice"), "remove one of them");
            } else {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            addresses.push(Ipv6Addr::UNSPECIFIED.into());
        }
        let is_implicit = spec.tls.as_ref().is_some_and(|tls| tls.mode == ListenerTlsMode::Implicit);
        let port = spec.port.unwrap_or(match spec.protocol {
            ListenerProtocol::Smtp => 25,
            ListenerProtocol::Submission if is_implicit => 465,
            ListenerProtocol::Submission => 587,
            ListenerProtocol::Lmtp => 24,
        });
        Endpoint::Tcp { addresses, port, v6_only: spec.v6_only }
    }

    fn check_taken(
        &mut self,
        object: &'a Object,
        spec: &MailListenerSpec,
        endpoint: &Endpoint,
        taken: &mut Vec<Taken<'a>>,
    ) {
        if let Some(other) = taken.iter().find(|other| overlap(&other.endpoint, endpoint)) {
            let (path, what) = match endpoint {
                Endpoint::Unix(path) => (spec_path("socket"), format!("socket {}", path.display())),
                Endpoint::Tcp { port, .. } if spec.port.is_some() => (spec_path("port"), format!("port {port}")),
                Endpoint::Tcp { port, .. } => (spec_path("address"), format!("port {port}")),
            };
            let what = format!("{what} is used twice: {} at {} has it", other.by, other.object.place());
            self.fault(object, &path, what, "choose another port or address");
        }
        taken.push(Taken { by: format!("MailListener {}", object.name), object, endpoint: endpoint.clone() });
    }

    fn listener(
        &mut self,
        object: &Object,
        spec: &MailListenerSpec,
        endpoint: Endpoint,
        platform: Option<&MailPlatformSpec>,
        certificates: &mut Certificates,
    ) -> Option<Listener> {
        let self_signed = platform.is_some_and(|spec| spec.tls.self_signed);
        let hostname = spec.hostname.as_ref().or(platform.map(|spec| &spec.hostname)).map(|name| name.0.clone());
        if spec.hostname.as_ref().is_some_and(|name| name.0.is_literal()) {
            let what = "hostname is an address literal";
            self.fault(object, &spec_path("hostname"), what, "write the name that DNS has for this host");
        }
        let tls = self.tls(object, spec.tls.as_ref(), self_signed, certificates);
        let auth = self.auth(object, spec, tls.mode);
        self.check_limits(object, &spec.limits);
        for (index, tag) in spec.tags.iter().enumerate() {
            self.check_tag(object, &spec_path("tags").index(index), tag);
        }
        let identity = self.identity(object, spec);
        Some(Listener {
            name: object.name.clone(),
            protocol: match spec.protocol {
                ListenerProtocol::Smtp => Protocol::Smtp,
                ListenerProtocol::Submission => Protocol::Submission,
                ListenerProtocol::Lmtp => Protocol::Lmtp,
            },
            endpoint,
            tls,
            auth,
            identity,
            loopback_is_local: spec.loopback_is_local,
            // Without a platform there is no name, and no snapshot.
            hostname: hostname?,
            tags: spec.tags.iter().map(|tag| tag.to_lowercase()).collect(),
            line_ends: match spec.line_ends {
                LineEnding::Refuse => LineEnds::Refuse,
                LineEnding::Normalise => LineEnds::Normalise,
            },
            received_client: spec.received_client,
            limits: limits(&spec.limits),
        })
    }

    fn tls(
        &mut self,
        object: &Object,
        spec: Option<&ListenerTls>,
        platform_self_signed: bool,
        certificates: &mut Certificates,
    ) -> Tls {
        let off = ListenerTls { mode: ListenerTlsMode::Off, ..ListenerTls::default() };
        let spec = spec.unwrap_or(&off);
        let mode = match spec.mode {
            ListenerTlsMode::Off => TlsMode::Off,
            ListenerTlsMode::Opportunistic => TlsMode::Opportunistic,
            ListenerTlsMode::Required => TlsMode::Required,
            ListenerTlsMode::Implicit => TlsMode::Implicit,
        };
        let path = spec_path("tls");
        let (names, is_named) = self.named_certificates(object, spec, &path, certificates);
        let self_signed = mode != TlsMode::Off && !is_named && spec.self_signed.unwrap_or(platform_self_signed);
        // What a platform says that has faults is not known.
        if mode != TlsMode::Off && !is_named && !self_signed && self.is_platform_known() {
            let remedy = "name a Secret in secretName, or files, or set selfSigned: true";
            self.fault(object, &path, "TLS is on, but there is no certificate", remedy);
        }
        let clients = &spec.client_certificates;
        let client_path = path.key("clientCertificates");
        let authorities = self.authorities(
            object,
            &client_path,
            clients.authorities_secret_ref.as_ref(),
            clients.authorities_file.as_ref(),
        );
        let is_asked = clients.mode != ClientCertificateMode::Off;
        if is_asked && clients.authorities_secret_ref.is_none() && clients.authorities_file.is_none() {
            let what = "client certificates are asked for, but there are no authorities to verify them by";
            self.fault(object, &client_path, what, "add authoritiesSecretRef or authoritiesFile");
        }
        if clients.mode == ClientCertificateMode::Required && matches!(mode, TlsMode::Off | TlsMode::Opportunistic) {
            let what = "client certificates are required, but sessions without TLS have none";
            self.fault(object, &client_path.key("mode"), what, "set tls.mode to required or implicit");
        }
        Tls {
            mode,
            certificates: names,
            self_signed,
            version_min: match spec.min_version {
                MinVersion::V1_2 => TlsVersion::V1_2,
                MinVersion::V1_3 => TlsVersion::V1_3,
            },
            client_certificates: match clients.mode {
                ClientCertificateMode::Off => ClientCertificates::Off,
                ClientCertificateMode::Optional => ClientCertificates::Optional,
                ClientCertificateMode::Required => ClientCertificates::Required,
            },
            client_authorities: authorities,
        }
    }

    /// The certificates that could be read, in order, and whether any was named.
    fn named_certificates(
        &mut self,
        object: &Object,
        spec: &ListenerTls,
        path: &FieldPath,
        certificates: &mut Certificates,
    ) -> (Vec<String>, bool) {
        let mut names: Vec<String> = Vec::new();
        let first = spec.secret_name.iter().map(|name| (path.key("secretName"), name));
        let more = spec.secret_names.iter().enumerate().map(|(i, name)| (path.key("secretNames").index(i), name));
        let secrets: Vec<_> = first.chain(more).collect();
        let is_named = !secrets.is_empty() || !spec.files.is_empty();
        for (path, name) in secrets {
            if names.contains(name) {
                self.fault(object, &path, format!("Secret {name} is named twice"), "remove one of them");
            } else if let Some(certificate) = self.certificate(object, &path, name) {
                certificates.insert(name.clone(), Arc::new(certificate));
                names.push(name.clone());
            }
        }
        for (index, files) in spec.files.iter().enumerate() {
            let name = format!("file:{}", files.certificate);
            if let Some(certificate) = self.certificate_files(object, &path.key("files").index(index), files) {
                certificates.insert(name.clone(), Arc::new(certificate));
                names.push(name);
            }
        }
        (names, is_named)
    }

    fn auth(&mut self, object: &Object, spec: &MailListenerSpec, tls: TlsMode) -> Auth {
        let auth = match &spec.auth {
            Some(auth) => Auth {
                offered: auth.required || auth.optional,
                required: auth.required,
                without_tls: auth.allow_without_tls,
            },
            None => {
                let required = spec.protocol == ListenerProtocol::Submission;
                Auth { offered: required, required, without_tls: false }
            }
        };
        if auth.offered && tls == TlsMode::Off && !auth.without_tls {
            let what = "AUTH is offered, but TLS is off: nobody could log in";
            let remedy = "add tls with mode required, or auth.allowWithoutTls: true where the network is safe";
            self.fault(object, &spec_path("auth"), what, remedy);
        }
        auth
    }

    fn identity(&mut self, object: &Object, spec: &MailListenerSpec) -> Identity {
        let identity = &spec.client_identity;
        let path = spec_path("clientIdentity");
        match identity.mode {
            ClientIdentityMode::ProxyProtocol => {
                if identity.trusted.is_empty() {
                    let what = "proxyProtocol is on, but no proxy is trusted";
                    self.fault(object, &path, what, "list the addresses of the proxies in trusted");
                }
                Identity::Proxy(identity.trusted.iter().map(|network| network.0).collect())
            }
            mode => {
                if !identity.trusted.is_empty() {
                    let what = "proxies are trusted, but the mode is not proxyProtocol";
                    self.fault(object, &path.key("trusted"), what, "set mode: proxyProtocol, or remove trusted");
                }
                if mode == ClientIdentityMode::Unknown { Identity::Unknown } else { Identity::Direct }
            }
        }
    }

    fn check_limits(&mut self, object: &Object, limits: &ListenerLimits) {
        for (field, size, least) in [
            ("commandLineMax", limits.command_line_max.0, COMMAND_LINE_MIN),
            ("textLineMax", limits.text_line_max.0, TEXT_LINE_MIN),
            ("headerMax", limits.header_max.0, TEXT_LINE_MIN),
            ("messageMax", limits.message_max.0, TEXT_LINE_MIN),
        ] {
            if size < least {
                let what = format!("{field} is {size} bytes: no server works with less than {least}");
                self.fault(object, &spec_path("limits").key(field), what, "write a larger size");
            }
        }
        for (field, span) in [
            ("commandTimeout", limits.command_timeout.0),
            ("dataTimeout", limits.data_timeout.0),
            ("handshakeTimeout", limits.handshake_timeout.0),
            ("proxyTimeout", limits.proxy_timeout.0),
            ("sessionTimeout", limits.session_timeout.0),
        ] {
            if span.is_zero() {
                let what = format!("{field} is 0s: every session would end at once");
                self.fault(object, &spec_path("limits").key(field), what, "write a longer time");
            }
        }
    }

    pub(super) fn check_tag(&mut self, object: &Object, path: &FieldPath, tag: &str) {
        let fits = !tag.is_empty() && tag.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !fits {
            let what = format!("{tag:?} is no tag");
            self.fault(object, path, what, "write letters, digits, -, _ and . only");
        }
    }
}

fn listener_rules(spec: &MailListenerSpec, listener: &Listener, policy: Arc<Policy>) -> ListenerRules {
    let is_submission = spec.protocol == ListenerProtocol::Submission;
    ListenerRules {
        tags: listener.tags.clone(),
        policy,
        loopback_is_local: listener.loopback_is_local,
        auth_required: listener.auth.required,
        hold_to_own_addresses: spec.hold_to_own_addresses.unwrap_or(is_submission),
    }
}

/// Programs of this host: the kernel says who they are, and they write in the name of whom they serve.
fn sendmail_rules(policy: Arc<Policy>) -> ListenerRules {
    ListenerRules {
        tags: Vec::new(),
        policy,
        loopback_is_local: true,
        auth_required: false,
        hold_to_own_addresses: false,
    }
}

fn limits(spec: &ListenerLimits) -> Limits {
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    Limits {
        sessions_max: spec.sessions_max as usize,
        sessions_per_source_max: spec.sessions_per_source_max as usize,
        command_line_max_bytes: bytes(spec.command_line_max.0),
        text_line_max_bytes: bytes(spec.text_line_max.0),
        header_max_bytes: bytes(spec.header_max.0),
        header_fields_max: spec.header_fields_max as usize,
        received_fields_max: spec.received_fields_max as usize,
        recipients_max: spec.recipients_max as usize,
        message_max_bytes: spec.message_max.0,
        messages_max: spec.messages_max as usize,
        commands_max: spec.commands_max as usize,
        errors_max: spec.errors_max as usize,
        auth_failures_max: spec.auth_failures_max as usize,
        command_timeout: spec.command_timeout.0,
        data_timeout: spec.data_timeout.0,
        handshake_timeout: spec.handshake_timeout.0,
        proxy_timeout: spec.proxy_timeout.0,
        session_timeout: spec.session_timeout.0,
    }
}

/// Whether the system would refuse to listen on both.
fn overlap(one: &Endpoint, other: &Endpoint) -> bool {
    match (one, other) {
        (Endpoint::Unix(one), Endpoint::Unix(other)) => one == other,
        (
            Endpoint::Tcp { addresses: one, port: one_port, v6_only: one_v6 },
            Endpoint::Tcp { addresses: other, port: other_port, v6_only: other_v6 },
        ) => {
            // Port 0 is another one each time.
            let same_port = one_port == other_port && *one_port != 0;
            let covers = |wide: &IpAddr, v6_only: bool, narrow: &IpAddr| {
                wide == narrow
                    || wide.is_unspecified() && (wide.is_ipv4() == narrow.is_ipv4() || wide.is_ipv6() && !v6_only)
            };
            same_port && one.iter().any(|a| other.iter().any(|b| covers(a, *one_v6, b) || covers(b, *other_v6, a)))
        }
        _ => false,
    }
}
