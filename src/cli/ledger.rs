//! A session file in use: what `push --session` and `pop --session` have in common. The session is in the file before
//! the group is to keep it, and the group keeps it before anything is asked in it: the first request of a kept session
//! changes nothing. So where no answer was seen nothing was sent, and such a session that is gone is opened anew (I3).

use crate::cli::store::{Store, Trouble};
use crate::client::{Ask, Code, Error, Session};
use crate::types::{ClusterId, SessionId};
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// The pause before what was refused when it was applied is asked again; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// The number of a session's first request, which changes nothing.
const FIRST: u64 = 1;

/// What a file says of a session, and of what may have been asked in it.
pub trait Account {
    /// The session, once it is opened.
    fn session(&mut self) -> &mut Option<(ClusterId, SessionId)>;
    /// The number up to which all answers are on file; 0 where nothing was sent.
    fn seen(&self) -> u64;
    /// What is unanswered has numbers from this one on.
    fn number_from(&mut self, first: u64);
    /// The lines of the file.
    fn write(&self) -> String;
}

/// The file, locked, around what it is to say.
pub struct Ledger<A> {
    pub store: Store,
    at: A,
    /// The group keeps the session, and `Session` goes on with it.
    established: bool,
    /// When the first of several refusals in a row came, and the pause behind the last.
    again: Option<(Instant, Duration)>,
}

impl<A> Deref for Ledger<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.at
    }
}

impl<A> DerefMut for Ledger<A> {
    fn deref_mut(&mut self) -> &mut A {
        &mut self.at
    }
}

impl<A: Account> Ledger<A> {
    pub fn new(store: Store, at: A) -> Ledger<A> {
        Ledger { store, at, established: false, again: None }
    }

    /// Sees to it that there is a session which the group keeps.
    pub fn establish(&mut self, session: &mut Session) -> Result<(), Trouble> {
        while !self.established {
            let Some((group, id)) = *self.at.session() else {
                session.call(Ask::Session, |_| ()).map_err(|e| e.about("no session"))?;
                *self.at.session() = session.opened();
                continue;
            };
            self.record(session)?;
            session.keep(group, id, self.at.seen());
            self.established = true;
            if self.at.seen() < FIRST {
                match session.be_kept(FIRST) {
                    Ok(()) => self.at.number_from(FIRST + 1),
                    Err(e) if e.is(Code::Expired) => self.renew(session),
                    Err(e) => return Err(Trouble::Again(e)),
                }
            }
        }
        Ok(())
    }

    /// Writes the file.
    pub fn record(&mut self, session: &mut Session) -> Result<(), Trouble> {
        self.store.write(&self.at.write())?;
        session.confirm(self.at.seen());
        Ok(())
    }

    /// The session is gone: what is unanswered goes into another, which is yet to be opened. Nothing may be pending.
    pub fn renew(&mut self, session: &mut Session) {
        session.renew();
        self.forget_session();
    }

    /// The same where `Session` knows nothing of it any more.
    pub fn forget_session(&mut self) {
        *self.at.session() = None;
        self.at.number_from(FIRST);
        self.established = false;
    }

    /// Something was answered.
    pub fn is_well(&mut self) {
        self.again = None;
    }

    /// A pause before what was refused is asked again; gives the refusal back where patience would end meanwhile.
    pub fn pause(&mut self, refusal: Error, session: &mut Session) -> Result<(), Error> {
        let now = Instant::now();
        let (since, pause) = self.again.unwrap_or((now, PAUSE_MIN));
        if now + pause > since + session.timeout() {
            return Err(refusal);
        }
        self.again = Some((since, (pause * 2).min(PAUSE_MAX)));
        while Instant::now() < now + pause {
            session.turn(None, Some(now + pause));
        }
        Ok(())
    }
}
