//! The library: a blocking client of a group of replicas.
//!
//! ```
//! use ftq::client::{Client, Server};
//! use std::time::Duration;
//!
//! let servers = Server::parse_list("127.0.0.1:7400,127.0.0.1:7401")?;
//! # let servers = ftq::client::fake::Fake::new(2).servers;
//! let mut client = Client::new(servers, Duration::from_secs(10));
//! client.push("jobs", b"first")?;
//! client.push_int("jobs", 42)?;
//! assert_eq!(client.pop("jobs")?, b"first");
//! assert_eq!(client.pop_int("jobs")?, 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Leases, for work that must not be lost with the worker:
//!
#![doc = "```"]
#![doc = include_str!("example.rs")]
#![doc = "# work(ftq::client::fake::Fake::new(1).servers).expect(\"it works as it is shown\");"]
#![doc = "```"]
//!
//! [`Client`] does one thing at a time. [`Session`] is the layer below: it takes many submissions ahead and gives
//! their answers in order. Either goes on with the next server when one fails, and each operation is executed once.

pub mod chat;
pub mod connection;
mod datagrams;
pub mod error;
#[doc(hidden)]
pub mod fake;
pub mod kv;
pub mod lease;
pub mod queue;
pub mod servers;
pub mod session;
pub mod stock;

pub use error::{Done, Error};
pub use servers::Server;
pub use session::{Answer, Ask, Session, Withdrawn};

pub use crate::wire::answer::Code;
use crate::wire::client::Admin;
use crate::wire::codec::{DecodeError, Reader};
use std::time::Duration;

pub use crate::wire::kv::Condition;
pub use crate::wire::operation::{Cap, Limit, Place, PushOptions, Receipt};
pub use lease::{dead_items, leased_items, read_limit, Buried, Lease};
pub use queue::{check_item, checked_label, item_list, rows, Queue};

/// A blocking client. Its session ends when it is dropped.
///
/// Every operation fails with [`Error`], whose [`Error::done`] says whether it may have been done all the same.
#[derive(Debug)]
pub struct Client {
    session: Session,
}

impl Client {
    /// A client of the group behind these servers; it connects when it is first asked for something. It keeps trying
    /// for `timeout`; with 0 each server is tried once. Panics if `servers` is empty.
    ///
    /// ```
    /// use ftq::client::{Client, Done, Server};
    /// use std::time::Duration;
    ///
    /// // Nobody listens there: nothing was done, and a script would exit with this status.
    /// let mut client = Client::new(Server::parse_list("127.0.0.1:1").unwrap(), Duration::ZERO);
    /// let error = client.push("jobs", b"sweep").unwrap_err();
    /// assert_eq!((error.done(), error.exit_status()), (Done::No, 69));
    /// ```
    pub fn new(servers: Vec<Server>, timeout: Duration) -> Client {
        Client { session: Session::new(servers, timeout) }
    }

    /// A client of the servers where `ftqc` looks, see [`Server::defaults`]. Errors where what is found makes no sense.
    ///
    /// ```no_run
    /// use ftq::client::Client;
    /// use std::time::Duration;
    ///
    /// let mut client = Client::with_defaults(Duration::from_secs(10)).expect("a sound book");
    /// client.push("jobs", b"sweep")?;
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn with_defaults(timeout: Duration) -> Result<Client, String> {
        Ok(Client::new(Server::defaults()?, timeout))
    }

    /// The asked replica as it sees itself: a JSON object, whose fields ftqc(1) describes.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// let status: serde_json::Value = serde_json::from_str(&client.status()?).expect("JSON");
    /// assert_eq!(status["state"], "regular");
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn status(&mut self) -> Result<String, Error> {
        self.admin(Admin::Status)
    }

    /// Every configured replica as the asked one sees it: a JSON array.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// let members: serde_json::Value = serde_json::from_str(&client.members()?).expect("JSON");
    /// assert_eq!(members[0]["id"], 1);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn members(&mut self) -> Result<String, Error> {
        self.admin(Admin::Members)
    }

    /// Whether the asked replica is in the primary view and caught up: `{"ready":bool,"reason":text}`.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// assert!(client.ready()?.contains("true"));
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn ready(&mut self) -> Result<String, Error> {
        self.admin(Admin::Ready)
    }

    fn admin(&mut self, what: Admin) -> Result<String, Error> {
        let answer = self.session.call(Ask::Admin(what), |_| ())?;
        String::from_utf8(answer.body).map_err(|_| malformed(DecodeError { field: "json" }))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.session.end();
    }
}

fn malformed(e: DecodeError) -> Error {
    let message = format!("the replica's answer makes no sense: {e}");
    Error::Refused { code: Code::Internal, message, done: Done::Unknown }
}

/// Reads an answer that is one number.
pub fn number(answer: &Answer) -> Result<u64, Error> {
    let mut r = Reader::new(&answer.body);
    let number = r.varint("number").map_err(malformed)?;
    r.end("number").map_err(malformed)?;
    Ok(number)
}
