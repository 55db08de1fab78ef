//! An item's whole life, as a program has it.

use ftq::client::{Cap, Client, Code, Error, PushOptions, Server};
use std::time::Duration;

/// What a worker does with the jobs of a queue.
pub fn work(servers: Vec<Server>) -> Result<(), Error> {
    let mut client = Client::new(servers, Duration::from_secs(10));
    client.set_limit("jobs", Cap::At(1000), Cap::Keep)?;
    client.push("jobs", b"sweep")?;
    // Smaller priorities come first; the same key within an hour is pushed once.
    let urgent = PushOptions { priority: -1, key: Some(b"order 17"), ..PushOptions::default() };
    assert_eq!(client.push_with("jobs", &[b"deliver"], &urgent)?, 1);
    assert_eq!(client.push_with("jobs", &[b"deliver"], &urgent)?, 0);

    // A job is hidden while it is leased, and back in its place if nobody acknowledges it in time.
    let (a_minute, a_second) = (Duration::from_secs(60), Duration::from_secs(1));
    let leases = client.take("jobs", 2, a_minute, Some(a_second))?;
    assert_eq!(leases[0].item, b"deliver");
    assert_eq!(leases[1].item, b"sweep");
    // A receipt is a fencing token: every later lease of anything has a greater one.
    assert!(leases[0].receipt < leases[1].receipt);
    client.extend(leases[0].receipt, a_minute)?;
    client.ack(leases[0].receipt)?;
    assert!(client.ack(leases[0].receipt).is_err_and(|e| e.is(Code::NoReceipt)));
    client.nack(leases[1].receipt, Duration::ZERO)?;
    let again = client.take("jobs", 1, a_minute, None)?.remove(0);
    assert_eq!((again.item.as_slice(), again.tries), (&b"sweep"[..], 2));

    // What can't be done is put aside, and back when that is mended.
    client.bury(again.receipt)?;
    assert_eq!(client.dead("jobs")?[0].item, b"sweep");
    assert_eq!(client.kick("jobs", 10)?, 1);
    assert_eq!(client.pop_wait("jobs", 1, Some(a_second))?, [b"sweep"]);
    client.drop_queue("jobs")
}
