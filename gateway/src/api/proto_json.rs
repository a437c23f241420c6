//! Protocol messages as JSON, as the REST half of the protocol spells them: field names as in
//! the .proto files, 64-bit integers as numbers, defaults written out.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, SerializeOptions};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).expect("the build made a valid set")
});

/// Writes a message of package `inference`.
///
/// # Panics
/// When `name` is no message of the package.
#[must_use]
pub fn to_json(name: &str, message: &impl Message) -> Vec<u8> {
    let dynamic = DynamicMessage::decode(descriptor(name), message.encode_to_vec().as_slice())
        .expect("the message was encoded by the same definition");
    let mut out = Vec::new();
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    let mut serializer = serde_json::Serializer::new(&mut out);
    dynamic.serialize_with_options(&mut serializer, &options).expect("memory takes every byte");
    out
}

/// Reads a message of package `inference`; unknown fields are errors.
///
/// # Errors
/// What is wrong with the text.
pub fn from_json<M: Message + Default>(name: &str, text: &str) -> Result<M, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let dynamic =
        DynamicMessage::deserialize_with_options(descriptor(name), &mut deserializer, &options)
            .map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    dynamic.transcode_to().map_err(|error| error.to_string())
}

fn descriptor(name: &str) -> prost_reflect::MessageDescriptor {
    POOL.get_message_by_name(&format!("inference.{name}")).expect("a message of the protocol")
}
