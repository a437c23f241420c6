//! What Penstock answers to a request about and to the digits model: captured from it, so that
//! the bare HTTP server sends the same bytes.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::http;

/// Bytes of JSON in front of binary tensors.
pub const JSON_LENGTH: &str = "inference-header-content-length";

/// Pixels of a digit.
const PIXELS: u8 = 64;

/// One answer; the headers without those that every HTTP server writes itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Every answer that the bare server needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    pub metadata: Captured,
    pub json: Captured,
    pub binary: Captured,
}

impl Answers {
    /// Asks a gateway that serves the digits model.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn capture(address: &str, model: &str, version: &str) -> anyhow::Result<Self> {
        let path = format!("/v2/models/{model}/versions/{version}");
        let infer = format!("{path}/infer");
        let metadata = http::call(address, "GET", &path, &[], b"")?;
        let pixels: Vec<f32> = (0..PIXELS).map(|pixel| f32::from(pixel % 17) / 16.0).collect();
        let input = json!({ "name": "pixels", "shape": [1, PIXELS], "datatype": "FP32" });
        let mut plain = input.clone();
        plain["data"] = json!(pixels);
        let body = json!({ "inputs": [plain] }).to_string();
        let json = http::call(address, "POST", &infer, &[], body.as_bytes())?;
        let mut binary = input;
        binary["parameters"] = json!({ "binary_data_size": pixels.len() * 4 });
        let head = json!({ "parameters": { "binary_data_output": true }, "inputs": [binary] });
        let mut body = head.to_string().into_bytes();
        let length = body.len().to_string();
        body.extend(pixels.iter().flat_map(|pixel| pixel.to_le_bytes()));
        let binary = http::call(address, "POST", &infer, &[(JSON_LENGTH, length.as_str())], &body)?;
        Ok(Self { metadata: metadata.into(), json: json.into(), binary: binary.into() })
    }

    /// Writes them for [`Self::read`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        Ok(std::fs::write(path, serde_json::to_vec(self)?)?)
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }
}

impl From<http::Answer> for Captured {
    fn from(answer: http::Answer) -> Self {
        let own = ["content-length", "date", "connection", "transfer-encoding"];
        let headers = answer.headers.into_iter().filter(|(name, _)| !own.contains(&name.as_str()));
        Self { headers: headers.collect(), body: answer.body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_connection_are_not_taken_over() {
        let headers = [("date", "today"), ("content-type", "application/json")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let captured = Captured::from(http::Answer { status: 200, headers, body: vec![1] });
        assert_eq!(captured.headers, [("content-type".to_owned(), "application/json".to_owned())]);
    }

    #[test]
    fn answers_come_back_from_their_file() {
        let captured = |byte| Captured { headers: Vec::new(), body: vec![byte, 255] };
        let answers = Answers { metadata: captured(0), json: captured(1), binary: captured(2) };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.json");
        answers.write(&path).unwrap();
        assert_eq!(Answers::read(&path).unwrap(), answers);
        assert!(Answers::read(&folder.path().join("absent")).is_err());
    }
}
