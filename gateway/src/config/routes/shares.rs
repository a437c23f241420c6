//! Whether the shares and pinned buckets of a route's arms make a whole.

use crate::config::reader::Section;
use crate::types::{BUCKETS, Share};

/// What the file says of an arm's share.
#[derive(Clone, Copy)]
pub(super) enum Given {
    Share(Share),
    Absent,
    /// Which has been reported.
    Wrong,
}

/// The share of every arm; the one that has none gets the rest.
pub(super) fn settle(route: &Section<'_>, given: &[Given]) -> Option<Vec<Share>> {
    let (mut sum, mut absent, mut wrong) = (0_u32, 0, false);
    for (index, share) in given.iter().enumerate() {
        match share {
            Given::Share(share) => sum += u32::from(share.buckets()),
            Given::Wrong => wrong = true,
            Given::Absent => {
                absent += 1;
                if absent > 1 {
                    let text = "is missing: only one arm may leave it out";
                    route.problem(&format!("arm[{index}].share"), text);
                }
            }
        }
    }
    if wrong || absent > 1 || given.is_empty() {
        return None;
    }
    let rest = u32::from(BUCKETS).checked_sub(sum).filter(|rest| absent == 1 || *rest == 0);
    let rest = rest.and_then(|rest| Share::of_buckets(u16::try_from(rest).ok()?));
    let Some(rest) = rest else {
        route.problem("arm", format!("shares add up to {}, must be 100%", percent(sum)));
        return None;
    };
    let share = |share: &Given| if let Given::Share(share) = share { *share } else { rest };
    Some(given.iter().map(share).collect())
}

/// Pinned buckets are those of all arms, of none twice, and as many as the shares say; then no
/// bucket is left out either.
pub(super) fn check_pins(route: &Section<'_>, shares: &[Share], pins: &[Option<Vec<(u16, u16)>>]) {
    if pins.iter().all(Option::is_none) {
        return;
    }
    let mut all = Vec::new();
    for (index, (pins, share)) in pins.iter().zip(shares).enumerate() {
        let problem = |text: String| route.problem(&format!("arm[{index}].buckets"), text);
        let Some(pins) = pins else {
            problem("is missing: buckets are pinned for all arms of a route or for none".into());
            continue;
        };
        let count: u16 = pins.iter().map(|(from, to)| to - from).sum();
        if count != share.buckets() {
            problem(format!("holds {count} buckets, a share of {share} is {}", share.buckets()));
        }
        all.extend(pins.iter().map(|pair| (*pair, index)));
    }
    all.sort_unstable();
    let (mut end, mut holder) = (0, 0);
    for ((from, to), index) in all {
        if from < end {
            let text = format!("holds bucket {from}, as arm[{holder}] does");
            route.problem(&format!("arm[{index}].buckets"), text);
        }
        if to > end {
            (end, holder) = (to, index);
        }
    }
}

/// As [`Share`] is written, beyond 100% too.
fn percent(buckets: u32) -> String {
    let text = format!("{}.{:02}", buckets / 100, buckets % 100);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}
