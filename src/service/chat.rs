//! The chat: accounts, sessions logged in to them, and messages that wait until their receivers have confirmed them.
//!
//! Messages to one account are numbered and go out in that order, whoever sends them: what is said to somebody who is
//! logged in takes along whatever was queued before. A message is handed to a session once; what that session has not
//! confirmed when its login ends is handed to a later one again, marked as such. A session whose connection is lost
//! stays logged in until it ends, or somebody else logs in, but nothing is handed to it meanwhile.

mod account;
use self::account::{Account, Mail, Wait};
use super::{Answers, Refusal, Service, Who};
use crate::broken;
use crate::limits::{
    ACCOUNTS_MAX, ACCOUNT_BYTES_MAX, MAILBOX_MAX, MOMENTS_STEP, PATTERN_NEST_MAX, PATTERN_SCAN_BYTES, PATTERN_SIZE_MAX,
    SPAN_MS_MAX, TEXT_CHARS_MAX,
};
use crate::types::{At, GroupTime, SessionId};
use crate::wire::answer::Code;
use crate::wire::chat::{is_account, is_short, is_text, AccountPage, ChatOperation, ChatQuery, MessageNumber};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::queue::WAIT_FOR_EVER_MS;
use regex_lite::{Regex, RegexBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

const SNAPSHOT_VERSION: u8 = 1;
/// Ends no wait: the end of time.
const NEVER: GroupTime = GroupTime(u64::MAX);

/// All accounts.
#[derive(Default, Debug)]
pub struct Chat {
    accounts: BTreeMap<Box<str>, Account>,
    /// The account that each session is logged in to.
    logins: BTreeMap<SessionId, Box<str>>,
    /// When waits end.
    ends: BTreeSet<(GroupTime, SessionId)>,
    /// The last slot's time.
    now: GroupTime,
    memory: u64,
}

fn no_account(name: &str) -> Refusal {
    Refusal(Code::NoAccount, format!("no account is called {name}"))
}

fn put_number(answer: &mut Vec<u8>, number: u64) {
    answer.put_u8(Code::Ok as u8);
    answer.put_varint(number);
}

/// The program of a pattern, of bounded size.
fn compile(pattern: &str) -> Result<Regex, Refusal> {
    let mut builder = RegexBuilder::new(pattern);
    let program = builder.size_limit(PATTERN_SIZE_MAX).nest_limit(PATTERN_NEST_MAX).build();
    program.map_err(|e| Refusal(Code::BadRequest, format!("the pattern makes no sense: {e}")))
}

impl Chat {
    /// The account that this session is logged in to.
    fn own(&mut self, session: SessionId) -> Result<(&str, &mut Account), Refusal> {
        let not_logged_in = || Refusal(Code::BadRequest, "not logged in".into());
        let name = self.logins.get(&session).ok_or_else(not_logged_in)?;
        self.accounts.get_mut(name).map(|account| (&**name, account)).ok_or_else(not_logged_in)
    }

    fn check_free(&self, session: SessionId) -> Result<(), Refusal> {
        match self.logins.get(&session) {
            None => Ok(()),
            Some(name) => Err(Refusal(Code::BadRequest, format!("logged in as {name} already: log out first"))),
        }
    }

    fn log_in(&mut self, session: SessionId, name: &str) {
        if let Some(account) = self.accounts.get_mut(name) {
            account.log_in(session);
            self.logins.insert(session, name.into());
        }
    }

    /// Ends a session's login. If it waits it is told `why`; nobody is there to be told without one.
    fn log_out(&mut self, session: SessionId, why: Option<&str>, out: &mut Answers) {
        let Some(name) = self.logins.remove(&session) else { return };
        let login = self.accounts.get_mut(&name).and_then(|account| account.login.take());
        let Some(wait) = login.and_then(|login| login.waits) else { return };
        self.ends.remove(&(wait.until, session));
        if let Some(why) = why {
            let refusal = Refusal(Code::BadRequest, why.into());
            out.answer(Who { session, number: wait.number }, |answer| refusal.put(answer));
        }
    }

    /// Answers the waiting `Receive` of this session, if there is one: with what there is.
    fn end_wait(&mut self, session: SessionId, out: &mut Answers) {
        let Ok((_, account)) = self.own(session) else { return };
        let Some(wait) = account.login.as_mut().and_then(|login| login.waits.take()) else { return };
        out.answer(Who { session, number: wait.number }, |answer| account.hand_over(answer));
        self.ends.remove(&(wait.until, session));
    }

    /// Answers who waits for messages to this account, if there are any.
    fn serve(&mut self, name: &str, out: &mut Answers) {
        if let Some(account) = self.accounts.get(name).filter(|account| account.has_news()) {
            let session = account.login.as_ref().map(|login| login.session);
            session.into_iter().for_each(|session| self.end_wait(session, out));
        }
    }

    fn execute(&mut self, who: Who, operation: ChatOperation<'_>, out: &mut Answers) -> Result<(), Refusal> {
        let session = who.session;
        match operation {
            ChatOperation::Create { name } => {
                self.check_free(session)?;
                self.create(name)?;
                self.log_in(session, name);
                out.answer(who, |answer| answer.put_u8(Code::Ok as u8));
            }
            ChatOperation::Login { name } => {
                self.check_free(session)?;
                let account = self.accounts.get(name).ok_or_else(|| no_account(name))?;
                let (holder, queued) = (account.login.as_ref(), account.mail.len() as u64);
                if holder.is_some_and(|login| login.here) {
                    return Err(Refusal(Code::Exists, format!("{name} is logged in from another client")));
                }
                let gone = holder.map(|login| login.session);
                gone.into_iter().for_each(|gone| self.log_out(gone, Some("logged out: another client has come"), out));
                self.log_in(session, name);
                out.answer(who, |answer| put_number(answer, queued));
            }
            ChatOperation::Logout => {
                self.own(session)?;
                self.log_out(session, None, out);
                out.answer(who, |answer| answer.put_u8(Code::Ok as u8));
            }
            ChatOperation::Delete => {
                let name: Box<str> = self.own(session)?.0.into();
                self.log_out(session, None, out);
                let account = self.accounts.remove(&name).ok_or_else(|| no_account(&name))?;
                self.memory -= account.memory_bytes(&name);
                out.answer(who, |answer| put_number(answer, account.mail.len() as u64));
            }
            ChatOperation::Send { to, text } => self.send(who, to, text, out)?,
            ChatOperation::Receive { queued, wait_ms } => self.receive(who, queued, wait_ms, out)?,
            ChatOperation::Confirm { upto } => {
                self.confirm(session, upto)?;
                out.answer(who, |answer| answer.put_u8(Code::Ok as u8));
            }
        }
        Ok(())
    }

    fn create(&mut self, name: &str) -> Result<(), Refusal> {
        if self.accounts.contains_key(name) {
            return Err(Refusal(Code::Exists, format!("there is an account called {name}")));
        }
        if self.accounts.len() >= ACCOUNTS_MAX {
            return Err(Refusal(Code::Full, format!("there are {ACCOUNTS_MAX} accounts already")));
        }
        let account = Account::new();
        self.memory += account.memory_bytes(name);
        self.accounts.insert(name.into(), account);
        Ok(())
    }

    fn send(&mut self, who: Who, to: &str, text: &str, out: &mut Answers) -> Result<(), Refusal> {
        let from = self.own(who.session)?.0.into();
        if !is_short(text) {
            return Err(Refusal(Code::TooLarge, format!("a message has at most {TEXT_CHARS_MAX} characters")));
        }
        if !is_text(text) {
            return Err(Refusal(Code::BadRequest, "a message has no control characters but TAB".into()));
        }
        let account = self.accounts.get_mut(to).ok_or_else(|| no_account(to))?;
        if account.mail.len() >= MAILBOX_MAX {
            let message = format!("{MAILBOX_MAX} messages wait for {to} already; it has to receive some");
            return Err(Refusal(Code::Full, message));
        }
        let mail = Mail { from, text: text.into() };
        self.memory += mail.memory_bytes();
        account.mail.push_back(mail);
        let end = account.end();
        let mut at_once = false;
        if let Some(login) = &mut account.login {
            if broken::is("message-overtakes") {
                login.next = end - 1;
            }
            (login.released, at_once) = (end, login.here);
        }
        out.answer(who, |answer| {
            answer.put_u8(Code::Ok as u8);
            answer.put_bool(at_once);
        });
        self.serve(to, out);
        Ok(())
    }

    fn receive(&mut self, who: Who, queued: bool, wait_ms: u64, out: &mut Answers) -> Result<(), Refusal> {
        let until = match wait_ms {
            WAIT_FOR_EVER_MS => NEVER,
            ms if ms > SPAN_MS_MAX => {
                return Err(Refusal(Code::BadRequest, format!("a wait is at most {SPAN_MS_MAX} ms, not {ms}")));
            }
            ms => GroupTime(self.now.0.saturating_add(ms * 1_000_000)),
        };
        let account = self.own(who.session)?.1;
        let end = account.end();
        let Some(login) = &mut account.login else { return Ok(()) };
        if queued {
            login.released = end;
        }
        if wait_ms == 0 || login.next < login.released {
            out.answer(who, |answer| account.hand_over(answer));
            return Ok(());
        }
        login.waits = Some(Wait { number: who.number, until });
        if until < NEVER {
            self.ends.insert((until, who.session));
        }
        Ok(())
    }

    fn confirm(&mut self, session: SessionId, upto: MessageNumber) -> Result<(), Refusal> {
        let account = self.own(session)?.1;
        if account.login.as_ref().is_none_or(|login| upto.0 >= login.next) {
            return Err(Refusal(Code::BadRequest, format!("message {} was not handed to this client", upto.0)));
        }
        let gone = (upto.0 + 1).saturating_sub(account.first);
        let bytes: u64 = account.mail.drain(..gone as usize).map(|mail| mail.memory_bytes()).sum();
        account.first += gone;
        self.memory -= bytes;
        Ok(())
    }

    /// Lists accounts; looks at a bounded number of bytes of names.
    fn list(&self, pattern: &str, after: &str, answer: &mut Vec<u8>) -> Result<(), Refusal> {
        let program = if pattern.is_empty() { None } else { Some(compile(pattern)?) };
        let (mut page, mut scanned) = (AccountPage { more_after: None, names: Vec::new() }, 0);
        for (name, _) in self.accounts.range::<str, _>((Bound::Excluded(after), Bound::Unbounded)) {
            // The leftmost match is at the beginning where any match is.
            if program.as_ref().is_none_or(|program| program.find(name).is_some_and(|found| found.start() == 0)) {
                page.names.push(name);
            }
            scanned += name.len();
            if scanned >= PATTERN_SCAN_BYTES {
                page.more_after = Some(name);
                break;
            }
        }
        answer.put_u8(Code::Ok as u8);
        page.encode(answer);
        Ok(())
    }
}

impl Service for Chat {
    fn apply(&mut self, at: At, who: Who, operation: &[u8], out: &mut Answers) {
        self.now = self.now.max(at.time);
        self.end_wait(who.session, out);
        let done = ChatOperation::decode(operation).map_err(Refusal::from);
        if let Err(refusal) = done.and_then(|operation| self.execute(who, operation, out)) {
            out.answer(who, |answer| refusal.put(answer));
        }
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        let found = ChatQuery::decode(query).map_err(Refusal::from);
        let found = found.and_then(|ChatQuery::Accounts { pattern, after }| self.list(pattern, after, answer));
        if let Err(refusal) = found {
            refusal.put(answer);
        }
    }

    fn tick(&mut self, at: At, out: &mut Answers) {
        self.now = self.now.max(at.time);
        for _ in 0..MOMENTS_STEP {
            match self.ends.first() {
                Some(&(end, session)) if end <= self.now => self.end_wait(session, out),
                _ => break,
            }
        }
    }

    fn ended(&mut self, session: SessionId, out: &mut Answers) {
        self.log_out(session, None, out);
    }

    fn attended(&mut self, _at: At, session: SessionId, here: bool, out: &mut Answers) {
        let Some(name) = self.logins.get(&session).cloned() else { return };
        let login = self.accounts.get_mut(&name).and_then(|account| account.login.as_mut());
        login.into_iter().for_each(|login| login.here = here);
        self.serve(&name, out);
    }

    fn due(&self) -> Option<GroupTime> {
        self.ends.first().map(|&(end, _)| end)
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        out.put_u8(SNAPSHOT_VERSION);
        out.put_u64(self.now.0);
        out.put_varint(self.accounts.len() as u64);
        for (name, account) in &self.accounts {
            out.put_str(name);
            account.snapshot(out);
        }
    }

    fn restore(&mut self, snapshot: &[u8]) -> Decoded<()> {
        let wrong = |field| Err(DecodeError { field });
        let mut r = Reader::new(snapshot);
        if r.u8("chat version")? != SNAPSHOT_VERSION {
            return wrong("chat version");
        }
        let mut chat = Chat { now: GroupTime(r.u64("chat time")?), ..Chat::default() };
        for _ in 0..r.count(ACCOUNTS_MAX, "account count")? {
            let name = r.str(ACCOUNT_BYTES_MAX, "account name")?;
            if !is_account(name) || chat.accounts.last_key_value().is_some_and(|(last, _)| **last >= *name) {
                return wrong("account name");
            }
            let account = Account::restore(&mut r)?;
            if let Some(login) = &account.login {
                if chat.logins.insert(login.session, name.into()).is_some() {
                    return wrong("login");
                }
                let ends = login.waits.filter(|wait| wait.until < NEVER);
                chat.ends.extend(ends.map(|wait| (wait.until, login.session)));
            }
            chat.memory += account.memory_bytes(name);
            chat.accounts.insert(name.into(), account);
        }
        *self = chat;
        r.end("chat")
    }

    fn memory_bytes(&self) -> u64 {
        self.memory
    }
}

#[cfg(test)]
mod tests;
