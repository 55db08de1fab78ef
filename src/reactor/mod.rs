//! reactor
pub mod book;
pub mod disk;
pub mod exit;
pub mod logger;
pub mod options;
pub mod wheel;
