//! What a route's callers take all of its arms for, and whether an arm elsewhere fits that.

use std::sync::{Arc, PoisonError, RwLock};

use tracing::warn;

use super::Seat;
use crate::types::{ArmName, Signature};
use crate::upstream::RemoteModel;

/// The signature of a route.
///
/// Of arms that are loaded here the first one's: what is loaded does not change. Where all arms are
/// elsewhere, and may change at any time, the one that most of them have. Where as many have
/// another, it stays as it was, and at first it is that of the arm which stands first: whoever
/// changes alone is left out, and not the others. Health plays no part in it: what nobody answers
/// for a moment is still what callers know.
#[derive(Debug)]
pub(in crate::snapshot) struct Standard {
    /// Those that decide it: none where an arm is loaded here.
    arms: Vec<(ArmName, Arc<RemoteModel>)>,
    last: RwLock<Option<Arc<Elected>>>,
}

#[derive(Debug)]
struct Elected {
    /// The first arm that has it.
    arm: ArmName,
    signature: Arc<Signature>,
    /// Of the arms when it was elected.
    revisions: Vec<u64>,
}

/// Whether a model elsewhere fits, as of the last time that one of the two signatures changed.
#[derive(Debug)]
pub(super) struct Fit {
    standard: Arc<Standard>,
    last: RwLock<Option<Compared>>,
}

#[derive(Debug)]
struct Compared {
    standard: Arc<Signature>,
    own: Arc<Signature>,
    misfit: Option<String>,
}

impl Standard {
    /// That of these arms; `before` is what the route had until now.
    pub(in crate::snapshot) fn new<'a>(
        arms: impl Iterator<Item = (&'a ArmName, &'a Seat)> + Clone,
        before: Option<&Self>,
    ) -> Arc<Self> {
        let mut loaded = arms.clone().filter_map(|(name, seat)| Some((name, seat.local()?)));
        let elected = |arm: &ArmName, signature: &Arc<Signature>| {
            let (arm, signature) = (arm.clone(), signature.clone());
            Arc::new(Elected { arm, signature, revisions: vec![] })
        };
        if let Some((arm, served)) = loaded.next() {
            let last = Some(elected(arm, served.signature()));
            return Arc::new(Self { arms: vec![], last: RwLock::new(last) });
        }
        let remote = |(name, seat): (&ArmName, &Seat)| match seat {
            Seat::Remote(remote) => Some((name.clone(), remote.model.clone())),
            Seat::Local(_) | Seat::Empty(_) => None,
        };
        let last = before.and_then(Self::last).map(|last| elected(&last.arm, &last.signature));
        Arc::new(Self { arms: arms.filter_map(remote).collect(), last: RwLock::new(last) })
    }

    fn last(&self) -> Option<Arc<Elected>> {
        self.last.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `None` while no arm's signature is known.
    fn current(&self) -> Option<Arc<Elected>> {
        let revisions = || self.arms.iter().map(|(_, model)| model.revision());
        let is_current = |last: &Arc<Elected>| revisions().eq(last.revisions.iter().copied());
        if let Some(last) = self.last().filter(is_current) {
            return Some(last);
        }
        let mut last = self.last.write().unwrap_or_else(PoisonError::into_inner);
        // Before the signatures: one that changes meanwhile is looked at again.
        let revisions = revisions().collect();
        let signature = |(name, model): &'_ (ArmName, Arc<RemoteModel>)| {
            Some((name.clone(), model.signature()?))
        };
        let known: Vec<_> = self.arms.iter().filter_map(signature).collect();
        let (arm, signature) = prevailing(&known, last.as_ref().map(|last| &last.signature))?;
        let elected = Arc::new(Elected { arm, signature, revisions });
        *last = Some(elected.clone());
        Some(elected)
    }
}

/// The signature that most arms have, with the first that has it; `current` where no other has
/// more.
fn prevailing(
    arms: &[(ArmName, Arc<Signature>)],
    current: Option<&Arc<Signature>>,
) -> Option<(ArmName, Arc<Signature>)> {
    let having = |signature: &Arc<Signature>| {
        let signature = signature.clone();
        arms.iter().filter(move |(_, own)| signature.incompatibility(own).is_none())
    };
    let mut best: Option<(usize, &Arc<Signature>)> = None;
    for signature in current.into_iter().chain(arms.iter().map(|(_, own)| own)) {
        let votes = having(signature).count();
        if votes > best.map_or(0, |(most, _)| most) {
            best = Some((votes, signature));
        }
    }
    let (_, signature) = best?;
    let (arm, _) = having(signature).next()?;
    Some((arm.clone(), signature.clone()))
}

impl Fit {
    pub(super) fn new(standard: &Arc<Standard>) -> Self {
        Self { standard: standard.clone(), last: RwLock::default() }
    }

    /// Why a model with this signature does not fit; `None` where it does.
    pub(super) fn misfit(&self, own: &Arc<Signature>) -> Option<String> {
        let elected = self.standard.current()?;
        let (arm, standard) = (&elected.arm, &elected.signature);
        let is_same = |compared: &&Compared| {
            Arc::ptr_eq(&compared.standard, standard) && Arc::ptr_eq(&compared.own, own)
        };
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last.as_ref().filter(is_same) {
            return known.misfit.clone();
        }
        drop(last);
        let reason = standard.incompatibility(own);
        let misfit = reason.map(|reason| format!("does not fit arm '{arm}': {reason}"));
        if let Some(reason) = &misfit {
            warn!(reason, "a model elsewhere gets no calls of a route");
        }
        let (standard, own) = (standard.clone(), own.clone());
        let compared = Compared { standard, own, misfit: misfit.clone() };
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = Some(compared);
        misfit
    }
}

#[cfg(test)]
mod tests {
    use engine::{DataType, TensorSpec};

    use super::*;

    fn signature(size: i64) -> Arc<Signature> {
        let spec = TensorSpec { name: "x".into(), datatype: DataType::Fp32, shape: vec![-1, size] };
        let (inputs, outputs) = (vec![spec], vec![]);
        Arc::new(Signature { inputs, outputs, max_batch_size: 8, splits: true })
    }

    /// The arm and the size that prevail among arms of these sizes, named `a`, `b` and so on.
    fn found(sizes: &[i64], current: Option<i64>) -> Option<(String, i64)> {
        let name = |index: usize| ["a", "b", "c", "d"][index].parse().unwrap();
        let arms: Vec<_> =
            sizes.iter().enumerate().map(|(index, size)| (name(index), signature(*size))).collect();
        let current = current.map(signature);
        let (arm, signature) = prevailing(&arms, current.as_ref())?;
        Some((arm.to_string(), signature.inputs[0].shape[1]))
    }

    #[test]
    fn most_arms_decide_and_where_as_many_differ_it_stays() {
        let at = |arm: &str, size| Some((arm.to_owned(), size));
        assert_eq!(found(&[], Some(1)), None);
        assert_eq!(found(&[2], Some(1)), at("a", 2), "nobody has it any more");
        assert_eq!(found(&[1, 2], None), at("a", 1));
        assert_eq!(found(&[2, 1], Some(1)), at("b", 1), "who changes alone is left out");
        assert_eq!(found(&[2, 2], Some(1)), at("a", 2));
        assert_eq!(found(&[2, 1, 1], None), at("b", 1), "most go before the first");
        assert_eq!(found(&[2, 1, 2, 1], Some(1)), at("b", 1));
        assert_eq!(found(&[2, 1, 2, 2], Some(1)), at("a", 2));
        // Those that differ only where one is of any size are taken for the same.
        assert_eq!(found(&[-1, 3, 3], None), at("a", -1));
    }
}
