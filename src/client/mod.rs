//! client
pub struct Client;
