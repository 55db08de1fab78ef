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
    ("time-runs-back", "7.3: a slot's time is at least that of the slot before it"),
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
