//! The session against doors that drop, refuse, fall silent and answer twice.

use super::*;
use crate::client::fake::{items_of, Fake, PATIENT};
use crate::client::{Code, Done};
use crate::wire::operation::{QueueOperation, QueueQuery, Target};

fn push(session: &mut Session, item: &str) {
    let target = Target::Label("q");
    session.submit(Ask::Request, |out| {
        QueueOperation::encode_push(out, target, [item.as_bytes()].into_iter());
    });
}

fn pop(session: &mut Session) {
    session.submit(Ask::Request, |out| QueueOperation::Pop { target: Target::Label("q"), count: 1 }.encode(out));
}

fn size(session: &mut Session) {
    session.submit(Ask::Query, |out| QueueQuery::Size { target: Target::Label("q") }.encode(out));
}

fn number(answer: &Result<Answer, Error>) -> u8 {
    answer.as_ref().expect("answered").body[0]
}

fn items(fake: &Fake) -> Vec<String> {
    let items = fake.group().items();
    items.into_iter().map(|item| String::from_utf8(item).expect("pushed as text")).collect()
}

#[test]
fn answers_come_in_the_order_of_submission_and_reads_keep_their_place() {
    let fake = Fake::new(1);
    let mut session = Session::new(fake.servers.clone(), PATIENT);
    push(&mut session, "a");
    size(&mut session);
    push(&mut session, "b");
    push(&mut session, "c");
    size(&mut session);
    pop(&mut session);
    assert!(session.wait().is_ok());
    assert_eq!(number(&session.wait()), 1);
    assert!(session.wait().is_ok() && session.wait().is_ok());
    assert_eq!(number(&session.wait()), 3);
    assert_eq!(items_of(&session.wait().expect("an item").body), [b"a"]);
    assert_eq!(session.pending(), 0);
}

#[test]
fn reads_alone_open_no_session() {
    let fake = Fake::new(1);
    let mut session = Session::new(fake.servers.clone(), PATIENT);
    size(&mut session);
    assert!(session.wait().is_err_and(|e| e.is(Code::NoQueue)));
    assert!(fake.group().sessions.is_empty());
}

#[test]
fn lost_answers_and_lost_requests_are_executed_once_and_in_order() {
    let fake = Fake::new(3);
    {
        let mut group = fake.group();
        group.moods[0].drop_answers = 5;
        group.moods[1].drop_requests = 3;
        group.moods[1].twice = true;
        group.moods[2].drop_answers = 4;
    }
    let mut session = Session::new(fake.servers.clone(), PATIENT);
    for k in 0..500 {
        push(&mut session, &k.to_string());
    }
    for _ in 0..500 {
        session.wait().expect("the group never forgets");
    }
    assert_eq!(items(&fake), (0..500).map(|k| k.to_string()).collect::<Vec<_>>());
    let group = fake.group();
    assert_eq!(group.executed, 500);
    assert!(group.repeated >= 5, "only {} came again", group.repeated);
    assert_eq!(group.numbers, (1..=500).collect::<Vec<_>>());
}

#[test]
fn a_replica_that_is_not_primary_is_left_for_the_next() {
    let fake = Fake::new(2);
    fake.group().moods[0].refuse = Some((Code::NotPrimary, u32::MAX));
    let mut session = Session::new(fake.servers.clone(), PATIENT);
    push(&mut session, "a");
    session.wait().expect("the second is primary");
    assert_eq!(items(&fake), ["a"]);
}

#[test]
fn a_server_that_is_not_there_is_passed_over_at_once() {
    let fake = Fake::new(1);
    let nobody = || {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        Server::Tcp(free.expect("a free port").to_string())
    };
    let servers = vec![nobody(), fake.servers[0].clone(), nobody()];
    let mut session = Session::new(servers, PATIENT);
    let begun = Instant::now();
    push(&mut session, "a");
    session.wait().expect("the second is there");
    fake.group().moods[0].drop_answers = 1;
    push(&mut session, "b");
    session.wait().expect("the second is still there");
    assert!(begun.elapsed() < PATIENT / 4, "it took {:?}", begun.elapsed());
    assert_eq!(items(&fake), ["a", "b"]);
    fake.group().moods[0].refuse = Some((Code::NotPrimary, u32::MAX));
    let mut session = Session::new(session.servers().to_vec(), Duration::from_millis(50));
    push(&mut session, "c");
    let error = session.wait().expect_err("nobody is primary");
    assert_eq!(error.exit_status(), 75, "a refusal says more than a server that is not there: {error}");
}

#[test]
fn a_refusal_says_more_than_a_silent_replica() {
    let fake = Fake::new(2);
    fake.group().moods[0].refuse = Some((Code::NotPrimary, u32::MAX));
    fake.group().moods[1].mute = true;
    let mut session = Session::new(fake.servers.clone(), Duration::from_millis(1300));
    push(&mut session, "a");
    let error = session.wait().expect_err("nobody is primary");
    assert!(error.is(Code::NotPrimary), "{error}");
}

#[test]
fn a_silent_replica_is_left_for_the_next() {
    let fake = Fake::new(2);
    fake.group().moods[0].mute = true;
    let mut session = Session::new(fake.servers.clone(), PATIENT);
    push(&mut session, "a");
    session.wait().expect("the second speaks");
}

#[test]
fn refusals_for_now_pass_and_nothing_is_reordered() {
    let fake = Fake::new(1);
    let mut session = Session::new(fake.servers.clone(), PATIENT);
    push(&mut session, "0");
    session.wait().expect("welcome");
    fake.group().moods[0].refuse = Some((Code::Full, 30));
    for k in 1..20 {
        push(&mut session, &k.to_string());
    }
    for _ in 1..20 {
        session.wait().expect("there is room again");
    }
    assert_eq!(items(&fake), (0..20).map(|k| k.to_string()).collect::<Vec<_>>());
    assert_eq!(fake.group().numbers, (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_refusal_that_stays_is_reported_and_its_number_is_free_again() {
    let fake = Fake::new(1);
    let mut session = Session::new(fake.servers.clone(), Duration::ZERO);
    push(&mut session, "a");
    session.wait().expect("welcome");
    fake.group().moods[0].refuse = Some((Code::Full, 4));
    for item in ["b", "c", "d"] {
        push(&mut session, item);
    }
    let answers: Vec<_> = (0..3).map(|_| session.wait()).collect();
    assert!(answers[0].as_ref().is_err_and(|e| e.is(Code::Full) && e.done() == Done::No), "{answers:?}");
    assert!(answers[2].is_ok(), "{answers:?}");
    let refused = answers.iter().filter(|answer| answer.is_err()).count();
    assert_eq!(fake.group().numbers, (1..=4 - refused as u64).collect::<Vec<_>>());
}

#[test]
fn not_primary_anywhere_is_reported_as_not_done() {
    let fake = Fake::new(2);
    for mood in &mut fake.group().moods {
        mood.refuse = Some((Code::NotPrimary, u32::MAX));
    }
    for timeout in [Duration::ZERO, Duration::from_millis(50)] {
        let mut session = Session::new(fake.servers.clone(), timeout);
        push(&mut session, "a");
        let error = session.wait().expect_err("nobody is primary");
        assert_eq!((error.exit_status(), error.done()), (75, Done::No), "{error}");
        assert_eq!(error.message(), "because");
    }
    assert!(fake.group().connections[1] >= 2, "both were tried");
}

#[test]
fn sent_and_never_answered_is_unknown() {
    let fake = Fake::new(1);
    let mut session = Session::new(fake.servers.clone(), Duration::from_millis(100));
    push(&mut session, "a");
    session.wait().expect("welcome");
    fake.group().moods[0].mute = true;
    push(&mut session, "b");
    size(&mut session);
    let error = session.wait().expect_err("nobody answers");
    assert_eq!((error.exit_status(), error.done()), (79, Done::Unknown), "{error}");
    let error = session.wait().expect_err("nobody answers");
    assert_eq!((error.exit_status(), error.done()), (75, Done::No), "a read was not done: {error}");
    fake.group().moods[0].mute = false;
    push(&mut session, "c");
    session.wait().expect("answered again, in a new session");
    assert_eq!(fake.group().sessions.len(), 2);
}

#[test]
fn refused_here_after_being_lost_there_is_unknown() {
    let fake = Fake::new(2);
    let mut session = Session::new(fake.servers.clone(), Duration::from_millis(200));
    push(&mut session, "a");
    session.wait().expect("welcome");
    {
        let mut group = fake.group();
        group.moods[0].drop_answers = u32::MAX;
        group.moods[1].refuse = Some((Code::Full, u32::MAX));
    }
    push(&mut session, "b");
    let error = session.wait().expect_err("lost, then refused");
    assert_eq!((error.exit_status(), error.done()), (79, Done::Unknown), "{error}");
}

#[test]
fn an_expired_session_is_opened_anew_unless_something_may_be_done() {
    let fake = Fake::new(2);
    let mut session = Session::new(fake.servers.clone(), PATIENT);
    push(&mut session, "a");
    session.wait().expect("welcome");
    fake.group().sessions.clear();
    push(&mut session, "b");
    push(&mut session, "c");
    session.wait().expect("asked anew");
    session.wait().expect("asked anew");
    assert_eq!(items(&fake), ["a", "b", "c"]);
    fake.group().moods.iter_mut().for_each(|mood| mood.drop_answers = 1);
    push(&mut session, "d");
    while fake.group().executed < 4 {
        session.turn(None, None);
    }
    fake.group().sessions.clear();
    assert_eq!(session.wait().expect_err("its answer is gone").exit_status(), 79);
    assert_eq!(items(&fake), ["a", "b", "c", "d"]);
}

#[test]
fn nobody_there_is_unreachable_and_a_stranger_is_a_version() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let nobody = vec![Server::Tcp(closed.to_string())];
    let mut session = Session::new(nobody, Duration::ZERO);
    push(&mut session, "a");
    push(&mut session, "b");
    assert_eq!(session.wait().expect_err("nobody is there").exit_status(), 69);
    assert_eq!(session.wait().expect_err("nobody is there").exit_status(), 69);
    let fake = Fake::new(1);
    fake.group().moods[0].foreign = true;
    let mut session = Session::new(fake.servers.clone(), PATIENT);
    push(&mut session, "a");
    assert_eq!(session.wait().expect_err("another version").exit_status(), 76);
}

#[test]
fn the_session_is_ended_when_the_client_leaves() {
    let fake = Fake::new(1);
    let mut client = crate::client::Client::new(fake.servers.clone(), PATIENT);
    client.push_int("q", -7).expect("pushed");
    assert_eq!(client.pop_int("q").expect("popped"), -7);
    drop(client);
    let by = Instant::now() + PATIENT;
    while fake.group().ended == 0 {
        assert!(Instant::now() < by, "the session was not ended");
        std::thread::yield_now();
    }
}

#[test]
fn what_was_refused_when_it_was_applied_is_asked_again_under_new_numbers_in_order() {
    let fake = Fake::new(2);
    fake.group().moods[0].full = 3;
    fake.group().moods[1].drop_answers = 2;
    let mut session = Session::new(fake.servers.clone(), PATIENT);
    for k in 0..100 {
        if k == 50 {
            fake.group().moods[0].drop_answers = 1;
            fake.group().moods[0].full = 2;
        }
        push(&mut session, &k.to_string());
        if k % 10 == 9 {
            size(&mut session);
        }
        session.turn(None, Some(Instant::now()));
    }
    while session.pending() > 0 {
        session.wait().expect("there is room again");
    }
    assert_eq!(items(&fake), (0..100).map(|k| k.to_string()).collect::<Vec<_>>());
    assert_eq!(fake.group().executed, 100);
}

#[test]
fn a_refusal_that_is_an_answer_is_reported_when_patience_ends() {
    let fake = Fake::new(1);
    let mut session = Session::new(fake.servers.clone(), Duration::ZERO);
    push(&mut session, "a");
    session.wait().expect("welcome");
    fake.group().moods[0].full = 1;
    push(&mut session, "b");
    let error = session.wait().expect_err("it is full");
    assert_eq!((error.exit_status(), error.done(), error.is(Code::Full)), (75, Done::No, true), "{error}");
    push(&mut session, "c");
    session.wait().expect("there is room");
    assert_eq!(items(&fake), ["a", "c"]);
}

#[test]
fn one_that_is_slow_is_asked_whether_it_serves_and_one_that_only_says_so_is_left() {
    let fake = Fake::new(2);
    fake.group().moods[0].stuck = true;
    let mut session = Session::new(fake.servers.clone(), 3 * PATIENT);
    push(&mut session, "a");
    session.wait().expect("the second answers");
    assert_eq!(items(&fake), ["a"]);
    let group = fake.group();
    assert!(group.pings > 3, "{} pings", group.pings);
    assert_eq!(group.connections, [1, 1]);
}

#[test]
fn patience_is_one_budget_for_all_that_follows_closely() {
    let fake = Fake::new(1);
    fake.group().moods[0].mute = true;
    let patience = Duration::from_millis(500);
    let mut session = Session::new(fake.servers.clone(), patience);
    let begun = Instant::now();
    for _ in 0..5 {
        push(&mut session, "a");
        session.wait().expect_err("nobody answers");
    }
    assert!(begun.elapsed() < 3 * patience, "it took {:?}", begun.elapsed());
    fake.group().moods[0].mute = false;
    push(&mut session, "b");
    session.wait().expect("somebody answers");
    assert_eq!(items(&fake), ["b"]);
}

/// A session that a file keeps, as several processes go on with it.
#[test]
fn a_kept_session_goes_on_under_its_numbers() {
    let fake = Fake::new(2);
    let operation = |item: &str| {
        let mut bytes = Vec::new();
        QueueOperation::encode_push(&mut bytes, Target::Label("q"), [item.as_bytes()].into_iter());
        bytes
    };
    let mut first = Session::new(fake.servers.clone(), PATIENT);
    first.call(Ask::Session, |_| ()).expect("a session");
    let (group, id) = first.opened().expect("it is open");
    first.keep(group, id, 0);
    (1..=3).for_each(|number| first.submit_as(Ask::Request, number, operation(&number.to_string())));
    while fake.group().executed < 3 {
        first.turn(None, None);
    }
    drop(first);
    let mut second = Session::new(fake.servers.clone(), PATIENT);
    second.keep(group, id, 0);
    (1..=4).for_each(|number| second.submit_as(Ask::Request, number, operation(&number.to_string())));
    (1..=4).for_each(|_| drop(second.wait().expect("answered")));
    second.end();
    assert_eq!(items(&fake), ["1", "2", "3", "4"]);
    let mut third = Session::new(fake.servers.clone(), Duration::from_millis(200));
    third.keep(ClusterId(group.0 + 1), id, 4);
    third.submit_as(Ask::Request, 5, operation("5"));
    assert_eq!(third.wait().expect_err("another group").exit_status(), 78);
    {
        let mut group = fake.group();
        assert_eq!((group.executed, group.ended), (4, 0), "the session is kept");
        group.sessions.clear();
    }
    let mut fourth = Session::new(fake.servers.clone(), PATIENT);
    fourth.keep(group, id, 4);
    fourth.submit_as(Ask::Request, 5, operation("5"));
    let error = fourth.wait().expect_err("it is gone");
    assert_eq!((error.exit_status(), error.done()), (79, Done::No), "{error}");
}
