//! Tests of the two programs as processes: real sockets, real disks, real signals. As root every test has a network
//! namespace of its own, where packets are lost, doubled, reordered or too large; otherwise what needs one is
//! skipped, and said to be. Waiting is always for something that is observed; the watchdogs only end what hangs.

mod bad_commands;
mod bad_frames;
mod bad_start;
mod chat;
mod commands;
mod completion;
mod datagrams;
mod deaths;
mod failures;
mod ftqc;
mod group;
mod house;
mod http;
mod kills;
mod lab;
mod life;
mod net;
mod order;
mod partitions;
mod pops;
mod progress;
mod prompt;
mod relay;
mod sessions;
mod shell;
mod stock;
mod terminal;
mod told;
mod tour;
mod views;
mod work;
