//! The network of one test. A namespace belongs to the thread that made it and to all that this thread starts, so
//! each test has its own: replica i is 10.77.0.i, port 7400, and packets meet the rules that the test sets.

use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};

/// The port of every replica in a namespace.
pub const PORT: u16 = 7400;
const ADDRESSES: u8 = 16;

/// Where a test's replicas live.
pub struct Net {
    private: bool,
    /// The first of consecutive free ports, outside a namespace.
    port: u16,
}

/// Runs a tool that has to succeed.
fn tool(name: &str, args: &[&str], stdin: &str) {
    let mut child = Command::new(name)
        .args(args)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{name}: {e}; `make tools` installs it"));
    child.stdin.take().expect("piped").write_all(stdin.as_bytes()).expect("the tool reads its input");
    let output = child.wait_with_output().expect("it was started");
    assert!(output.status.success(), "{name} {args:?} {stdin}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Says something that the test runner does not swallow.
pub fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("stderr is there");
}

pub fn is_root() -> bool {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

impl Net {
    /// A namespace with nothing in it but this test; `None`, said on stderr, where that is not permitted.
    pub fn private(test: &str) -> Option<Net> {
        if !is_root() {
            say(&format!("skipped, needs root: {test}"));
            return None;
        }
        // SAFETY: moves this thread alone into a fresh namespace; no memory is involved.
        let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(done, 0, "unshare: {}", std::io::Error::last_os_error());
        let mut lines = "link set lo up\n".to_owned();
        (1..=ADDRESSES).for_each(|i| lines += &format!("addr add 10.77.0.{i}/32 dev lo\n"));
        tool("ip", &["-batch", "-"], &lines);
        Some(Net { private: true, port: PORT })
    }

    /// A namespace where that is permitted, else this machine's loopback. For tests that need no rules.
    pub fn any(test: &str) -> Net {
        if is_root() {
            return Net::private(test).expect("root may");
        }
        Net { private: false, port: free_ports(ADDRESSES.into()) }
    }

    /// `HOST:PORT` of a replica.
    pub fn address(&self, id: u8) -> String {
        if self.private {
            format!("10.77.0.{id}:{PORT}")
        } else {
            format!("127.0.0.1:{}", self.port + u16::from(id) - 1)
        }
    }

    /// An address from which a replica's datagrams may come.
    pub fn host(&self, id: u8) -> String {
        if self.private {
            format!("10.77.0.{id}")
        } else {
            "127.0.0.1".to_owned()
        }
    }

    /// Replaces all rules by these, for datagrams that arrive at a replica.
    fn on_datagrams(&self, rule: &str) {
        let rule = if rule.is_empty() { String::new() } else { format!("udp dport {PORT} {rule} counter drop") };
        self.on_arrival(&rule);
    }

    fn on_arrival(&self, rule: &str) {
        assert!(self.private, "rules need a namespace");
        // Made and deleted, so that it is there to be deleted; then made anew.
        let rules = format!(
            "table ip ftq {{\n}}\ndelete table ip ftq\ntable ip ftq {{\n\
             chain arriving {{\ntype filter hook input priority 0\n{rule}\n}}\n}}\n"
        );
        tool("nft", &["-f", "-"], &rules);
    }

    /// Datagrams that the present rule has swallowed.
    pub fn swallowed(&self) -> u64 {
        let listed = Command::new("nft").args(["list", "table", "ip", "ftq"]).output().expect("it ran before");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let count = listed.split("counter packets ").nth(1).and_then(|rest| rest.split_whitespace().next());
        count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("a rule that counts: {listed}"))
    }

    /// Every datagram is lost with this probability.
    pub fn lose(&self, percent: u8) {
        self.on_datagrams(&if percent == 0 { String::new() } else { format!("numgen random mod 100 < {percent}") });
    }

    /// Every datagram is lost with this probability, answers to clients too.
    pub fn lose_everywhere(&self, percent: u8) {
        self.on_arrival(&format!("meta l4proto udp numgen random mod 100 < {percent} counter drop"));
    }

    /// Datagrams of more than `bytes` vanish without a word, while the interface claims to carry 64 KiB.
    pub fn mtu_hole(&self, bytes: u16) {
        self.on_datagrams(&format!("udp length > {}", bytes + 8));
    }

    /// Nothing passes these ways any more, from the first replica to the second; all others are open. What clients and
    /// replicas say to each other is not touched.
    pub fn cut(&self, ways: &[(u8, u8)]) {
        assert!(self.private, "rules need a namespace");
        let drop = |(from, to): &(u8, u8)| format!("ip saddr 10.77.0.{from} ip daddr 10.77.0.{to} drop\n");
        let drops: String = ways.iter().map(drop).collect();
        let rules = format!(
            "table ip cut {{\n}}\ndelete table ip cut\ntable ip cut {{\n\
             chain arriving {{\ntype filter hook input priority 0\n{drops}}}\n}}\n"
        );
        tool("nft", &["-f", "-"], &rules);
    }

    /// The ways between two sides.
    pub fn cut_apart(&self, one: &[u8], other: &[u8]) {
        let pairs = one.iter().flat_map(|&a| other.iter().map(move |&b| (a, b)));
        self.cut(&pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect::<Vec<_>>());
    }

    pub fn heal(&self) {
        self.cut(&[]);
    }

    /// Sends what replicas send each other to the relay's ports instead; what carries `mark` goes through.
    pub fn divert(&self, size: u8, relay_port: u16, mark: u32) {
        let mut rules = "table ip relay {\nchain leaving {\ntype nat hook output priority -100\n".to_owned();
        rules += &format!("meta mark {mark} return\n");
        for i in 1..=size {
            rules += &format!("ip daddr 10.77.0.{i} udp dport {PORT} dnat to 10.77.0.{i}:{relay_port}\n");
        }
        tool("nft", &["-f", "-"], &(rules + "}\n}\n"));
    }
}

/// The first of `count` consecutive ports that are free for UDP and TCP.
fn free_ports(count: u16) -> u16 {
    let free =
        |port: u16| UdpSocket::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok();
    let start = 20_000 + (std::process::id() as u16 % 1000) * 20;
    (start..60_000)
        .step_by(usize::from(count))
        .find(|&first| (first..first + count).all(free))
        .expect("some ports are free")
}
