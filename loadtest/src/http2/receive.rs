//! What comes from the server: frames, one after the other.

use crate::failure::Failure;
use crate::hpack::Broken;
use crate::wire::Sink;

use super::frame::{self, Frame, HEAD};
use super::{
    Ending, Http2, LARGEST_FRAME, REFILL, SETTING_FRAME, SETTING_MOST_STREAMS, SETTING_TABLE_SIZE,
    SETTING_WINDOW,
};

/// A header block beyond this is malformed.
const LONGEST_BLOCK: usize = 256 << 10;

impl<T> Http2<T> {
    /// Takes bytes that came.
    ///
    /// # Errors
    /// When the connection is of no more use; calls may still be under way.
    pub fn receive(&mut self, bytes: &[u8], done: &mut Sink<'_, T>) -> Result<(), Failure> {
        if self.input.is_empty() {
            let used = self.frames(bytes, done)?;
            self.input.extend_from_slice(&bytes[used..]);
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(bytes);
            let used = self.frames(&input, done)?;
            input.drain(..used);
            self.input = input;
        }
        if self.consumed >= REFILL {
            frame::write_number(&mut self.out, frame::WINDOW_UPDATE, 0, self.consumed);
            self.consumed = 0;
        }
        Ok(())
    }

    fn frames(&mut self, data: &[u8], done: &mut Sink<'_, T>) -> Result<usize, Failure> {
        let mut used = 0;
        while let Some(head) = Frame::parse(&data[used..]) {
            if head.length > LARGEST_FRAME {
                let speaks = "it is no HTTP/2, or its frame is larger than we allow";
                return Err(Failure::malformed(speaks));
            }
            let start = used + HEAD;
            let Some(payload) = data.get(start..start + head.length) else { break };
            self.frame(head, payload, done)?;
            used = start + head.length;
        }
        Ok(used)
    }

    fn frame(
        &mut self,
        head: Frame,
        payload: &[u8],
        done: &mut Sink<'_, T>,
    ) -> Result<(), Failure> {
        if self.block.is_some() && head.kind != frame::CONTINUATION {
            return Err(Failure::malformed("a header block does not go on"));
        }
        match head.kind {
            frame::DATA => return self.data(head, payload, done),
            frame::HEADERS => {
                let content = head.content(payload).ok_or_else(short)?;
                let ends = head.has(frame::END_STREAM);
                if head.has(frame::END_HEADERS) {
                    return self.headers(head.stream, ends, content, done);
                }
                self.block = Some((head.stream, ends, content.to_vec()));
            }
            frame::CONTINUATION => {
                let (stream, ends, mut block) =
                    self.block.take().filter(|block| block.0 == head.stream).ok_or_else(|| {
                        Failure::malformed("a header block goes on that had not begun")
                    })?;
                block.extend_from_slice(payload);
                if block.len() > LONGEST_BLOCK {
                    return Err(Failure::malformed("its headers are too long"));
                }
                if head.has(frame::END_HEADERS) {
                    return self.headers(stream, ends, &block, done);
                }
                self.block = Some((stream, ends, block));
            }
            frame::RST_STREAM => {
                let name = frame::error_name(frame::number(payload).ok_or_else(short)?);
                let failure = Failure::new("stream reset", format_args!("the server said {name}"));
                self.close(head.stream, Ending::Lost(failure), done);
            }
            frame::SETTINGS if !head.has(frame::ACK) => self.settings(payload)?,
            frame::PING if !head.has(frame::ACK) => {
                Frame { flags: frame::ACK, ..head }.write(&mut self.out);
                self.out.extend_from_slice(payload);
            }
            frame::GOAWAY => self.go_away(payload, done)?,
            frame::WINDOW_UPDATE => {
                let more = frame::number(payload).ok_or_else(short)? & 0x7fff_ffff;
                self.widen(head.stream, i64::from(more));
            }
            frame::PUSH_PROMISE => {
                return Err(Failure::malformed("it pushes, which we do not allow"));
            }
            // Acknowledgements, priorities and kinds of the future.
            _ => {}
        }
        Ok(())
    }

    fn data(&mut self, head: Frame, payload: &[u8], done: &mut Sink<'_, T>) -> Result<(), Failure> {
        // Padding counts too, and so does what comes for a call that was given up.
        self.consumed += u32::try_from(payload.len()).expect("a frame is short");
        let content = head.content(payload).ok_or_else(short)?;
        if let Some(stream) = self.streams.get_mut(&head.stream) {
            stream.reply.body.extend_from_slice(content);
            if head.has(frame::END_STREAM) {
                self.close(head.stream, Ending::Whole, done);
            }
        }
        Ok(())
    }

    fn headers(
        &mut self,
        id: u32,
        ends: bool,
        block: &[u8],
        done: &mut Sink<'_, T>,
    ) -> Result<(), Failure> {
        // Blocks of calls that were given up are read too: they change the table.
        let mut reply = self.streams.get_mut(&id).map(|stream| &mut stream.reply);
        let read = self.decoder.decode(block, |name, value| {
            if let Some(reply) = &mut reply {
                reply.header(name, value);
            }
        });
        read.map_err(|Broken(reason)| Failure::malformed(reason))?;
        let interim = reply.is_some_and(|reply| !ends && reply.skip_interim());
        if ends && !interim {
            self.close(id, Ending::Whole, done);
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(short());
        }
        let size = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
        for &[a, b, value @ ..] in settings {
            let value = u32::from_be_bytes(value);
            match u16::from_be_bytes([a, b]) {
                // What the first request entered stays; a later change is not followed.
                SETTING_TABLE_SIZE if !self.entered => self.peer.table_size = size(value),
                SETTING_MOST_STREAMS => self.peer.most_streams = size(value),
                SETTING_FRAME => self.peer.largest_frame = size(value).max(LARGEST_FRAME),
                SETTING_WINDOW => {
                    let change = i64::from(value) - self.peer.first_window;
                    self.peer.first_window = i64::from(value);
                    for stream in self.streams.values_mut() {
                        stream.window += change;
                    }
                }
                _ => {}
            }
        }
        self.peer.known = true;
        Frame { length: 0, kind: frame::SETTINGS, flags: frame::ACK, stream: 0 }
            .write(&mut self.out);
        self.resume();
        Ok(())
    }

    fn widen(&mut self, id: u32, more: i64) {
        if id == 0 {
            self.window += more;
        } else if let Some(stream) = self.streams.get_mut(&id) {
            stream.window += more;
        }
        if !self.uploads.is_empty() {
            self.resume();
        }
    }

    /// The server answers the calls up to one number and takes no more.
    fn go_away(&mut self, payload: &[u8], done: &mut Sink<'_, T>) -> Result<(), Failure> {
        let last = frame::number(payload).ok_or_else(short)? & 0x7fff_ffff;
        let code = payload.get(4..).and_then(frame::number).ok_or_else(short)?;
        self.leaving = true;
        let unanswered: Vec<u32> = self.streams.keys().copied().filter(|id| *id > last).collect();
        for id in unanswered {
            let name = frame::error_name(code);
            let failure = Failure::broken(format_args!("the server goes away: {name}"));
            self.close(id, Ending::Lost(failure), done);
        }
        Ok(())
    }
}

fn short() -> Failure {
    Failure::malformed("a frame is shorter than its kind")
}
