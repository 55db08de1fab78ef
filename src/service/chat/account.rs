//! One account: its messages, numbered in the order in which they came, and the session that is logged in to it.
//!
//! A message is handed to a session once, and to a later one again if it was not confirmed, marked as such.

use crate::broken;
use crate::limits::{ACCOUNT_BYTES_MAX, BATCH_BYTES_MAX, COUNTER_MAX, MAILBOX_MAX, TEXT_CHARS_MAX};
use crate::types::{GroupTime, RequestNumber, SessionId};
use crate::wire::answer::Code;
use crate::wire::bundle::{put_session, session};
use crate::wire::chat::{is_account, is_short, is_text, Message, MessageNumber};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use std::collections::VecDeque;

/// Bytes of memory an account takes without messages and beside its name, which is in two maps while it is logged in.
const ACCOUNT_OVERHEAD: u64 = 320;
/// Bytes a message takes beside its sender and text.
const MAIL_OVERHEAD: u64 = 64;
/// Bytes of a message in an answer beside its sender and text, at most.
const MESSAGE_FRAME_BYTES: usize = 16;

/// A message that its receiver has not confirmed.
#[derive(PartialEq, Eq, Debug)]
pub struct Mail {
    pub from: Box<str>,
    pub text: Box<str>,
}

impl Mail {
    pub fn memory_bytes(&self) -> u64 {
        MAIL_OVERHEAD + (self.from.len() + self.text.len()) as u64
    }
}

/// A `Receive` that is yet to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wait {
    pub number: RequestNumber,
    pub until: GroupTime,
}

/// A session's being logged in.
#[derive(PartialEq, Eq, Debug)]
pub struct Login {
    pub session: SessionId,
    /// It has a connection.
    pub here: bool,
    /// The first message that this session was not handed yet.
    pub next: u64,
    /// Messages below this one go out without being asked for.
    pub released: u64,
    pub waits: Option<Wait>,
}

#[derive(Debug)]
pub struct Account {
    /// The number of the first message in `mail`; those below it are confirmed.
    pub first: u64,
    pub mail: VecDeque<Mail>,
    /// Messages below this one were handed to some session.
    pub handed: u64,
    pub login: Option<Login>,
}

impl Account {
    pub fn new() -> Account {
        Account { first: 1, mail: VecDeque::new(), handed: 1, login: None }
    }

    /// The number of the message that comes next.
    pub fn end(&self) -> u64 {
        self.first + self.mail.len() as u64
    }

    pub fn memory_bytes(&self, name: &str) -> u64 {
        ACCOUNT_OVERHEAD + 2 * name.len() as u64 + self.mail.iter().map(Mail::memory_bytes).sum::<u64>()
    }

    pub fn log_in(&mut self, session: SessionId) {
        self.login = Some(Login { session, here: true, next: self.first, released: self.first, waits: None });
    }

    /// Hands over what is released and was not handed to this session yet, as much as one answer takes.
    pub fn hand_over(&mut self, answer: &mut Vec<u8>) {
        let Some(login) = &mut self.login else { return answer.extend_from_slice(&[Code::Ok as u8, 0]) };
        let (mut bytes, mut list, begin) = (0, Vec::new(), login.next);
        for number in begin..login.released {
            let Some(mail) = self.mail.get((number - self.first) as usize) else { break };
            bytes += mail.from.len() + mail.text.len() + MESSAGE_FRAME_BYTES;
            if bytes > BATCH_BYTES_MAX {
                break;
            }
            let again = number < self.handed && !broken::is("again-unmarked");
            list.push(Message { number: MessageNumber(number), again, from: &mail.from, text: &mail.text });
        }
        login.next = begin + list.len() as u64;
        self.handed = self.handed.max(login.next);
        answer.put_u8(Code::Ok as u8);
        answer.put_varint(list.len() as u64);
        list.iter().for_each(|message| message.encode(answer));
        if broken::is("gone-when-handed") {
            // Whoever was handed it and died has taken it along.
            let gone = (self.handed - self.first) as usize;
            self.mail.drain(..gone).for_each(drop);
            self.first = self.handed;
        }
    }

    /// Whether there is anything to hand over unasked.
    pub fn has_news(&self) -> bool {
        self.login.as_ref().is_some_and(|login| login.here && login.next < login.released)
    }

    pub fn snapshot(&self, out: &mut Vec<u8>) {
        out.put_varint(self.first);
        out.put_varint(self.handed - self.first);
        out.put_varint(self.mail.len() as u64);
        for mail in &self.mail {
            out.put_str(&mail.from);
            out.put_str(&mail.text);
        }
        out.put_bool(self.login.is_some());
        if let Some(login) = &self.login {
            put_session(out, login.session);
            out.put_bool(login.here);
            out.put_varint(login.next);
            out.put_varint(login.released);
            out.put_bool(login.waits.is_some());
            if let Some(wait) = login.waits {
                out.put_u64(wait.number.0);
                out.put_u64(wait.until.0);
            }
        }
    }

    pub fn restore(r: &mut Reader<'_>) -> Decoded<Account> {
        let wrong = |field| Err(DecodeError { field });
        let mut account = Account::new();
        account.first = r.varint("first message")?;
        let ahead = r.count(MAILBOX_MAX, "handed")? as u64;
        if account.first == 0 || account.first > COUNTER_MAX {
            return wrong("first message");
        }
        account.handed = account.first + ahead;
        for _ in 0..r.count(MAILBOX_MAX, "message count")? {
            let from = r.str(ACCOUNT_BYTES_MAX, "sender")?;
            let text = r.str(TEXT_CHARS_MAX * 4, "text")?;
            if !is_account(from) || !is_text(text) || !is_short(text) {
                return wrong("message");
            }
            account.mail.push_back(Mail { from: from.into(), text: text.into() });
        }
        if account.handed > account.end() {
            return wrong("handed");
        }
        if r.bool("login")? {
            let (session, here) = (session(r)?, r.bool("here")?);
            let (next, released) = (r.varint("next message")?, r.varint("released")?);
            let waits = if r.bool("wait")? {
                Some(Wait { number: RequestNumber(r.u64("number")?), until: GroupTime(r.u64("wait's end")?) })
            } else {
                None
            };
            if !(account.first..=account.handed).contains(&next) || !(next..=account.end()).contains(&released) {
                return wrong("login");
            }
            account.login = Some(Login { session, here, next, released, waits });
        }
        Ok(account)
    }
}
