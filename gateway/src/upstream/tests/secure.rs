//! TLS to endpoints, with certificates made for each test.

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::UpstreamTls;

struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { folder: tempfile::tempdir().unwrap(), issuer };
        fs::write(authority.path("ca.pem"), authority.issuer.pem()).unwrap();
        authority.issue("caller");
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a certificate and its key.
    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        (certificate, key)
    }

    /// A server of this name that asks callers for certificates.
    fn server(&self, name: &str, protocol: UpstreamProtocol) -> TlsAcceptor {
        let (certificate, key) = self.issue(name);
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let alpn: &[u8] = if protocol == Grpc { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    fn tls(&self, server_name: Option<&str>) -> UpstreamTls {
        UpstreamTls {
            ca: Some(self.path("ca.pem")),
            certificate: Some(self.path("caller.pem")),
            key: Some(self.path("caller.key")),
            server_name: server_name.map(ToOwned::to_owned),
        }
    }
}

#[tokio::test]
async fn endpoints_and_gateway_know_each_other_by_their_certificates() {
    for protocol in [Http, Grpc] {
        let authority = Authority::new();
        for (name, server_name) in [("localhost", None), ("models.example", Some("models.example"))]
        {
            let acceptor = Some(authority.server(name, protocol));
            let fake = Fake::serve(protocol, Face::default(), "127.0.0.1:0", acceptor).await;
            let tls = Some(authority.tls(server_name));
            let (_upstreams, model) =
                double(&config::Upstream { tls, ..settings(protocol, &[&fake]) }).await;
            call(&model, 1.0, None).await.unwrap();
        }
    }
}

#[tokio::test]
async fn nobody_is_believed_without_the_right_certificate() {
    let (authority, strange) = (Authority::new(), Authority::new());
    for (tls, words) in [
        (strange.tls(None), "invalid peer certificate"),
        (authority.tls(Some("other.example")), "not valid for name"),
        (UpstreamTls { certificate: None, key: None, ..authority.tls(None) }, ""),
    ] {
        let acceptor = Some(authority.server("localhost", Http));
        let fake = Fake::serve(Http, Face::default(), "127.0.0.1:0", acceptor).await;
        let secure = config::Upstream { tls: Some(tls), ..settings(Http, &[&fake]) };
        let upstreams = Upstreams::start(&[secure], None).unwrap();
        let model = upstreams.get("fleet").unwrap().model("double", None);
        let endpoint = || upstreams.status()[0].endpoints[0].clone();
        until("it is not well", || endpoint().state == EndpointState::Unhealthy).await;
        let reason = endpoint().reason.unwrap();
        assert!(reason.contains(words), "{reason}");
        assert!(!model.is_ready());
        assert_eq!(fake.calls(), 0);
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_and_changed_ones_are_read_anew() {
    let authority = Authority::new();
    let with = |change: &dyn Fn(&mut UpstreamTls)| {
        let mut tls = authority.tls(None);
        change(&mut tls);
        let endpoints = vec!["localhost:1".to_owned()];
        config::Upstream { tls: Some(tls), ..config::Upstream::new("fleet", Http, endpoints) }
    };
    let found = |settings| {
        let problems = Upstreams::start(&[settings], None).unwrap_err();
        problems.iter().map(|problem| problem.path.clone()).collect::<Vec<_>>().join(" ")
    };
    let nowhere = || Some(authority.path("nowhere"));
    assert_eq!(found(with(&|tls| tls.ca = nowhere())), "upstream[0].tls.ca");
    let key_as_ca = || Some(authority.path("caller.key"));
    assert_eq!(found(with(&|tls| tls.ca = key_as_ca())), "upstream[0].tls.ca");
    assert_eq!(found(with(&|tls| tls.key = None)), "upstream[0].tls.key");
    assert_eq!(found(with(&|tls| tls.certificate = None)), "upstream[0].tls.certificate");
    let spaces = || Some("no name".to_owned());
    assert_eq!(found(with(&|tls| tls.server_name = spaces())), "upstream[0].tls.server_name");
    let settings = [with(&|_| {})];
    let first = Upstreams::start(&settings, None).unwrap();
    let same = Upstreams::start(&settings, Some(&first)).unwrap();
    assert!(Arc::ptr_eq(first.get("fleet").unwrap(), same.get("fleet").unwrap()));
    authority.issue("caller");
    let renewed = Upstreams::start(&settings, Some(&same)).unwrap();
    assert!(!Arc::ptr_eq(first.get("fleet").unwrap(), renewed.get("fleet").unwrap()));
}
