//! Requests of the protocol from a file: a JSON body, or one in each line, with their tensors'
//! numbers inside. They are sent over every wire.

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::{Column, Dataset};

#[derive(Deserialize)]
struct Body {
    inputs: Vec<Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    data: Value,
}

impl Dataset {
    /// One request after the other; each is a row that cannot be put together with others.
    ///
    /// # Errors
    /// When one is malformed, or has other inputs than the first.
    pub fn from_requests(text: &str) -> anyhow::Result<Self> {
        let bodies = serde_json::Deserializer::from_str(text).into_iter::<Body>();
        let mut inputs: Vec<Column> = Vec::new();
        for (number, body) in bodies.enumerate() {
            let place = || format!("request {}", number + 1);
            let body = body.with_context(place)?;
            if number == 0 {
                inputs = body.inputs.iter().map(column).collect();
            }
            let same = body.inputs.len() == inputs.len()
                && body.inputs.iter().zip(&inputs).all(|(tensor, column)| {
                    (&tensor.name, &tensor.datatype) == (&column.name, &column.datatype)
                });
            ensure!(same, "{}: its inputs are not those of the first", place());
            for (tensor, column) in body.inputs.into_iter().zip(&mut inputs) {
                let bytes = tensor.bytes();
                let bytes = bytes.with_context(|| format!("{}: '{}'", place(), tensor.name))?;
                column.rows.push(bytes.into());
                column.shapes.push(tensor.shape);
            }
        }
        ensure!(!inputs.is_empty(), "there is no request, or none with an input");
        Ok(Self { inputs, labels: None, batched: false })
    }
}

fn column(tensor: &Tensor) -> Column {
    let (name, datatype) = (tensor.name.clone(), tensor.datatype.clone());
    Column { name, datatype, shapes: Vec::new(), rows: Vec::new() }
}

impl Tensor {
    /// Its elements in little-endian order.
    fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let count = self.add(&self.data, &mut bytes)?;
        let expected = self.shape.iter().product::<i64>();
        ensure!(
            self.shape.iter().all(|size| *size >= 0) && i64::try_from(count) == Ok(expected),
            "{count} elements do not fill the shape {:?}",
            self.shape
        );
        Ok(bytes)
    }

    /// Adds elements, flat or nested; says how many.
    fn add(&self, data: &Value, bytes: &mut Vec<u8>) -> anyhow::Result<usize> {
        if let Value::Array(values) = data {
            return values.iter().map(|value| self.add(value, bytes)).sum();
        }
        macro_rules! element {
            ($type:ty) => {{
                let number: $type = serde_json::from_value(data.clone())?;
                bytes.extend_from_slice(&number.to_le_bytes());
            }};
        }
        match &self.datatype[..] {
            "FP32" => element!(f32),
            "FP64" => element!(f64),
            "INT8" => element!(i8),
            "INT16" => element!(i16),
            "INT32" => element!(i32),
            "INT64" => element!(i64),
            "UINT8" => element!(u8),
            "UINT16" => element!(u16),
            "UINT32" => element!(u32),
            "UINT64" => element!(u64),
            "BOOL" => bytes.push(u8::from(data.as_bool().context("neither true nor false")?)),
            "BYTES" => {
                let text = data.as_str().context("no text")?;
                bytes.extend_from_slice(&u32::try_from(text.len())?.to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
            other => bail!("{other} has no JSON form here"),
        }
        Ok(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_different_shapes_become_rows() {
        let text = r#"{"inputs":[{"name":"ids","shape":[1,2],"datatype":"INT64","data":[[3,4]]}]}
            {"inputs":[{"name":"ids","shape":[1,1],"datatype":"INT64","data":[5]}]}"#;
        let data = Dataset::from_requests(text).unwrap();
        assert_eq!((data.len(), data.batched), (2, false));
        assert_eq!([data.inputs[0].shape(0), data.inputs[0].shape(1)], [&[1, 2][..], &[1, 1]]);
        assert_eq!(data.inputs[0].rows[1][..], 5_i64.to_le_bytes());
    }

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        let error = |text: &str| format!("{:#}", Dataset::from_requests(text).unwrap_err());
        let one = |shape: &str, data: &str| {
            format!(
                r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"INT8","data":{data}}}]}}"#
            )
        };
        let short = "request 1: 'x': 1 elements do not fill the shape [2]";
        assert_eq!(error(&one("[2]", "[1]")), short);
        assert!(error(&one("[1]", "[300]")).starts_with("request 1: 'x': invalid value"));
        assert_eq!(error(""), "there is no request, or none with an input");
        assert!(error("{}").starts_with("request 1: missing field"));
    }
}
