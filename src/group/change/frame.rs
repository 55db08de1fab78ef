//! What replicas say to each other in a change, and what the change asks of its own replica.

use crate::types::{Digest, Epoch, GroupTime, ReplicaId, Run, Slot};
use crate::wire::view::{Ballot, View};

/// How far a log reaches without a gap, and what it is up to there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct LogEnd {
    pub slot: Slot,
    pub digest: Digest,
    pub time: GroupTime,
}

/// What one replica answers to PREPARE.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Promise {
    pub run: Run,
    /// Its birth is the one that view e records: its promise counts.
    pub voter: bool,
    pub accepted: Option<(Ballot, View)>,
    pub end: LogEnd,
    pub leaving: bool,
}

/// One frame of a change. All name the epoch e of the view that is to be followed; ballots begin anew with each.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ChangeFrame {
    /// `view` is view e itself, for those that never got it.
    Prepare {
        ballot: Ballot,
        view: View,
    },
    Promise {
        epoch: Epoch,
        ballot: Ballot,
        promise: Promise,
    },
    /// A higher ballot was promised.
    Refuse {
        epoch: Epoch,
        promised: Ballot,
    },
    /// Fetch what you lack up to `base` from those who have it.
    Sync {
        epoch: Epoch,
        ballot: Ballot,
        base: LogEnd,
        sources: Vec<ReplicaId>,
    },
    Ready {
        epoch: Epoch,
        ballot: Ballot,
        base: LogEnd,
    },
    Accept {
        ballot: Ballot,
        value: View,
        view: View,
    },
    Accepted {
        epoch: Epoch,
        ballot: Ballot,
    },
    Install {
        view: View,
    },
    Installed {
        epoch: Epoch,
    },
}

/// What the replica must do. In this order; what is said "durably" leaves once everything written before is on the
/// disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// View e orders no more here: what is held contiguously goes to the log.
    Freeze,
    /// The durable state has changed: write it.
    Write,
    /// Records that [`Acceptor::keeps`](super::Acceptor::keeps) denies are dropped, once the write that follows is
    /// durable.
    Adopt(View),
    /// Bring the log up to this end from these replicas, make it durable, and call `synced`.
    Fetch {
        base: LogEnd,
        sources: Vec<ReplicaId>,
    },
    Say {
        to: ReplicaId,
        frame: ChangeFrame,
        durably: bool,
    },
}

impl ChangeFrame {
    /// The epoch that must not be behind this replica's own; `None` for an answer about any decided view.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        match self {
            ChangeFrame::Prepare { view, .. } | ChangeFrame::Accept { view, .. } | ChangeFrame::Install { view } => {
                Some(view.epoch)
            }
            ChangeFrame::Promise { epoch, .. }
            | ChangeFrame::Refuse { epoch, .. }
            | ChangeFrame::Sync { epoch, .. }
            | ChangeFrame::Ready { epoch, .. }
            | ChangeFrame::Accepted { epoch, .. } => Some(*epoch),
            ChangeFrame::Installed { .. } => None,
        }
    }

    /// The decided view that it brings.
    pub(super) fn view(&self) -> Option<&View> {
        match self {
            ChangeFrame::Prepare { view, .. } | ChangeFrame::Accept { view, .. } | ChangeFrame::Install { view } => {
                Some(view)
            }
            _ => None,
        }
    }

    /// Whether whoever says this waits for an answer, and must be told when it is behind.
    pub(super) fn is_request(&self) -> bool {
        use ChangeFrame::{Accept, Install, Prepare, Sync};
        matches!(self, Prepare { .. } | Sync { .. } | Accept { .. } | Install { .. })
    }
}
