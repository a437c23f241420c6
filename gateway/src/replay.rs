//! Replay: recorded calls through another version, or the same one, and what that changes.
//!
//! [`Replay::run`] reads the calls of a prediction log in the order of their arrival, chooses those
//! that can be asked again, has a [`Target`] answer them, and sets both answers beside each other
//! as shadows are. What cannot be asked again is counted by cause. Memory is bounded by what is
//! under way.

mod choice;
mod fit;
mod local;
mod remote;
mod report;
mod tally;
mod truth;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::Tensor;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use predlog::calls::{Counts, Recorded, calls};
use predlog::feedback::{Labels, Range};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::{Instant, sleep_until};

use crate::error::Rejection;
use crate::tasks;
use crate::types::Signature;

pub use choice::Skipped;
pub use local::Local;
pub use predlog::Query;
pub use remote::{Remote, Server};
pub use report::{
    Accuracy, Asked, Confusion, Count, Errors, Example, LogRead, Metrics, NotReplayed, Ran, Report,
    Rewards, Sameness, Sampling,
};

use choice::{Choice, Ready};
use report::About;
use tally::Tally;

/// Feedback that came so long before the first call is looked at, in microseconds.
const EARLIER_US: i64 = 24 * 3600 * 1_000_000;
/// Calls that are read before they are asked, beside those that are put in order.
const READ_AHEAD: usize = 16;
/// Bytes of calls under way, from which on no further one is asked.
const IN_FLIGHT: usize = 256 << 20;

/// What answers recorded calls.
#[derive(Debug)]
pub enum Target {
    /// A version in this process.
    Here(Local),
    /// A running gateway.
    There(Remote),
}

/// How fast calls are asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as they are answered.
    Max,
    /// So many times as fast as they came.
    Times(f64),
}

/// What is replayed, and how it is judged.
#[derive(Debug)]
pub struct Replay {
    /// The folder of the log; a gateway may be writing to it.
    pub log: PathBuf,
    pub query: Query,
    /// Only calls that this route divided.
    pub route: Option<String>,
    /// Ends after so many calls.
    pub limit: Option<u64>,
    pub speed: Speed,
    /// Calls under way at a time.
    pub max_in_flight: usize,
    /// In the place of what outputs declare.
    pub tolerance: Option<f64>,
    /// The output that labels speak of; the first one without it.
    pub label_output: Option<String>,
    /// Feedback that is kept in memory; 0: labels are not looked for.
    pub most_feedback: usize,
    /// Calls that differ which are named.
    pub examples: usize,
}

impl Target {
    fn signature(&self) -> &Arc<Signature> {
        match self {
            Self::Here(local) => local.signature(),
            Self::There(remote) => remote.signature(),
        }
    }

    /// Calls that may be under way where nothing else is said.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        match self {
            Self::Here(local) => local.in_flight(),
            Self::There(remote) => remote.in_flight(),
        }
    }

    /// Ends what it runs on.
    pub async fn close(self) {
        if let Self::Here(local) = self {
            local.close().await;
        }
    }

    /// Inputs that every call has to have, by name; of a gateway that is not known.
    fn required(&self) -> Vec<String> {
        match self {
            Self::Here(local) => local.required(),
            Self::There(_) => vec![],
        }
    }

    fn asked(&self) -> Asked {
        match self {
            Self::Here(local) => local.asked(),
            Self::There(remote) => remote.asked(),
        }
    }

    async fn infer(&self, ready: &Ready) -> Result<Vec<Tensor>, Rejection> {
        match self {
            Self::Here(local) => local.infer(ready.inputs.clone()).await,
            Self::There(remote) => remote.infer(ready).await,
        }
    }
}

/// What the thread that reads the log says.
enum Read {
    Call(Box<Recorded>),
    /// A file that cannot be read.
    Damage(String),
    End(Counts),
}

/// A call that was asked again.
struct Done {
    ready: Ready,
    result: Result<Vec<Tensor>, Rejection>,
}

impl Replay {
    /// Replays. On the runtime that the target was made on.
    ///
    /// # Errors
    /// When the log or the feedback cannot be read at all, or an option names nothing.
    pub async fn run(self, target: &Target) -> anyhow::Result<Report> {
        let started = Instant::now();
        let labels = self.labels().await?;
        let mut log = LogRead::default();
        for damage in labels.iter().flat_map(Labels::damage) {
            log.add_damage(damage.clone());
        }
        let mut tally = Tally::new(&self, target, labels)?;
        let feed = Feed {
            read: Some(self.read()?),
            choice: Choice::new((target.signature().clone(), target.required()), &self),
            next: None,
            pace: Pace { speed: self.speed, first: None, lag: Duration::ZERO },
            left: self.limit.unwrap_or(u64::MAX),
            log,
        };
        let Feed { choice, pace, log, .. } = self.pump(feed, target, &mut tally).await;
        let about = About { seconds: started.elapsed(), lag: pace.lag, log };
        Ok(tally.report(about, choice))
    }

    async fn labels(&self) -> anyhow::Result<Option<Labels>> {
        if self.most_feedback == 0 {
            return Ok(None);
        }
        // Some comes before its call, and clocks differ.
        let from_us = self.query.from_us.map(|from| from.saturating_sub(EARLIER_US));
        let range = Range { from_us, until_us: None, most: self.most_feedback };
        let log = self.log.clone();
        Ok(Some(tasks::blocking(move || Labels::read(&log, &range)).await?))
    }

    /// Starts the thread that reads.
    fn read(&self) -> anyhow::Result<Receiver<Read>> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let mut found = calls(&self.log, self.query.clone())?;
        tasks::thread("replay", move || {
            for call in found.by_ref() {
                let read = match call {
                    Ok(call) => Read::Call(Box::new(call)),
                    Err(error) => Read::Damage(error.to_string()),
                };
                // Nobody listens once enough was replayed.
                if sender.blocking_send(read).is_err() {
                    return;
                }
            }
            drop(sender.blocking_send(Read::End(found.counts().clone())));
        })?;
        Ok(receiver)
    }

    /// Moves calls from the log to the target and on, until all have been answered.
    async fn pump(&self, mut feed: Feed, target: &Target, tally: &mut Tally) -> Feed {
        let most = self.max_in_flight.max(1);
        let mut bytes = 0;
        let mut under_way = FuturesOrdered::new();
        loop {
            let has_room = under_way.len() < most && bytes < IN_FLIGHT;
            let due = feed.next.as_ref().map(|(_, due)| *due);
            tokio::select! {
                Some(Done { ready, result }) = under_way.next() => {
                    bytes -= ready.bytes;
                    tally.take(ready, result);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && has_room => {
                    let Some(ready) = feed.take_next() else { continue };
                    bytes += ready.bytes;
                    under_way.push_back(ask(target, ready));
                }
                read = next(&mut feed.read), if due.is_none() && feed.read.is_some() => {
                    feed.take(read);
                }
                else => return feed,
            }
        }
    }
}

async fn ask(target: &Target, ready: Ready) -> Done {
    let result = target.infer(&ready).await;
    Done { ready, result }
}

async fn next(read: &mut Option<Receiver<Read>>) -> Option<Read> {
    read.as_mut()?.recv().await
}

/// Where calls come from, until they are asked.
struct Feed {
    /// `None` once nothing more comes.
    read: Option<Receiver<Read>>,
    choice: Choice,
    /// The next call, and when its time has come.
    next: Option<(Ready, Instant)>,
    pace: Pace,
    /// Calls that are still to be asked.
    left: u64,
    log: LogRead,
}

impl Feed {
    fn take(&mut self, read: Option<Read>) {
        match read {
            Some(Read::Call(call)) => {
                self.log.calls += 1;
                let arrived_us = call.row.arrived_us;
                if let Some(ready) = self.choice.choose(*call) {
                    self.next = Some((ready, self.pace.due(arrived_us)));
                }
            }
            Some(Read::Damage(text)) => self.log.add_damage(text),
            Some(Read::End(counts)) => {
                self.log.end(&counts);
                self.read = None;
            }
            None => {
                self.log.add_damage("reading the log broke off".to_owned());
                self.read = None;
            }
        }
    }

    fn take_next(&mut self) -> Option<Ready> {
        let (ready, due) = self.next.take()?;
        self.pace.note(due);
        self.left -= 1;
        if self.left == 0 {
            self.read = None;
        }
        Some(ready)
    }
}

/// When calls are asked.
struct Pace {
    speed: Speed,
    /// When the first one came, and when it is asked.
    first: Option<(i64, Instant)>,
    /// How far the replay was behind at most.
    lag: Duration,
}

impl Pace {
    fn due(&mut self, arrived_us: i64) -> Instant {
        let now = Instant::now();
        let Speed::Times(speed) = self.speed else { return now };
        let (first_us, begun) = *self.first.get_or_insert((arrived_us, now));
        let after = u64::try_from(arrived_us.saturating_sub(first_us)).unwrap_or(0);
        let after = Duration::try_from_secs_f64(Duration::from_micros(after).as_secs_f64() / speed);
        after.ok().and_then(|after| begun.checked_add(after)).unwrap_or(now)
    }

    fn note(&mut self, due: Instant) {
        if self.speed != Speed::Max {
            self.lag = self.lag.max(due.elapsed());
        }
    }
}

#[cfg(test)]
mod tests;
