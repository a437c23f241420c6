//! What makes a call the repeat of another: SHA-256 over its name and over its body. Callers
//! cannot make two calls collide, and nothing that they sent is kept.

use sha2::{Digest as _, Sha256};

use crate::types::{ARM_HEADER, Call, Inputs};

/// A SHA-256.
pub type Digest = [u8; 32];

/// The name of a call in the table: the identity of its caller, the model, version and arm
/// asked for, and the key. Callers of different identities never share one.
#[must_use]
pub fn name(call: &Call, key: &str) -> Digest {
    let mut hash = Fields::default();
    hash.add(call.caller.identity.name.as_bytes());
    hash.add(call.model.as_bytes());
    hash.add(call.version.as_deref().unwrap_or("").as_bytes());
    hash.add(call.headers.get(ARM_HEADER).map_or(&[], |arm| arm.as_bytes()));
    hash.add(key.as_bytes());
    hash.end()
}

/// The body of a call: its inputs by name and the names of the wanted outputs. How tensors travel
/// (JSON, binary, compressed, over which protocol) and how the answer is to be written (binary,
/// as classes), the id, priority and timeout are not part of it. A raw binary request is another
/// body than the same tensor with a name.
#[must_use]
pub fn body(call: &Call) -> Digest {
    let mut hash = Fields::default();
    match &call.inputs {
        Inputs::Raw(data) => {
            hash.add(b"raw");
            hash.add(data);
        }
        Inputs::Named(inputs) => {
            hash.add(b"named");
            hash.count(inputs.len());
            let mut sorted: Vec<_> = inputs.iter().collect();
            sorted.sort_by(|one, other| one.name.cmp(&other.name));
            for input in sorted {
                hash.add(input.name.as_bytes());
                hash.add(input.tensor.datatype().name().as_bytes());
                hash.count(input.tensor.shape().len());
                for &dimension in input.tensor.shape() {
                    hash.count(dimension);
                }
                hash.add(input.tensor.data());
            }
        }
    }
    hash.count(call.outputs.len());
    for output in &call.outputs {
        hash.add(output.as_bytes());
    }
    hash.end()
}

/// Fields, each behind its length, so that no two lists of them look alike.
#[derive(Default)]
struct Fields(Sha256);

impl Fields {
    fn add(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_le_bytes());
    }

    fn end(self) -> Digest {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::{DataType, Tensor};
    use http::{HeaderMap, HeaderName, HeaderValue};
    use tokio::time::Instant;

    use super::*;
    use crate::types::{Caller, Identity, NamedTensor, Protocol, Roles, Schedule};

    fn input(name: &str, data: &'static [u8]) -> NamedTensor {
        let tensor = Tensor::new(DataType::Uint8, vec![data.len()], data.into()).unwrap();
        NamedTensor { name: name.into(), tensor }
    }

    fn call(inputs: Vec<NamedTensor>) -> Call {
        Call {
            id: None,
            caller: Caller::local(),
            model: "m".into(),
            version: None,
            inputs: Inputs::Named(inputs),
            outputs: vec![],
            schedule: Schedule::default(),
            key: None,
            protocol: Protocol::Http,
            arrived: Instant::now(),
            headers: Arc::default(),
            parameters: vec![],
        }
    }

    #[test]
    fn a_body_is_its_inputs_by_name_and_its_wanted_outputs() {
        let first = call(vec![input("a", b"12"), input("b", b"3")]);
        let swapped = call(vec![input("b", b"3"), input("a", b"12")]);
        assert_eq!(body(&first), body(&swapped));
        let shifted = call(vec![input("a", b"1"), input("b", b"23")]);
        assert_ne!(body(&first), body(&shifted));
        let mut fewer = call(vec![input("a", b"12"), input("b", b"3")]);
        fewer.outputs = vec!["y".into()];
        assert_ne!(body(&first), body(&fewer));
        let raw = Call { inputs: Inputs::Raw("12".into()), ..call(vec![]) };
        assert_ne!(body(&raw), body(&call(vec![input("a", b"12")])));
    }

    #[test]
    fn how_a_call_travels_is_no_part_of_its_body() {
        let first = call(vec![input("a", b"12")]);
        let mut other = call(vec![input("a", b"12")]);
        other.protocol = Protocol::Grpc;
        other.schedule.shadow = true;
        assert_eq!(body(&first), body(&other));
        assert_eq!(name(&first, "k"), name(&other, "k"));
    }

    #[test]
    fn a_name_is_of_one_identity_model_version_arm_and_key() {
        let first = call(vec![]);
        let named = |name: &str| {
            let mut other = call(vec![]);
            let anonymous = Identity::anonymous(Roles::all());
            other.caller.identity = Arc::new(Identity { name: name.into(), ..anonymous });
            other
        };
        assert_eq!(name(&first, "k"), name(&named("anonymous"), "k"));
        assert_ne!(name(&first, "k"), name(&named("other"), "k"));
        assert_ne!(name(&first, "k"), name(&first, "kk"));
        assert_ne!(name(&first, "k"), name(&Call { model: "n".into(), ..call(vec![]) }, "k"));
        let pinned = Call { version: Some("1".into()), ..call(vec![]) };
        assert_ne!(name(&first, "k"), name(&pinned, "k"));
        let forced = |arm: &'static str| {
            let arm = (HeaderName::from_static(ARM_HEADER), HeaderValue::from_static(arm));
            Call { headers: Arc::new(HeaderMap::from_iter([arm])), ..call(vec![]) }
        };
        assert_ne!(name(&first, "k"), name(&forced("a"), "k"));
        assert_ne!(name(&forced("b"), "k"), name(&forced("a"), "k"));
        let empty = Call { version: Some(String::new()), ..call(vec![]) };
        assert_eq!(name(&first, "k"), name(&empty, "k"));
    }
}
