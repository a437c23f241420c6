//! Calls and answers cross between I/O and engine threads in bulk: calls once per turn of the
//! event loop, answers once per batch. Waking for each of them costs more than most models do.
//!
//! An I/O thread that calls [`attach`] collects what its tasks submit; the first call wakes a
//! resident task that stands behind all tasks that are ready now, so that theirs go with it.
//! Threads that do not attach hand over each call by itself.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::pool::{Entry, Pool};
use super::reply::{Letter, Mailbox};
use crate::tasks;

thread_local! {
    static OUTBOX: RefCell<Option<Outbox>> = const { RefCell::new(None) };
}

/// What the tasks of one thread submitted since the last hand-over.
struct Outbox {
    entries: Vec<Entry>,
    flusher: Option<Waker>,
    mailbox: Arc<Mailbox>,
}

/// Makes this thread hand over in bulk. Call it once, inside its event loop; the tasks that it
/// starts end with the loop.
pub fn attach() {
    let mailbox = Arc::new(Mailbox::default());
    let outbox = Outbox { entries: Vec::new(), flusher: None, mailbox: mailbox.clone() };
    OUTBOX.set(Some(outbox));
    tasks::spawn("hand-over", poll_fn(flush));
    let mut bag: Vec<Letter> = Vec::new();
    tasks::spawn(
        "answers",
        poll_fn(move |context| {
            mailbox.register(context.waker());
            mailbox.empty_into(&mut bag);
            for (caller, ending) in bag.drain(..) {
                // A send fails only when the caller has gone, who then needs no answer.
                drop(caller.send(ending));
            }
            Poll::<()>::Pending
        }),
    );
}

/// Where answers to this thread's calls go; `None` where it did not attach.
pub(super) fn mailbox() -> Option<Arc<Mailbox>> {
    OUTBOX.with_borrow(|outbox| outbox.as_ref().map(|outbox| outbox.mailbox.clone()))
}

/// Hands a call over, now or with the others of this turn.
pub(super) fn submit(entry: Entry) {
    let alone = OUTBOX.with_borrow_mut(|outbox| {
        let Some(outbox) = outbox else { return Some(entry) };
        outbox.entries.push(entry);
        if outbox.entries.len() == 1
            && let Some(flusher) = &outbox.flusher
        {
            flusher.wake_by_ref();
        }
        None
    });
    if let Some(entry) = alone {
        Pool::enqueue(&mut vec![entry]);
    }
}

fn flush(context: &mut Context<'_>) -> Poll<()> {
    OUTBOX.with_borrow_mut(|outbox| {
        if let Some(outbox) = outbox {
            if outbox.flusher.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
                outbox.flusher = Some(context.waker().clone());
            }
            Pool::enqueue(&mut outbox.entries);
        }
    });
    Poll::Pending
}
