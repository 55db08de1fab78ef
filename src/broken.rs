//! Deliberately broken variants of the core, for the simulator to catch: each hook stands where a rule would be left
//! out. Without the feature `broken` every question is answered "no" at compile time.

/// The variants' names, each with the rule it breaks.
pub const VARIANTS: &[(&str, &str)] = &[
    ("nack-never-sent", "4.1: gaps are asked for"),
    ("fifo-ignored", "rule 3: inside a slot an origin's messages are delivered by number"),
    ("out-of-turn", "I7: slot k is announced by rank k mod n"),
    ("order-changed", "I7: a slot is announced once, with one content"),
    ("ack-before-sync", "rule 4: durable rises when the write is durable"),
    ("commit-at-half", "rule 5: a slot is committed when more than half hold it durably"),
    ("commit-at-one", "rule 5: a slot is committed when more than half hold it durably"),
    ("cut-inside-operation", "rule 1: a cut never ends inside an operation"),
    ("executed-twice", "I3: a repeated number gets the stored answer"),
    ("seen-ignored", "7.1: a number at or below the seen mark is never executed"),
    ("read-locally", "7.2: reads ask the view"),
    ("read-unapplied", "7.2: a read waits until the highest answer is applied"),
    ("sequencer-not-first", "rule 3: the sequencer's own messages come first, on every member alike"),
    ("window-ignored", "4.2: an origin's bytes under way are bounded"),
    ("resend-unbounded", "4.1: resending is limited in bytes a second"),
    ("silent-last-message", "4.1: the loss of an origin's last message is found by its report"),
    ("lease-to-the-back", "8: an item whose lease ends is back in its place"),
    ("lease-for-ever", "8: a lease ends by group time"),
    ("receipt-again", "8: receipts only grow"),
    ("extension-ignored", "8: an extended lease ends later"),
    ("last-come-first-served", "8: who waited longest is served first"),
    ("dead-waiter-served", "8: an ended session's waiters are gone"),
    ("absent-waiter-served", "8: a waiter without a connection is not served"),
    ("wait-without-end", "8: a wait ends by group time"),
    ("limit-of-the-ready", "8: a limit counts items in every state"),
    ("limit-one-too-many", "8: limits are exact"),
    ("key-forgotten", "8: a push with a known key is dropped"),
    ("priority-ignored", "8: smaller priorities come first"),
    ("delay-ignored", "8: a delayed item is not ready before its time"),
    ("kick-keeps-tries", "8: a kicked item is as if never taken"),
    ("message-overtakes", "chat: what is queued goes out before what is said to whoever is logged in"),
    ("gone-when-handed", "chat: a message is gone only when it is confirmed"),
    ("again-unmarked", "chat: what is handed over again is marked as such"),
    ("below-zero", "stock: a difference never leads below zero"),
    ("same-again-forgotten", "stock: the history has every change"),
    ("kv-goes-back", "keys: a replica that lacks what the metadata names does not answer"),
    ("kv-needs-ignored", "keys: a write whose dependencies are missing is not done"),
    ("kv-version-ignored", "keys: a write on a condition is done only where it holds"),
    ("time-runs-back", "7.3: a slot's time is at least that of the slot before it"),
    ("install-before-durable", "5.3: a view is spoken in when meta is durable"),
    ("ready-before-durable", "5.3: READY is said when the log is durable up to the base"),
    ("old-view-counts", "rule 5: what carries another view's tag is not counted"),
    ("all-applied-at-start", "6.2: start-up applies what is known to be committed, and no more"),
    ("unordered-lost", "5.3: what no slot covers at an install is packed anew"),
];

/// The same for the change of a view.
pub const CHANGE_VARIANTS: &[(&str, &str)] = &[
    ("no-freeze", "5.3: a promise freezes the epoch for good"),
    ("sync-after-decree", "5.3: every member holds the log up to the base before the decree"),
    ("accepted-ignored", "5.3: an accepted value is completed before anything else is chosen"),
    ("half-without-tie-break", "5.4: of equal halves the one with the view's highest id"),
    ("keep-rank", "1: rank belongs to the very run that the view records"),
    ("empty-disk-votes", "1: a voter is a replica whose birth the view records"),
    // Either alone keeps a ballot from repeating: that it names the incarnation, and that PREPARE leaves only when its
    // own promise is durable. This leaves out both.
    ("ballot-reused", "5.1: a ballot is durable before its first use, so none repeats"),
    ("stale-ready", "5.3: READY names its ballot, base and digest"),
    ("stale-accept", "5.3: what comes later under a lower ballot is refused"),
    ("answers-name-the-ballot-only", "5.3: every frame of a change names its epoch"),
    ("said-before-durable", "5.1: a promise is durable before it is said"),
    ("own-base", "5.3: the base is the highest log end among the promisers"),
    ("no-truncation", "5.3: an install drops what lies beyond its base"),
    ("newest-base-only", "5.3: what diverged in earlier epochs is dropped, too"),
    ("frozen-counts", "rule 5: a frozen member is not counted"),
];

#[cfg(feature = "broken")]
mod switch {
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Breaks this rule in everything this thread runs from now on; `None` mends it.
    pub fn set(variant: Option<&'static str>) {
        ACTIVE.with(|active| active.set(variant));
    }

    pub fn is(variant: &str) -> bool {
        ACTIVE.with(|active| active.get() == Some(variant))
    }
}

#[cfg(feature = "broken")]
pub use switch::{is, set};

/// Whether this variant is to be run.
#[cfg(not(feature = "broken"))]
#[inline(always)]
pub fn is(_variant: &str) -> bool {
    false
}
