//! The key-value store over HTTP, by the clients that people have: every row of its table, while hosts die, are cut
//! off and come back; and what makes no sense is told so, with nothing lost.

use serde_json::{json, Value};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::ftqc::{run, until};
use crate::group::Group;
use crate::net::Net;

/// The HTTP port of a replica in a namespace; elsewhere it is this far above its own.
const HTTP_PORT: u16 = 8000;
const ABOVE: u16 = 8;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The metadata to be handed on.
    fn metadata(&self) -> Value {
        self.json()["causal-metadata"].clone()
    }

    /// A refusal with this status that says why.
    #[track_caller]
    fn refuses(&self, status: u16, why: &str) {
        let text = self.json()["error"].as_str().expect("a text").to_owned();
        assert!(self.status == status && text.contains(why), "{status} {why}: {self:?}");
    }

    #[track_caller]
    fn is(&self, status: u16, body: &Value) {
        assert_eq!((self.status, &self.json()), (status, body), "{self:?}");
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.split_once(": ").filter(|(own, _)| *own == name).map(|(_, value)| value))
    }
}

impl Group {
    /// Three replicas, two of which have their HTTP addresses from the book and one from its command line.
    pub fn start_http(net: Net) -> Group {
        let mut group = Group::prepare(net, 3, &[]);
        let line = |id: u8| match id {
            2 => format!("{id} {}\n", group.net.address(id)),
            _ => format!("{id} {} {}\n", group.net.address(id), group.http(id)),
        };
        let book: String = (1..=3).map(line).collect();
        std::fs::write(group.path().join("cluster"), book).expect("the place is ours");
        (1..=3).for_each(|id| group.launch_http(id));
        group.await_primary();
        for id in 1..=3 {
            group.await_listed(id, &[1, 2, 3]);
        }
        group
    }

    pub fn launch_http(&mut self, id: u8) {
        let address = self.http(id);
        let options = if id == 2 { vec!["--http", address.as_str()] } else { Vec::new() };
        self.launch_with(id, &options);
    }

    /// `HOST:PORT` where a replica answers HTTP.
    pub fn http(&self, id: u8) -> String {
        let address = self.net.address(id);
        let (host, port) = address.rsplit_once(':').expect("HOST:PORT");
        match host {
            "127.0.0.1" => format!("{host}:{}", port.parse::<u16>().expect("a port") + ABOVE),
            _ => format!("{host}:{HTTP_PORT}"),
        }
    }

    /// One request by curl; `None` where nobody answers.
    fn try_curl(&self, id: u8, method: &str, path: &str, body: &str, options: &[&str]) -> Option<Answer> {
        let mut command = Command::new("curl");
        command.args(["-sS", "-i", "-m", "50", "-X", method]).args(options);
        if !body.is_empty() {
            command.args(["--data-binary", "@-"]);
        }
        command.arg(format!("http://{}{path}", self.http(id)));
        let run = run(command, body.as_bytes().to_vec());
        if run.status != 0 {
            return None;
        }
        let mut text = run.text();
        loop {
            let (head, rest) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {run:?}"));
            let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
            if status != 100 {
                return Some(Answer { status, head: head.to_owned(), text: rest.to_owned() });
            }
            text = rest;
        }
    }

    #[track_caller]
    fn curl_with(&self, id: u8, method: &str, path: &str, body: &str, options: &[&str]) -> Answer {
        self.try_curl(id, method, path, body, options).expect("curl gets an answer; `make tools` installs it")
    }

    #[track_caller]
    pub fn curl(&self, id: u8, method: &str, path: &str, body: &str) -> Answer {
        self.curl_with(id, method, path, body, &[])
    }

    #[track_caller]
    fn put(&self, id: u8, key: &str, value: &Value, metadata: &Value) -> Answer {
        let body = json!({ "value": value, "causal-metadata": metadata }).to_string();
        self.curl(id, "PUT", &format!("/kvs/{key}"), &body)
    }

    #[track_caller]
    fn get(&self, id: u8, key: &str, metadata: &Value) -> Answer {
        self.curl(id, "GET", &format!("/kvs/{key}"), &json!({ "causal-metadata": metadata }).to_string())
    }

    /// Waits until a replica lists these in its view; says how long that took.
    #[track_caller]
    fn await_listed(&self, id: u8, members: &[u8]) -> Duration {
        let view = json!({ "view": members.iter().map(|&id| self.http(id)).collect::<Vec<_>>() });
        let begun = Instant::now();
        until("the view lists who is there", || {
            let answer = self.try_curl(id, "GET", "/view", "", &[])?;
            (answer.status == 200 && answer.json() == view).then_some(())
        });
        begun.elapsed()
    }

    /// What a replica says to these bytes until it closes.
    #[track_caller]
    fn raw(&self, id: u8, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.http(id)).expect("the door is open");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a valid time");
        // It may be closed before all is sent: that is the replica's right.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn address(address: &str) -> String {
    json!({ "socket-address": address }).to_string()
}

#[test]
fn every_row_of_the_table_works() {
    let group = Group::start_http(Net::any("every_row_of_the_table_works"));
    let created = group.put(1, "a", &json!({"n": [1, null]}), &Value::Null);
    assert_eq!((created.status, created.json()["result"].as_str()), (201, Some("created")));
    assert_eq!(created.metadata(), json!({ group.http(1): 1 }));
    let replaced = group.put(2, "a", &json!("two"), &created.metadata());
    assert_eq!((replaced.status, replaced.json()["result"].as_str()), (200, Some("replaced")));
    let known = replaced.metadata();
    let wait = ["-H", "Prefer: wait=30"];
    let body = json!({ "causal-metadata": known }).to_string();
    for id in 1..=3 {
        let found = group.curl_with(id, "GET", "/kvs/a", &body, &wait);
        found.is(200, &json!({"result": "found", "value": "two", "causal-metadata": known}));
        let asked = group.curl(id, "GET", "/kvs/a?consistency=linearizable", "");
        asked.is(200, &json!({"result": "found", "value": "two", "causal-metadata": known}));
    }
    // What other clients see is the same.
    assert_eq!(group.ask(3, &["kv", "get", "a"], "").ok(), "\"two\"\n");
    let deleted = group.curl(3, "DELETE", "/kvs/a", &body);
    assert_eq!((deleted.status, deleted.json()["result"].as_str()), (200, Some("deleted")));
    group.curl(3, "DELETE", "/kvs/a", &body).refuses(404, "no key a");
    let gone = json!({ "causal-metadata": deleted.metadata() }).to_string();
    group.curl_with(1, "GET", "/kvs/a", &gone, &wait).refuses(404, "no key a");

    // Numbers of any size come back digit for digit.
    let number = "-123456789012345678901234567890.1234567890123456789012345678900e+400";
    group.curl(1, "PUT", "/kvs/big", &format!("{{\"value\": {number} }}"));
    assert!(group.curl(1, "GET", "/kvs/big", "").text.contains(&format!("\"value\":{number},")));

    conditions_and_listings(&group);
    the_view_changes(&group);
}

fn conditions_and_listings(group: &Group) {
    let put = |value: &str, header: &str| {
        group.curl_with(2, "PUT", "/kvs/cas", &format!("{{\"value\":{value}}}"), &["-H", header])
    };
    put("1", "If-Match: *").refuses(412, "no key cas");
    let first = put("1", "If-None-Match: *");
    assert_eq!(first.status, 201);
    put("2", "If-None-Match: *").refuses(412, "has version");
    let version = first.header("ETag").expect("a version").to_owned();
    assert_eq!(put("2", &format!("If-Match: {version}")).status, 200);
    put("3", &format!("If-Match: {version}")).refuses(412, "has version");
    let head = group.curl_with(2, "GET", "/kvs/cas?consistency=linearizable", "", &["-I", "-X", "HEAD"]);
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert!(head.header("ETag").is_some_and(|now| now != version));

    for key in ["list%2F1", "list%2F2", "list%2F3", "other"] {
        group.curl(1, "PUT", &format!("/kvs/{key}"), "{\"value\":{\"a\": 1}}");
    }
    let page = |query: &str| {
        let listed = group.curl(1, "GET", &format!("/kvs?{query}"), "").json();
        let keys: Vec<String> = listed["kvs"].as_array().expect("rows").iter().map(|r| r["key"].to_string()).collect();
        (keys.join(","), listed["more"] == true)
    };
    assert_eq!(page("prefix=list/&limit=2"), ("\"list/1\",\"list/2\"".to_owned(), true));
    assert_eq!(page("prefix=list/&limit=2&after=list/2"), ("\"list/3\"".to_owned(), false));
    let listed = group.ask(1, &["kv", "list", "list/"], "").ok();
    assert_eq!(listed.lines().filter(|line| line.ends_with("\t{\"a\": 1}")).count(), 3, "{listed}");
}

fn the_view_changes(group: &Group) {
    let third = address(&group.http(3));
    group.curl(1, "PUT", "/view", &third).is(200, &json!({"result": "already present"}));
    group.curl(1, "PUT", "/view", &address("nobody:1")).refuses(404, "no replica announces nobody:1");
    group.curl(1, "DELETE", "/view", &address("nobody:1")).refuses(404, "no replica announces nobody:1");
    let written = group.put(3, "by3", &json!(3), &Value::Null);
    group.curl(1, "DELETE", "/view", &third).is(200, &json!({"result": "deleted"}));
    group.curl(1, "DELETE", "/view", &third).refuses(404, "not in the view");
    group.await_listed(1, &[1, 2]);
    until("it learns that it was removed", || (group.get(3, "by3", &Value::Null).status == 503).then_some(()));
    group.put(3, "by3", &json!(4), &Value::Null).refuses(503, "was removed from the view");
    // Metadata that names it stays valid.
    let after = group.put(1, "by1", &json!(1), &written.metadata());
    assert_eq!((after.status, &after.metadata()[group.http(3)]), (201, &written.metadata()[group.http(3)]));
    group.curl(2, "PUT", "/view", &third).is(201, &json!({"result": "added"}));
    group.await_listed(2, &[1, 2, 3]);
    until("it serves again", || (group.put(3, "by3", &json!(4), &after.metadata()).status == 200).then_some(()));
}

#[test]
fn hosts_die_are_cut_off_and_come_back() {
    let Some(net) = Net::private("hosts_die_are_cut_off_and_come_back") else { return };
    let mut group = Group::start_http(net);
    let by3 = group.put(3, "k", &json!(1), &Value::Null).metadata();
    group.crash(3);
    let gone_after = group.await_listed(1, &[1, 2]);
    // A second is promised; a busy machine that runs many tests at once gets three.
    assert!(gone_after < Duration::from_secs(3), "listed for {gone_after:?} after its crash");
    group.await_listed(2, &[1, 2]);
    let by1 = group.put(1, "k", &json!(2), &by3);
    assert_eq!((by1.status, &by1.metadata()[group.http(3)]), (200, &by3[group.http(3)]));
    group.launch_http(3);
    group.await_listed(1, &[1, 2, 3]);
    let returned = until("it is back with all data", || {
        let answer =
            group.try_curl(3, "GET", "/kvs/k", &json!({ "causal-metadata": by1.metadata() }).to_string(), &[])?;
        (answer.status == 200).then_some(answer)
    });
    assert_eq!((&returned.json()["value"], &returned.json()["stale"]), (&json!(2), &Value::Null));

    group.net.cut_apart(&[1], &[2, 3]);
    group.await_listed(2, &[2, 3]);
    group.assert_refuses(1, "waiting for replicas 2, 3");
    let by2 = group.put(2, "k", &json!(3), &by1.metadata());
    assert_eq!(by2.status, 200);
    let stale = group.get(1, "k", &by1.metadata());
    assert_eq!((stale.status, &stale.json()["value"], &stale.json()["stale"]), (200, &json!(2), &json!(true)));
    assert_eq!(group.curl(1, "GET", "/view", "").json(), json!({"view": [group.http(1)], "stale": true}));
    let behind = group.get(1, "k", &by2.metadata());
    behind.refuses(503, "not all here");
    assert_eq!(behind.header("Retry-After"), Some("1"));
    group.put(1, "k", &json!(4), &Value::Null).refuses(503, "waiting for replicas 2, 3");
    group.curl(1, "GET", "/kvs/k?consistency=linearizable", "").refuses(503, "waiting for replicas 2, 3");
    group.curl(1, "DELETE", "/view", &address(&group.http(2))).refuses(503, "waiting for replicas 2, 3");
    assert_eq!((group.curl(1, "GET", "/livez", "").status, group.curl(1, "GET", "/readyz", "").status), (200, 503));
    // Who waits gets it as soon as the network is whole.
    std::thread::scope(|scope| {
        let body = json!({ "causal-metadata": by2.metadata() }).to_string();
        let group = &group;
        let patient = scope.spawn(move || group.curl_with(1, "GET", "/kvs/k", &body, &["-H", "Prefer: wait=45"]));
        group
            .curl_with(
                1,
                "GET",
                "/kvs/k",
                &json!({ "causal-metadata": {"x:1": 1} }).to_string(),
                &["-H", "Prefer: wait=1"],
            )
            .refuses(503, "not all here");
        assert!(!patient.is_finished());
        group.net.heal();
        let answer = patient.join().expect("it is answered");
        assert_eq!((answer.status, &answer.json()["value"]), (200, &json!(3)));
    });
    group.await_listed(1, &[1, 2, 3]);
    let ready = group.curl(1, "GET", "/readyz", "");
    assert_eq!((ready.status, ready.text.as_str()), (200, "ok primary\nok caught-up\nok staying\n"));
    group.assert_agreement();
    group.assert_alive();
}

#[test]
fn bad_input_gets_a_clear_error_and_nothing_is_lost() {
    let mut group = Group::start_http(Net::any("bad_input_gets_a_clear_error_and_nothing_is_lost"));
    let kept = group.put(1, "kept", &json!("as it is"), &Value::Null).metadata();
    let deep = format!("{{\"value\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies = [
        ("", "no \"value\""),
        ("{", "not JSON"),
        ("{\"value\":}", "not JSON"),
        ("[1]", "not JSON"),
        ("{\"value\":1}{", "more than one value"),
        ("{\"value\":1,\"value\":2}", "stands twice"),
        (deep.as_str(), "nested too deeply"),
        ("{\"value\":01}", "leading 0"),
        ("{\"value\":NaN}", "not JSON"),
        ("{\"value\":1,\"causal-metadata\":7}", "malformed causal-metadata"),
        ("{\"value\":1,\"causal-metadata\":{\"a:1\":-1}}", "no whole number"),
        ("{\"value\":1,\"causal-metadata\":{\"a:1\":1.5}}", "no whole number"),
        ("{\"value\":1,\"causal-metadata\":{\"a:1\":1,\"a:1\":1}}", "stands twice"),
    ];
    for (body, why) in bodies {
        group.curl(1, "PUT", "/kvs/kept", body).refuses(400, why);
    }
    for (path, why) in [
        ("/kvs/", "the key is empty"),
        ("/kvs/%zz", "hexadecimal"),
        ("/kvs/%ff", "not UTF-8"),
        ("/kvs/%00", "control"),
        (&format!("/kvs/{}", "k".repeat(51)), "at most 50 characters, not 51"),
    ] {
        for (method, body) in [("PUT", "{\"value\":1}"), ("GET", ""), ("DELETE", "")] {
            group.curl(1, method, path, body).refuses(400, why);
        }
    }
    assert_eq!(group.curl(1, "PUT", &format!("/kvs/{}", "%C3%A4".repeat(50)), "{\"value\":1}").status, 201);
    // Metadata of another group, of unknown replicas, of counters that nobody reached.
    for foreign in [json!({"other:1": 1}), json!({ group.http(1): 1u64 << 60 }), json!({ group.http(1): 1, "x": 1 })] {
        group.put(1, "kept", &json!(1), &foreign).refuses(503, "not all here: 1");
        group.get(1, "kept", &foreign).refuses(503, "not all here: 1");
        let body = json!({ "causal-metadata": foreign }).to_string();
        group.curl(1, "DELETE", "/kvs/kept", &body).refuses(503, "not all here");
        group.curl(1, "GET", "/kvs/kept?consistency=linearizable", &body).refuses(503, "not all here");
    }
    let huge = "{\"value\":1,\"causal-metadata\":{\"a:1\":99999999999999999999999999}}";
    group.curl(1, "PUT", "/kvs/kept", huge).refuses(503, "not all here");
    let large = format!("{{\"value\":\"{}\"}}", "x".repeat(1 << 20));
    group.curl(1, "PUT", "/kvs/kept", &large).refuses(413, "at most");
    group.curl(1, "PUT", "/kvs/kept", &large.repeat(3)).refuses(413, "more than");
    group.curl(1, "POST", "/kvs/kept", "{}").refuses(405, "only GET, HEAD, PUT, DELETE");
    group.curl(1, "GET", "/nothing", "").refuses(404, "there is nothing here");
    let ftqc = |args: &[&str], status, why| group.ask(1, args, "").refuses(status, why);
    ftqc(&["kv", "put", "kept", "text"], 65, "ftqc: bad-request: the value is not JSON");
    ftqc(&["kv", "put", "", "1"], 65, "ftqc: bad-request: a key is");
    ftqc(&["kv", "get", "none"], 1, "ftqc: no-key");
    ftqc(&["kv", "cas", "kept", "0", "1"], 1, "ftqc: exists");
    ftqc(&["kv", "cas", "kept", "x", "1"], 65, "ftqc: bad-request");
    ftqc(&["kv", "eat", "kept"], 64, "ftqc: usage");
    bad_messages(&group);
    // Three writes came through: the first, a long key's and one in chunks.
    let counted = json!({ group.http(1): 3 });
    group.get(1, "kept", &kept).is(200, &json!({"result": "found", "value": "as it is", "causal-metadata": counted}));
    group.assert_agreement();
    group.assert_alive();
}

/// What is no proper HTTP. Each answer ends the connection.
fn bad_messages(group: &Group) {
    let put = |lines: &str, rest: &str| {
        let bytes = format!("PUT /kvs/kept HTTP/1.1\r\nHost: h\r\n{lines}\r\n{rest}");
        let answer = group.raw(1, bytes.as_bytes());
        answer.split(' ').nth(1).unwrap_or_else(|| panic!("{lines}: {answer:?}")).to_owned()
    };
    let body = "{\"value\":1}";
    assert_eq!(put("Content-Length: 11\r\nContent-Length: 11\r\n", body), "400");
    assert_eq!(put("Content-Length: 11\r\nTransfer-Encoding: chunked\r\n", body), "400");
    assert_eq!(put("Transfer-Encoding: gzip\r\n", body), "501");
    assert_eq!(put("Content-Length: -1\r\n", body), "400");
    assert_eq!(put("Content-Length: 99999999999999999999\r\n", body), "413");
    assert_eq!(put("Host: other\r\nContent-Length: 11\r\n", body), "400");
    assert_eq!(put("Transfer-Encoding: chunked\r\n", "zz\r\n"), "400");
    assert_eq!(put(&"X: y\r\n".repeat(100), body), "431");
    assert_eq!(put(&format!("X: {}\r\n", "y".repeat(100_000)), body), "431");
    assert!(group.raw(1, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n").starts_with("HTTP/1.1 400 "));
    assert!(group.raw(1, b"GET / HTTP/3.0\r\n\r\n").starts_with("HTTP/1.1 505 "));
    // In pieces, and several at once: answered in order.
    let chunked = "PUT /kvs/chunked HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n{\"val\r\n\
                   6\r\nue\":7}\r\n0\r\nTrailer: t\r\n\r\n";
    let get = "GET /kvs/chunked HTTP/1.1\r\nHost: h\r\n\r\n";
    let last = "GET /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let answers = group.raw(1, format!("{chunked}{get}{last}").as_bytes());
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["201", "200", "200"], "{answers}");
    assert!(answers.contains("\"value\":7,") && answers.ends_with("ok\n"), "{answers}");
    // Who says at once that it sends no more is answered all the same, and what is only begun is dropped.
    let live = "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n";
    for end in ["", "GET /livez HTT"] {
        let mut stream = TcpStream::connect(group.http(1)).expect("the door is open");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a valid time");
        stream.write_all(format!("{live}{get}{live}{get}{live}{end}").as_bytes()).expect("it is read");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut answers = String::new();
        stream.read_to_string(&mut answers).expect("it is closed behind the last answer");
        assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 5, "{answers}");
    }
}

#[test]
fn programs_in_python_are_served_and_prometheus_reads_the_metrics() {
    let group = Group::start_http(Net::any("programs_in_python_are_served_and_prometheus_reads_the_metrics"));
    group.ask(1, &["push", "a\"\\b", "one"], "").ok();
    group.ask(1, &["--udp", "push", "a\"\\b", "two"], "").ok();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/processes/http_client.py");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).args((1..=3).map(|id| group.http(id)));
    let run = run(command, Vec::new());
    assert_eq!((run.status, run.text()), (0, "ok\n"), "`make tools` installs the parser: {}", run.stderr);
}

#[test]
fn slow_senders_are_told_and_hold_up_nobody() {
    let mut group = Group::start_http(Net::any("slow_senders_are_told_and_hold_up_nobody"));
    let put = b"PUT /kvs/slow HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n";
    let begun = [&put[..20], &put[..], &[&put[..], b"{\"val"].concat()].map(<[u8]>::to_vec);
    let mut slow: Vec<TcpStream> =
        begun.iter().cycle().take(60).map(|_| TcpStream::connect(group.http(1)).expect("the door is open")).collect();
    for (stream, bytes) in slow.iter_mut().zip(begun.iter().cycle()) {
        stream.write_all(bytes).expect("it is read");
        stream.set_read_timeout(Some(Duration::from_secs(50))).expect("a valid time");
    }
    let answer = group.put(1, "quick", &json!(1), &Value::Null);
    assert_eq!(answer.status, 201, "others are served meanwhile");
    for mut stream in slow {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it is told and closed");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    group.get(1, "slow", &Value::Null).refuses(404, "no key slow");
    group.assert_alive();
}

/// What is held for all clients together is bounded: whoever comes when there is no room is told, others are served.
#[test]
fn bodies_and_answers_beyond_what_is_held_for_all_are_refused_one_by_one() {
    const CLIENTS: usize = 120;
    let mut group =
        Group::start_http(Net::any("bodies_and_answers_beyond_what_is_held_for_all_are_refused_one_by_one"));
    let value = "x".repeat(900_000);
    let (begin, end) = (format!("{{\"value\":\"{value}"), "\"}");
    let length = begin.len() + end.len();
    let head = format!("PUT /kvs/large HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    let connect = || {
        // Little of an answer gets into the kernel's own room.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a size");
        let address: std::net::SocketAddr = group.http(1).parse().expect("an address");
        socket.connect(&address.into()).expect("the door is open");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a valid time");
        stream
    };
    let status = |stream: &mut TcpStream| {
        let mut line = [0; 12];
        stream.read_exact(&mut line).map(|()| String::from_utf8_lossy(&line[9..]).into_owned()).unwrap_or_default()
    };
    let lives = || group.curl(1, "GET", "/livez", "").status == 200;
    // All but the last bytes of more bodies than there is room for; a refusal may cut one short.
    let mut streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect()).collect();
    for stream in &mut streams {
        let _ = stream.write_all(format!("{head}{begin}").as_bytes());
    }
    assert!(lives());
    let statuses: Vec<String> = streams
        .iter_mut()
        .map(|stream| {
            let _ = stream.write_all(end.as_bytes());
            status(stream)
        })
        .collect();
    let served = statuses.iter().filter(|status| ["200", "201"].contains(&status.as_str())).count();
    assert!((60..CLIENTS).contains(&served), "{served} were served: {statuses:?}");
    // More answers than there is room for, which nobody takes. The first ones may fit the kernel's own.
    let metric = |name: &str| {
        let page = group.curl(1, "GET", "/metrics", "").text;
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let refused = || metric("ftq_http_requests_total{code=\"503\"}");
    let before = refused();
    let mut streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect()).collect();
    for stream in &mut streams {
        stream.write_all("GET /kvs/large HTTP/1.1\r\nHost: h\r\n\r\n".repeat(8).as_bytes()).expect("it is read");
    }
    until("some are refused", || (refused() > before).then_some(()));
    let held = metric("ftq_http_held_bytes");
    assert!(((60 << 20)..(66 << 20)).contains(&held), "{held} bytes are held");
    assert!(streams.iter_mut().all(|stream| status(stream) == "200"), "the first of each is answered");
    assert!(lives());
    drop(streams);
    until("there is room again", || (group.get(1, "large", &Value::Null).status == 200).then_some(()));
    group.assert_alive();
}
