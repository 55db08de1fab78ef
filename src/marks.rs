//! Places that tests must reach: each is named once here and reported through the outbox when it is passed. A run of
//! the simulator that never passes one of them has not tested what it says.

macro_rules! marks {
    ($($name:ident $text:literal;)*) => {
        $(pub const $name: &str = $text;)*
        /// Every mark, for a check that all were reached.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

marks! {
    VIEW_MADE "view 1 made by the highest id";
    VIEW_INSTALLED "a view installed";
    PROPOSED "a change of the view proposed";
    FROZEN "a view frozen";
    WOKE "a replica noticed that its own loop had paused";
    PROCESS_GONE "a refusal told that a peer's process is gone";
    LOG_CUT "a log was cut where a view denied its end";
    RESTARTED "restarted without rank";
    FETCHED "slots were fetched from another replica's log";
    STATE_TAKEN "a whole state was taken over from another replica";
    OLD_COPY "a directory was found to be an older copy";
    DISTRUSTED "a replica whose memory may be less than it said began without a vote";
    NACK_ORDER "an order was asked for";
    NACK_DATA "a message was asked for";
    NACK_THIRD "a gap was asked of a third member";
    RESENT_ORDER "an order was sent again";
    RESENT_DATA "a message was sent again by its origin";
    RESENT_FOREIGN "a message was sent again by another than its origin";
    RESEND_HELD "a repeated request for repair was held back";
    PIECES_JOINED "a message came in pieces";
    SPANNING "an operation spanned messages";
    SILENT_REPORT "a silent member with something unsettled reported";
    SLOT_SHARED "one slot covered messages of several origins";
    WINDOW_CLOSED "the window closed";
    DUPLICATE_DATA "a message came twice";
    DUPLICATE_ORDER "an order came twice";
    BELIEVED_COMMIT "a commit was learned from another member";
    PATH_GREW "the datagrams grew";
    PATH_SHRANK "the datagrams shrank";
    TICK "a tick was ordered";
    READ_WAITED "a read waited for a slot to be applied";
    READ_AGAIN "a read's question was asked again";
    READ_SHARED "several reads shared a question";
    ANSWERED_AGAIN "a repeated request got the stored answer";
    TORN_CUT "a torn write was cut off";
    REFUSED_MISSING "a request was refused because a member is missing";
}
