//! Handshakes and reloads over real sockets, with certificates made for each test.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    SerialNumber,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::parse_x509_certificate;

use super::*;
use crate::config::parse;
use crate::tasks;

/// A folder with an authority and what it issued.
struct Files {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    /// With a first certificate of the server, and its settings.
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let files = Self { folder: tempfile::tempdir().unwrap(), authority };
        fs::write(files.path("ca.pem"), files.authority.pem()).unwrap();
        files.issue("server", 1);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue(&self, name: &str, serial: u8) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn config(&self, more: &str) -> config::Config {
        let text =
            format!("version = 1\n[tls]\ncertificate = 'server.pem'\nkey = 'server.key'\n{more}\n");
        parse(&text, self.folder.path()).unwrap()
    }

    fn tls(&self, more: &str) -> Tls {
        Tls::load(&self.config(more).tls.unwrap()).unwrap()
    }

    fn problems(&self, more: &str) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        let found = check(&self.config(more));
        found.iter().map(|problem| problem.to_string().replace(&folder, "")).collect()
    }

    /// A caller that trusts the authority and shows the certificate of this name.
    fn caller(&self, shows: Option<&str>, protocol: &[u8]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shows {
            None => config.with_no_client_auth(),
            Some(name) => {
                let pem = self.path(&format!("{name}.pem"));
                let key = self.path(&format!("{name}.key"));
                let chain = vec![CertificateDer::from_pem_file(pem).unwrap()];
                config
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

type Shaken = Result<(Stream, Option<Arc<Certificate>>), Failure>;

/// Both ends of a handshake; what the caller sees of a refusal comes after its own side is done.
async fn meet(
    tls: &Tls,
    door: Door,
    caller: TlsConnector,
) -> (Shaken, Option<TlsStream<TcpStream>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = async {
        let (stream, _) = listener.accept().await.unwrap();
        tls.handshake(door, stream).await
    };
    let called = async {
        let stream = TcpStream::connect(address).await.unwrap();
        caller.connect(ServerName::try_from("localhost").unwrap(), stream).await.ok()
    };
    tokio::join!(served, called)
}

fn serial(stream: &TlsStream<TcpStream>) -> String {
    let shown = &stream.get_ref().1.peer_certificates().unwrap()[0];
    let (_, certificate) = parse_x509_certificate(shown).unwrap();
    certificate.raw_serial_as_string()
}

#[test]
fn wrong_files_are_named_by_their_key_and_path() {
    let files = Files::new();
    assert_eq!(files.problems(""), Vec::<String>::new());
    let own_key = fs::read(files.path("server.key")).unwrap();
    files.issue("other", 9);
    fs::copy(files.path("other.key"), files.path("server.key")).unwrap();
    assert_eq!(files.problems(""), ["tls.key: server.key is not the key of tls.certificate"]);
    fs::write(files.path("server.key"), "-----BEGIN secret").unwrap();
    assert_eq!(files.problems(""), ["tls.key: server.key holds no private key in PEM"]);
    fs::write(files.path("server.key"), own_key).unwrap();
    fs::write(files.path("empty.pem"), "").unwrap();
    assert_eq!(
        files.problems("client_ca = 'empty.pem'"),
        ["tls.client_ca: empty.pem holds no certificate in PEM"]
    );
    fs::remove_file(files.path("server.pem")).unwrap();
    assert_eq!(
        files.problems("client_ca = 'nowhere.pem'"),
        [
            "tls.certificate: cannot read server.pem: No such file or directory (os error 2)",
            "tls.client_ca: cannot read nowhere.pem: No such file or directory (os error 2)",
        ]
    );
}

#[tokio::test]
async fn each_door_speaks_its_own_protocol() {
    let files = Files::new();
    let tls = files.tls("");
    for (door, own, other) in [(Door::Http, "http/1.1", "h2"), (Door::Grpc, "h2", "http/1.1")] {
        let (served, called) = meet(&tls, door, files.caller(None, own.as_bytes())).await;
        assert_eq!(served.unwrap().1, None);
        assert_eq!(called.unwrap().get_ref().1.alpn_protocol(), Some(own.as_bytes()));
        let (served, _) = meet(&tls, door, files.caller(None, other.as_bytes())).await;
        assert!(matches!(served, Err(Failure::Refused(_))), "{served:?}");
    }
}

#[tokio::test]
async fn a_verified_certificate_says_who_calls() {
    let files = Files::new();
    files.issue("caller", 7);
    for auth in ["required", "optional"] {
        let tls = files.tls(&format!("client_ca = 'ca.pem'\nclient_auth = '{auth}'"));
        let caller = files.caller(Some("caller"), b"h2");
        let (served, _) = meet(&tls, Door::Grpc, caller).await;
        let shown = served.unwrap().1.expect("a certificate was shown");
        assert_eq!(shown.subject, "CN=caller");
        assert_eq!(shown.names, ["localhost"]);
    }
}

#[tokio::test]
async fn callers_without_a_certificate_are_refused_where_one_is_required() {
    let files = Files::new();
    let required = files.tls("client_ca = 'ca.pem'");
    let (served, _) = meet(&required, Door::Http, files.caller(None, b"http/1.1")).await;
    assert!(matches!(served, Err(Failure::Refused(_))), "{served:?}");
    let optional = files.tls("client_ca = 'ca.pem'\nclient_auth = 'optional'");
    let (served, _) = meet(&optional, Door::Http, files.caller(None, b"http/1.1")).await;
    assert_eq!(served.unwrap().1, None);
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_refused_even_where_none_is_required() {
    let (files, others) = (Files::new(), Files::new());
    others.issue("caller", 7);
    fs::copy(others.path("caller.pem"), files.path("stranger.pem")).unwrap();
    fs::copy(others.path("caller.key"), files.path("stranger.key")).unwrap();
    for auth in ["required", "optional"] {
        let tls = files.tls(&format!("client_ca = 'ca.pem'\nclient_auth = '{auth}'"));
        let caller = files.caller(Some("stranger"), b"h2");
        let (served, _) = meet(&tls, Door::Grpc, caller).await;
        assert!(matches!(served, Err(Failure::Refused(_))), "{auth}: {served:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_says_nothing_is_given_up() {
    let files = Files::new();
    let tls = files.tls("handshake_timeout = '3s'");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let begun = tokio::time::Instant::now();
    let served = tls.handshake(Door::Http, stream).await;
    assert!(matches!(served, Err(Failure::Timeout)), "{served:?}");
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
}

#[tokio::test]
async fn a_greeting_in_pieces_is_read_once_and_in_full() {
    let files = Files::new();
    let tls = files.tls("");
    let (served, called) = meet(&tls, Door::Grpc, files.caller(None, b"h2")).await;
    let (mut served, mut called) = (served.unwrap().0, called.unwrap());
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n and more";
    for piece in greeting.chunks(7) {
        called.write_all(piece).await.unwrap();
        called.flush().await.unwrap();
    }
    served.greeting().await.unwrap();
    let mut read = vec![0; greeting.len()];
    served.read_exact(&mut read).await.unwrap();
    assert_eq!(read, greeting);
}

#[tokio::test]
async fn new_certificates_serve_new_connections_and_old_ones_live_on() {
    let files = Files::new();
    let tls = files.tls("");
    let caller = files.caller(None, b"h2");
    let (served, called) = meet(&tls, Door::Grpc, caller.clone()).await;
    let (mut served, mut called) = (served.unwrap().0, called.unwrap());
    assert_eq!(serial(&called), "01");
    files.issue("server", 2);
    tls.reload().await;
    let (_, newer) = meet(&tls, Door::Grpc, caller).await;
    assert_eq!(serial(&newer.unwrap()), "02");
    called.write_all(b"still here").await.unwrap();
    let mut read = [0; 10];
    served.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"still here");
}

#[tokio::test]
async fn broken_certificates_leave_the_old_ones_serving() {
    let files = Files::new();
    let tls = files.tls("");
    let caller = files.caller(None, b"h2");
    files.issue("other", 2);
    fs::copy(files.path("other.pem"), files.path("server.pem")).unwrap();
    tls.reload().await;
    let (_, called) = meet(&tls, Door::Grpc, caller.clone()).await;
    assert_eq!(serial(&called.unwrap()), "01");
    fs::copy(files.path("other.key"), files.path("server.key")).unwrap();
    tls.reload().await;
    let (_, called) = meet(&tls, Door::Grpc, caller).await;
    assert_eq!(serial(&called.unwrap()), "02");
}

/// As Kubernetes mounts secrets: files are links into a folder that is itself a link, and that one
/// is replaced.
fn point(files: &Files, to: &str) {
    let (new, link) = (files.path("data.new"), files.path("data"));
    std::os::unix::fs::symlink(to, &new).unwrap();
    fs::rename(new, link).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_swapped_link_is_noticed_and_a_half_written_pair_is_not_tried() {
    let files = Files::new();
    files.issue("first/server", 1);
    files.issue("second/server", 2);
    point(&files, "first");
    for name in ["server.pem", "server.key"] {
        fs::remove_file(files.path(name)).unwrap();
        std::os::unix::fs::symlink(Path::new("data").join(name), files.path(name)).unwrap();
    }
    let tls = Arc::new(files.tls(""));
    let mut generations = tls.current.subscribe();
    let followed = tls.clone();
    let follower = tasks::spawn("follow", async move { match followed.follow().await {} });
    point(&files, "second");
    generations.changed().await.unwrap();
    let (_, called) = meet(&tls, Door::Grpc, files.caller(None, b"h2")).await;
    assert_eq!(serial(&called.unwrap()), "02");
    // Half of a pair stays for less time than it takes to be believed.
    let before = fs::read(files.path("data/server.pem")).unwrap();
    let tried = |tls: Arc<Tls>| async move {
        tls.tried.lock().await.as_ref().is_ok_and(|files| files.is_certificate(b"half"))
    };
    fs::write(files.path("data/server.pem"), "half").unwrap();
    tokio::time::sleep(Duration::from_millis(5200)).await;
    fs::write(files.path("data/server.pem"), before).unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!tried(tls.clone()).await);
    fs::write(files.path("data/server.pem"), "half").unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(tried(tls.clone()).await, "what stays is tried");
    follower.abort();
}
