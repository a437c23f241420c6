//! One connection of a load thread: a socket under one of the two protocols, opened again when it
//! is lost. Calls that it loses are handed back, each with the reason.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::failure::Failure;
use crate::hpack::Encoded;
use crate::payload::Wire;
use crate::poller::{Poller, Ready};
use crate::request::Request;
use crate::wire::Sink;

mod protocol;

use protocol::Protocol;

/// How long a server may take to be reached before a run begins.
const OPENING: Duration = Duration::from_secs(10);
/// Written bytes are cut off an output that waits once there are so many.
const WRITTEN: usize = 1 << 20;

/// A call that is to go out.
#[derive(Debug)]
pub struct Outgoing<T> {
    pub ticket: T,
    pub request: Request,
    /// The value of the header that carries keys.
    pub key: Option<String>,
}

/// Where a connection goes and what it speaks.
#[derive(Debug, Clone)]
pub struct Route {
    pub address: SocketAddr,
    pub wire: Wire,
    /// Of every gRPC request.
    pub headers: Encoded,
    /// The header that carries keys.
    pub key_header: String,
    /// Calls at the same time; 1 over HTTP.
    pub most: usize,
}

#[derive(Debug)]
pub struct Connection<T> {
    index: usize,
    route: Route,
    socket: Option<TcpStream>,
    /// The socket is connected.
    up: bool,
    protocol: Protocol<T>,
    /// Calls that wait for the connection.
    waiting: VecDeque<Outgoing<T>>,
    out: Vec<u8>,
    written: usize,
    watches_writes: bool,
}

impl<T> Connection<T> {
    /// Connects and, over gRPC, waits until the server has said how it wants to be spoken to.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub fn open(index: usize, route: Route, poller: &Poller) -> anyhow::Result<Self> {
        let protocol = Protocol::new(&route);
        let mut connection = Self {
            index,
            route,
            socket: None,
            up: true,
            protocol,
            waiting: VecDeque::new(),
            out: Vec::new(),
            written: 0,
            watches_writes: false,
        };
        let mut socket = TcpStream::connect_timeout(&connection.route.address, OPENING)?;
        socket.set_nodelay(true)?;
        if let Protocol::Http2(http2) = &mut connection.protocol {
            socket.set_read_timeout(Some(OPENING))?;
            let mut buffer = [0; 4096];
            while !http2.is_ready() {
                socket.write_all(http2.output())?;
                http2.output().clear();
                let count = socket.read(&mut buffer).context("the server says nothing")?;
                anyhow::ensure!(count > 0, "the server closed the connection: is it gRPC?");
                http2.receive(&buffer[..count], &mut |_, _| {})?;
            }
        }
        socket.set_nonblocking(true)?;
        poller.watch(&socket, index, false)?;
        connection.socket = Some(socket);
        Ok(connection)
    }

    pub fn wire(&self) -> Wire {
        self.route.wire
    }

    /// Another call can go out, or wait until the connection is open again.
    pub fn has_room(&self) -> bool {
        let ready = self.up
            && match &self.protocol {
                Protocol::Http1(http1) => return http1.is_idle(),
                Protocol::Http2(http2) => http2.is_ready(),
            };
        match &self.protocol {
            Protocol::Http2(http2) if ready => {
                http2.has_room() && http2.in_flight() < self.route.most
            }
            _ => self.waiting.len() < self.route.most,
        }
    }

    /// Sends a call, or opens the connection first. What goes out over gRPC waits for a flush.
    pub fn submit(&mut self, call: Outgoing<T>, poller: &Poller, done: &mut Sink<'_, T>) {
        if self.socket.is_none() {
            self.waiting.push_back(call);
            if let Err(error) = self.reconnect(poller) {
                self.fail(&Failure::unreachable(error), done);
            }
        } else if self.up && self.protocol.is_ready() {
            self.begin(call);
            if self.route.wire != Wire::Grpc {
                self.flush(poller, done);
            }
        } else {
            self.waiting.push_back(call);
        }
    }

    fn begin(&mut self, call: Outgoing<T>) {
        let Outgoing { ticket, request, key } = call;
        match &mut self.protocol {
            Protocol::Http2(http2) => {
                let extra = key.as_ref().map(|key| (&self.route.key_header[..], &key[..]));
                http2.begin(ticket, &request.bytes, extra);
            }
            Protocol::Http1(http1) => {
                http1.begin(ticket);
                let Some(key) = key else {
                    // Straight from where it lies, as far as the socket takes it.
                    let sent = match &mut self.socket {
                        Some(socket) if self.out.is_empty() => socket.write(&request.bytes),
                        _ => Ok(0),
                    };
                    // An error shows again at the flush.
                    let rest = &request.bytes[sent.unwrap_or(0)..];
                    self.out.extend_from_slice(rest);
                    return;
                };
                let (head, rest) = request.bytes.split_at(request.split);
                self.out.extend_from_slice(head);
                for part in [&self.route.key_header, ": ", &key, "\r\n"] {
                    self.out.extend_from_slice(part.as_bytes());
                }
                self.out.extend_from_slice(rest);
            }
        }
    }

    /// Writes what there is to write.
    pub fn flush(&mut self, poller: &Poller, done: &mut Sink<'_, T>) {
        if let Protocol::Http2(http2) = &mut self.protocol {
            if self.out.is_empty() {
                std::mem::swap(&mut self.out, http2.output());
            } else {
                self.out.append(http2.output());
            }
        }
        let due = !self.out.is_empty() || self.watches_writes;
        if self.up
            && due
            && let Err(error) = self.write(poller)
        {
            self.fail(&Failure::broken(error), done);
        }
    }

    fn write(&mut self, poller: &Poller) -> std::io::Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        while self.written < self.out.len() {
            match socket.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.written > WRITTEN {
                        self.out.drain(..self.written);
                        self.written = 0;
                    }
                    if !std::mem::replace(&mut self.watches_writes, true) {
                        poller.change(socket, self.index, true)?;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        if std::mem::take(&mut self.watches_writes) {
            poller.change(socket, self.index, false)?;
        }
        Ok(())
    }

    /// Does what the socket is ready for.
    pub fn go_on(
        &mut self,
        ready: Ready,
        poller: &Poller,
        buffer: &mut [u8],
        done: &mut Sink<'_, T>,
    ) {
        if !self.up && !self.connected(poller, done) {
            return;
        }
        if ready.readable {
            self.read(buffer, done);
        }
        if self.socket.is_some() {
            self.begin_waiting();
        } else if !self.waiting.is_empty()
            && let Err(error) = self.reconnect(poller)
        {
            self.fail(&Failure::unreachable(error), done);
        }
        if ready.writable || !self.out.is_empty() || self.protocol.has_output() {
            self.flush(poller, done);
        }
    }

    fn read(&mut self, buffer: &mut [u8], done: &mut Sink<'_, T>) {
        while let Some(socket) = &mut self.socket {
            match socket.read(buffer) {
                Ok(0) => {
                    if let Protocol::Http1(http1) = &mut self.protocol {
                        http1.end(done);
                    }
                    self.lose(&Failure::broken("the server closed the connection"), done);
                }
                Ok(count) => {
                    let received = match &mut self.protocol {
                        Protocol::Http1(http1) => http1.receive(&buffer[..count], done),
                        Protocol::Http2(http2) => http2.receive(&buffer[..count], done),
                    };
                    match received {
                        Err(failure) => self.lose(&failure, done),
                        Ok(()) if self.protocol.has_left() => {
                            self.lose(&Failure::broken("the server went away"), done);
                        }
                        Ok(()) if count < buffer.len() => return,
                        Ok(()) => {}
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.lose(&Failure::broken(error), done),
            }
        }
    }

    /// Begins the calls that waited for the connection.
    fn begin_waiting(&mut self) {
        while self.up && self.protocol.is_ready() && !self.waiting.is_empty() {
            let room = match &self.protocol {
                Protocol::Http1(http1) => http1.is_idle(),
                Protocol::Http2(http2) => http2.has_room(),
            };
            let Some(call) = self.waiting.pop_front_if(|_| room) else { return };
            self.begin(call);
        }
    }

    fn reconnect(&mut self, poller: &Poller) -> std::io::Result<()> {
        let address = self.route.address;
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        poller.watch(&socket, self.index, true)?;
        self.socket = Some(socket);
        self.watches_writes = true;
        Ok(())
    }

    /// Whether a socket that was to be connected is.
    fn connected(&mut self, poller: &Poller, done: &mut Sink<'_, T>) -> bool {
        let Some(socket) = &self.socket else { return false };
        let error = match socket.take_error() {
            Ok(None) => match socket.peer_addr() {
                Ok(_) => None,
                Err(error) if error.kind() == ErrorKind::NotConnected => return false,
                Err(error) => Some(error),
            },
            Ok(error) => error,
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            self.fail(&Failure::unreachable(error), done);
            return false;
        }
        self.up = true;
        self.begin_waiting();
        self.flush(poller, done);
        self.up
    }

    /// Closes the socket and hands back the calls under way. Those that wait may go on.
    fn lose(&mut self, failure: &Failure, done: &mut Sink<'_, T>) {
        self.socket = None;
        self.up = false;
        self.watches_writes = false;
        self.out.clear();
        self.written = 0;
        let lost = match &mut self.protocol {
            Protocol::Http1(http1) => http1.abandon().into_iter().collect(),
            Protocol::Http2(http2) => http2.abandon(),
        };
        self.protocol = Protocol::new(&self.route);
        for ticket in lost {
            done(ticket, Err(failure.clone()));
        }
    }

    /// Closes the socket and hands back all calls.
    fn fail(&mut self, failure: &Failure, done: &mut Sink<'_, T>) {
        self.lose(failure, done);
        for call in std::mem::take(&mut self.waiting) {
            done(call.ticket, Err(failure.clone()));
        }
    }

    /// Gives up calls that waited for too long, picked by a test.
    pub fn give_up(
        &mut self,
        late: &dyn Fn(&T) -> bool,
        failure: &Failure,
        poller: &Poller,
        done: &mut Sink<'_, T>,
    ) {
        let hangs = match &mut self.protocol {
            // An answer that comes after all would be taken for that of the next call.
            Protocol::Http1(http1) => http1.call().is_some_and(late),
            Protocol::Http2(http2) => {
                http2.give_up(late, |ticket| done(ticket, Err(failure.clone())));
                false
            }
        };
        if hangs || self.waiting.iter().any(|call| late(&call.ticket)) {
            self.fail(failure, done);
        } else {
            self.flush(poller, done);
        }
    }
}
