//! Clients that send each request as one datagram: a program in another language, `ftqc --udp`, and bytes that are
//! nobody's, with datagrams lost, doubled and damaged. What is executed is executed once.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use ftq::types::{RequestNumber, SessionId, Slot};
use ftq::wire::answer::Code;
use ftq::wire::client::{ToClient, ToReplica, VERSION};
use ftq::wire::client_datagram::{decode_answer, encode_request};

use crate::ftqc::{command, run, Run};
use crate::group::Group;
use crate::net::{say, Net};

/// The client in Python, if Python is here.
fn python(group: &Group, label: &str, count: u32) -> Option<Run> {
    if Command::new("python3").arg("--version").output().is_err() {
        say("skipped, not installed: python3");
        return None;
    }
    let servers: Vec<String> = (1..=group.size).map(|id| group.net.address(id)).collect();
    let mut python = Command::new("python3");
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/processes/udp_client.py"));
    python.arg(servers.join(",")).arg(label).arg(count.to_string());
    Some(run(python, Vec::new()))
}

#[test]
fn a_client_in_another_language_works_from_the_man_page() {
    let group = Group::start(Net::any("a_client_in_another_language_works_from_the_man_page"), 3);
    let Some(ran) = python(&group, "jobs", 300) else { return };
    // An opening, pushes, a size, four pops of which the first is sent again with room, one of nothing, the end.
    let sent = ran.ok();
    assert!(sent.starts_with("300 items, "), "{sent}");
    group.ask(1, &["size", "jobs"], "").is(0, "0\n");
    group.assert_agreement();
}

#[test]
fn datagrams_are_lost_and_everything_is_done_once() {
    let Some(net) = Net::private("datagrams_are_lost_and_everything_is_done_once") else { return };
    let group = Group::start(net, 3);
    group.net.lose_everywhere(30);
    let ran = python(&group, "jobs", 150);
    let servers: Vec<String> = (1..=3).map(|id| group.net.address(id)).collect();
    let lines: String = (0..100).map(|k| format!("push letters {k}\n")).collect();
    let pushed = run(command(&servers.join(","), &["--udp", "-t", "60"]), lines.into_bytes());
    let popped = run(command(&servers.join(","), &["--udp", "-t", "60", "pop", "-n", "101", "letters"]), Vec::new());
    let lost = group.net.swallowed();
    group.net.lose(0);
    assert!(lost > 100, "{lost}");
    pushed.is(0, &"ok\n".repeat(100));
    popped.is(1, &(0..100).map(|k| format!("{k}\n")).collect::<String>());
    if let Some(ran) = ran {
        assert!(ran.ok().starts_with("150 items, "));
    }
    group.assert_agreement();
}

#[test]
fn ftqc_sends_datagrams_where_they_fit() {
    let group = Group::start(Net::any("ftqc_sends_datagrams_where_they_fit"), 3);
    let ask = |args: &[&str], stdin: &str| group.ask(2, &[&["--udp"], args].concat(), stdin);
    ask(&["push", "jobs", "a", "b"], "").is(0, "");
    ask(&["size", "jobs"], "").is(0, "2\n");
    ask(&["pop", "-n", "3", "jobs"], "").is(1, "a\nb\n");
    ask(&["ready"], "").is(0, "ready\n");
    ask(&["pop", "jobs"], "").refuses(1, "ftqc: empty: ");
    // An answer longer than the request allowed is asked for again; one that fits no datagram comes over a connection,
    // and so do items that fit none.
    let (long, longest) = ("x".repeat(10_000), "y".repeat(1_000_000));
    ask(&["push", "jobs"], &format!("{long}\n{longest}\nz\n")).is(0, "");
    assert!(ask(&["pop", "jobs"], "").ok() == long.clone() + "\n");
    assert!(ask(&["pop", "-n", "2", "jobs"], "").ok() == longest + "\nz\n");
    let many: String = (0..50_000).map(|k| format!("{k}\n")).collect();
    ask(&["push", "many"], &many).is(0, "");
    assert!(ask(&["pop", "-n", "50000", "many"], "").ok() == many);
    let waits = ask(&["take", "--wait", "0.2", "jobs"], "");
    assert_eq!(waits.status, 1, "{waits:?}");
    let nobody = run(command("127.0.0.1:1", &["--udp", "-t", "0", "size", "jobs"]), Vec::new());
    assert_eq!(nobody.status, 69, "{nobody:?}");
    // What measures connections says so, and measures nothing else in their name.
    ask(&["bench", "--seconds", "1"], "").refuses(64, "ftqc: usage: what is measured are connections");
    let lines = ask(&[], "bench --seconds 1\nsize jobs\n");
    lines.is(65, "! bad-request what is measured are connections, so bench takes no --udp\n0\n");
    group.assert_agreement();
}

/// One datagram and the answer to it, if there is one soon.
fn exchange(socket: &UdpSocket, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    socket.send(bytes).expect("it leaves");
    let length = socket.recv(&mut buffer).ok()?;
    assert!(length <= bytes.len(), "{length} bytes for {}", bytes.len());
    Some(buffer[..length].to_vec())
}

fn datagram(session: SessionId, frame: &ToReplica<'_>, bytes: usize) -> Vec<u8> {
    let (mut body, mut out) = (Vec::new(), Vec::new());
    frame.encode(&mut body);
    encode_request(&mut out, session, false, &body, bytes);
    out
}

#[test]
fn whatever_is_sent_the_group_serves_and_answers_no_more_than_it_got() {
    let mut group = Group::start(Net::any("whatever_is_sent_the_group_serves_and_answers_no_more_than_it_got"), 1);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    // In a namespace every address is of this host.
    let socket =
        if group.net.address(1).starts_with("10.") { UdpSocket::bind("10.77.0.9:0").expect("ours") } else { socket };
    socket.connect(group.net.address(1)).expect("an address");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let session = SessionId { slot: Slot(9), position: 0, digest: 9 };
    let refusal = |bytes: Vec<u8>| {
        let answer = exchange(&socket, &bytes).expect("it is answered");
        let (needed, frame) = decode_answer(&answer).expect("an answer");
        match ToClient::decode(&frame[4..]) {
            Ok(ToClient::Refused { code, .. }) => (code, needed),
            Ok(ToClient::Reply { answer, .. }) => (Code::from_u8(answer[0]).expect("a code"), needed),
            other => panic!("{other:?}"),
        }
    };
    let request =
        ToReplica::Request { number: RequestNumber(1), seen: RequestNumber(0), operation: b"\x01\x04\x01\x01q\x01" };
    // A session that was never there, one that is none, another version, a frame that is none, and too little room.
    assert_eq!(refusal(datagram(session, &request, 200)).0, Code::Expired);
    assert_eq!(refusal(datagram(SessionId::NONE, &request, 200)).0, Code::BadRequest);
    assert_eq!(refusal(datagram(session, &ToReplica::Hello { version: VERSION + 1 }, 200)).0, Code::Version);
    let mut odd = datagram(session, &request, 200);
    odd[31] = 200;
    assert_eq!(refusal(odd).0, Code::BadRequest);
    let status = ToReplica::Admin { number: 1, what: ftq::wire::client::Admin::Status };
    let (code, needed) = refusal(datagram(session, &status, 64));
    assert!(code == Code::TooLarge && needed > 300, "{needed}");
    let told = exchange(&socket, &datagram(session, &status, needed as usize + 20)).expect("it is answered");
    assert!(decode_answer(&told).is_ok_and(|(needed, _)| needed == 0));
    // Cut, changed and random bytes, the same for every run.
    let (whole, mut random) = (datagram(session, &request, 100), 1u64);
    socket.set_nonblocking(true).expect("a socket");
    for round in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..round % 5 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (random >> 33) as usize % bytes.len();
            bytes[at] ^= (random >> 24) as u8;
        }
        bytes.truncate(if round % 3 == 0 { (random >> 40) as usize % 100 } else { 100 });
        // A full buffer loses one, as any network does.
        let _ = socket.send(&bytes);
    }
    group.assert_alive();
    group.ask(1, &["--udp", "push", "jobs", "x"], "").is(0, "");
    group.ask(1, &["pop", "jobs"], "").is(0, "x\n");
}
