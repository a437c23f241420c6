//! From PEM files to what rustls serves with.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{Error, RootCertStore, ServerConfig};
use x509_parser::parse_x509_certificate;

use super::subject;
use crate::config::{ClientAuth, Problem, Tls, TlsVersion};

/// Longest file that is read.
const LONGEST: u64 = 1 << 20;

/// The contents of the files.
#[derive(PartialEq, Eq)]
pub(super) struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// What one reading of the files gives to handshakes.
#[derive(Debug)]
pub(super) struct Generation {
    /// For the doors that speak HTTP/1.1.
    pub(super) http1: Arc<ServerConfig>,
    /// For the gRPC door.
    pub(super) http2: Arc<ServerConfig>,
    pub(super) subject: String,
    /// End of the certificate's validity, in seconds since 1970.
    pub(super) not_after: i64,
    pub(super) not_after_text: String,
    not_before: i64,
}

impl Files {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// Each that cannot be read, with its key and path.
    pub(super) fn read(settings: &Tls) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut file = |key: &str, path: &Path| {
            read(path).unwrap_or_else(|error| {
                let text = format!("cannot read {}: {error}", path.display());
                problems.push(Problem::new(format!("tls.{key}"), text));
                vec![]
            })
        };
        let files = Self {
            certificate: file("certificate", &settings.certificate),
            key: file("key", &settings.key),
            client_ca: settings.client_ca.as_ref().map(|path| file("client_ca", path)),
        };
        if problems.is_empty() { Ok(files) } else { Err(problems) }
    }
}

#[cfg(test)]
impl Files {
    /// Whether this is what the certificate's file held.
    pub(super) fn is_certificate(&self, content: &[u8]) -> bool {
        self.certificate == content
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 1 MiB"));
    }
    Ok(content)
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One of them is secret.
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

impl Generation {
    /// Checks certificate, key and authorities against each other.
    ///
    /// # Errors
    /// The first problem of each file, with its key and path.
    pub(super) fn build(files: &Files, settings: &Tls) -> Result<Self, Vec<Problem>> {
        let provider = Arc::new(default_provider());
        let pair = certified(files, settings, &provider);
        let verifier = match (settings.client_auth, &files.client_ca) {
            (ClientAuth::Off, _) | (_, None) => Ok(WebPkiClientVerifier::no_client_auth()),
            (auth, Some(pem)) => verifier(pem, auth, provider.clone())
                .map_err(|error| about("client_ca", settings.client_ca.as_deref(), &error)),
        };
        let (certified, verifier) = match (pair, verifier) {
            (Ok(pair), Ok(verifier)) => (pair, verifier),
            (pair, verifier) => return Err(pair.err().into_iter().chain(verifier.err()).collect()),
        };
        let chain = Some(settings.certificate.as_path());
        let unusable = |error: String| vec![about("certificate", chain, &error)];
        let validity = validity(&certified).map_err(unusable)?;
        let versions: &[_] = match settings.min_version {
            TlsVersion::V1_2 => &[&TLS13, &TLS12],
            TlsVersion::V1_3 => &[&TLS13],
        };
        let mut http1 = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| unusable(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut http2 = http1.clone();
        http2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            http1: Arc::new(http1),
            http2: Arc::new(http2),
            subject: validity.subject,
            not_after: validity.not_after,
            not_after_text: validity.not_after_text,
            not_before: validity.not_before,
        })
    }

    /// Whether the certificate is valid by this machine's clock.
    pub(super) fn is_valid_now(&self) -> bool {
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        i64::try_from(now).is_ok_and(|now| (self.not_before..=self.not_after).contains(&now))
    }
}

/// A problem with the file of a key. Never repeats what is in the file: it may be the wrong one.
fn about(key: &str, path: Option<&Path>, text: &str) -> Problem {
    let path = path.unwrap_or(Path::new("")).display();
    Problem::new(format!("tls.{key}"), format!("{path} {text}"))
}

/// The chain with its key.
fn certified(
    files: &Files,
    settings: &Tls,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Problem> {
    let chain = certificates(&files.certificate)
        .map_err(|error| about("certificate", Some(&settings.certificate), &error))?;
    let key_problem = |text| about("key", Some(&settings.key), text);
    let key = PrivateKeyDer::from_pem_slice(&files.key)
        .map_err(|_| key_problem("holds no private key in PEM"))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(_) => key_problem("is not the key of tls.certificate"),
        Error::InvalidCertificate(_) => {
            about("certificate", Some(&settings.certificate), "holds no valid certificate")
        }
        _ => key_problem("holds a key of a kind that cannot be used"),
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err("holds no certificate in PEM".to_owned()),
    }
}

fn verifier(
    pem: &[u8],
    auth: ClientAuth,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| "holds no valid certificate".to_owned())?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match auth {
        ClientAuth::Optional => builder.allow_unauthenticated(),
        ClientAuth::Off | ClientAuth::Required => builder,
    };
    builder.build().map_err(|error| format!("cannot be used: {error}"))
}

struct Validity {
    subject: String,
    not_before: i64,
    not_after: i64,
    not_after_text: String,
}

fn validity(certified: &CertifiedKey) -> Result<Validity, String> {
    let unreadable = |_| "holds no valid certificate".to_owned();
    let own = certified.end_entity_cert().map_err(|_| "holds no certificate".to_owned())?;
    let (_, own) = parse_x509_certificate(own).map_err(unreadable)?;
    let validity = own.validity();
    Ok(Validity {
        subject: subject::distinguished_name(own.subject()),
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
        not_after_text: validity.not_after.to_string(),
    })
}
