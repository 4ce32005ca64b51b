use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use resources::Snapshot;
use resources::snapshot::{Certificate, ClientCertificates, Listener, TlsMode, TlsVersion};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use types::{Domain, Timestamp};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Folder of the certificate that we make, below the state folder.
const TLS_FOLDER: &str = "tls";
/// Name of that certificate in metrics and files.
const SELF_SIGNED: &str = "self-signed";
/// How long it lives.
const SELF_SIGNED_YEARS: i32 = 10;
/// What is left of its life when it is replaced.
const RENEW_BEFORE_MS: i64 = 30 * 24 * 3600 * 1000;
const YEAR_MS: i64 = 31_556_952_000;

/// Why a listener has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A Secret that the snapshot does not hold.
    #[error("secret {0} is not there: add it, or use selfSigned")]
    NoSecret(String),
    /// A Secret whose certificate or key cannot be used.
    #[error("secret {secret}: {cause}: replace tls.crt and tls.key")]
    Secret {
        /// Its name.
        secret: String,
        /// What is wrong.
        cause: CertificateFault,
    },
    /// Neither a Secret nor the certificate of our own is named.
    #[error("no certificate: name a secret, or use selfSigned")]
    NoCertificate,
    /// Authorities of clients.
    #[error("client certificates: {0}: correct the authorities")]
    Authorities(String),
    /// The certificate that we make.
    #[error("self-signed certificate in {path}: {cause}")]
    SelfSigned {
        /// Its folder.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The TLS library refuses.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// What is wrong with a certificate or its key.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFault {
    /// Not PEM.
    #[error("not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// No certificate in the PEM.
    #[error("holds no certificate")]
    Empty,
    /// Not X.509.
    #[error("not an X.509 certificate")]
    X509,
    /// Key and certificate do not belong together, or are not supported.
    #[error("{0}")]
    Key(#[from] rustls::Error),
}

/// The certificates of this process; keeps what a snapshot does not change.
pub(crate) struct Certificates {
    folder: PathBuf,
    provider: Arc<CryptoProvider>,
    /// One for all listeners, so that resumption survives a reload.
    ticketer: Option<Arc<dyn ProducesTickets>>,
    secrets: BTreeMap<String, (Arc<Certificate>, Arc<Loaded>)>,
    own: BTreeMap<Domain, Arc<Loaded>>,
}

/// A certificate that can be served.
#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    /// In lower case, wildcards as `*.example.org`.
    names: Vec<String>,
    expires: Timestamp,
}

impl Certificates {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self {
            folder: state_dir.join(TLS_FOLDER),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            ticketer: rustls::crypto::aws_lc_rs::Ticketer::new().ok(),
            secrets: BTreeMap::new(),
            own: BTreeMap::new(),
        }
    }

    /// What a listener's handshakes need; `None` where it has no TLS.
    pub(crate) fn server_config(
        &mut self,
        listener: &Listener,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Option<Arc<ServerConfig>>, TlsFault> {
        let tls = &listener.tls;
        if tls.mode == TlsMode::Off {
            return Ok(None);
        }
        let mut served = Vec::new();
        for secret in &tls.certificates {
            served.push(self.secret(secret, snapshot)?);
        }
        if tls.self_signed {
            served.push(self.self_signed(&listener.hostname, now)?);
        }
        let fallback = match (tls.self_signed, served.as_slice()) {
            (_, []) => return Err(TlsFault::NoCertificate),
            (true, [.., last]) => Arc::clone(&last.key),
            (false, [first, ..]) => Arc::clone(&first.key),
        };
        let versions: &[_] = match tls.version_min {
            TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&self.provider)).with_protocol_versions(versions)?;
        let builder = match tls.client_certificates {
            ClientCertificates::Off => builder.with_no_client_auth(),
            wanted => builder.with_client_cert_verifier(self.client_verifier(wanted, listener)?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(BySni { served, fallback }));
        if let Some(ticketer) = &self.ticketer {
            config.ticketer = Arc::clone(ticketer);
        }
        Ok(Some(Arc::new(config)))
    }

    /// Forgets what the snapshot no longer holds, and tells when the rest expires.
    pub(crate) fn settle(&mut self, snapshot: &Snapshot) {
        self.secrets.retain(|name, _| snapshot.certificates.contains_key(name));
        let own = self.own.values().map(|loaded| (SELF_SIGNED, loaded));
        let secrets = self.secrets.iter().map(|(name, (_, loaded))| (name.as_str(), loaded));
        for (name, loaded) in secrets.chain(own) {
            metrics::gauge!("posthouse_certificate_expiry_timestamp_seconds", "secret" => name.to_owned())
                .set(loaded.expires.unix_ms() as f64 / 1000.0);
        }
    }

    fn secret(&mut self, name: &str, snapshot: &Snapshot) -> Result<Arc<Loaded>, TlsFault> {
        let certificate = snapshot.certificates.get(name).ok_or_else(|| TlsFault::NoSecret(name.to_owned()))?;
        if let Some((known, loaded)) = self.secrets.get(name)
            && known == certificate
        {
            return Ok(Arc::clone(loaded));
        }
        let loaded = load(&certificate.chain_pem, &certificate.key_pem, &self.provider)
            .map_err(|cause| TlsFault::Secret { secret: name.to_owned(), cause })?;
        let loaded = Arc::new(loaded);
        self.secrets.insert(name.to_owned(), (Arc::clone(certificate), Arc::clone(&loaded)));
        Ok(loaded)
    }

    fn client_verifier(
        &self,
        wanted: ClientCertificates,
        listener: &Listener,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsFault> {
        let fault = |cause: String| TlsFault::Authorities(cause);
        let pem = listener.tls.client_authorities.as_deref().ok_or_else(|| fault("none are named".to_owned()))?;
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(pem) {
            let authority = authority.map_err(|error| fault(error.to_string()))?;
            roots.add(authority).map_err(|error| fault(error.to_string()))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        let builder = match wanted {
            ClientCertificates::Optional | ClientCertificates::Off => builder.allow_unauthenticated(),
            ClientCertificates::Required => builder,
        };
        builder.build().map_err(|error| fault(error.to_string()))
    }

    /// The certificate of our own for a host name: the one on disk while it fits, else a new one.
    fn self_signed(&mut self, hostname: &Domain, now: Timestamp) -> Result<Arc<Loaded>, TlsFault> {
        let lasts = |loaded: &Loaded| loaded.expires.unix_ms() - now.unix_ms() > RENEW_BEFORE_MS;
        if let Some(loaded) = self.own.get(hostname).filter(|loaded| lasts(loaded)) {
            return Ok(Arc::clone(loaded));
        }
        let name = format!("{SELF_SIGNED}-{}", hostname.as_str().replace(['[', ']', ':'], "_"));
        let chain_path = self.folder.join(format!("{name}.crt"));
        let key_path = self.folder.join(format!("{name}.key"));
        let on_disk = std::fs::read(&chain_path).ok().zip(std::fs::read(&key_path).ok());
        let on_disk = on_disk.and_then(|(chain, key)| load(&chain, &key, &self.provider).ok()).filter(lasts);
        let fault = |cause: String| TlsFault::SelfSigned { path: self.folder.clone(), cause };
        let loaded = match on_disk {
            Some(loaded) => loaded,
            None => {
                let (chain, key) = make(hostname, now).map_err(|error| fault(error.to_string()))?;
                private_folder(&self.folder).map_err(|error| fault(error.to_string()))?;
                replace(&key_path, key.as_bytes(), 0o600).map_err(|error| fault(error.to_string()))?;
                replace(&chain_path, chain.as_bytes(), 0o644).map_err(|error| fault(error.to_string()))?;
                tracing::info!(path = %chain_path.display(), "made a self-signed certificate");
                load(chain.as_bytes(), key.as_bytes(), &self.provider).map_err(|error| fault(error.to_string()))?
            }
        };
        let loaded = Arc::new(loaded);
        self.own.insert(hostname.clone(), Arc::clone(&loaded));
        Ok(loaded)
    }
}

fn load(chain_pem: &[u8], key_pem: &[u8], provider: &CryptoProvider) -> Result<Loaded, CertificateFault> {
    let chain = CertificateDer::pem_slice_iter(chain_pem).collect::<Result<Vec<_>, _>>()?;
    let leaf = chain.first().ok_or(CertificateFault::Empty)?;
    let (names, expires) = read_leaf(leaf)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem)?;
    let key = CertifiedKey::from_der(chain, key, provider)?;
    Ok(Loaded { key: Arc::new(key), names, expires })
}

/// Names and end of life of a certificate.
fn read_leaf(leaf: &[u8]) -> Result<(Vec<String>, Timestamp), CertificateFault> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| CertificateFault::X509)?;
    let mut names = Vec::new();
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push(name.to_ascii_lowercase());
            }
        }
    }
    Ok((names, Timestamp::from_unix_ms(certificate.validity().not_after.timestamp().saturating_mul(1000))))
}

/// The subject of a client's certificate, for policy.
pub(crate) fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.subject().to_string())
}

/// Keys are nobody's business but ours.
fn private_folder(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn make(hostname: &Domain, now: Timestamp) -> Result<(String, String), rcgen::Error> {
    let name = hostname.literal().map_or_else(|| hostname.as_str().to_owned(), |address| address.to_string());
    let mut parameters = rcgen::CertificateParams::new(vec![name.clone()])?;
    let year = 1970 + i32::try_from(now.unix_ms() / YEAR_MS).unwrap_or(0);
    // A clock that is behind must not make a certificate that is not valid yet.
    parameters.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(year + SELF_SIGNED_YEARS, 1, 1);
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name.chars().take(64).collect::<String>());
    let key = rcgen::KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Puts a file in place in one step, so that a crash leaves the old one or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}

/// Serves the certificate that the client asks for by name.
#[derive(Debug)]
struct BySni {
    served: Vec<Arc<Loaded>>,
    fallback: Arc<CertifiedKey>,
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let key = hello.server_name().and_then(|name| self.named(name)).unwrap_or(&self.fallback);
        Some(Arc::clone(key))
    }
}

impl BySni {
    fn named(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let exact = self.served.iter().find(|loaded| loaded.names.contains(&name));
        let wildcard = || {
            self.served.iter().find(|loaded| {
                loaded.names.iter().any(|known| known.strip_prefix("*.").is_some_and(|known| Some(known) == parent))
            })
        };
        exact.or_else(wildcard).map(|loaded| &loaded.key)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn loaded(names: &[&str]) -> Arc<Loaded> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Arc::new(load(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes(), &provider).unwrap())
    }

    #[test]
    fn a_certificate_is_chosen_by_name_then_by_wildcard() {
        let served = vec![loaded(&["a.example.org"]), loaded(&["*.example.org"]), loaded(&["example.net"])];
        let by_sni = BySni { fallback: Arc::clone(&served[0].key), served };
        let cases = [
            ("a.example.org", Some(0)),
            ("A.EXAMPLE.ORG", Some(0)),
            ("b.example.org", Some(1)),
            ("c.b.example.org", None),
            ("example.org", None),
            ("example.net", Some(2)),
        ];
        for (name, expected) in cases {
            let found = by_sni.named(name);
            let expected = expected.map(|i: usize| &by_sni.served[i].key);
            assert!(found.map(Arc::as_ptr) == expected.map(Arc::as_ptr), "{name}");
        }
    }

    #[test]
    fn our_own_certificate_is_made_once_with_a_private_key_file() {
        let dir = tempfile::tempdir().unwrap();
        let hostname = Domain::parse("mx1.example.org").unwrap();
        let now = Timestamp::from_unix_ms(1_795_373_632_000);
        let first = Certificates::new(dir.path()).self_signed(&hostname, now).unwrap();
        let again = Certificates::new(dir.path()).self_signed(&hostname, now).unwrap();
        assert_eq!(first.key.cert, again.key.cert);
        assert_eq!(first.names, ["mx1.example.org"]);
        let key = dir.path().join("tls/self-signed-mx1.example.org.key");
        assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        let late = now.plus(std::time::Duration::from_secs(3600 * 24 * 365 * 10));
        let renewed = Certificates::new(dir.path()).self_signed(&hostname, late).unwrap();
        assert_ne!(first.key.cert, renewed.key.cert);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, two) = (
            rcgen::generate_simple_self_signed(vec!["a.b".to_owned()]).unwrap(),
            rcgen::generate_simple_self_signed(vec!["a.b".to_owned()]).unwrap(),
        );
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let (chain, key) = (one.cert.pem(), two.signing_key.serialize_pem());
        assert!(matches!(load(chain.as_bytes(), key.as_bytes(), &provider), Err(CertificateFault::Key(_))));
        assert!(matches!(load(b"", key.as_bytes(), &provider), Err(CertificateFault::Empty)));
    }
}
