//! A row: what one call was, how it ended, and what it was asked and answered.
//!
//! [`Row`] owns what it says and is read from files; [`RowRef`] borrows and is what calls write.
//! Both have the wire form of protocol buffers, so later versions may add fields.

mod wire;

use bytes::Bytes;

use wire::Wire;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Status {
    Unknown = 0,
    /// A version, or what stood in for it, answered.
    Answered = 1,
    /// The answer of an earlier call with the same idempotency key was given again.
    Replayed = 2,
    /// The caller got an error before anything ran.
    Refused = 3,
    /// What ran it failed.
    Failed = 4,
    /// The caller went away first.
    Cancelled = 5,
}

/// Whether a row holds a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum State {
    Whole = 0,
    /// It is larger than the log takes.
    LeftOut = 1,
    /// The log's rules drop or change it; what is held is what they leave.
    Redacted = 2,
}

/// One call, as files have it. Empty texts and `None` are what there was not.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Row {
    /// 16 bytes of a UUID of version 7; its time is that of the gateway's clock.
    #[prost(bytes = "bytes", tag = "1")]
    pub prediction: Bytes,
    /// Microseconds since 1970, UTC.
    #[prost(int64, tag = "2")]
    pub arrived_us: i64,
    /// The id that the caller gave the request.
    #[prost(string, tag = "3")]
    pub caller_id: String,
    #[prost(string, tag = "4")]
    pub idempotency_key: String,
    /// `http` or `grpc`.
    #[prost(string, tag = "5")]
    pub protocol: String,
    /// The name that was called: that of a route or a model.
    #[prost(string, tag = "6")]
    pub called: String,
    /// What ran it last; empty while nothing did.
    #[prost(string, tag = "7")]
    pub model: String,
    #[prost(string, tag = "8")]
    pub version: String,
    /// SHA-256 of the model's file, lower-case hex.
    #[prost(string, tag = "9")]
    pub file_hash: String,
    #[prost(string, tag = "10")]
    pub route: String,
    /// The arm that the caller belongs to.
    #[prost(string, tag = "11")]
    pub assigned_arm: String,
    /// The arm that answered; `static` for a declared answer.
    #[prost(string, tag = "12")]
    pub arm: String,
    /// The class of the error for which something stood in.
    #[prost(string, tag = "13")]
    pub fallback: String,
    /// `divided`, `keyless`, `forced` or `direct`.
    #[prost(string, tag = "14")]
    pub draw: String,
    #[prost(uint32, optional, tag = "15")]
    pub bucket: Option<u32>,
    /// The share of the assigned arm, as a part of 1.
    #[prost(double, optional, tag = "16")]
    pub propensity: Option<f64>,
    /// A keyed hash of the key that keeps the caller with the arm.
    #[prost(string, tag = "17")]
    pub sticky_key: String,
    /// Number of the routes' revision.
    #[prost(uint64, tag = "18")]
    pub revision: u64,
    #[prost(enumeration = "Status", tag = "19")]
    pub status: i32,
    /// The class of the error, as metrics have it.
    #[prost(string, tag = "20")]
    pub error: String,
    #[prost(uint64, tag = "21")]
    pub queue_us: u64,
    #[prost(uint64, tag = "22")]
    pub engine_us: u64,
    #[prost(uint64, tag = "23")]
    pub total_us: u64,
    /// Items of all calls that ran together.
    #[prost(uint32, tag = "24")]
    pub batch_size: u32,
    /// Items of this call.
    #[prost(uint32, tag = "25")]
    pub items: u32,
    #[prost(string, tag = "26")]
    pub device: String,
    /// A keyed hash of who called.
    #[prost(string, tag = "27")]
    pub identity: String,
    #[prost(message, repeated, tag = "28")]
    pub slices: Vec<Slice>,
    /// With which probability a call like this is in the log.
    #[prost(double, tag = "29")]
    pub inclusion: f64,
    /// Why it is in the log: `all`, or a stratum of the sampling.
    #[prost(string, tag = "30")]
    pub stratum: String,
    #[prost(fixed64, tag = "31")]
    pub schema: u64,
    /// The shadow that answered; empty for live calls.
    #[prost(string, tag = "32")]
    pub shadow: String,
    /// Whether an earlier row of this prediction said something else of its end.
    #[prost(bool, tag = "33")]
    pub amends: bool,
    #[prost(message, repeated, tag = "34")]
    pub inputs: Vec<TensorValue>,
    #[prost(message, repeated, tag = "35")]
    pub outputs: Vec<TensorValue>,
}

/// A declared header or parameter, by which rows are told apart.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Slice {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A tensor of all items of a call.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TensorValue {
    #[prost(string, tag = "1")]
    pub name: String,
    /// The open protocol's name of the type, `FP32`.
    #[prost(string, tag = "2")]
    pub datatype: String,
    #[prost(uint64, repeated, tag = "3")]
    pub shape: Vec<u64>,
    /// As the wire's binary form: little-endian, elements of BYTES each behind its length.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
    #[prost(enumeration = "State", tag = "5")]
    pub state: i32,
}

/// One call, as it is written. Fields as in [`Row`].
#[derive(Debug, Clone, Default)]
pub struct RowRef<'a> {
    pub prediction: [u8; 16],
    pub arrived_us: i64,
    pub caller_id: &'a str,
    pub idempotency_key: &'a str,
    pub protocol: &'a str,
    pub called: &'a str,
    pub model: &'a str,
    pub version: &'a str,
    pub file_hash: &'a str,
    pub route: &'a str,
    pub assigned_arm: &'a str,
    pub arm: &'a str,
    pub fallback: &'a str,
    pub draw: &'a str,
    pub bucket: Option<u32>,
    pub propensity: Option<f64>,
    pub sticky_key: &'a str,
    pub revision: u64,
    pub status: i32,
    pub error: &'a str,
    pub queue_us: u64,
    pub engine_us: u64,
    pub total_us: u64,
    pub batch_size: u32,
    pub items: u32,
    pub device: &'a str,
    pub identity: &'a str,
    pub slices: &'a [(&'a str, &'a str)],
    pub inclusion: f64,
    pub stratum: &'a str,
    pub schema: u64,
    pub shadow: &'a str,
    pub amends: bool,
    pub inputs: &'a [TensorRef<'a>],
    pub outputs: &'a [TensorRef<'a>],
}

/// A tensor, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorRef<'a> {
    pub name: &'a str,
    pub datatype: &'a str,
    pub shape: &'a [usize],
    pub data: &'a [u8],
    pub state: State,
}

impl RowRef<'_> {
    /// Writes the row behind what `out` holds; allocates nothing but what `out` needs to grow.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut wire = Wire(out);
        wire.bytes(1, &self.prediction);
        wire.number(2, self.arrived_us as u64);
        wire.text(3, self.caller_id);
        wire.text(4, self.idempotency_key);
        wire.text(5, self.protocol);
        wire.text(6, self.called);
        wire.text(7, self.model);
        wire.text(8, self.version);
        wire.text(9, self.file_hash);
        wire.text(10, self.route);
        wire.text(11, self.assigned_arm);
        wire.text(12, self.arm);
        wire.text(13, self.fallback);
        wire.text(14, self.draw);
        wire.optional_number(15, self.bucket.map(u64::from));
        wire.optional_double(16, self.propensity);
        wire.text(17, self.sticky_key);
        wire.number(18, self.revision);
        wire.number(19, u64::from(self.status.unsigned_abs()));
        wire.text(20, self.error);
        wire.number(21, self.queue_us);
        wire.number(22, self.engine_us);
        wire.number(23, self.total_us);
        wire.number(24, u64::from(self.batch_size));
        wire.number(25, u64::from(self.items));
        wire.text(26, self.device);
        wire.text(27, self.identity);
        for (name, value) in self.slices {
            wire.message(28, |wire| {
                wire.text(1, name);
                wire.text(2, value);
            });
        }
        wire.double(29, self.inclusion);
        wire.text(30, self.stratum);
        wire.fixed(31, self.schema);
        wire.text(32, self.shadow);
        wire.number(33, u64::from(self.amends));
        self.inputs.iter().for_each(|tensor| wire.message(34, |wire| tensor.encode(wire)));
        self.outputs.iter().for_each(|tensor| wire.message(35, |wire| tensor.encode(wire)));
    }
}

impl TensorRef<'_> {
    fn encode(&self, wire: &mut Wire<'_>) {
        wire.text(1, self.name);
        wire.text(2, self.datatype);
        wire.numbers(3, self.shape);
        wire.bytes(4, self.data);
        wire.number(5, u64::from((self.state as i32).unsigned_abs()));
    }
}

#[cfg(test)]
mod tests;
