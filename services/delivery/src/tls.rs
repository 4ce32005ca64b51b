//! TLS of a client: which authorities are trusted, and what is verified.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use resources::snapshot::{ClientTls, Verify};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Configurations with authorities of their own that are remembered; more are built again and again.
const REMEMBERED_MAX: usize = 64;

/// Client configurations, made once each.
#[derive(Default)]
pub(crate) struct TlsConfigs {
    unverified: OnceLock<Arc<ClientConfig>>,
    system: OnceLock<Arc<ClientConfig>>,
    /// By the PEM that they were made from.
    own: Mutex<Vec<Own>>,
}

type Own = (Arc<[u8]>, Arc<ClientConfig>);

/// No configuration can be made: trouble of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFault {
    #[error("no TLS configuration can be made: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("the authorities of the transport are not PEM certificates: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
}

impl TlsConfigs {
    /// For a session; `verify` may be weaker than what the transport says where TLS is opportunistic.
    pub(crate) fn get(&self, tls: &ClientTls, verify: Verify) -> Result<Arc<ClientConfig>, TlsFault> {
        match (verify, &tls.authorities) {
            (Verify::None, _) => remember(&self.unverified, unverified),
            (Verify::Full, None) => remember(&self.system, system),
            (Verify::Full, Some(pem)) => {
                let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, config)) = own.iter().find(|(known, _)| Arc::ptr_eq(known, pem) || known == pem) {
                    return Ok(Arc::clone(config));
                }
                let config = verified(from_pem(pem)?)?;
                if own.len() >= REMEMBERED_MAX {
                    own.clear();
                }
                own.push((Arc::clone(pem), Arc::clone(&config)));
                Ok(config)
            }
        }
    }
}

type Made = Result<Arc<ClientConfig>, TlsFault>;

fn remember(cell: &OnceLock<Arc<ClientConfig>>, make: fn() -> Made) -> Made {
    if let Some(config) = cell.get() {
        return Ok(Arc::clone(config));
    }
    let config = make()?;
    Ok(Arc::clone(cell.get_or_init(|| config)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn system() -> Made {
    let mut roots = RootCertStore::empty();
    // A certificate that cannot be read is one authority less: what it signed is not trusted.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    verified(roots)
}

fn from_pem(pem: &[u8]) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

fn verified(roots: RootCertStore) -> Made {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn unverified() -> Made {
    let provider = provider();
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

/// Takes every certificate: such TLS hides from listeners only, which is all that RFC 3207 promises between strangers.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
