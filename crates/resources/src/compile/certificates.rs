use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::Compiler;
use crate::kinds::{CertificateFiles, SecretKeyRef};
use crate::object::{Data, Kind, Object, Spec};
use crate::path::FieldPath;
use crate::snapshot::Certificate;

/// Keys of a Secret of type kubernetes.io/tls.
const CHAIN_KEY: &str = "tls.crt";
const KEY_KEY: &str = "tls.key";

impl Compiler<'_> {
    /// The certificate in a Secret. The outer `None`: there is no such Secret.
    pub(super) fn certificate(&mut self, from: &Object, path: &FieldPath, name: &str) -> Option<Certificate> {
        let object = self.reference(from, path, Kind::Secret, name)?;
        let Spec::Data(Data(values)) = &object.spec else { return None };
        let mut parts = Vec::new();
        for key in [CHAIN_KEY, KEY_KEY] {
            match values.get(key) {
                Some(pem) => parts.push(pem.clone()),
                None => {
                    let what = format!("Secret {name} has no key {key:?}");
                    let remedy =
                        format!("add it at {}: a certificate is tls.crt and tls.key, both PEM", object.place());
                    self.fault(from, path, what, remedy);
                }
            }
        }
        let [chain_pem, key_pem] = <[Vec<u8>; 2]>::try_from(parts).ok()?;
        let certificate = Certificate { chain_pem, key_pem };
        self.check_certificate(from, path, &format!("Secret {name}"), &certificate).then_some(certificate)
    }

    /// The certificate in files.
    pub(super) fn certificate_files(
        &mut self,
        from: &Object,
        path: &FieldPath,
        files: &CertificateFiles,
    ) -> Option<Certificate> {
        let chain = self.file(from, &path.key("certificate"), &files.certificate);
        let key = self.file(from, &path.key("key"), &files.key);
        let certificate = Certificate { chain_pem: chain?.to_vec(), key_pem: key?.to_vec() };
        self.check_certificate(from, path, &files.certificate, &certificate).then_some(certificate)
    }

    fn check_certificate(&mut self, from: &Object, path: &FieldPath, name: &str, certificate: &Certificate) -> bool {
        let outcome = check_pair(certificate);
        if let Err((what, remedy)) = outcome {
            self.fault(from, path, format!("{name}: {what}"), remedy);
        }
        outcome.is_ok()
    }

    /// PEM of authorities, from a Secret or a file.
    pub(super) fn authorities(
        &mut self,
        from: &Object,
        path: &FieldPath,
        secret: Option<&SecretKeyRef>,
        file: Option<&String>,
    ) -> Option<Arc<[u8]>> {
        let (place, pem) = match (secret, file) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                let what = "authoritiesSecretRef and authoritiesFile are both given";
                self.fault(from, &path.key("authoritiesFile"), what, "keep one of them");
                return None;
            }
            (Some(secret), None) => {
                let place = path.key("authoritiesSecretRef");
                let pem = self.data(from, &place, Kind::Secret, &secret.name, &secret.key)?;
                (place, Arc::from(pem))
            }
            (None, Some(file)) => {
                let place = path.key("authoritiesFile");
                let pem = self.file(from, &place, file)?;
                (place, pem)
            }
        };
        let count = CertificateDer::pem_slice_iter(&pem).filter(Result::is_ok).count();
        if count == 0 {
            self.fault(
                from,
                &place,
                "there is no certificate in the authorities",
                "give PEM: -----BEGIN CERTIFICATE-----",
            );
            return None;
        }
        Some(pem)
    }
}

/// Whether a chain and a key are PEM and belong together.
fn check_pair(certificate: &Certificate) -> Result<(), (&'static str, &'static str)> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate.chain_pem).collect();
    let chain = chain.map_err(|_| ("the certificate is not PEM", "give PEM: -----BEGIN CERTIFICATE-----"))?;
    if chain.is_empty() {
        return Err(("there is no certificate in it", "give PEM: -----BEGIN CERTIFICATE-----, leaf first"));
    }
    let key = PrivateKeyDer::from_pem_slice(&certificate.key_pem).map_err(|_| {
        ("there is no private key in it", "give PEM: -----BEGIN PRIVATE KEY-----, without a pass phrase")
    })?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    match CertifiedKey::from_der(chain, key, &provider) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err((
            "the key does not belong to the certificate",
            "give the key that the certificate was made for, leaf first",
        )),
        Err(_) => {
            Err(("certificate or key cannot be used", "give an X.509 certificate and an RSA, ECDSA or Ed25519 key"))
        }
    }
}
