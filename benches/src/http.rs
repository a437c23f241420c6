//! A blocking HTTP/1.1 client for the driver's own few calls; load never goes through it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// How long an answer may take; loads of models included.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer with its body.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Client {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("no {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // A large buffer would count when ten thousand of these are open.
        Ok(Self { stream: BufReader::with_capacity(1024, stream), host: address.to_owned() })
    }

    /// Sends a request and reads its answer, whatever the status.
    ///
    /// # Errors
    /// When the connection breaks or the answer is not HTTP/1.1 with a length.
    pub fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<Answer> {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n",
            self.host,
            body.len()
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut request = (head + "\r\n").into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request)?;
        self.read().with_context(|| format!("{method} {path}"))
    }

    fn read(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("'{}' is no status line", line.trim()))?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "the connection ended in the head");
            match line.trim_end().split_once(':') {
                Some((name, value)) => {
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
                None if line.trim_end().is_empty() => break,
                None => bail!("'{}' is no header", line.trim_end()),
            }
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.context("the answer has no length")?.1.parse()?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, headers, body })
    }
}

/// One call over a connection of its own, which must be answered with 200.
///
/// # Errors
/// When it is not; with what the server said.
pub fn call(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<Answer> {
    let answer = Client::connect(address)?.call(method, path, headers, body)?;
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status == 200, "{method} {path}: {} {}", answer.status, text.trim());
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one request on a free port with these bytes.
    fn server(answer: &'static [u8]) -> (String, std::thread::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            request.truncate(length);
            request
        });
        (address, thread)
    }

    #[test]
    fn an_answer_is_read_with_headers_and_body() {
        let (address, thread) =
            server(b"HTTP/1.1 200 OK\r\nX-Length: 3\r\nContent-Length: 5\r\n\r\nhello");
        let answer = call(&address, "POST", "/v2", &[("a", "b")], b"hi").unwrap();
        assert_eq!(answer.body, b"hello");
        assert!(answer.headers.contains(&("x-length".to_owned(), "3".to_owned())));
        let request = String::from_utf8(thread.join().unwrap()).unwrap();
        assert!(request.starts_with("POST /v2 HTTP/1.1\r\n") && request.ends_with("\r\n\r\nhi"));
        assert!(request.contains("a: b\r\n"));
    }

    #[test]
    fn a_refusal_is_an_error_with_the_servers_words() {
        let (address, thread) = server(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnone");
        let error = call(&address, "GET", "/x", &[], b"").unwrap_err().to_string();
        assert!(error.contains("404 none"), "{error}");
        thread.join().unwrap();
    }

    #[test]
    fn a_broken_answer_is_an_error() {
        let (address, thread) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort");
        assert!(call(&address, "GET", "/", &[], b"").is_err());
        thread.join().unwrap();
    }
}
