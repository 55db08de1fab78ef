//! Writes and syncs in the loop itself: for tests that watch the order of system calls, and where nothing else is
//! allowed.

use std::os::unix::fs::FileExt;

use super::{Chain, Failure, Lane};

#[derive(Debug, Default)]
pub(super) struct Blocking {
    done: Vec<Lane>,
}

impl Blocking {
    pub fn submit(&mut self, lane: Lane, chains: Vec<Chain>) -> Result<(), Failure> {
        for Chain { target, writes } in chains {
            for (offset, bytes) in writes {
                target.file.write_all_at(&bytes, offset).map_err(|e| Failure::new("write to", &target, e))?;
            }
            target.file.sync_data().map_err(|e| Failure::new("sync", &target, e))?;
        }
        self.done.push(lane);
        Ok(())
    }

    pub fn reap(&mut self, done: &mut Vec<Lane>) {
        done.append(&mut self.done);
    }

    /// Whether a batch has been carried out that nobody asked for yet.
    pub fn has_done(&self) -> bool {
        !self.done.is_empty()
    }
}
