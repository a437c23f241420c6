//! Schemas as JSON: what the metadata of Parquet files says of their tensors.

use serde_json::{Value, json};

use super::{Schema, TensorSpec};

impl Schema {
    /// The whole schema; [`Schema::from_json`] reads the same one.
    #[must_use]
    pub fn to_json(&self) -> String {
        let tensors = |specs: &[TensorSpec]| -> Vec<Value> {
            specs
                .iter()
                .map(|spec| {
                    json!({
                        "name": spec.name,
                        "datatype": spec.datatype,
                        "shape": spec.shape,
                        "is_batched": spec.is_batched,
                        "features": spec.features,
                    })
                })
                .collect()
        };
        json!({
            "model": self.model,
            "inputs": tensors(&self.inputs),
            "outputs": tensors(&self.outputs),
        })
        .to_string()
    }

    /// Reads what [`Schema::to_json`] wrote; `None` if the text is no such thing.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let tensors = |side: &str| -> Option<Vec<TensorSpec>> {
            value.get(side)?.as_array()?.iter().map(tensor).collect()
        };
        Some(Self {
            model: value.get("model")?.as_str()?.to_owned(),
            inputs: tensors("inputs")?,
            outputs: tensors("outputs")?,
        })
    }
}

fn tensor(value: &Value) -> Option<TensorSpec> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(TensorSpec {
        name: text(value.get("name")?)?,
        datatype: text(value.get("datatype")?)?,
        shape: value.get("shape")?.as_array()?.iter().map(Value::as_i64).collect::<Option<_>>()?,
        is_batched: value.get("is_batched")?.as_bool()?,
        features: value.get("features")?.as_array()?.iter().map(text).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_reads_from_json_as_it_was() {
        let spec = TensorSpec {
            name: "pixels \"x\"".into(),
            datatype: "FP32".into(),
            shape: vec![-1, 3],
            is_batched: true,
            features: vec!["äpfel".into()],
        };
        let schema = Schema { model: "m".into(), inputs: vec![spec.clone()], outputs: vec![spec] };
        assert_eq!(Schema::from_json(&schema.to_json()), Some(schema));
        assert_eq!(Schema::from_json("{}"), None);
    }
}
