//! What the change asks of its own replica.

use crate::group::change::OldCopy;
use crate::types::ReplicaId;
use crate::wire::change::{ChangeFrame, LogEnd};
use crate::wire::view::View;

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
    /// The directory is an older copy: nothing it holds may answer for this replica any more. The last that is asked.
    Distrust(OldCopy),
    Say {
        to: ReplicaId,
        frame: ChangeFrame,
        durably: bool,
    },
}
