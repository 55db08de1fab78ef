//! Every byte that leaves the process. Pure: values in, bytes out, and back with every bound checked.

pub mod answer;
pub mod bundle;
pub mod change;
pub mod chat;
pub mod client;
pub mod client_datagram;
pub mod codec;
pub mod datagram;
pub mod digest;
pub mod json;
pub mod kv;
pub mod operation;
pub mod queue;
pub mod stock;
pub mod stream;
pub mod view;

pub use codec::{DecodeError, Decoded};
