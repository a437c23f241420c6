//! Waits for sockets and for moments, finer than a millisecond: an open loop must not send late
//! because its clock is coarse.

use std::net::TcpStream;
use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::Context;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// Events taken at once.
const EVENTS: usize = 256;
/// From here on whole milliseconds are fine enough.
const COARSE: Duration = Duration::from_millis(20);

/// The sockets of one thread.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

/// What makes whole milliseconds of any part of one.
const ROUND_UP: Duration = Duration::from_nanos(999_999);

/// A socket that can go on.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// The number it was watched under.
    pub index: usize,
    pub readable: bool,
    pub writable: bool,
}

impl Poller {
    /// Also has the thread's timers fire without the slack that saves power.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub fn new() -> anyhow::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).context("cannot watch sockets")?;
        // Where that is refused, sends are some 50 µs later, which the lag shows.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        Ok(Self { epoll })
    }

    /// Watches a socket under a number; until it is writable, too, where asked.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn watch(&self, socket: &TcpStream, index: usize, writes: bool) -> std::io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(index as u64), flags(writes))?)
    }

    /// Begins or ends to wait until a watched socket is writable.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn change(&self, socket: &TcpStream, index: usize, writes: bool) -> std::io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(index as u64), flags(writes))?)
    }

    /// Waits for sockets, or for a time; unless it is to be a fine one, for a millisecond more at
    /// most.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn wait(&self, time: Duration, fine: bool, ready: &mut Vec<Ready>) -> anyhow::Result<()> {
        let mut wait = whole_milliseconds(if fine { time } else { time + ROUND_UP });
        if fine && time < COARSE && !time.is_zero() {
            // The older call for all kernels counts in milliseconds; this one does not.
            let mut sockets = [PollFd::new(&self.epoll, PollFlags::IN)];
            match poll(&mut sockets, Some(&Timespec::try_from(time)?)) {
                Ok(0) | Err(Errno::INTR) => return Ok(()),
                Ok(_) => wait = Timespec::default(),
                Err(error) => return Err(error.into()),
            }
        }
        let mut events = [const { std::mem::MaybeUninit::<Event>::uninit() }; EVENTS];
        let events = match epoll::wait(&self.epoll, &mut events, Some(&wait)) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        ready.extend(events.iter().map(|event| {
            let flags = event.flags;
            // An error shows when the socket is read.
            let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            Ready {
                index: usize::try_from(event.data.u64()).expect("it was a number of ours"),
                readable: broken || flags.contains(EventFlags::IN),
                writable: broken || flags.contains(EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

fn flags(writes: bool) -> EventFlags {
    if writes { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN }
}

fn whole_milliseconds(time: Duration) -> Timespec {
    let time = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(1000).min(1000));
    Timespec::try_from(time).expect("it is at most a second")
}
