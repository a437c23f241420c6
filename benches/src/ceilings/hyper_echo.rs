//! Bare hyper: reads a request's whole body and answers bytes that it was given.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::answers::{Answers, Captured, JSON_LENGTH};
use super::{Flavor, announce, end_with_the_driver};

/// Serves until the driver ends.
///
/// # Errors
/// When the answers cannot be read or no port is free.
pub fn serve(flavor: Flavor, answers: &Path) -> anyhow::Result<()> {
    let ready = Arc::new(Ready::new(&Answers::read(answers)?)?);
    end_with_the_driver()?;
    flavor.runtime()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?);
        accept(listener, ready).await
    })
}

#[expect(clippy::disallowed_methods, reason = "a bare server knows nothing of Penstock's tasks")]
async fn accept(listener: TcpListener, ready: Arc<Ready>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let ready = ready.clone();
        let service = service_fn(move |request| answer(request, ready.clone()));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        drop(tokio::spawn(async move { drop(connection.await) }));
    }
}

/// Answers as hyper takes them.
#[derive(Debug)]
struct Ready {
    metadata: (HeaderMap, Bytes),
    json: (HeaderMap, Bytes),
    binary: (HeaderMap, Bytes),
}

impl Ready {
    fn new(answers: &Answers) -> anyhow::Result<Self> {
        Ok(Self {
            metadata: prepare(&answers.metadata)?,
            json: prepare(&answers.json)?,
            binary: prepare(&answers.binary)?,
        })
    }
}

fn prepare(captured: &Captured) -> anyhow::Result<(HeaderMap, Bytes)> {
    let mut headers = HeaderMap::new();
    for (name, value) in &captured.headers {
        headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    Ok((headers, captured.body.clone().into()))
}

async fn answer(
    request: Request<Incoming>,
    ready: Arc<Ready>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(_read) = body.collect().await else {
        let mut refusal = Response::new(Full::default());
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(refusal);
    };
    let (headers, body) = match &head {
        head if head.method == Method::GET => &ready.metadata,
        head if head.headers.contains_key(JSON_LENGTH) => &ready.binary,
        _ => &ready.json,
    };
    let mut response = Response::new(Full::new(body.clone()));
    *response.headers_mut() = headers.clone();
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::call;

    fn captured(body: &str) -> Captured {
        let headers = vec![("content-type".to_owned(), "text/x".to_owned())];
        Captured { headers, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn each_kind_of_request_gets_its_captured_answer() {
        let answers = Answers {
            metadata: captured("metadata"),
            json: captured("json"),
            binary: captured("binary"),
        };
        let ready = Arc::new(Ready::new(&answers).unwrap());
        let runtime = Flavor::Multi.runtime().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = runtime.handle().spawn(accept(listener, ready));
        let body = |method, headers: &[(&str, &str)]| {
            let answer = call(&address, method, "/v2/models/m/infer", headers, b"xyz").unwrap();
            assert!(answer.headers.contains(&("content-type".to_owned(), "text/x".to_owned())));
            String::from_utf8(answer.body).unwrap()
        };
        assert_eq!(body("GET", &[]), "metadata");
        assert_eq!(body("POST", &[]), "json");
        assert_eq!(body("POST", &[(JSON_LENGTH, "2")]), "binary");
        server.abort();
    }
}
