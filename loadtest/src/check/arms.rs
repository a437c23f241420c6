//! What answers of a route must say of themselves while its settings change: an arm that one of
//! the settings has, the version that this arm has there, and a caller that belongs to it there.
//! Arms have another name in each setting, so that parts of two settings in one answer show.

use std::collections::BTreeMap;

use crate::answer::Answer;

/// The arms that a route may have meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Arms {
    route: String,
    known: BTreeMap<String, Known>,
}

#[derive(Debug, Clone)]
struct Known {
    version: String,
    /// For each number of a key, whether its callers belong here.
    members: Option<Vec<bool>>,
}

impl Arms {
    #[must_use]
    pub fn of(route: &str) -> Self {
        Self { route: route.to_owned(), known: BTreeMap::new() }
    }

    /// One more arm, with the version that answers there.
    pub fn add(&mut self, arm: &str, version: &str) {
        let known = Known { version: version.to_owned(), members: None };
        drop(self.known.insert(arm.to_owned(), known));
    }

    /// Which callers belong to an arm that is known, by the numbers of their keys.
    pub fn has_members(&mut self, arm: &str, members: Vec<bool>) {
        if let Some(known) = self.known.get_mut(arm) {
            known.members = Some(members);
        }
    }

    /// What is wrong with how an answer names itself.
    pub(super) fn mismatch(&self, answer: &Answer, key: Option<u64>) -> Option<String> {
        let origin = &answer.origin;
        if origin.route.as_deref() != Some(&self.route) {
            return Some(format!("route {:?} answered for {}", origin.route, self.route));
        }
        let arm = origin.arm.as_deref().unwrap_or_default();
        let Some(known) = self.known.get(arm) else {
            return Some(format!("arm '{arm}' answered, which {} never had", self.route));
        };
        if origin.fallback {
            return Some(format!("arm {arm} answered for one that did not"));
        }
        if answer.version != known.version {
            let (version, own) = (&answer.version, &known.version);
            return Some(format!("version {version} answered as arm {arm}, which has {own}"));
        }
        if let (Some(members), Some(key)) = (&known.members, key) {
            let at = usize::try_from(key).ok();
            if !at.and_then(|at| members.get(at)).copied().unwrap_or(false) {
                return Some(format!("arm {arm} answered caller {key}, who does not belong there"));
            }
        }
        origin.prediction.is_none().then(|| "an answer without its prediction's id".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Origin;

    fn answer(version: &str, arm: &str) -> Answer {
        let text = |text: &str| Some(text.to_owned());
        let origin =
            Origin { prediction: text("p"), route: text("r"), arm: text(arm), fallback: false };
        Answer { version: version.to_owned(), origin, outputs: Vec::new() }
    }

    fn arms() -> Arms {
        let mut arms = Arms::of("r");
        arms.add("stable-a", "1");
        arms.add("stable-b", "2");
        arms.has_members("stable-b", vec![true, false]);
        arms
    }

    #[test]
    fn parts_of_two_settings_in_one_answer_show() {
        let mismatch = |version, arm, key| arms().mismatch(&answer(version, arm), key);
        assert_eq!(mismatch("1", "stable-a", Some(1)), None);
        assert_eq!(mismatch("2", "stable-b", Some(0)), None);
        assert!(mismatch("2", "stable-a", None).unwrap().contains("which has 1"));
        assert!(mismatch("2", "stable-b", Some(1)).unwrap().contains("does not belong"));
        assert!(mismatch("2", "stable-b", Some(9)).is_some());
        assert!(mismatch("1", "canary", None).unwrap().contains("never had"));
    }

    #[test]
    fn an_answer_that_does_not_say_where_it_comes_from_is_wrong() {
        let spoil = |change: fn(&mut Origin)| {
            let mut answer = answer("1", "stable-a");
            change(&mut answer.origin);
            arms().mismatch(&answer, None)
        };
        assert!(spoil(|_| ()).is_none());
        assert!(spoil(|origin| origin.prediction = None).is_some());
        assert!(spoil(|origin| origin.route = None).is_some());
        assert!(spoil(|origin| origin.arm = None).is_some());
        assert!(spoil(|origin| origin.fallback = true).is_some());
    }
}
