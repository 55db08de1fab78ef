//! Every bound on a length, count, buffer or wait, in one place, with the relations between them checked at
//! compile time. ftq(7) states the same relations.

/// Replica ids run from 1 to this.
pub const REPLICA_ID_MAX: u8 = 64;
/// Replicas in one book.
pub const REPLICAS_MAX: usize = 15;
/// Bytes of a `HOST:PORT` in the book.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// No run brings a slot, a message number, an epoch, an incarnation or a time in nanoseconds this far.
pub const COUNTER_MAX: u64 = 1 << 62;

// ---- what users send
/// Bytes of one item.
pub const ITEM_BYTES_MAX: usize = 1 << 20;
/// Bytes of a label.
pub const LABEL_BYTES_MAX: usize = 255;
/// Bytes of the key by which a push is known again.
pub const KEY_BYTES_MAX: usize = 255;
/// For so much group time a push with a known key is dropped.
pub const KEY_KNOWN_NS: u64 = 3600 * 1_000_000_000;
/// The longest delay and lease, and the longest wait but one without end: a leap year.
pub const SPAN_MS_MAX: u64 = 366 * 24 * 3600 * 1000;
/// Pops and takes that wait for items, of all queues together.
pub const WAITERS_MAX: usize = 65_536;
/// Ends of leases, delays, waits and keys that one slot looks at, at most; the next slot goes on.
pub const MOMENTS_STEP: usize = 1024;
/// Items in one push, and the most that one pop or peek removes or shows.
pub const BATCH_ITEMS_MAX: usize = 4096;
/// Bytes of items that one batch push carries and one pop answers, but always one item.
pub const BATCH_BYTES_MAX: usize = 256 << 10;
/// Bytes of an account's name.
pub const ACCOUNT_BYTES_MAX: usize = 255;
/// Accounts of the chat.
pub const ACCOUNTS_MAX: usize = 100_000;
/// Characters of one message of the chat, whatever their bytes.
pub const TEXT_CHARS_MAX: usize = 280;
/// Messages that wait for one account; further ones are refused.
pub const MAILBOX_MAX: usize = 10_000;
/// Bytes of a pattern that accounts are listed by, and of its program once compiled.
pub const PATTERN_BYTES_MAX: usize = 255;
pub const PATTERN_SIZE_MAX: usize = 32 << 10;
/// How deep groups in a pattern may be nested.
pub const PATTERN_NEST_MAX: u32 = 20;
/// Bytes of names that one query holds against a pattern; the next query goes on.
pub const PATTERN_SCAN_BYTES: usize = 8 << 10;
/// Bytes of the name of a site.
pub const SITE_BYTES_MAX: usize = 255;
/// Sites of the availability log.
pub const SITES_MAX: usize = 100_000;
/// Bytes of a ZIP code.
pub const ZIP_BYTES_MAX: usize = 16;
/// Changes of one site that are remembered; beyond them the oldest are dropped, and counted.
pub const HISTORY_MAX: usize = 65_536;
/// Bytes of one operation as ordered: the largest item and its frame around it.
pub const OPERATION_BYTES_MAX: usize = ITEM_BYTES_MAX + (4 << 10);
/// Bytes of one query: a label and its frame.
pub const QUERY_BYTES_MAX: usize = 1 << 10;
/// Bytes of one answer.
pub const ANSWER_BYTES_MAX: usize = ITEM_BYTES_MAX + (64 << 10);

// ---- the key-value store and its HTTP door
/// Bytes of a key.
pub const KV_KEY_BYTES_MAX: usize = 500;
/// Characters of a key that the HTTP door takes unless told otherwise, and the most that it can be told.
pub const KV_KEY_CHARS: usize = 50;
pub const KV_KEY_CHARS_MAX: usize = 500;
/// Bytes of a value: JSON as it was sent.
pub const KV_VALUE_BYTES_MAX: usize = ITEM_BYTES_MAX - (64 << 10);
/// Arrays and objects of a value within each other.
pub const JSON_DEPTH_MAX: usize = 128;
/// Addresses that ever took in a write or were announced, and counters in causal metadata.
pub const KV_ADDRESSES_MAX: usize = 128;
/// Keys in one page of a listing; its bytes are bounded by `BATCH_BYTES_MAX`, but for one value.
pub const KV_LIST_MAX: usize = 1000;
/// Connections of one replica's HTTP door.
pub const HTTP_CONNECTIONS_MAX: usize = 1024;
/// Bytes of the request line and headers, and how many headers.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 << 10;
pub const HTTP_HEADERS_MAX: usize = 64;
/// Bytes of a request's body: a value and causal metadata with names in escapes.
pub const HTTP_BODY_BYTES_MAX: usize = KV_VALUE_BYTES_MAX + (256 << 10);
/// Bytes of all requests that are not whole yet, of writes that wait for their answers, and of answers not taken.
pub const HTTP_UNREAD_BYTES_MAX: usize = 64 << 20;
/// Writes under way for all connections of the HTTP door.
pub const HTTP_WRITES_MAX: usize = 2048;
/// A request must be whole this long after its first byte, and an answer taken.
pub const HTTP_SLOW_MS: u64 = 15_000;
/// A connection on which nothing is asked for so long is closed.
pub const HTTP_IDLE_MS: u64 = 75_000;
/// The longest that a read waits for the state that its metadata names.
pub const HTTP_WAIT_MAX_MS: u64 = 60_000;
/// A write that is not answered by then may be done or not, and so it is told.
pub const HTTP_ANSWER_WAIT_MS: u64 = 10_000;

const KV_NEEDS_BYTES_MAX: usize = KV_ADDRESSES_MAX * (ADDRESS_BYTES_MAX + 12);
const _: () =
    assert!(KV_VALUE_BYTES_MAX + KV_NEEDS_BYTES_MAX + 1024 < OPERATION_BYTES_MAX, "a put must be an operation");
const _: () = assert!(2 * KV_KEY_BYTES_MAX + 16 < QUERY_BYTES_MAX, "a listing must be a query");
const _: () = assert!(KV_VALUE_BYTES_MAX + BATCH_BYTES_MAX + KV_NEEDS_BYTES_MAX < ANSWER_BYTES_MAX + BATCH_BYTES_MAX);
const _: () = assert!((HTTP_WRITES_MAX as u64) < SESSION_WINDOW, "all are of one session");

// ---- client frames
/// Bytes of one frame on a client's stream, its length field not counted.
pub const CLIENT_FRAME_BYTES_MAX: usize = ANSWER_BYTES_MAX + (4 << 10);
/// Requests of one session that may be unanswered at once: numbers reach this far beyond its "seen" mark.
pub const SESSION_WINDOW: u64 = 4096;
/// Sessions in the replicated table.
pub const SESSIONS_MAX: usize = 100_000;
/// A session without a request, nor word that it is connected, is forgotten after this much group time.
pub const SESSION_IDLE_NS: u64 = 600 * 1_000_000_000;
/// One whose latest connection is lost, after this much.
pub const SESSION_GRACE_NS: u64 = 30 * 1_000_000_000;
/// And a kept one that nobody speaks for, after this much: a week.
pub const SESSION_KEEP_NS: u64 = 7 * 24 * 3600 * 1_000_000_000;
/// How often a replica orders which quiet sessions are connected to it.
pub const CONNECTED_EVERY_NS: u64 = SESSION_IDLE_NS / 4;
/// Sessions that one such operation names.
pub const CONNECTED_MAX: usize = 2048;
/// Lost connections that a replica remembers until it can order that they are.
pub const LOST_MAX: usize = 100_000;
/// Bytes of a session's unseen answers from which on its further requests are answered `busy`.
pub const SESSION_ANSWER_BYTES_MAX: u64 = 8 << 20;
/// Client connections of one replica.
pub const CLIENTS_MAX: usize = 10_000;
/// Bytes waiting to be written to one client before the replica stops reading from it.
pub const CLIENT_UNSENT_BYTES_MAX: usize = 4 << 20;
/// A connection that has not said HELLO by then is closed.
pub const CLIENT_HELLO_WAIT_MS: u64 = 10_000;

/// Clients that send single datagrams, known at once to one replica.
pub const GUESTS_MAX: usize = 4096;
/// One of these that speaks for a session is gone after this silence, and any other after this.
pub const GUEST_IDLE_MS: u64 = 120_000;
pub const GUEST_PASSING_MS: u64 = 10_000;
/// Requests of one that wait for their answers; of more the oldest are forgotten.
pub const GUEST_PENDING_MAX: usize = 64;

/// Bytes of requests that wait to be packed before a replica stops reading from its clients.
pub const PENDING_BYTES_MAX: usize = 1 << 20;

// ---- datagrams
/// Sizes a datagram may have (UDP payload bytes), smallest first. It begins at `DATAGRAM_FIRST`, grows after an
/// answered probe and shrinks after repeated NACKs.
pub const DATAGRAM_SIZES: [usize; 7] = [508, 1200, 1452, 4052, 8952, 16_384, 61_440];
/// A member's clock may run slower than another's by one part in so many.
pub const CLOCK_TOLERANCE: u64 = 16;
/// Where a datagram's size begins: an index of `DATAGRAM_SIZES`.
pub const DATAGRAM_FIRST: usize = 1;
/// No datagram is longer.
pub const DATAGRAM_BYTES_MAX: usize = DATAGRAM_SIZES[DATAGRAM_SIZES.len() - 1];

// ---- the order
/// Bytes an origin may have under way that are not yet durable at every member (its window).
pub const WINDOW_BYTES: usize = 8 << 20;
/// Bytes of one origin's messages that a member holds: its window, and what one more turn may add.
pub const ORIGIN_BYTES_MAX: usize = WINDOW_BYTES + (4 << 20);
/// Slots known to be announced but not yet durable everywhere.
pub const SLOTS_MAX: usize = 1 << 16;
/// Messages of one origin that may be held beyond the first gap.
pub const MESSAGES_MAX: usize = 1 << 16;
/// An origin may always have this much sent that is not yet received everywhere.
pub const FLIGHT_BYTES_MIN: usize = 64 << 10;
/// And never more than this.
pub const FLIGHT_BYTES_MAX: usize = 1 << 20;
/// How long after a gap is seen it is asked for, at least; up to twice that with jitter.
pub const NACK_DELAY_NS: u64 = 300_000;
/// The longest wait between two askings for the same gap.
pub const NACK_DELAY_MAX_NS: u64 = 100 * 1_000_000;
/// Ranges in one asking.
pub const NACK_RANGES_MAX: usize = 32;
/// Slots or messages that one asking may name in one range.
pub const NACK_SPAN_MAX: u64 = 1024;
/// From this asking for one gap on each names a quarter of the range that the one before did: it brought nothing, so
/// the answers do not arrive.
pub const NACK_RESTRAINT_ATTEMPT: u8 = 3;
/// What is left of a range then. What arrives of it moves the gap, and all is asked for again.
pub const NACK_SPAN_MIN: u64 = 16;
/// From this asking for one gap on the answers come in smaller datagrams.
pub const NACK_SHRINK_ATTEMPT: u8 = 3;
/// Bytes a second that a member sends again, at most.
pub const RESEND_BYTES_PER_SECOND: u64 = 64 << 20;
/// Bytes that it may send again at once after a quiet time.
pub const RESEND_BURST_BYTES: u64 = 1 << 20;
/// What one member asks for is not sent to it again within this time, or a round trip where that is longer.
pub const RESEND_HOLD_NS: u64 = 1_000_000;
/// But not longer than this, however slow the last probe was.
pub const RESEND_HOLD_MAX_NS: u64 = 20 * 1_000_000;
/// A member with something unsettled that has been silent this long says how far it is; doubled each time.
pub const SILENT_NS: u64 = 2 * 1_000_000;
/// How long an answer to a probe is waited for.
pub const PROBE_WAIT_NS: u64 = 200 * 1_000_000;
/// How often one size is probed before it is given up for a while.
pub const PROBE_TRIES: u32 = 3;
/// For how long, at first; doubled each time.
pub const PROBE_AGAIN_NS: u64 = 2_000 * 1_000_000;
/// And at most.
pub const PROBE_AGAIN_MAX_NS: u64 = 120_000 * 1_000_000;
/// A replica without rank has caught up when it lacks no more slots than this.
pub const JOIN_NEAR_SLOTS: u64 = 1024;
/// A proposer says again what is unanswered after this time.
pub const CHANGE_AGAIN_NS: u64 = 20 * 1_000_000;
/// Frames of a change that wait for the disk; beyond these none is taken in: whoever sent it says it again.
pub const CHANGE_WAITING_MAX: usize = 256;
/// Each connected voter with a higher id gives a proposer this much more patience.
pub const CHANGE_STEP_NS: u64 = 100 * 1_000_000;
/// How long it waits for further promises once it has a quorum.
pub const CHANGE_GATHER_NS: u64 = 100 * 1_000_000;
/// How long a replica that was asked to stop waits for what it has taken in to be answered.
pub const LEAVE_WAIT_NS: u64 = 1_000 * 1_000_000;
/// A question of a reader is asked again after this time, doubled each time.
pub const READ_AGAIN_NS: u64 = 5 * 1_000_000;
/// And at most.
pub const READ_AGAIN_MAX_NS: u64 = 100 * 1_000_000;
/// Reads that wait for their answers at one replica.
pub const READS_MAX: usize = 32_768;
/// Bytes of operations in one slot: a sequencer's cut goes no further than this, but covers one whole operation.
pub const SLOT_BYTES_MAX: usize = 2 << 20;

/// Bytes of one change frame: two of the largest views, and what stands beside them.
pub const CHANGE_FRAME_BYTES_MAX: usize = 24 << 10;
/// Change frames of one peer that may be here in part.
pub const CHANGE_PARTS_MAX: usize = 8;

// ---- who is heard, and who may be in
/// Earlier births of one replica that are known not to be new ones.
pub const BIRTHS_REMEMBERED_MAX: usize = 8;
/// A birth that was left behind returns only after this many times the suspicion time of silence.
pub const BIRTH_RETURN_FACTOR: u64 = 10;
/// Nobody sends so many packets between two that arrive.
pub const PACKET_JUMP_MAX: u64 = 1 << 32;
/// A complaint about a slow member ends after this many times the suspicion time.
pub const COMPLAINT_FACTOR: u64 = 10;
/// A proposer whose turn is not the first waits up to this much longer, at random.
pub const CHANGE_JITTER_NS: u64 = 50 * 1_000_000;
/// Joiners are gathered for this long from the first that is ready.
pub const JOIN_DEBOUNCE_NS: u64 = 100 * 1_000_000;
/// How long a replica that was put out for the second time waits before it is let in again; doubled each time.
pub const REJOIN_WAIT_NS: u64 = 1_000 * 1_000_000;
/// And at most.
pub const REJOIN_WAIT_MAX_NS: u64 = 16_000 * 1_000_000;
/// One that was not put out for this long begins anew.
pub const REJOIN_CALM_NS: u64 = 120_000 * 1_000_000;
const _: () = assert!(REJOIN_CALM_NS > REJOIN_WAIT_MAX_NS, "no wait is forgotten before it is over");
const _: () = assert!(CHANGE_JITTER_NS < CHANGE_STEP_NS, "the order of proposers must survive the jitter");

// ---- streams between replicas
/// Bytes of records or of a snapshot that one frame carries, but always one record.
pub const STREAM_PIECE_BYTES: usize = 256 << 10;
/// Bytes of one frame, its length field not counted.
pub const STREAM_FRAME_BYTES_MAX: usize = SLOT_BYTES_MAX + (1 << 10);
/// Frames that answer one request, at most.
pub const STREAM_FRAMES_MAX: u8 = 16;
/// Bytes of a snapshot that a joiner takes.
pub const STATE_BYTES_MAX: u64 = 64 << 30;
/// Bytes a second that a replica reads and sends for those who catch up: what is left is for the living.
pub const SERVE_BYTES_PER_SECOND: u64 = 64 << 20;
/// Bytes that it may send at once after a quiet time.
pub const SERVE_BURST_BYTES: u64 = 1 << 20;
/// Reads that it has under way for them.
pub const SERVE_READS_MAX: usize = 4;
/// A source that brings nothing for this long is given up for another; doubled each time.
pub const FOLLOW_WAIT_NS: u64 = 100 * 1_000_000;
/// And at most.
pub const FOLLOW_WAIT_MAX_NS: u64 = 2_000 * 1_000_000;
/// How soon a source that has no more is asked again.
pub const FOLLOW_AGAIN_NS: u64 = 20 * 1_000_000;
/// Connections with other replicas, both ways.
pub const PEER_CONNECTIONS_MAX: usize = 40;
/// Bytes waiting to be written to one of them; what is beyond is dropped.
pub const PEER_UNSENT_BYTES_MAX: usize = 8 << 20;
/// What was written to another replica and is not acknowledged by its host for this long ends the connection: a new one
/// comes through sooner than the kernel's next attempt on the old.
pub const PEER_STALL_MS: i32 = 2_000;
/// How long a connection to another replica may take to come about.
pub const PEER_CONNECT_WAIT_NS: u64 = 1_000 * 1_000_000;
/// How soon it is tried again.
pub const PEER_CONNECT_AGAIN_NS: u64 = 100 * 1_000_000;
/// A connection with another replica on which nothing is said for this long is closed.
pub const PEER_IDLE_NS: u64 = 30_000 * 1_000_000;

/// Earlier views whose bases a view remembers.
pub const CHAIN_MAX: usize = 64;

// ---- the log
/// Bytes of a log segment.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// Segments of log after which a snapshot is taken, but not before the log has grown by this share of the state.
pub const SNAPSHOT_SEGMENTS: u64 = 4;
pub const SNAPSHOT_STATE_SHARE: u64 = 4;
/// A snapshot that could not be made is tried again after this time.
pub const SNAPSHOT_AGAIN_NS: u64 = 10 * 1_000_000_000;
/// Bytes that one read of a file of the data directory asks for, at most.
pub const READ_BYTES_MAX: u32 = 256 << 10;
/// Bytes of one log record.
pub const RECORD_BYTES_MAX: usize = SLOT_BYTES_MAX + 512;
/// Bytes of a segment between two places that the log's index remembers.
pub const INDEX_STEP_BYTES: u64 = 64 << 10;
/// Bytes of a snapshot before the state itself.
pub const SNAPSHOT_HEADER_BYTES_MAX: usize = 16 << 10;
/// Bytes of one page of `meta`; four of them make the file.
pub const META_PAGE_BYTES: usize = 32 << 10;

const _: () = assert!(OPERATION_BYTES_MAX < WINDOW_BYTES, "the largest operation must fit a window");
const _: () = assert!(ORIGIN_BYTES_MAX >= WINDOW_BYTES + OPERATION_BYTES_MAX, "what a window lets out must be taken");
const _: () = assert!(OPERATION_BYTES_MAX < SLOT_BYTES_MAX, "the largest operation must fit a slot");
const _: () = assert!((RECORD_BYTES_MAX as u64) * 2 < SEGMENT_BYTES, "a slot's record must fit a segment");
const _: () = assert!(BATCH_BYTES_MAX < OPERATION_BYTES_MAX, "a batch push must be an operation");
const _: () = assert!(ANSWER_BYTES_MAX > ITEM_BYTES_MAX, "every item must fit an answer");
const _: () = assert!(PATTERN_BYTES_MAX + ACCOUNT_BYTES_MAX + 16 < QUERY_BYTES_MAX, "a pattern must fit a query");
const _: () = assert!(TEXT_CHARS_MAX * 4 + ACCOUNT_BYTES_MAX < BATCH_BYTES_MAX, "a message must fit an answer");
const _: () =
    assert!(STREAM_PIECE_BYTES * (STREAM_FRAMES_MAX as usize) + STREAM_FRAME_BYTES_MAX < PEER_UNSENT_BYTES_MAX);
const _: () = assert!(PEER_CONNECTIONS_MAX > 2 * REPLICAS_MAX, "each replica may connect to each other");
const _: () = assert!(DATAGRAM_BYTES_MAX < 65_507, "UDP over IPv4 carries no more");
const _: () = assert!(CONNECTED_EVERY_NS * 2 < SESSION_IDLE_NS, "a lost word must not cost a connected session");
const _: () = assert!(SESSION_GRACE_NS < SESSION_IDLE_NS, "a lost connection must not prolong a session");
const _: () = assert!(CONNECTED_MAX * 20 < OPERATION_BYTES_MAX, "the connected sessions must fit an operation");
const _: () = assert!(REPLICAS_MAX <= REPLICA_ID_MAX as usize, "ids must suffice");
/// Bytes kept free in a datagram for its header, whoever is heard.
pub const HEADER_ROOM_BYTES: usize = 232;
const _: () = assert!(DATAGRAM_SIZES[0] > 2 * HEADER_ROOM_BYTES, "the smallest datagram must carry something");
