//! Who is in, and in what order. Knows nothing of queues.

pub mod view;
