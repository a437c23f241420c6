//! What the tensors of a version are: their names, types, shapes and the names of their features.
//!
//! Rows name the schema under which they were written by its id, which follows from what it says:
//! the same version has the same one on every gateway, and a changed one has another.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

/// Names a schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaId(pub u64);

/// The tensors of a version.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Schema {
    #[prost(string, tag = "1")]
    pub model: String,
    #[prost(message, repeated, tag = "2")]
    pub inputs: Vec<TensorSpec>,
    #[prost(message, repeated, tag = "3")]
    pub outputs: Vec<TensorSpec>,
}

/// One tensor of each item.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TensorSpec {
    #[prost(string, tag = "1")]
    pub name: String,
    /// The open protocol's name of the type, `FP32`.
    #[prost(string, tag = "2")]
    pub datatype: String,
    /// Dimensions without that of the batch where there is one; -1 for any size.
    #[prost(int64, repeated, tag = "3")]
    pub shape: Vec<i64>,
    /// Whether dimension 0 of the tensor counts items.
    #[prost(bool, tag = "4")]
    pub is_batched: bool,
    /// Names of the scalars of an item, row-major; empty: they have none.
    #[prost(string, repeated, tag = "5")]
    pub features: Vec<String>,
}

impl Schema {
    #[must_use]
    pub fn id(&self) -> SchemaId {
        // The wire form is canonical here: one encoder, fields in order, no maps.
        SchemaId::of(&prost::Message::encode_to_vec(self))
    }
}

impl SchemaId {
    /// Of a schema's wire form: what a later version wrote keeps its name though fields of it are
    /// unknown here.
    pub(crate) fn of(encoded: &[u8]) -> Self {
        Self(xxh3_64(encoded))
    }
}

impl TensorSpec {
    /// Scalars of one item; `None` where that differs from item to item.
    #[must_use]
    pub fn scalars(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |product, size| {
            usize::try_from(*size).ok().and_then(|size| product.checked_mul(size))
        })
    }
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits() -> Schema {
        let tensor = |name: &str, shape: Vec<i64>| TensorSpec {
            name: name.into(),
            datatype: "FP32".into(),
            shape,
            is_batched: true,
            features: vec![],
        };
        Schema {
            model: "digits".into(),
            inputs: vec![tensor("pixels", vec![64])],
            outputs: vec![tensor("scores", vec![10])],
        }
    }

    #[test]
    fn a_schema_is_called_by_what_it_says() {
        assert_eq!(digits().id(), digits().id());
        let mut other = digits();
        other.inputs[0].features = vec!["a".into()];
        assert_ne!(other.id(), digits().id());
        assert_eq!(digits().id().to_string().len(), 16);
    }

    #[test]
    fn scalars_of_an_item_are_counted_where_they_are_known() {
        assert_eq!(digits().inputs[0].scalars(), Some(64));
        let of = |shape: Vec<i64>| TensorSpec { shape, ..TensorSpec::default() }.scalars();
        assert_eq!(
            [of(vec![]), of(vec![2, 3]), of(vec![-1]), of(vec![i64::MAX, 4])],
            [Some(1), Some(6), None, None]
        );
    }
}
