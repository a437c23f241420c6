//! Protobuf for the service, with bounds on what a message makes of its bytes.
//!
//! A limit of bytes does not bound memory: an empty entry of a repeated message is two bytes on
//! the wire and hundreds once decoded. So the entries of a request are counted on the wire first.

use std::any::TypeId;
use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use crate::inference::{
    LogSettingsRequest, ModelInferRequest, RepositoryModelLoadRequest, TraceSettingRequest,
};
use crate::penstock::v1::FeedbackRequest;

/// Most entries each of `inputs`, `outputs` and `raw_input_contents`, and of a load's
/// `parameters`.
const ENTRIES: usize = 1024;
/// Most parameters of one prediction call, those of its inputs and outputs among them.
const PARAMETERS: usize = 4096;
/// Most dimensions of one input.
const DIMENSIONS: usize = 64;
/// Most elements in the `bytes_contents` of one call; each takes 32 bytes beside its own.
/// `raw_input_contents` has no such limit.
const STRINGS: usize = 1 << 20;
/// Most feedback in one message.
const FEEDBACK: usize = 4096;
/// Largest request to change settings, in bytes.
const SETTINGS: usize = 64 << 10;

/// The codec of the generated service: `tonic_prost`'s, and the bounds.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<fn() -> (T, U)>);

/// Decodes messages that keep the bounds.
#[derive(Debug)]
pub struct Bounded<U>(PhantomData<fn() -> U>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Bounded<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Bounded(PhantomData)
    }
}

impl<U: Message + Default + 'static> Decoder for Bounded<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message = buffer.copy_to_bytes(buffer.remaining());
        // In the words of prost, so that both are told alike.
        check::<U>(&message).map_err(|error| {
            Status::internal(format!("failed to decode Protobuf message: {error}"))
        })?;
        let decoded = U::decode(message);
        decoded.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// Refuses a request with too many entries. Bytes that are no message pass as far as they go: the
/// decoder stops where this does.
///
/// # Errors
/// Names the field and its bound.
pub fn check<U: 'static>(message: &[u8]) -> Result<(), String> {
    let id = TypeId::of::<U>();
    if id == TypeId::of::<ModelInferRequest>() {
        Counts::default().request(message)
    } else if id == TypeId::of::<RepositoryModelLoadRequest>() {
        let mut parameters = 0;
        each(message, |field, _| match field {
            3 => add(&mut parameters, 1, ENTRIES, "RepositoryModelLoadRequest.parameters"),
            _ => Ok(()),
        })
    } else if id == TypeId::of::<FeedbackRequest>() {
        let mut count = 0;
        each(message, |field, _| match field {
            1 => add(&mut count, 1, FEEDBACK, "FeedbackRequest.feedback"),
            _ => Ok(()),
        })
    } else if (id == TypeId::of::<TraceSettingRequest>()
        || id == TypeId::of::<LogSettingsRequest>())
        && message.len() > SETTINGS
    {
        Err(format!("settings: more than {SETTINGS} bytes"))
    } else {
        Ok(())
    }
}

/// What a prediction call has so far.
#[derive(Default)]
struct Counts {
    inputs: usize,
    outputs: usize,
    raw: usize,
    parameters: usize,
    strings: usize,
}

impl Counts {
    fn request(&mut self, message: &[u8]) -> Result<(), String> {
        each(message, |field, value| match field {
            4 => self.parameter(),
            5 => {
                add(&mut self.inputs, 1, ENTRIES, "ModelInferRequest.inputs")?;
                self.input(value.bytes())
            }
            6 => {
                add(&mut self.outputs, 1, ENTRIES, "ModelInferRequest.outputs")?;
                each(value.bytes(), |field, _| if field == 2 { self.parameter() } else { Ok(()) })
            }
            7 => add(&mut self.raw, 1, ENTRIES, "ModelInferRequest.raw_input_contents"),
            _ => Ok(()),
        })
    }

    fn input(&mut self, input: &[u8]) -> Result<(), String> {
        let mut dimensions = 0;
        each(input, |field, value| match field {
            3 => add(&mut dimensions, value.numbers(), DIMENSIONS, "InferInputTensor.shape"),
            4 => self.parameter(),
            // Numbers take at most eight times their bytes.
            5 => each(value.bytes(), |field, _| match field {
                8 => add(&mut self.strings, 1, STRINGS, "InferTensorContents.bytes_contents"),
                _ => Ok(()),
            }),
            _ => Ok(()),
        })
    }

    fn parameter(&mut self) -> Result<(), String> {
        add(&mut self.parameters, 1, PARAMETERS, "ModelInferRequest.parameters")
    }
}

fn add(count: &mut usize, more: usize, most: usize, field: &str) -> Result<(), String> {
    *count += more;
    if *count > most {
        return Err(format!("{field}: more than {most} entries"));
    }
    Ok(())
}

/// The value of one field.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number,
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Number => &[],
            Self::Bytes(bytes) => bytes,
        }
    }

    /// How many varints it holds.
    fn numbers(self) -> usize {
        match self {
            Self::Number => 1,
            // Only the last byte of a varint has no high bit. What is left is cheap to look at.
            Self::Bytes(bytes) => bytes.iter().filter(|&&byte| byte < 0x80).count(),
        }
    }
}

/// Looks at the fields of a message in their order, as far as they can be read.
fn each<'a>(
    mut message: &'a [u8],
    mut look: impl FnMut(u64, Value<'a>) -> Result<(), String>,
) -> Result<(), String> {
    while !message.is_empty() {
        let Some(key) = varint(&mut message) else { return Ok(()) };
        let value = match key & 7 {
            0 if varint(&mut message).is_some() => Value::Number,
            1 if take(&mut message, 8).is_some() => Value::Number,
            5 if take(&mut message, 4).is_some() => Value::Number,
            2 => {
                let length = varint(&mut message).and_then(|length| usize::try_from(length).ok());
                let Some(bytes) = length.and_then(|length| take(&mut message, length)) else {
                    return Ok(());
                };
                Value::Bytes(bytes)
            }
            // The decoder would skip a group and go on behind it.
            3 | 4 => return Err("groups are not part of the protocol".to_owned()),
            _ => return Ok(()),
        };
        look(key >> 3, value)?;
    }
    Ok(())
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (place, &byte) in message.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            *message = &message[place + 1..];
            return Some(value);
        }
    }
    None
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (bytes, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    use crate::inference::{InferParameter, InferTensorContents};

    fn refusal(request: &ModelInferRequest) -> Option<String> {
        check::<ModelInferRequest>(&request.encode_to_vec()).err()
    }

    fn with_inputs(inputs: Vec<InferInputTensor>) -> ModelInferRequest {
        ModelInferRequest { inputs, ..Default::default() }
    }

    fn with_contents(contents: InferTensorContents) -> ModelInferRequest {
        with_inputs(vec![InferInputTensor { contents: Some(contents), ..Default::default() }])
    }

    fn parameters(count: usize) -> std::collections::HashMap<String, InferParameter> {
        (0..count).map(|index| (index.to_string(), InferParameter::default())).collect()
    }

    type Sized = fn(usize) -> ModelInferRequest;

    #[test]
    fn as_many_entries_as_allowed_pass_and_one_more_is_refused_with_its_field() {
        let cases: [(&str, usize, Sized); 8] = [
            ("inputs", ENTRIES, |n| with_inputs(vec![InferInputTensor::default(); n])),
            ("outputs", ENTRIES, |n| ModelInferRequest {
                outputs: vec![InferRequestedOutputTensor::default(); n],
                ..Default::default()
            }),
            ("raw_input_contents", ENTRIES, |n| ModelInferRequest {
                raw_input_contents: vec![bytes::Bytes::new(); n],
                ..Default::default()
            }),
            ("parameters", PARAMETERS, |n| ModelInferRequest {
                parameters: parameters(n),
                ..Default::default()
            }),
            ("parameters", PARAMETERS, |n| {
                let parameters = parameters(n);
                with_inputs(vec![InferInputTensor { parameters, ..Default::default() }])
            }),
            ("parameters", PARAMETERS, |n| {
                let parameters = parameters(n);
                let output = InferRequestedOutputTensor { parameters, ..Default::default() };
                ModelInferRequest { outputs: vec![output], ..Default::default() }
            }),
            ("shape", DIMENSIONS, |n| {
                with_inputs(vec![InferInputTensor {
                    shape: vec![1 << 40; n],
                    ..Default::default()
                }])
            }),
            ("bytes_contents", STRINGS, |n| {
                let bytes_contents = vec![bytes::Bytes::new(); n];
                with_contents(InferTensorContents { bytes_contents, ..Default::default() })
            }),
        ];
        for (field, most, request) in cases {
            assert_eq!(refusal(&request(most)), None, "{field}");
            let text = refusal(&request(most + 1)).expect(field);
            assert!(text.contains(field) && text.contains(&most.to_string()), "{text}");
        }
    }

    #[test]
    fn numbers_in_contents_are_not_counted_and_groups_are_refused() {
        let int64_contents = vec![1; STRINGS + 1];
        let request = InferTensorContents { int64_contents, ..Default::default() };
        assert_eq!(refusal(&with_contents(request)), None);
        // A group of an unknown field, and inputs behind it.
        let mut hidden = vec![0xa3, 0x06, 0xa4, 0x06];
        hidden.extend([0x2a, 0x00].repeat(ENTRIES + 1));
        assert!(ModelInferRequest::decode(hidden.as_slice()).is_ok(), "the decoder skips it");
        assert!(check::<ModelInferRequest>(&hidden).is_err());
    }

    #[test]
    fn the_walk_stops_only_where_the_decoder_does() {
        let sound = with_inputs(vec![InferInputTensor::default(); 2 * ENTRIES]).encode_to_vec();
        for broken in [&[0xff; 11][..], &[0x0a, 0x05, 0x00], &[0x0e], &[0x09, 0x00], &[0x08]] {
            assert!(check::<ModelInferRequest>(broken).is_ok());
            assert!(ModelInferRequest::decode(broken).is_err());
            let behind = [broken, &sound].concat();
            let is_refused = check::<ModelInferRequest>(&behind).is_err();
            assert!(is_refused || ModelInferRequest::decode(behind.as_slice()).is_err());
        }
    }
}
