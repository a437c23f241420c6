//! gRPC over HTTP/2 as a client speaks it on one connection: bytes in, bytes out, answers out.
//! It holds no socket.
//!
//! It does what one service with unary calls needs: requests' headers are bytes that are ready,
//! windows for answers are as large as they can be, so that only uploads are ever held up.

use std::collections::{HashMap, VecDeque};

use bytes::{Buf, Bytes};

use crate::failure::Failure;
use crate::hpack::{self, Decoder, Encoded};
use crate::wire::Sink;

mod frame;
mod receive;
mod stream;

use frame::{Frame, HEAD};
use stream::{PREFIX, Reply, Stream};

/// What every connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest window there is: nothing of an answer waits for us.
const LARGEST_WINDOW: u32 = 0x7fff_ffff;
const FIRST_WINDOW: u32 = 65_535;
/// The connection's window is opened again after so many bytes.
const REFILL: u32 = 1 << 28;
const LARGEST_FRAME: usize = 16_384;
/// Stream numbers are used up from here on; the connection is then replaced.
const LAST_STREAM: u32 = 0x7fff_0000;
/// Buffers that are kept for the next answers.
const SPARE: usize = 64;

const SETTING_TABLE_SIZE: u16 = 1;
const SETTING_PUSH: u16 = 2;
const SETTING_MOST_STREAMS: u16 = 3;
const SETTING_WINDOW: u16 = 4;
const SETTING_FRAME: u16 = 5;

/// One connection; a call is known by its ticket.
#[derive(Debug)]
pub struct Http2<T> {
    headers: Encoded,
    /// To be written to the server.
    out: Vec<u8>,
    /// What came and is not a whole frame yet.
    input: Vec<u8>,
    streams: HashMap<u32, Stream<T>>,
    spare: Vec<Reply>,
    next_stream: u32,
    peer: Peer,
    /// What the server still takes on the whole connection.
    window: i64,
    /// Streams with something left to send, when windows allow.
    uploads: VecDeque<u32>,
    /// Bytes of answers since the window was last opened.
    consumed: u32,
    decoder: Decoder,
    /// A header block that goes on in the next frame: its stream, whether it ends it, its bytes.
    block: Option<(u32, bool, Vec<u8>)>,
    /// Headers of a first request went out, so that the server's table has them.
    entered: bool,
    /// The server takes no new calls on this connection.
    leaving: bool,
}

/// What the server asked for.
#[derive(Debug)]
struct Peer {
    /// Its settings have come.
    known: bool,
    most_streams: usize,
    first_window: i64,
    largest_frame: usize,
    table_size: usize,
}

/// The message of a request with the prefix of gRPC.
#[must_use]
pub fn with_prefix(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a message is below 4 GiB");
    let mut bytes = Vec::with_capacity(PREFIX + message.len());
    bytes.push(0);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(message);
    bytes.into()
}

impl<T> Http2<T> {
    /// A connection whose requests all carry these headers. What opens it is in its output.
    #[must_use]
    pub fn new(headers: Encoded) -> Self {
        let mut out = PREFACE.to_vec();
        let settings = [(SETTING_PUSH, 0), (SETTING_WINDOW, LARGEST_WINDOW)];
        Frame { length: 6 * settings.len(), kind: frame::SETTINGS, flags: 0, stream: 0 }
            .write(&mut out);
        for (setting, value) in settings {
            out.extend_from_slice(&setting.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        let more = LARGEST_WINDOW - FIRST_WINDOW;
        frame::write_number(&mut out, frame::WINDOW_UPDATE, 0, more);
        let peer = Peer {
            known: false,
            most_streams: usize::MAX,
            first_window: i64::from(FIRST_WINDOW),
            largest_frame: LARGEST_FRAME,
            table_size: hpack::TABLE_SIZE,
        };
        Self {
            headers,
            out,
            input: Vec::new(),
            streams: HashMap::new(),
            spare: Vec::new(),
            next_stream: 1,
            peer,
            window: i64::from(FIRST_WINDOW),
            uploads: VecDeque::new(),
            consumed: 0,
            decoder: Decoder::default(),
            block: None,
            entered: false,
            leaving: false,
        }
    }

    /// What is to be written; the caller empties it.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// The server has said how it wants to be spoken to.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.peer.known
    }

    /// It takes no more calls and is to be replaced once those under way have ended.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Calls under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.streams.len()
    }

    /// Another call may begin.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.peer.known && !self.leaving && self.streams.len() < self.peer.most_streams
    }

    /// Begins a call with a message that has its prefix, and one more header where given.
    pub fn begin(&mut self, ticket: T, message: &Bytes, extra: Option<(&str, &str)>) {
        debug_assert!(self.has_room(), "calls begin where there is room");
        let id = self.next_stream;
        self.next_stream += 2;
        self.leaving |= self.next_stream >= LAST_STREAM;
        self.write_headers(id, extra);
        let mut stream = Stream {
            ticket,
            window: self.peer.first_window,
            upload: message.clone(),
            reply: self.spare.pop().unwrap_or_default(),
        };
        self.upload(id, &mut stream);
        if !stream.upload.is_empty() {
            self.uploads.push_back(id);
        }
        self.streams.insert(id, stream);
    }

    fn write_headers(&mut self, id: u32, extra: Option<(&str, &str)>) {
        let start = self.out.len();
        let head = Frame { length: 0, kind: frame::HEADERS, flags: frame::END_HEADERS, stream: id };
        head.write(&mut self.out);
        let first = !std::mem::replace(&mut self.entered, true);
        if self.peer.table_size < self.headers.table_size {
            if first {
                hpack::write_no_table(&mut self.out);
            }
            self.out.extend_from_slice(&self.headers.plain);
        } else if first {
            self.out.extend_from_slice(&self.headers.first);
        } else {
            self.out.extend_from_slice(&self.headers.again);
        }
        if let Some((name, value)) = extra {
            hpack::write_plain(&mut self.out, name, value);
        }
        let length = u32::try_from(self.out.len() - start - HEAD).expect("headers are short");
        self.out[start..start + 3].copy_from_slice(&length.to_be_bytes()[1..]);
    }

    /// Sends as much of a message as the windows allow.
    fn upload(&mut self, id: u32, stream: &mut Stream<T>) {
        while !stream.upload.is_empty() {
            let window = usize::try_from(stream.window.min(self.window)).unwrap_or(0);
            let length = stream.upload.len().min(self.peer.largest_frame).min(window);
            if length == 0 {
                return;
            }
            let last = length == stream.upload.len();
            let flags = if last { frame::END_STREAM } else { 0 };
            Frame { length, kind: frame::DATA, flags, stream: id }.write(&mut self.out);
            self.out.extend_from_slice(&stream.upload[..length]);
            stream.upload.advance(length);
            let spent = i64::try_from(length).expect("a frame is short");
            stream.window -= spent;
            self.window -= spent;
        }
    }

    /// Goes on with what windows had held up.
    fn resume(&mut self) {
        for _ in 0..self.uploads.len() {
            let Some(id) = self.uploads.pop_front() else { break };
            let Some(mut stream) = self.streams.remove(&id) else { continue };
            self.upload(id, &mut stream);
            if !stream.upload.is_empty() {
                self.uploads.push_back(id);
            }
            self.streams.insert(id, stream);
        }
    }

    /// Gives up the calls that a test picks, and tells the server so.
    pub fn give_up(&mut self, picked: impl Fn(&T) -> bool, mut lost: impl FnMut(T)) {
        const CANCEL: u32 = 8;
        let chosen = self.streams.iter().filter(|(_, stream)| picked(&stream.ticket));
        let ids: Vec<u32> = chosen.map(|(id, _)| *id).collect();
        for id in ids {
            frame::write_number(&mut self.out, frame::RST_STREAM, id, CANCEL);
            if let Some(stream) = self.streams.remove(&id) {
                lost(stream.ticket);
            }
        }
    }

    /// Gives up every call, as the connection is gone.
    pub fn abandon(&mut self) -> Vec<T> {
        self.streams.drain().map(|(_, stream)| stream.ticket).collect()
    }

    /// Keeps a finished answer's memory for another.
    fn recycle(&mut self, mut reply: Reply) {
        if self.spare.len() < SPARE {
            reply.clear();
            self.spare.push(reply);
        }
    }

    /// Ends a call and hands on what came of it.
    fn close(&mut self, id: u32, outcome: Ending, done: &mut Sink<'_, T>) {
        let Some(stream) = self.streams.remove(&id) else { return };
        match outcome {
            Ending::Whole => done(stream.ticket, stream.reply.finish()),
            Ending::Lost(failure) => done(stream.ticket, Err(failure)),
        }
        self.recycle(stream.reply);
    }
}

/// How a call's stream ended.
enum Ending {
    Whole,
    Lost(Failure),
}

#[cfg(test)]
mod tests;
