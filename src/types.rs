//! The words of DESIGN section 1 as types: identifiers, positions and times. Never a bare `u64` in a signature.

use std::fmt;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

macro_rules! position {
    ($name:ident) => {
        impl $name {
            /// The next one. Panics at the end of the range, which no run reaches.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a counter of 64 bits never reaches its end"))
            }
        }
    };
}

newtype! {
    /// A replica's configured id: 1 to [`crate::limits::REPLICA_ID_MAX`].
    ReplicaId(u8)
}
newtype! {
    /// 64 random bits, made durable when a data directory is empty or its memory must be distrusted.
    Birth(u64)
}
newtype! {
    /// Raised and made durable at every start of a replica.
    Incarnation(u64)
}
newtype! {
    /// Tells the runs of one replica apart, in 64 bits.
    RunMark(u64)
}
newtype! {
    /// The 64 random bits that tell one group from another.
    ClusterId(u64)
}
newtype! {
    /// The number of a primary view. View 1 is made at bootstrap; 0 is "none yet".
    Epoch(u64)
}
newtype! {
    /// A view's name on the wire: a hash of cluster, epoch and first ballot. 0 is "no view".
    ViewTag(u64)
}
newtype! {
    /// A global sequence number, counted from 1; 0 is "nothing yet".
    Slot(u64)
}
newtype! {
    /// A message's number at its origin within a view, counted from 1; 0 is "nothing yet".
    Mseq(u64)
}
newtype! {
    /// A member's place in its view, sorted by id, counted from 0.
    Rank(u8)
}
newtype! {
    /// Monotonic nanoseconds of one replica's own clock. Means nothing to another replica.
    Time(u64)
}
newtype! {
    /// Nanoseconds of the group's own clock, which the ORDERs carry. Wall clocks decide nothing.
    GroupTime(u64)
}
newtype! {
    /// Numbers the writes of one run, log and `meta` on one line, from 1. Never a position.
    WriteNumber(u64)
}
newtype! {
    /// The running digest of the history: over slot, time and operations, not epochs.
    Digest(u64)
}
newtype! {
    /// One connected client as its driver names it; never used again in one run.
    ClientId(u64)
}
newtype! {
    /// A datagram's number within its sender's run, from 1. Never used again.
    PacketNumber(u64)
}

position!(Slot);
position!(Mseq);
position!(Epoch);
position!(WriteNumber);
position!(PacketNumber);
position!(Incarnation);

impl Time {
    pub const MS: u64 = 1_000_000;

    /// This instant and `ns` nanoseconds; the end of time where that overflows.
    #[must_use]
    pub fn after_ns(self, ns: u64) -> Time {
        Time(self.0.saturating_add(ns))
    }

    /// Nanoseconds from `earlier` to this instant; 0 where `earlier` is later.
    pub fn since_ns(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One life of one replica. What views, promises and frames name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Run {
    pub id: ReplicaId,
    pub birth: Birth,
    pub incarnation: Incarnation,
}

impl Run {
    /// One number for birth and incarnation, where there is no room for both.
    pub fn mark(self) -> RunMark {
        RunMark(self.birth.0.rotate_left(32) ^ self.incarnation.0.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04x}.{}", self.id, self.birth.0 & 0xffff, self.incarnation)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A set of replicas, by id.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Dest(pub u64);

impl Dest {
    pub fn one(id: ReplicaId) -> Dest {
        Dest(1 << (id.0 - 1))
    }

    pub fn with(self, id: ReplicaId) -> Dest {
        Dest(self.0 | 1 << (id.0 - 1))
    }

    pub fn contains(self, id: ReplicaId) -> bool {
        self.0 >> (id.0 - 1) & 1 == 1
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Names a session: where its opening was applied, and the low bits of the digest before it, so that two branches
/// of a history never name two sessions alike. `SessionId::NONE` stands where there is no session yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId {
    pub slot: Slot,
    /// The operation's place within the slot, from 0.
    pub position: u32,
    pub digest: u64,
}

impl SessionId {
    pub const NONE: SessionId = SessionId { slot: Slot(0), position: 0, digest: 0 };

    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{:016x}", self.slot, self.position, self.digest)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of a request within its session, from 1. For an opening: the client's random token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct RequestNumber(pub u64);

/// When and where an operation is applied: the same on every replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct At {
    pub slot: Slot,
    /// The operation's place within the slot, from 0.
    pub position: u32,
    pub time: GroupTime,
}
