//! The policies of DESIGN 5.4 as four questions. Nothing else knows which policy is in force.

use crate::types::Rank;
use crate::wire::view::{Policy, View};

/// A set of a view's members, by rank.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Ranks(u32);

impl Ranks {
    pub fn of(ranks: impl IntoIterator<Item = Rank>) -> Ranks {
        ranks.into_iter().fold(Ranks::default(), Ranks::with)
    }

    #[must_use]
    pub fn with(self, rank: Rank) -> Ranks {
        Ranks(self.0 | 1 << rank.0)
    }

    #[must_use]
    pub fn without(self, rank: Rank) -> Ranks {
        Ranks(self.0 & !(1 << rank.0))
    }

    pub fn contains(self, rank: Rank) -> bool {
        self.0 >> rank.0 & 1 == 1
    }

    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }
}

/// May commit? The number of members that must hold a slot durably.
pub fn commit_count(view: &View) -> usize {
    if crate::broken::is("commit-at-half") {
        return view.members.len() / 2;
    }
    if crate::broken::is("commit-at-one") {
        return 1;
    }
    match view.policy {
        Policy::Dynamic => view.members.len() / 2 + 1,
        Policy::Majority => view.book.len() / 2 + 1,
        Policy::Available => view.members.len(),
    }
}

/// May promise, accept, read? Whether these members are a quorum of the view: of equal halves the one with the
/// view's highest id.
pub fn is_quorum(view: &View, present: Ranks) -> bool {
    let highest = Rank(view.members.len() as u8 - 1);
    match view.policy {
        Policy::Dynamic => {
            let twice = 2 * present.count();
            twice > view.members.len()
                || twice == view.members.len()
                    && (present.contains(highest) || crate::broken::is("half-without-tie-break"))
        }
        Policy::Majority => 2 * present.count() > view.book.len(),
        Policy::Available => present.count() >= 1,
    }
}

/// May this view exist? It must be able to be a quorum of itself, or it could never be changed again.
pub fn may_exist(view: &View) -> bool {
    let all = Ranks::of((0..view.members.len()).map(|k| Rank(k as u8)));
    match view.policy {
        Policy::Dynamic | Policy::Majority => {
            view.members.len() >= usize::from(view.min_members) && is_quorum(view, all)
        }
        Policy::Available => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::view::tests::view_of;

    /// Every set of members of a view of `members`.
    fn subsets(members: u8) -> impl Iterator<Item = Ranks> {
        (0u32..1 << members).map(move |bits| Ranks::of((0..members).filter(|k| bits >> k & 1 == 1).map(Rank)))
    }

    #[test]
    fn ranks_are_a_set() {
        let set = Ranks::of([Rank(0), Rank(14), Rank(14)]);
        assert_eq!((set.count(), set.contains(Rank(14)), set.contains(Rank(1))), (2, true, false));
        assert_eq!(subsets(3).map(Ranks::count).collect::<Vec<_>>(), [0, 1, 1, 2, 1, 2, 2, 3]);
    }

    #[test]
    fn the_counts_that_commit() {
        let counts = |policy| (1..=5).map(|n| commit_count(&view_of(n, 5, policy))).collect::<Vec<_>>();
        assert_eq!(counts(Policy::Dynamic), [1, 2, 2, 3, 3]);
        assert_eq!(counts(Policy::Majority), [3, 3, 3, 3, 3]);
        assert_eq!(counts(Policy::Available), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn dynamic_takes_more_than_half_or_the_half_with_the_highest_id() {
        for members in 1..=5u8 {
            let view = view_of(members, 5, Policy::Dynamic);
            for set in subsets(members) {
                let (count, all) = (set.count(), usize::from(members));
                let half = members % 2 == 0 && count == all / 2 && set.contains(Rank(members - 1));
                assert_eq!(is_quorum(&view, set), count > all / 2 || half, "{set:?} of {members}");
            }
        }
        let four = view_of(4, 5, Policy::Dynamic);
        assert!(is_quorum(&four, Ranks::of([Rank(0), Rank(3)])));
        assert!(!is_quorum(&four, Ranks::of([Rank(0), Rank(1)])));
    }

    #[test]
    fn majority_counts_the_configured() {
        for (members, configured) in [(1, 1), (2, 3), (3, 3), (2, 4), (3, 4), (3, 5), (5, 5), (2, 5)] {
            let view = view_of(members, configured, Policy::Majority);
            for set in subsets(members) {
                assert_eq!(is_quorum(&view, set), 2 * set.count() > usize::from(configured), "{set:?} of {configured}");
            }
        }
    }

    #[test]
    fn available_takes_anyone() {
        let view = view_of(5, 5, Policy::Available);
        assert!(subsets(5).all(|set| is_quorum(&view, set) == (set.count() > 0)));
    }

    #[test]
    fn a_quorum_meets_every_other_and_every_commit() {
        for policy in [Policy::Dynamic, Policy::Majority] {
            for members in 1..=5 {
                let view = view_of(members, 5, policy);
                for (a, b) in subsets(members).flat_map(|a| subsets(members).map(move |b| (a, b))) {
                    let meet = a.0 & b.0 != 0;
                    assert!(meet || !is_quorum(&view, a) || !is_quorum(&view, b), "{a:?} and {b:?}");
                    assert!(meet || !is_quorum(&view, a) || b.count() < commit_count(&view), "{a:?} and {b:?}");
                }
            }
        }
    }

    #[test]
    fn a_view_must_be_a_quorum_of_itself_and_large_enough() {
        let may = |members, configured, policy, min_members| {
            let mut view = view_of(members, configured, policy);
            view.min_members = min_members;
            may_exist(&view)
        };
        assert!(may(1, 5, Policy::Dynamic, 1));
        assert!(may(2, 5, Policy::Dynamic, 2));
        assert!(!may(2, 5, Policy::Dynamic, 3));
        assert!(may(3, 5, Policy::Majority, 1));
        assert!(!may(2, 5, Policy::Majority, 1));
        assert!(!may(2, 4, Policy::Majority, 1));
        assert!(!may(3, 5, Policy::Majority, 4));
        assert!(may(1, 5, Policy::Available, 4));
    }
}
