//! The policies of DESIGN 5.4 as four questions. Nothing else knows which policy is in force.

use crate::group::view::{Policy, View};
use crate::types::Rank;

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
    if crate::group::broken::is("commit-at-half") {
        return view.members.len() / 2;
    }
    if crate::group::broken::is("commit-at-one") {
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
                    && (present.contains(highest) || crate::group::broken::is("half-without-tie-break"))
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
