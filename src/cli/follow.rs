//! `pop -w`: items as they come, so many, for so long, or for ever. One request is under way at a time, so no more is
//! popped ahead of what was written than it asks for.

use crate::cli::lease::asked;
use crate::cli::output::Output;
use crate::cli::progress;
use crate::cli::queue::try_print_items;
use crate::client::{Code, Error, Session};
use crate::limits::SPAN_MS_MAX;
use crate::wire::operation::{QueueOperation, Target, WAIT_FOR_EVER_MS};
use std::time::{Duration, Instant};

/// Items popped ahead of what was written to stdout.
const AHEAD_MAX: u64 = 256;

/// Prints `wanted` items, or with 0 all there will ever be, each when there is one; ends when `wait_ms` are over.
pub fn follow(label: &str, wanted: u64, wait_ms: u64, session: &mut Session, out: &mut Output) {
    let until = (wait_ms < WAIT_FOR_EVER_MS).then(|| Instant::now() + Duration::from_millis(wait_ms.min(SPAN_MS_MAX)));
    out.show_progress(progress::terminal(false, true), "pop", Some(wanted).filter(|&wanted| wanted > 0));
    let mut printed = 0;
    while wanted == 0 || printed < wanted {
        let left_ms = until.map(|until| until.saturating_duration_since(Instant::now()).as_millis() as u64);
        let wait_ms = left_ms.unwrap_or(WAIT_FOR_EVER_MS);
        let count = if wanted == 0 { AHEAD_MAX } else { AHEAD_MAX.min(wanted - printed) } as usize;
        let pop = QueueOperation::PopWait { target: Target::Label(label), count, wait_ms };
        session.submit(asked(wait_ms), |bytes| pop.encode(bytes));
        match out.wait(session).and_then(|answer| try_print_items(out, &answer)) {
            Ok(count) => printed += count as u64,
            Err(e) => {
                out.end_progress();
                return tell(e, printed, wanted, out);
            }
        }
        out.flush();
    }
    out.end_progress();
}

fn tell(error: Error, printed: u64, wanted: u64, out: &mut Output) {
    match printed {
        // There is no number that would have been enough.
        _ if wanted == 0 && error.is(Code::Empty) => {}
        0 => out.error(&error),
        _ if wanted == 0 => out.error(&error.about(&format!("after {printed} items"))),
        _ => out.error(&error.about(&format!("after {printed} of {wanted} items"))),
    }
}
