//! The way back to a caller: directly, through the mailbox of its I/O thread, or by way of the
//! call that it is a part of.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::Tensor;
use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;

use super::job::{Done, Failure};
use crate::types::Timings;

/// How a call ended.
pub(super) type Ending = Result<Done, Failure>;

/// Who waits for an answer.
#[derive(Debug)]
pub(super) enum Reply {
    Caller(oneshot::Sender<Ending>, Option<Arc<Mailbox>>),
    /// Part of a call that was larger than a batch, and its position in it.
    Part(Arc<Joint>, usize),
}

/// Endings on their way to one I/O thread, which is woken once for many of them.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    reader: AtomicWaker,
}

pub(super) type Letter = (oneshot::Sender<Ending>, Ending);

/// Endings to be sent together. Dropping it sends them.
#[derive(Debug, Default)]
pub(super) struct Post {
    bags: Vec<(Arc<Mailbox>, Vec<Letter>)>,
}

/// A call whose rows run in several batches.
#[derive(Debug)]
pub(super) struct Joint {
    state: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    /// Taken by the last part, or by the first that fails.
    reply: Option<Box<Reply>>,
    done: Vec<Option<Done>>,
    missing: usize,
}

impl Reply {
    /// Whether nobody waits any more.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::Caller(sender, _) => sender.is_closed(),
            Self::Part(joint, _) => joint.is_gone(),
        }
    }

    /// Ends the call.
    pub(super) fn send(self, ending: Ending, post: &mut Post) {
        match self {
            Self::Caller(sender, Some(mailbox)) => post.add(mailbox, (sender, ending)),
            // A send fails only when the caller has gone, who then needs no answer.
            Self::Caller(sender, None) => drop(sender.send(ending)),
            Self::Part(joint, position) => joint.end(position, ending, post),
        }
    }
}

impl Mailbox {
    /// Says whom to wake when letters come.
    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.reader.register(waker);
    }

    /// Takes all letters and leaves the empty `bag` in their place.
    pub(super) fn empty_into(&self, bag: &mut Vec<Letter>) {
        std::mem::swap(&mut *self.lock(), bag);
    }

    fn put(&self, letters: &mut Vec<Letter>) {
        let was_empty = {
            let mut waiting = self.lock();
            let was_empty = waiting.is_empty();
            waiting.append(letters);
            was_empty
        };
        // Somebody who found letters has woken the reader, who will find these too.
        if was_empty {
            self.reader.wake();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Letter>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Post {
    fn add(&mut self, mailbox: Arc<Mailbox>, letter: Letter) {
        // There are as many mailboxes as I/O threads: a list is faster than a map.
        match self.bags.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &mailbox)) {
            Some((_, bag)) => bag.push(letter),
            None => self.bags.push((mailbox, vec![letter])),
        }
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        for (mailbox, bag) in &mut self.bags {
            mailbox.put(bag);
        }
    }
}

impl Joint {
    pub(super) fn new(reply: Reply, parts: usize) -> Self {
        let done = std::iter::repeat_with(|| None).take(parts).collect();
        Self { state: Mutex::new(Parts { reply: Some(Box::new(reply)), done, missing: parts }) }
    }

    fn is_gone(&self) -> bool {
        self.lock().reply.as_ref().is_none_or(|reply| reply.is_gone())
    }

    fn end(&self, position: usize, ending: Ending, post: &mut Post) {
        let mut state = self.lock();
        let (reply, ending) = match ending {
            Err(failure) => (state.reply.take(), Err(failure)),
            Ok(done) => {
                state.done[position] = Some(done);
                state.missing -= 1;
                if state.missing > 0 {
                    return;
                }
                let parts = std::mem::take(&mut state.done).into_iter().flatten().collect();
                (state.reply.take(), joined(parts))
            }
        };
        drop(state);
        if let Some(reply) = reply {
            reply.send(ending, post);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Outputs in the order of the parts. Parts run one after the other or beside each other, so
/// the call waited as long as the part that waited longest, and computed as long as all of them.
fn joined(parts: Vec<Done>) -> Ending {
    let mut outputs = Vec::new();
    for index in 0..parts.iter().map(|part| part.outputs.len()).min().unwrap_or(0) {
        let pieces: Vec<Tensor> = parts.iter().map(|part| part.outputs[index].clone()).collect();
        let first = pieces[0].shape();
        if pieces.iter().any(|piece| piece.shape().get(1..) != first.get(1..) || first.is_empty()) {
            let text = "an output's shape depends on more than its own rows, and the call was \
                        larger than a batch";
            return Err(Failure::Outputs(text.to_owned()));
        }
        outputs.push(Tensor::concat_rows(&pieces));
    }
    let sum = |of: fn(&Timings) -> Duration| parts.iter().map(|part| of(&part.timings)).sum();
    let timings = Timings {
        queue: parts.iter().map(|part| part.timings.queue).max().unwrap_or_default(),
        input: sum(|timings| timings.input),
        infer: sum(|timings| timings.infer),
        output: sum(|timings| timings.output),
        batch: parts.iter().map(|part| part.timings.batch).max().unwrap_or_default(),
    };
    Ok(Done { outputs, timings })
}
