//! What is done to a valid request before it is sent.

use http::HeaderValue;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Pieces that mean something to one parser or another, where it does not expect them.
const TOKENS: &[&[u8]] = &[
    b"-1",
    b"0",
    b"18446744073709551616",
    b"9223372036854775807",
    b"4294967295",
    b"1e999",
    b"-0.0",
    b"NaN",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"[[[[[[[[[[",
    b"]]",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\\",
    b"\xff\xfe",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"..",
    b"/",
    b"%2e%2e%2f",
    b"%00",
    b"%ff",
    b"triton_",
    b"binary_data_size",
    b"shared_memory_region",
    b",",
    b":",
    b"\r\n\r\n",
    b"\x1f\x8b\x08",
];
/// Headers that the doors read, and values that are no use to them.
const HEADERS: &[&str] = &[
    "inference-header-content-length",
    "content-encoding",
    "accept-encoding",
    "content-length",
    "content-type",
    "authorization",
    "penstock-timeout",
    "idempotency-key",
    "x-forwarded-for",
];
const VALUES: &[&str] = &[
    "",
    "0",
    "1",
    "-1",
    "17",
    "99999999999999999999",
    "gzip",
    "deflate",
    "br",
    "gzip, gzip",
    "gzip;q=x",
    "identity",
    "Bearer ",
    "Bearer x.y.z",
    "Bearer eyJhbGciOiJub25lIn0.e30.",
    "Basic YTpi",
    "1e9",
    "5ms",
    "0s",
    "ÿ",
    "a, b, c",
    "\"",
    "chunked",
];

/// One random change of a request; the same one for all its parts.
#[derive(Debug, Clone)]
pub(super) struct Mutation {
    seed: Index,
    other: Index,
    edits: Vec<Edit>,
    /// Where the request target is changed, if it is.
    target: Option<(Index, Index)>,
    headers: Vec<(Index, Index)>,
    /// Whether a declared length of the JSON part is set near the body's.
    length: Option<Index>,
    deep: bool,
}

#[derive(Debug, Clone)]
enum Edit {
    Flip(Index, u8),
    Token(Index, Index),
    Random(Index, Vec<u8>),
    Delete(Index, Index),
    Repeat(Index, Index, u8),
    Splice(Index, Index),
    Truncate(Index),
    /// Nothing is left of the request but these bytes.
    Replace(Vec<u8>),
}

impl Mutation {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        let any_index = any::<Index>;
        let edit = prop_oneof![
            4 => (any_index(), any::<u8>()).prop_map(|(at, bit)| Edit::Flip(at, bit)),
            6 => (any_index(), any_index()).prop_map(|(at, token)| Edit::Token(at, token)),
            2 => (any_index(), vec(any::<u8>(), 1..32)).prop_map(|(at, b)| Edit::Random(at, b)),
            3 => (any_index(), any_index()).prop_map(|(from, to)| Edit::Delete(from, to)),
            2 => (any_index(), any_index(), any::<u8>())
                .prop_map(|(from, to, times)| Edit::Repeat(from, to, times)),
            2 => (any_index(), any_index()).prop_map(|(at, from)| Edit::Splice(at, from)),
            2 => any_index().prop_map(Edit::Truncate),
            1 => vec(any::<u8>(), 0..512).prop_map(Edit::Replace),
        ];
        let target = prop::option::weighted(0.1, (any_index(), any_index()));
        let headers = vec((any_index(), any_index()), 0..3);
        let length = prop::option::weighted(0.3, any_index());
        (any_index(), any_index(), vec(edit, 0..6), target, headers, length, any::<bool>())
            .prop_map(|(seed, other, edits, target, headers, length, deep)| Self {
                seed,
                other,
                edits,
                target,
                headers,
                length,
                deep,
            })
    }

    pub(super) fn choose<'a, T>(&self, seeds: &'a [T]) -> &'a T {
        self.seed.get(seeds)
    }

    pub(super) fn choose_other<'a, T>(&self, seeds: &'a [T]) -> &'a T {
        self.other.get(seeds)
    }

    /// Whether the outermost framing stays whole.
    pub(super) fn is_deep(&self) -> bool {
        self.deep || self.edits.len() > 3
    }

    /// Changes `bytes`, sometimes with a piece of `other`.
    pub(super) fn apply(&self, bytes: &[u8], other: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for edit in &self.edits {
            edit.apply(&mut out, other);
        }
        out
    }

    pub(super) fn change_text(&self, text: &mut String) {
        if let Some((at, token)) = &self.target {
            let token = String::from_utf8_lossy(TOKENS[token.index(TOKENS.len())]).into_owned();
            let mut place = at.index(text.len() + 1);
            while !text.is_char_boundary(place) {
                place -= 1;
            }
            text.insert_str(place, &token);
        }
    }

    pub(super) fn change_headers(&self, headers: &mut Vec<(String, String)>, body: usize) {
        for (name, value) in &self.headers {
            headers.push((
                HEADERS[name.index(HEADERS.len())].to_owned(),
                VALUES[value.index(VALUES.len())].to_owned(),
            ));
        }
        if let Some(near) = &self.length {
            let length = near.index(body + 3).to_string();
            headers.push(("inference-header-content-length".to_owned(), length));
        }
    }

    pub(super) fn grpc_headers(&self) -> Vec<(&'static str, HeaderValue)> {
        let names = ["grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "authorization"];
        let values = ["1S", "99999999999H", "gzip", "deflate", "snappy", "1n", "-1S", "Bearer x"];
        self.headers
            .iter()
            .map(|(name, value)| {
                (
                    names[name.index(names.len())],
                    HeaderValue::from_static(values[value.index(values.len())]),
                )
            })
            .collect()
    }
}

impl Edit {
    fn apply(&self, out: &mut Vec<u8>, other: &[u8]) {
        // Repeats of repeats would only test the patience of whoever runs this.
        const LONGEST: usize = 256 << 10;
        let range = |from: &Index, to: &Index, out: &[u8]| {
            let (a, b) = (from.index(out.len() + 1), to.index(out.len() + 1));
            a.min(b)..a.max(b)
        };
        match self {
            Self::Flip(at, bits) if !out.is_empty() => {
                let place = at.index(out.len());
                out[place] ^= bits;
            }
            Self::Flip(..) => {}
            Self::Token(at, token) => insert(out, at, TOKENS[token.index(TOKENS.len())]),
            Self::Random(at, bytes) => insert(out, at, bytes),
            Self::Delete(from, to) => drop(out.drain(range(from, to, out))),
            Self::Repeat(from, to, times) => {
                let piece = out[range(from, to, out)].to_vec();
                for _ in 0..*times {
                    if out.len() + piece.len() > LONGEST {
                        break;
                    }
                    insert(out, from, &piece);
                }
            }
            Self::Splice(at, from) => insert(out, at, &other[from.index(other.len() + 1)..]),
            Self::Truncate(at) => out.truncate(at.index(out.len() + 1)),
            Self::Replace(bytes) => out.clone_from(bytes),
        }
    }
}

fn insert(out: &mut Vec<u8>, at: &Index, bytes: &[u8]) {
    let place = at.index(out.len() + 1);
    out.splice(place..place, bytes.iter().copied());
}
