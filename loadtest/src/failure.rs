//! Why a call was not answered, by kind.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

/// A call without a usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What is counted: `HTTP 503`, `gRPC Unavailable`, `no connection` and so on.
    pub kind: Cow<'static, str>,
    /// What the server or the system said.
    pub message: String,
}

impl Failure {
    pub fn new(kind: impl Into<Cow<'static, str>>, message: impl fmt::Display) -> Self {
        Self { kind: kind.into(), message: message.to_string() }
    }

    /// The server could not be reached.
    pub fn unreachable(error: impl fmt::Display) -> Self {
        Self::new("no connection", error)
    }

    /// The connection broke while the call was under way.
    pub fn broken(error: impl fmt::Display) -> Self {
        Self::new("connection broke", error)
    }

    /// What came back is no answer of the protocol.
    pub fn malformed(error: impl fmt::Display) -> Self {
        Self::new("malformed answer", error)
    }

    /// Nothing came back in time.
    #[must_use]
    pub fn late(limit: std::time::Duration) -> Self {
        Self::new("no answer in time", format!("waited {}", humantime::format_duration(limit)))
    }

    /// The server answered with an error status.
    #[must_use]
    pub fn http(status: http::StatusCode, body: &[u8]) -> Self {
        Self::new(http_kind(status.as_u16()), http_text(body))
    }

    /// The server answered with an error status of gRPC.
    #[must_use]
    pub fn grpc_code(code: u32, message: &str) -> Self {
        Self::new(grpc_kind(code), message)
    }

    /// The server answered with an error status.
    #[must_use]
    pub fn grpc(status: &tonic::Status) -> Self {
        Self::new(format!("gRPC {:?}", status.code()), status.message())
    }
}

/// What an answer with this status counts as.
#[must_use]
pub fn http_kind(status: u16) -> Cow<'static, str> {
    match status {
        // Those that come by the thousand, without an allocation.
        429 => "HTTP 429".into(),
        503 => "HTTP 503".into(),
        504 => "HTTP 504".into(),
        status => format!("HTTP {status}").into(),
    }
}

/// What the body of an error says.
#[must_use]
pub fn http_text(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let text = json.as_ref().and_then(|json| json.get("error")?.as_str());
    let Some(text) = text else { return String::from_utf8_lossy(body).into_owned() };
    // What is wrong with a configuration.
    let problems = json.as_ref().and_then(|json| json.get("problems")?.as_array());
    let problem = |problem: &Value| {
        let field = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
        format!("; {}: {}", field("path"), field("message"))
    };
    text.to_owned() + &problems.into_iter().flatten().map(problem).collect::<String>()
}

/// What an answer with this status of gRPC counts as.
#[must_use]
pub fn grpc_kind(code: u32) -> Cow<'static, str> {
    const NAMES: [&str; 17] = [
        "gRPC Ok",
        "gRPC Cancelled",
        "gRPC Unknown",
        "gRPC InvalidArgument",
        "gRPC DeadlineExceeded",
        "gRPC NotFound",
        "gRPC AlreadyExists",
        "gRPC PermissionDenied",
        "gRPC ResourceExhausted",
        "gRPC FailedPrecondition",
        "gRPC Aborted",
        "gRPC OutOfRange",
        "gRPC Unimplemented",
        "gRPC Internal",
        "gRPC Unavailable",
        "gRPC DataLoss",
        "gRPC Unauthenticated",
    ];
    let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
    name.map_or_else(|| format!("gRPC {code}").into(), |name| Cow::Borrowed(*name))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http_error_is_shown_by_its_text() {
        let failure = Failure::http(http::StatusCode::NOT_FOUND, br#"{"error":"no such model"}"#);
        assert_eq!(failure.to_string(), "HTTP 404: no such model");
        let body = br#"{"error":"2 problems","problems":[{"path":"route[0].arm","message":"no"}]}"#;
        let failure = Failure::http(http::StatusCode::BAD_REQUEST, body);
        assert_eq!(failure.message, "2 problems; route[0].arm: no");
        assert_eq!(Failure::grpc_code(14, "full").to_string(), "gRPC Unavailable: full");
        assert_eq!(Failure::grpc_code(99, "?").to_string(), "gRPC 99: ?");
        let failure = Failure::http(http::StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(failure.to_string(), "HTTP 502: <html>");
    }
}
