//! reactor
pub mod book;
pub mod disk;
pub mod exit;
pub mod fault;
pub mod logger;
pub mod options;
pub mod udp;
pub mod wheel;
