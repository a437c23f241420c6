//! What infer bodies are accepted, and how wrong ones are refused.

use proptest::prelude::*;

use super::*;

mod against_serde;

use crate::error::Kind;

fn with_length(body: &str, blobs: &[u8], length: &str) -> Result<InferRequest, Rejection> {
    let headers = HeaderMap::from_iter([(
        http::HeaderName::from_static(JSON_LENGTH),
        http::HeaderValue::from_str(length).unwrap(),
    )]);
    decode(&headers, [body.as_bytes(), blobs].concat().into())
}

fn json(body: &str) -> Result<InferRequest, Rejection> {
    decode(&HeaderMap::new(), body.to_owned().into())
}

fn refusal(result: Result<InferRequest, Rejection>) -> String {
    let rejection = result.unwrap_err();
    assert_eq!(rejection.kind(), Kind::InvalidInput);
    rejection.to_string()
}

const BINARY: &str = r#"{"inputs":[{"name":"x","shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}}]}"#;

fn named(request: InferRequest) -> Vec<NamedTensor> {
    match request.inputs {
        Inputs::Named(inputs) => inputs,
        Inputs::Raw(_) => unreachable!("the request has a JSON part"),
    }
}

#[test]
fn json_and_binary_inputs_give_the_same_tensor() {
    let text = r#"{"id":"7","model_name":"m","inputs":[{"name":"x","shape":[2],"datatype":"INT16","data":[1,-1]}]}"#;
    let from_json = json(text).unwrap();
    assert_eq!(from_json.id, "7");
    assert!(!from_json.binary_by_default);
    let from_binary = with_length(BINARY, &[1, 0, 255, 255], &BINARY.len().to_string()).unwrap();
    assert!(from_binary.binary_by_default);
    assert_eq!(named(from_json), named(from_binary));
}

#[test]
fn a_json_length_of_zero_means_raw_bytes() {
    let request = with_length("abc", &[], "0").unwrap();
    assert!(matches!(request.inputs, Inputs::Raw(data) if data == "abc"));
}

#[test]
fn lying_lengths_are_refused() {
    let length = BINARY.len();
    for bad in ["-1", "x", "1.5", "", "99999", "99999999999999999999999"] {
        assert!(with_length(BINARY, &[0; 4], bad).is_err(), "{bad}");
    }
    assert!(refusal(with_length(BINARY, &[0; 3], &length.to_string())).contains("only 3 bytes"));
    let surplus = refusal(with_length(BINARY, &[0; 6], &length.to_string()));
    assert!(surplus.contains("unexpected additional input data: 2 bytes"), "{surplus}");
    // Shorter than the JSON: the rest would be taken for tensor data.
    assert!(with_length(BINARY, &[0; 4], &(length - 1).to_string()).is_err());
    assert!(refusal(json(BINARY)).contains("only 0 bytes are left"));
}

#[test]
fn errors_name_the_field() {
    for (body, what) in [
        ("", "EOF"),
        ("[]", "not valid"),
        ("{}", "missing field `inputs`"),
        (r#"{"inputs":{}}"#, "at inputs"),
        (r#"{"inputs":[{"name":1}]}"#, "at inputs[0].name"),
        (
            r#"{"inputs":[{"name":"x","shape":[-1],"datatype":"FP32","data":[1]}]}"#,
            "at inputs[0].shape[0]",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1.5],"datatype":"FP32","data":[1]}]}"#,
            "at inputs[0].shape[0]",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}"#,
            "NaN and Infinity are not JSON",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[-Infinity]}]}"#,
            "NaN and Infinity are not JSON",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"F32","data":[1]}]}"#,
            "'F32' is not a datatype",
        ),
        (r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}"#, "neither data nor"),
        (
            r#"{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1]}]}"#,
            "input 'x': data has 1",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[4611686018427387904,64],"datatype":"FP32","data":[1]}]}"#,
            "more elements than fit",
        ),
        (r#"{"inputs":[],"parameters":{"triton_x":1}}"#, "'triton_x' is reserved"),
        (
            r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"binary_data":1}}]}"#,
            "binary_data must be true or false",
        ),
        (
            r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":-1}}]}"#,
            "classification must be",
        ),
        (r#"{"inputs":[]} trailing"#, "trailing characters"),
        (r#"{"inputs":[],"inputs":[]}"#, "duplicate field"),
    ] {
        let text = refusal(json(body));
        assert!(text.contains(what), "{body}: {text}");
    }
}

#[test]
fn entries_and_dimensions_are_bounded() {
    let input = r#"{"name":"x","shape":[0],"datatype":"UINT8","data":[]}"#;
    let inputs = |count| json(&format!(r#"{{"inputs":[{}]}}"#, vec![input; count].join(",")));
    let outputs = |count| {
        let outputs = vec![r#"{"name":"y"}"#; count].join(",");
        json(&format!(r#"{{"inputs":[],"outputs":[{outputs}]}}"#))
    };
    let shape = |count| {
        let shape = vec!["0"; count].join(",");
        let input = format!(r#"{{"name":"x","shape":[{shape}],"datatype":"UINT8","data":[]}}"#);
        json(&format!(r#"{{"inputs":[{input}]}}"#))
    };
    assert!(inputs(1024).is_ok() && outputs(1024).is_ok() && shape(64).is_ok());
    assert!(refusal(inputs(1025)).contains("at inputs[1024]: more than 1024 entries"));
    assert!(refusal(outputs(1025)).contains("at outputs[1024]: more than 1024 entries"));
    assert!(refusal(shape(65)).contains("at inputs[0].shape[64]: more than 64 entries"));
}

#[test]
fn shared_memory_is_unsupported_not_ignored() {
    let body = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"r"}}]}"#;
    assert_eq!(json(body).unwrap_err().kind(), Kind::Unsupported);
}

proptest! {
    #[test]
    fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200), length in 0_usize..220) {
        drop(decode(&HeaderMap::new(), body.clone().into()));
        let headers = HeaderMap::from_iter([(http::HeaderName::from_static(JSON_LENGTH), http::HeaderValue::from(length))]);
        drop(decode(&headers, body.into()));
    }

    #[test]
    fn no_mutation_of_a_good_body_panics(at in 0_usize..BINARY.len(), byte in any::<u8>(), blobs in 0_usize..8) {
        let mut body = BINARY.as_bytes().to_vec();
        body[at] = byte;
        body.extend(vec![1; blobs]);
        let headers = HeaderMap::from_iter([(http::HeaderName::from_static(JSON_LENGTH), http::HeaderValue::from(BINARY.len()))]);
        drop(decode(&headers, body.into()));
    }
}
