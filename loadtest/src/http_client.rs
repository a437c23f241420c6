//! One HTTP/1.1 connection that stays open: a caller's own, without a pool in between. It is
//! opened again when the server closed it between two calls.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::failure::Failure;
use crate::tasks;

/// How long an answer may take; loads of models included.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of one server.
#[derive(Debug)]
pub struct HttpClient {
    /// `host:port`.
    authority: String,
    host: HeaderValue,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl HttpClient {
    /// A client for `http://host:port`; it connects with its first call.
    ///
    /// # Errors
    /// When the address is of another form.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("'{url}' is no address"))?;
        let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/");
        ensure!(plain, "'{url}' is not of the form http://HOST:PORT");
        let host = uri.host().with_context(|| format!("'{url}' names no host"))?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let host = HeaderValue::from_str(&authority)?;
        Ok(Self { authority, host, sender: None })
    }

    /// Opens the connection unless it is open.
    ///
    /// # Errors
    /// When the server cannot be reached within a minute.
    pub async fn connect(&mut self) -> Result<(), Failure> {
        let opened = timeout(PATIENCE, self.open()).await;
        opened.unwrap_or_else(|_| Err(Failure::late(PATIENCE))).map(drop)
    }

    async fn open(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Failure> {
        let usable = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let stream = TcpStream::connect(&self.authority).await.map_err(Failure::unreachable)?;
            stream.set_nodelay(true).map_err(Failure::unreachable)?;
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(Failure::unreachable)?;
            // Its end shows at the sender, which every call looks at.
            drop(tasks::spawn(async move { drop(connection.await) }));
            self.sender = Some(sender);
        }
        Ok(self.sender.as_mut().expect("a connection was just made"))
    }

    /// Sends a request whose address is a path, and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// When there is no connection, it breaks, or the answer takes longer than a minute.
    pub async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, Failure> {
        request.headers_mut().insert(HOST, self.host.clone());
        let result = timeout(PATIENCE, self.exchange(request)).await;
        let result = result.unwrap_or_else(|_| Err(Failure::late(PATIENCE)));
        if result.is_err() {
            // Whatever is still on its way belongs to the call that failed.
            self.sender = None;
        }
        result
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, Failure> {
        let sender = self.open().await?;
        let response = sender.send_request(request).await.map_err(Failure::broken)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(Failure::broken)?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    /// Gets a path.
    ///
    /// # Errors
    /// When the answer does not come or is another one.
    pub async fn get(&mut self, path: &str) -> Result<Bytes, Failure> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Posts to a path.
    ///
    /// # Errors
    /// When the answer does not come or is another one.
    pub async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Result<Bytes, Failure> {
        self.call(Method::POST, path, body.into()).await
    }

    /// Calls a path by any method and wants a status of success.
    ///
    /// # Errors
    /// When the answer does not come or is another one.
    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error| Failure::new("no path", error))?;
        let response = self.send(request).await?;
        let status = response.status();
        match status.is_success() {
            true => Ok(response.into_body()),
            false => Err(Failure::http(status, response.body())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_plain_http_without_a_path() {
        assert_eq!(HttpClient::new("http://localhost:8000").unwrap().authority, "localhost:8000");
        assert_eq!(HttpClient::new("http://[::1]/").unwrap().authority, "[::1]:80");
        for wrong in ["https://localhost", "localhost:8000", "http://localhost/v2", ""] {
            assert!(HttpClient::new(wrong).is_err(), "{wrong}");
        }
    }
}
