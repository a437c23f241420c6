//! Every request is accepted, refused and understood as `serde_json` does it, down to the words.

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::super::{InferRequest, JSON_LENGTH, decode, oracle};
use crate::error::Rejection;

/// Bodies whose neighbours are tried: every shape of a request that clients send, and what
/// stands at the edges of the grammar.
const SEEDS: &[&str] = &[
    r#"{"id":"7","inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[0.5,-1,2e3,1.25e-2]}]}"#,
    r#"{"inputs": [{"name": "x", "shape": [2, 2], "datatype": "INT64", "data": [[1, -2], [3, 4]]}], "outputs": [{"name": "y"}]}"#,
    r#"{"inputs":[{"data":[1,2],"datatype":"UINT8","name":"x","shape":[2]},{"name":"z","shape":[1],"datatype":"BOOL","data":[true]}]}"#,
    r#"{"id":"\u00fc\ud83d\ude00","inputs":[{"name":"t\n","shape":[2],"datatype":"BYTES","data":["a\"b","ü\u0041"]}]}"#,
    r#"{"inputs":[{"name":"x","shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}}],"parameters":{"binary_data_output":true}}"#,
    r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[123456789012345678901234567890.5e-10]}],"outputs":[{"name":"y","parameters":{"classification":3,"binary_data":false}}]}"#,
    r#"{"parameters":{"priority":1,"triton_b":null,"triton_a":[{"x":[1.5,"s"]}]},"inputs":[]}"#,
    r#"{"model_name":"m","unknown":{"a":[1,{"b":"\ud800"}],"c":1e999},"inputs":[{"name":"x","shape":[1],"datatype":"FP16","data":[1.5],"data2":null}],"outputs":null,"id":null,"parameters":null}"#,
    r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}"#,
    r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[-Infinity]}]}"#,
    "{\"inputs\":[\n{\"name\":\"x\",\n\"shape\":[0],\"datatype\":\"BF16\",\t\"data\":[ ]}\r\n]}",
    r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"r"}}]}"#,
    r#"{"inputs":[{"name":"x","shape":[18446744073709551615,2],"datatype":"UINT64","data":[18446744073709551615,18446744073709551616]}]}"#,
];

/// What mutations insert: the letters of the grammar, and what breaks texts and numbers.
const PIECES: &[&[u8]] = &[
    b"\"",
    b"\\",
    b",",
    b":",
    b"[",
    b"]",
    b"{",
    b"}",
    b"-",
    b".",
    b"e",
    b"E+",
    b"0",
    b"1",
    b"9",
    b" ",
    b"\n",
    b"null",
    b"true",
    b"false",
    b"\\u",
    b"\\ud800",
    b"\\udc00",
    b"\\n",
    b"\x00",
    b"\xff",
    b"\xc3",
    b"1e400",
    b"NaN",
    b"-0",
    b"\"name\":",
    b"\"data\":",
    b"\"shape\":[1],",
    b"99999999999999999999",
    b"[[",
    b"]]",
    b"1.0",
    b"\"a\"",
    b"{}",
    b"[]",
];

fn json(body: &[u8]) -> [Result<InferRequest, Rejection>; 2] {
    let bytes = bytes::Bytes::copy_from_slice(body);
    let mut ours = decode(&HeaderMap::new(), bytes.clone());
    if let Ok(request) = &mut ours {
        // Tested by themselves.
        request.parameters.clear();
    }
    [ours, oracle::decode(&HeaderMap::new(), bytes)]
}

fn told(result: &Result<InferRequest, Rejection>) -> String {
    match result {
        Ok(request) => format!("{request:?}"),
        Err(rejection) => format!("{:?}: {rejection}", rejection.kind()),
    }
}

fn assert_same(body: &[u8]) {
    let [ours, theirs] = json(body);
    // With derived code, a list of its fields stands for an object, which was never meant.
    if told(&ours).contains("invalid type: sequence, expected an object") {
        assert!(ours.is_err());
        return;
    }
    let [ours, theirs] = [ours, theirs].map(|result| {
        let told = told(&result);
        // An exponent beyond all bounds is noticed at its end here, in its middle there.
        let far = told.find("number out of range at").map(|at| told[..at].to_owned());
        far.unwrap_or(told)
    });
    assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(body));
}

/// A small generator of numbers: the same ones in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn mutate(&mut self, body: &mut Vec<u8>) {
        let at = self.below(body.len().max(1)).min(body.len());
        let end = (at + 1 + self.below(6)).min(body.len());
        match self.below(6) {
            0 => body.truncate(at),
            1 => drop(body.drain(at..end)),
            2 if at < body.len() => body[at] = u8::try_from(self.below(256)).unwrap(),
            3 => {
                let copy = body[at..end].to_vec();
                let to = self.below(body.len() + 1);
                body.splice(to..to, copy);
            }
            _ => {
                let piece = PIECES[self.below(PIECES.len())];
                body.splice(at..at, piece.iter().copied());
            }
        }
    }
}

#[test]
fn seeds_are_understood_alike() {
    for seed in SEEDS {
        assert_same(seed.as_bytes());
    }
}

#[test]
fn every_cut_of_a_request_is_refused_in_the_same_words() {
    for seed in SEEDS {
        for end in 0..seed.len() {
            assert_same(&seed.as_bytes()[..end]);
        }
    }
}

#[test]
fn mutated_requests_are_understood_alike() {
    let mut numbers = Numbers(3);
    let rounds = if cfg!(debug_assertions) { 30_000 } else { 1_000_000 };
    for round in 0..rounds {
        let mut body = SEEDS[round % SEEDS.len()].as_bytes().to_vec();
        for _ in 0..=numbers.below(3) {
            numbers.mutate(&mut body);
        }
        assert_same(&body);
    }
}

#[test]
fn nesting_is_bounded_alike() {
    for depth in [1, 2, 3, 100, 122, 123, 124, 125, 126, 127, 128, 129, 200, 100_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        for body in [
            format!("{open}{close}"),
            format!(r#"{{"x":{open}{close},"inputs":[]}}"#),
            format!(r#"{{"inputs":[],"parameters":{{"x":{open}{close}}}}}"#),
            format!(
                r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","data":{open}{close}}}]}}"#
            ),
            format!(
                r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","data":{open}1{close}}}]}}"#
            ),
            format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","data":{open}"#),
        ] {
            assert_same(body.as_bytes());
        }
    }
}

/// A number as text: what programs print, and what people make up.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(|v| format!("{v:?}")),
        any::<f32>().prop_filter("finite", |v| v.is_finite()).prop_map(|v| format!("{v:e}")),
        any::<i64>().prop_map(|v| v.to_string()),
        (0_u16..300).prop_map(|v| v.to_string()),
        "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?",
    ]
}

fn tensor() -> impl Strategy<Value = String> {
    let datatype = prop::sample::select(engine::DataType::ALL.to_vec());
    let element = prop_oneof![
        8 => number(),
        1 => ".{0,6}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        1 => any::<bool>().prop_map(|value| value.to_string()),
    ];
    let space = prop::sample::select(vec!["", " ", "\n\t"]);
    let elements = prop::collection::vec(element, 0..9);
    (datatype, elements, space, 0_usize..6, any::<prop::sample::Index>()).prop_map(
        |(datatype, elements, space, form, order)| {
            let count = elements.len();
            let flat = elements.join(&format!(",{space}"));
            let (shape, data) = match form {
                0 => (format!("[{count}]"), format!("[{flat}]")),
                1 => (format!("[1,{space}{count}]"), format!("[[{flat}]{space}]")),
                2 => (format!("[{count},1]"), format!("[[{}]]", elements.join("],["))),
                3 => (format!("[{}]", count + 1), format!("[{flat}]")),
                4 => ("[]".to_owned(), flat),
                _ => (format!("[1,{count}]"), format!("[{flat}]")),
            };
            let mut fields = [
                "\"name\":\"x\"".to_owned(),
                format!("\"shape\":{shape}"),
                format!("\"datatype\":{space}\"{datatype}\""),
                format!("\"data\":{data}"),
            ];
            fields.rotate_left(order.index(4));
            format!("{{{space}{}}}", fields.join(","))
        },
    )
}

proptest! {
    #[test]
    fn tensors_of_every_type_are_understood_alike(inputs in prop::collection::vec(tensor(), 0..3)) {
        assert_same(format!("{{\"inputs\":[{}]}}", inputs.join(",")).as_bytes());
    }

    #[test]
    fn binary_sizes_are_understood_alike(size in 0_usize..9, text in "[0-9]{1,2}(\\.0)?|-1|null|\"4\"", blobs in 0_usize..9) {
        let head = format!(r#"{{"inputs":[{{"name":"x","shape":[2],"datatype":"INT16","parameters":{{"binary_data_size":{text}}}}},{{"name":"y","shape":[{size}],"datatype":"INT8","parameters":{{"binary_data_size":{size}}}}}]}}"#);
        let body = bytes::Bytes::from([head.as_bytes(), &vec![1; blobs]].concat());
        let name = HeaderName::from_static(JSON_LENGTH);
        let headers = HeaderMap::from_iter([(name, HeaderValue::from(head.len()))]);
        let results = [decode(&headers, body.clone()), oracle::decode(&headers, body)];
        prop_assert_eq!(told(&results[0]), told(&results[1]));
    }
}
