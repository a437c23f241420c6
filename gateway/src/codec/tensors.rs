//! The JSON objects `{"name", "datatype", "shape", "data"}` of the protocol, outside requests:
//! golden requests and warm-up samples.

use engine::{DataType, Tensor};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json;
use crate::types::NamedTensor;

/// One tensor as the protocol writes it in JSON.
#[derive(Debug, Deserialize)]
pub struct JsonTensor<'a> {
    pub name: String,
    pub datatype: String,
    pub shape: Vec<u64>,
    #[serde(borrow)]
    pub data: &'a RawValue,
}

impl JsonTensor<'_> {
    /// Decodes it.
    ///
    /// # Errors
    /// What is wrong, with the tensor's name.
    pub fn decode(&self) -> Result<NamedTensor, String> {
        let tensor = decode(&self.datatype, &self.shape, self.data.get())
            .map_err(|error| format!("'{}': {error}", self.name))?;
        Ok(NamedTensor { name: self.name.clone(), tensor })
    }
}

/// Decodes JSON `data` of a declared type and shape.
///
/// # Errors
/// What is wrong, in words fit for a caller.
pub fn decode(datatype: &str, shape: &[u64], data: &str) -> Result<Tensor, String> {
    let datatype: DataType =
        datatype.parse().map_err(|error: engine::datatype::UnknownDataType| error.to_string())?;
    json::parse_data(data, datatype, dimensions(shape)?)
}

/// The wire's dimensions as the machine's.
///
/// # Errors
/// When one does not fit.
pub fn dimensions(shape: &[u64]) -> Result<Vec<usize>, String> {
    shape
        .iter()
        .map(|&dimension| {
            usize::try_from(dimension).map_err(|_| format!("dimension {dimension} is too large"))
        })
        .collect()
}
