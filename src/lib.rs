//! `ftq`: a replicated, fault-tolerant queue. The modules in reading order:
//!
//! 1. [`types`], [`limits`], [`rng`]: the words of the field, every bound, the seeded generator.
//! 2. [`wire`]: every byte that leaves the process. [`log`]: every byte that must survive.
//! 3. [`group`]: who is in, and in what order. Knows nothing of queues.
//! 4. [`service`]: what is replicated. Knows nothing of views.
//! 5. [`replica`]: group, log, sessions and services behind one door, `step`.
//! 6. [`reactor`]: the turn of the loop, the only IO of the daemon.
//! 7. [`client`], [`cli`]: the blocking library, and the commands of `ftqc`.
//! 8. [`lab`]: a whole group on one machine, for trying things out.
//!
//! Everything up to [`replica`] is pure: no socket, file, clock, thread or random source of its own.

pub mod types;

pub mod broken;
pub mod limits;
pub mod marks;
pub mod rng;

pub mod wire;

pub mod log;

pub mod group;

pub mod service;

pub mod replica;

pub mod reactor;

pub mod cli;
pub mod client;

pub mod lab;

pub use client::Client;
