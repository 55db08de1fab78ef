//! The client's part in the chat. Being logged in belongs to the session: it ends with the [`Client`].

use super::lease::wait;
use super::{malformed, number, Answer, Ask, Client, Error};
use crate::limits::{PATTERN_BYTES_MAX, TEXT_CHARS_MAX};
use crate::wire::answer::Code;
use crate::wire::chat::{is_account, is_short, is_text, AccountPage, ChatOperation, ChatQuery};
use crate::wire::codec::{Decoded, Reader};
use std::time::Duration;

pub use crate::wire::chat::{Message, MessageNumber};

/// A message to the account that one is logged in to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mail {
    /// Counts the messages to this account.
    pub number: MessageNumber,
    /// It was handed over before, and not confirmed: whoever got it then may have read it.
    pub again: bool,
    pub from: String,
    pub text: String,
}

impl From<Message<'_>> for Mail {
    fn from(message: Message<'_>) -> Mail {
        let Message { number, again, from, text } = message;
        Mail { number, again, from: from.to_string(), text: text.to_string() }
    }
}

impl Client {
    fn chat(&mut self, operation: ChatOperation<'_>) -> Result<Answer, Error> {
        self.session.call(Ask::Request, |out| operation.encode(out))
    }

    /// Makes an account and logs in. `Exists` if the name is taken.
    pub fn chat_create(&mut self, name: &str) -> Result<(), Error> {
        self.chat(ChatOperation::Create { name: checked_account(name)? }).map(drop)
    }

    /// Logs in; returns how many messages are queued. `NoAccount` if there is none, `Exists` if another client is
    /// logged in.
    pub fn chat_login(&mut self, name: &str) -> Result<u64, Error> {
        self.chat(ChatOperation::Login { name: checked_account(name)? }).and_then(|answer| number(&answer))
    }

    pub fn chat_logout(&mut self) -> Result<(), Error> {
        self.chat(ChatOperation::Logout).map(drop)
    }

    /// Deletes the account; returns how many messages that were not confirmed went with it.
    pub fn chat_delete(&mut self) -> Result<u64, Error> {
        self.chat(ChatOperation::Delete).and_then(|answer| number(&answer))
    }

    /// Sends a message of at most 280 characters; returns whether it goes out at once, since the receiver is logged
    /// in, or is queued.
    pub fn chat_send(&mut self, to: &str, text: &str) -> Result<bool, Error> {
        let send = ChatOperation::Send { to: checked_account(to)?, text: checked_text(text)? };
        self.chat(send).and_then(|answer| at_once(&answer))
    }

    /// What was not handed to this client yet: with `queued` all there is, else what was sent since it logged in. If
    /// there is nothing it waits for the next message: with `None` not at all, with `Duration::MAX` for ever.
    /// Messages are gone when [`Client::chat_confirm`] says so, and not before.
    pub fn chat_receive(&mut self, queued: bool, time: Option<Duration>) -> Result<Vec<Mail>, Error> {
        let (wait_ms, ask) = wait(time);
        let receive = ChatOperation::Receive { queued, wait_ms };
        let answer = self.session.call(ask, |out| receive.encode(out))?;
        Ok(messages(&answer)?.into_iter().map(Mail::from).collect())
    }

    /// The messages up to this number that were handed to this client are taken care of.
    pub fn chat_confirm(&mut self, upto: MessageNumber) -> Result<(), Error> {
        self.chat(ChatOperation::Confirm { upto }).map(drop)
    }

    /// The accounts whose names begin with what the regular expression matches, by name; all with an empty one.
    pub fn chat_accounts(&mut self, pattern: &str) -> Result<Vec<String>, Error> {
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let query = ChatQuery::Accounts { pattern: checked_pattern(pattern)?, after: &after };
            let answer = self.session.call(Ask::Query, |out| query.encode(out))?;
            let page = accounts(&answer)?;
            names.extend(page.names.iter().map(|name| name.to_string()));
            match page.more_after {
                Some(last) => after = last.to_string(),
                None => return Ok(names),
            }
        }
    }
}

/// The name, if an account may have it.
pub fn checked_account(name: &str) -> Result<&str, Error> {
    if is_account(name) {
        return Ok(name);
    }
    let why = "a name is 1 to 255 bytes of UTF-8 without '|', any kind of blank, or control characters";
    Err(Error::bad_request(why))
}

/// The text, if it may be sent.
pub fn checked_text(text: &str) -> Result<&str, Error> {
    if !is_text(text) {
        return Err(Error::bad_request("a message has no control characters but TAB"));
    }
    if !is_short(text) {
        let count = text.chars().count();
        let why = format!("a message has at most {TEXT_CHARS_MAX} characters, not {count}");
        return Err(Error::refused(Code::TooLarge, why));
    }
    Ok(text)
}

/// The pattern, if it is not too long. What it means is judged by the group.
pub fn checked_pattern(pattern: &str) -> Result<&str, Error> {
    if pattern.len() <= PATTERN_BYTES_MAX {
        return Ok(pattern);
    }
    let why = format!("a pattern has at most {PATTERN_BYTES_MAX} bytes, not {}", pattern.len());
    Err(Error::refused(Code::TooLarge, why))
}

fn whole<'a, T>(answer: &'a Answer, read: impl FnOnce(&mut Reader<'a>) -> Decoded<T>) -> Result<T, Error> {
    let mut r = Reader::new(&answer.body);
    let value = read(&mut r).map_err(malformed)?;
    r.end("answer").map_err(malformed)?;
    Ok(value)
}

/// Reads the answer to a message that was sent.
pub fn at_once(answer: &Answer) -> Result<bool, Error> {
    whole(answer, |r| r.bool("at once"))
}

/// Reads an answer that is messages, in place.
pub fn messages(answer: &Answer) -> Result<Vec<Message<'_>>, Error> {
    whole(answer, |r| {
        let count = r.count(answer.body.len(), "message count")?;
        (0..count).map(|_| Message::decode(r)).collect()
    })
}

/// Reads an answer that is some accounts, in place.
pub fn accounts(answer: &Answer) -> Result<AccountPage<'_>, Error> {
    whole(answer, AccountPage::decode)
}
