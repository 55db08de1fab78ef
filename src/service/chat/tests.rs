//! The chat as a service: operations and queries in, answers out.

use super::*;
use crate::limits::BATCH_BYTES_MAX;
use crate::types::{RequestNumber, Slot};
use crate::wire::answer::split;
use crate::wire::chat::Message;
use quickcheck::quickcheck;

const A: u64 = 1;
const B: u64 = 2;

fn id(session: u64) -> SessionId {
    SessionId { slot: Slot(session), position: 0, digest: 0 }
}

/// A chat and what it says: to which session and under which number, in words.
#[derive(Default)]
struct Bench {
    chat: Chat,
    number: u64,
    ms: u64,
}

/// An answer in words: messages as `number from text`, with `again` before those.
fn in_words(answer: &[u8], is_list: bool) -> (Code, String) {
    let (code, fields) = split(answer).expect("an answer");
    let mut r = Reader::new(fields);
    if code != Code::Ok {
        return (code, String::new());
    }
    if !is_list {
        return (code, fields.iter().map(u8::to_string).collect::<Vec<_>>().join(" "));
    }
    let count = r.count(fields.len(), "count").expect("a count");
    let one = |_| {
        let Message { number, again, from, text } = Message::decode(&mut r).expect("a message");
        format!("{}{} {from} {text}", if again { "again " } else { "" }, number.0)
    };
    let list: Vec<String> = (0..count).map(one).collect();
    r.end("answer").expect("no more");
    (code, list.join("; "))
}

impl Bench {
    fn at(&self) -> At {
        At { slot: Slot(self.number + 1), position: 0, time: GroupTime(self.ms * 1_000_000) }
    }

    /// What `session` is answered to this operation, and all others that are answered meanwhile.
    fn all(&mut self, session: u64, operation: ChatOperation<'_>) -> Vec<(u64, Code, String)> {
        self.number += 1;
        let (mut bytes, mut out) = (Vec::new(), Answers::default());
        operation.encode(&mut bytes);
        let who = Who { session: id(session), number: RequestNumber(self.number) };
        self.chat.apply(self.at(), who, &bytes[1..], &mut out);
        let is_list = matches!(operation, ChatOperation::Receive { .. });
        self.told(&out, |answered| answered != who || is_list)
    }

    fn told(&self, out: &Answers, is_list: impl Fn(Who) -> bool) -> Vec<(u64, Code, String)> {
        out.iter()
            .map(|(who, answer)| {
                let (code, words) = in_words(answer, is_list(who));
                (who.session.slot.0, code, words)
            })
            .collect()
    }

    /// The same where nobody else is answered.
    fn one(&mut self, session: u64, operation: ChatOperation<'_>) -> (Code, String) {
        let mut all = self.all(session, operation);
        assert_eq!(all.len(), 1, "{operation:?}: {all:?}");
        all.pop().map(|(_, code, words)| (code, words)).expect("one")
    }

    fn send(&mut self, session: u64, to: &str, text: &str) -> (Code, String) {
        self.one(session, ChatOperation::Send { to, text })
    }

    fn take(&mut self, session: u64, queued: bool) -> String {
        let (code, words) = self.one(session, ChatOperation::Receive { queued, wait_ms: 0 });
        assert_eq!(code, Code::Ok);
        words
    }

    fn wait(&mut self, session: u64, wait_ms: u64) -> Vec<(u64, Code, String)> {
        self.all(session, ChatOperation::Receive { queued: false, wait_ms })
    }

    fn confirm(&mut self, session: u64, upto: u64) -> Code {
        self.one(session, ChatOperation::Confirm { upto: MessageNumber(upto) }).0
    }

    fn event(&mut self, event: impl FnOnce(&mut Chat, At, &mut Answers)) -> Vec<(u64, Code, String)> {
        let (mut out, at) = (Answers::default(), self.at());
        event(&mut self.chat, at, &mut out);
        self.told(&out, |_| true)
    }

    fn ended(&mut self, session: u64) {
        let told = self.event(|chat, _, out| chat.ended(id(session), out));
        assert_eq!(told, [], "nobody is there to be told");
    }

    fn attended(&mut self, session: u64, here: bool) -> Vec<(u64, Code, String)> {
        self.event(|chat, at, out| chat.attended(at, id(session), here, out))
    }

    fn accounts(&self, pattern: &str, after: &str) -> Result<(Vec<String>, Option<String>), Code> {
        let (mut bytes, mut answer) = (Vec::new(), Vec::new());
        ChatQuery::Accounts { pattern, after }.encode(&mut bytes);
        self.chat.query(&bytes[1..], &mut answer);
        let (code, fields) = split(&answer).expect("an answer");
        if code != Code::Ok {
            return Err(code);
        }
        let page = AccountPage::decode(&mut Reader::new(fields)).expect("a page");
        Ok((page.names.iter().map(|name| name.to_string()).collect(), page.more_after.map(str::to_string)))
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.chat.snapshot(&mut out);
        out
    }

    /// Goes on by way of its snapshot.
    fn restore(&mut self) {
        let (bytes, memory) = (self.snapshot(), self.chat.memory_bytes());
        self.chat = Chat::default();
        self.chat.restore(&bytes).expect("just written");
        assert_eq!((self.snapshot(), self.chat.memory_bytes()), (bytes, memory));
    }
}

/// Alice is logged in, and Bob.
fn two() -> Bench {
    let mut bench = Bench::default();
    assert_eq!(bench.one(A, ChatOperation::Create { name: "alice" }), (Code::Ok, String::new()));
    assert_eq!(bench.one(B, ChatOperation::Create { name: "bob" }), (Code::Ok, String::new()));
    bench
}

fn said(session: u64, words: &str) -> (u64, Code, String) {
    (session, Code::Ok, words.to_string())
}

#[test]
fn accounts_and_logins() {
    let mut bench = two();
    for (session, operation, code) in [
        (3, ChatOperation::Create { name: "alice" }, Code::Exists),
        (3, ChatOperation::Login { name: "alice" }, Code::Exists),
        (3, ChatOperation::Login { name: "carol" }, Code::NoAccount),
        (3, ChatOperation::Logout, Code::BadRequest),
        (3, ChatOperation::Delete, Code::BadRequest),
        (3, ChatOperation::Send { to: "bob", text: "x" }, Code::BadRequest),
        (3, ChatOperation::Receive { queued: true, wait_ms: 0 }, Code::BadRequest),
        (3, ChatOperation::Confirm { upto: MessageNumber(0) }, Code::BadRequest),
        (A, ChatOperation::Create { name: "carol" }, Code::BadRequest),
        (A, ChatOperation::Login { name: "bob" }, Code::BadRequest),
        (A, ChatOperation::Send { to: "carol", text: "x" }, Code::NoAccount),
        (A, ChatOperation::Logout, Code::Ok),
        (3, ChatOperation::Login { name: "alice" }, Code::Ok),
        (3, ChatOperation::Delete, Code::Ok),
        (A, ChatOperation::Login { name: "alice" }, Code::NoAccount),
        (A, ChatOperation::Create { name: "alice" }, Code::Ok),
    ] {
        assert_eq!(bench.one(session, operation).0, code, "{operation:?}");
        bench.restore();
    }
    // Whose session has ended is not logged in any more.
    bench.ended(A);
    assert_eq!(bench.one(4, ChatOperation::Login { name: "alice" }), (Code::Ok, "0".into()));
}

#[test]
fn a_message_is_gone_when_it_is_confirmed() {
    let mut bench = two();
    bench.one(B, ChatOperation::Logout);
    for text in ["one", "two", "three"] {
        assert_eq!(bench.send(A, "bob", text), (Code::Ok, "0".into()), "queued");
    }
    assert_eq!(bench.one(B, ChatOperation::Login { name: "bob" }), (Code::Ok, "3".into()));
    assert_eq!(bench.take(B, false), "", "a login delivers nothing");
    assert_eq!(bench.take(B, true), "1 alice one; 2 alice two; 3 alice three");
    assert_eq!(bench.take(B, true), "", "each once in one session");
    assert_eq!(bench.confirm(B, 1), Code::Ok);
    assert_eq!(bench.confirm(B, 4), Code::BadRequest);
    bench.restore();
    bench.ended(B);
    bench.one(3, ChatOperation::Login { name: "bob" });
    assert_eq!(bench.confirm(3, 2), Code::BadRequest, "not handed to this session");
    bench.send(A, "bob", "four");
    assert_eq!(bench.take(3, true), "again 2 alice two; again 3 alice three; 4 alice four");
    assert_eq!(
        (bench.confirm(3, 3), bench.confirm(3, 1), bench.confirm(3, u64::MAX)),
        (Code::Ok, Code::Ok, Code::BadRequest)
    );
    assert_eq!(bench.one(3, ChatOperation::Delete), (Code::Ok, "1".into()), "one was not confirmed");
    assert_eq!(bench.chat.memory_bytes(), two().chat.memory_bytes() / 2 + 2, "as much as alice alone takes");
}

#[test]
fn whoever_waits_gets_messages_at_once_and_in_order() {
    let mut bench = two();
    assert_eq!(bench.wait(B, WAIT_FOR_EVER_MS), []);
    let sent = ChatOperation::Send { to: "bob", text: "one" };
    assert_eq!(bench.all(A, sent), [said(A, "1"), said(B, "1 alice one")]);
    assert_eq!(bench.send(A, "bob", "two"), (Code::Ok, "1".into()));
    assert_eq!(bench.wait(B, WAIT_FOR_EVER_MS), [said(B, "2 alice two")]);
    // Its own next operation ends the wait.
    assert_eq!(bench.wait(B, WAIT_FOR_EVER_MS), []);
    assert_eq!(bench.all(B, sent), [said(B, ""), said(B, "1")], "to itself");
    assert_eq!(bench.take(B, false), "3 bob one");
    // So does time.
    assert_eq!(bench.wait(B, 10), []);
    assert_eq!(bench.chat.due(), Some(GroupTime(10_000_000)));
    bench.restore();
    bench.ms = 10;
    assert_eq!(bench.event(|chat, at, out| chat.tick(at, out)), [said(B, "")]);
    assert_eq!(bench.chat.due(), None);
    assert_eq!(bench.one(B, ChatOperation::Receive { queued: false, wait_ms: SPAN_MS_MAX + 1 }).0, Code::BadRequest);
}

#[test]
fn what_was_queued_goes_out_before_what_comes_later() {
    let mut bench = two();
    bench.one(B, ChatOperation::Logout);
    bench.send(A, "bob", "early");
    bench.one(B, ChatOperation::Login { name: "bob" });
    assert_eq!(bench.wait(B, WAIT_FOR_EVER_MS), []);
    let late = ChatOperation::Send { to: "bob", text: "late" };
    assert_eq!(bench.all(A, late), [said(A, "1"), said(B, "1 alice early; 2 alice late")]);
}

#[test]
fn without_a_connection_nothing_is_handed_over() {
    let mut bench = two();
    assert_eq!(bench.wait(B, WAIT_FOR_EVER_MS), []);
    assert_eq!(bench.attended(B, false), []);
    assert_eq!(bench.send(A, "bob", "one"), (Code::Ok, "0".into()), "queued");
    bench.restore();
    assert_eq!(bench.attended(B, true), [said(B, "1 alice one")]);
    // Who has none gives way to another client.
    assert_eq!(bench.wait(B, WAIT_FOR_EVER_MS), []);
    bench.attended(B, false);
    let told = bench.all(3, ChatOperation::Login { name: "bob" });
    assert_eq!(told, [(B, Code::BadRequest, String::new()), said(3, "1")]);
    assert_eq!(bench.take(3, true), "again 1 alice one");
    assert_eq!(bench.one(B, ChatOperation::Logout).0, Code::BadRequest);
}

#[test]
fn limits_are_those_of_the_contract() {
    let mut bench = two();
    for c in ["x", "\u{e9}", "\u{1f600}"] {
        assert_eq!(bench.send(A, "bob", &c.repeat(280)).0, Code::Ok);
        assert_eq!(bench.send(A, "bob", &c.repeat(281)).0, Code::TooLarge);
    }
    assert_eq!(bench.send(A, "bob", "a\nb").0, Code::BadRequest);
    for _ in 3..MAILBOX_MAX {
        assert_eq!(bench.send(A, "bob", "").0, Code::Ok);
    }
    assert_eq!(bench.send(A, "bob", "").0, Code::Full);
    let (mut handed, mut batches) = (0, 0);
    loop {
        let list = bench.take(B, true);
        if list.is_empty() {
            break;
        }
        assert!(list.len() <= BATCH_BYTES_MAX);
        (handed, batches) = (handed + list.split("; ").count(), batches + 1);
        assert_eq!(bench.confirm(B, handed as u64), Code::Ok);
    }
    assert_eq!((handed, batches > 0), (MAILBOX_MAX, true));
    assert_eq!(bench.send(A, "bob", "").0, Code::Ok);
}

#[test]
fn patterns_match_from_the_beginning() {
    let mut bench = Bench::default();
    for (session, name) in ["alice", "albert", "bob", "x.y", "\u{c9}ric"].into_iter().enumerate() {
        bench.one(session as u64 + 1, ChatOperation::Create { name });
    }
    let found = |pattern: &str| bench.accounts(pattern, "").map(|(names, _)| names.join(" "));
    assert_eq!(found(""), Ok("albert alice bob x.y \u{c9}ric".into()));
    assert_eq!(found("al"), Ok("albert alice".into()));
    assert_eq!(found("l"), Ok(String::new()), "not in the middle");
    assert_eq!(found(".*e$"), Ok("alice".into()));
    assert_eq!(found("b|a"), Ok("albert alice bob".into()), "either from the beginning");
    assert_eq!(found("x\\.y$|(?i)\u{e9}RIC"), Ok("x.y".into()), "case is ignored in ASCII alone");
    assert_eq!(found("(?x) bob # so"), Ok("bob".into()));
    assert_eq!(found("$^"), Ok(String::new()));
    let nested = "(".repeat(40) + &")".repeat(40);
    for bad in
        ["(", ")", "a)|(b", "[", "*", "a{2,1}", "\\", "(?P<", "(?<n>a)(?<n>b)", "a{100000}", "(a{200}){200}", &nested]
    {
        assert_eq!(found(bad), Err(Code::BadRequest), "{bad}");
    }
    assert_eq!(found(&"x".repeat(256)), Err(Code::BadRequest));
}

#[test]
fn a_long_list_comes_in_pages() {
    let mut bench = Bench::default();
    for session in 0..300 {
        bench.one(session, ChatOperation::Create { name: &format!("{session:0>100}") });
    }
    let (mut names, mut after, mut pages) = (Vec::new(), String::new(), 0);
    while let Ok((page, more)) = bench.accounts("0", &after) {
        names.extend(page);
        pages += 1;
        match more {
            Some(last) => after = last,
            None => break,
        }
    }
    assert_eq!((names.len(), pages), (300, 300 * 100 / PATTERN_SCAN_BYTES + 1));
}

/// What any of three sessions does.
fn anything(bench: &mut Bench, (session, what, name, text): &(u8, u8, u8, String)) {
    let (session, name) = (u64::from(session % 3), ["a", "b", "c"][usize::from(name % 3)]);
    let operation = match what % 12 {
        0 | 1 => ChatOperation::Create { name },
        2 => ChatOperation::Login { name },
        3 => ChatOperation::Logout,
        4 => ChatOperation::Delete,
        5 | 6 => ChatOperation::Send { to: name, text },
        7 => ChatOperation::Receive { queued: true, wait_ms: 0 },
        8 => ChatOperation::Receive { queued: false, wait_ms: u64::from(*what) },
        9 => ChatOperation::Confirm { upto: MessageNumber(u64::from(what / 12)) },
        10 => return drop(bench.event(|chat, _, out| chat.ended(id(session), out))),
        _ => return drop(bench.attended(session, what / 12 % 2 == 0)),
    };
    bench.all(session, operation);
}

quickcheck! {
    fn a_snapshot_is_the_whole_state(story: Vec<(u8, u8, u8, String)>) -> bool {
        let (mut bench, mut copy) = (Bench::default(), Bench::default());
        for event in &story {
            for bench in [&mut bench, &mut copy] {
                bench.ms += u64::from(event.1);
                bench.event(|chat, at, out| chat.tick(at, out));
                anything(bench, event);
            }
            copy.restore();
            assert_eq!(bench.snapshot(), copy.snapshot());
            assert_eq!((bench.chat.due(), bench.chat.memory_bytes()), (copy.chat.due(), copy.chat.memory_bytes()));
        }
        true
    }

    fn arbitrary_bytes_never_panic(operations: Vec<(u8, Vec<u8>)>, snapshot: Vec<u8>, odd: Vec<(usize, u8)>) -> bool {
        let (mut bench, mut out) = (two(), Answers::default());
        bench.send(A, "bob", "hello");
        for (kind, bytes) in &operations {
            let (who, fields) = (Who { session: id(A), number: RequestNumber(9) }, [&[*kind][..], bytes].concat());
            bench.chat.apply(bench.at(), who, &fields, &mut out);
            bench.chat.query(&fields, &mut Vec::new());
        }
        let _ = Chat::default().restore(&snapshot);
        let mut bytes = bench.snapshot();
        odd.iter().for_each(|&(at, value)| { let at = at % bytes.len(); bytes[at] = value });
        if bench.chat.restore(&bytes).is_ok() {
            assert_eq!(bench.snapshot(), bytes, "what is read writes what was read");
            bench.all(B, ChatOperation::Receive { queued: true, wait_ms: 0 });
        }
        true
    }

    fn arbitrary_patterns_never_panic(pattern: String, bytes: Vec<u8>) -> bool {
        let bench = two();
        let alphabet = b"()[]{}|*+?.^$\\-a1,:<>P=!ix";
        let odd: String = bytes.iter().map(|&b| char::from(alphabet[usize::from(b) % alphabet.len()])).collect();
        for pattern in [pattern, odd] {
            let short: String = pattern.chars().take(50).collect();
            let _ = bench.accounts(&short, "");
        }
        true
    }
}
