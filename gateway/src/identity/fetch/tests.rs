//! Fetching from sites that are good, bad, or none.

use std::sync::{Arc, Mutex};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tasks;

/// A web site of one page, on a free port of this machine.
pub(in crate::identity) struct Site {
    pub(in crate::identity) url: String,
    page: Arc<Mutex<String>>,
    requests: mpsc::Receiver<()>,
}

impl Site {
    pub(in crate::identity) async fn start(page: String) -> Self {
        Self::serve(answer(&page), None).await
    }

    /// Answers these bytes, over TLS if a certificate is given.
    async fn serve(answer: String, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let port = listener.local_addr().unwrap().port();
        let host = if tls.is_some() { "localhost" } else { "127.0.0.1" };
        let page = Arc::new(Mutex::new(answer));
        let (sender, requests) = mpsc::channel(1000);
        let served = page.clone();
        tasks::spawn("site", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let text = served.lock().unwrap().clone();
                match &tls {
                    None => exchange(stream, &text).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => exchange(stream, &text).await,
                        Err(_) => continue,
                    },
                }
                if sender.send(()).await.is_err() {
                    return;
                }
            }
        });
        Self { url: format!("{scheme}://{host}:{port}/keys?token=private"), page, requests }
    }

    /// What it says from now on.
    pub(in crate::identity) fn say(&self, page: String) {
        *self.page.lock().unwrap() = answer(&page);
    }

    /// Waits until it has been asked once more.
    pub(in crate::identity) async fn asked(&mut self) {
        self.requests.recv().await.expect("the site serves");
    }
}

fn answer(page: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len())
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    drop(stream.write_all(text.as_bytes()).await);
    drop(stream.shutdown().await);
}

#[tokio::test]
async fn a_page_is_fetched_as_it_is() {
    let site = Site::start("keys".to_owned()).await;
    let fetcher = Fetcher::new(&site.url, None).unwrap();
    assert_eq!(fetcher.fetch().await.unwrap(), "keys");
    assert!(fetcher.place().ends_with("/keys"), "{}", fetcher.place());
}

#[tokio::test]
async fn whatever_is_no_page_is_an_error() {
    let large = "x".repeat(LARGEST + 1);
    for (text, said) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(), "answered 404"),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n".into(),
            "answered 302",
        ),
        (answer(&large), "length limit"),
        (format!("HTTP/1.1 200 OK\r\n\r\n{large}"), "length limit"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nkeys".into(), ""),
        ("gibberish\r\n\r\n".into(), ""),
        (String::new(), ""),
    ] {
        let site = Site::serve(text.clone(), None).await;
        let error = Fetcher::new(&site.url, None).unwrap().fetch().await.unwrap_err();
        assert!(error.contains(said), "{error}");
        assert!(!error.contains("private"), "{error}");
    }
    // Port 9 is reserved for a service that nobody runs.
    let nobody = Fetcher::new("http://127.0.0.1:9/keys", None).unwrap();
    assert!(nobody.fetch().await.is_err());
}

#[tokio::test]
async fn a_site_is_believed_by_the_certificates_that_the_file_names_alone() {
    let made = || generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let CertifiedKey { cert, signing_key } = made();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let site = Site::serve(answer("keys"), Some(Arc::new(config).into())).await;
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours.pem"), folder.path().join("theirs.pem"));
    std::fs::write(&ours, cert.pem()).unwrap();
    std::fs::write(&theirs, made().cert.pem()).unwrap();
    let fetched = Fetcher::new(&site.url, Some(&ours)).unwrap().fetch().await;
    assert_eq!(fetched.unwrap(), "keys");
    let error = Fetcher::new(&site.url, Some(&theirs)).unwrap().fetch().await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
}

#[test]
fn certificates_that_cannot_be_read_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    for text in ["", "not a certificate"] {
        std::fs::write(&path, text).unwrap();
        let error = Fetcher::new("https://localhost/", Some(&path)).unwrap_err();
        assert!(error.contains("holds no certificate"), "{error}");
    }
    assert!(Fetcher::new("https://localhost/", Some(&folder.path().join("gone"))).is_err());
}
