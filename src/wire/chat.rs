//! The operations and queries of the chat as bytes, service 2 of [`crate::wire::operation`]. Numbers are append-only.

use crate::limits::{ACCOUNT_BYTES_MAX, OPERATION_BYTES_MAX, PATTERN_BYTES_MAX, TEXT_CHARS_MAX};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::operation::service;

/// Names a message among those to one account: counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct MessageNumber(pub u64);

/// Operations. Answers are given as what follows [`crate::wire::answer::Code::Ok`]. Whatever a session asks for ends
/// its own waiting `Receive`, which is answered first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChatOperation<'a> {
    /// Makes an account and logs the session in. Answer: nothing. `Exists` if the name is taken.
    Create { name: &'a str },
    /// Logs the session in; delivers nothing. Answer: how many messages are queued, varint. `NoAccount`; `Exists` if
    /// another session is logged in that has a connection: one that has none is logged out instead.
    Login { name: &'a str },
    /// Answer: nothing.
    Logout,
    /// Deletes the account that the session is logged in to. Answer: how many messages it had not confirmed, varint.
    Delete,
    /// A message of at most `TEXT_CHARS_MAX` characters. Answer: bool, whether it goes out at once, since the receiver
    /// is logged in; and then everything queued before goes out before it. `NoAccount`, `TooLarge`, `Full`.
    Send { to: &'a str, text: &'a str },
    /// Hands over messages that this session was not given yet: with `queued` all there are, else those that came
    /// since it logged in and what these brought along. If there is none it waits up to `wait_ms` for one. Answer: a
    /// count and so many [`Message`]s, by number; none when the time is over.
    Receive { queued: bool, wait_ms: u64 },
    /// The messages handed to this session up to this number are gone. Answer: nothing.
    Confirm { upto: MessageNumber },
}

/// Queries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChatQuery<'a> {
    /// The accounts whose names begin with what the pattern matches (all, where it is empty), by name from the first
    /// one greater than `after`. Answer: [`AccountPage`]. `BadRequest` where the pattern makes no sense.
    Accounts { pattern: &'a str, after: &'a str },
}

/// A message as it is handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    pub number: MessageNumber,
    /// It was handed over before, and not confirmed.
    pub again: bool,
    pub from: &'a str,
    pub text: &'a str,
}

impl<'a> Message<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.number.0);
        out.put_bool(self.again);
        out.put_str(self.from);
        out.put_str(self.text);
    }

    pub fn decode(r: &mut Reader<'a>) -> Decoded<Message<'a>> {
        Ok(Message {
            number: MessageNumber(r.varint("message number")?),
            again: r.bool("again")?,
            from: r.str(ACCOUNT_BYTES_MAX, "sender")?,
            text: r.str(TEXT_CHARS_MAX * 4, "text")?,
        })
    }
}

/// Some of the accounts that were asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountPage<'a> {
    /// The last name that was looked at, where there are more.
    pub more_after: Option<&'a str>,
    pub names: Vec<&'a str>,
}

impl<'a> AccountPage<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_str(self.more_after.unwrap_or_default());
        self.names.iter().for_each(|name| out.put_str(name));
    }

    /// Reads to the end of the answer.
    pub fn decode(r: &mut Reader<'a>) -> Decoded<AccountPage<'a>> {
        let more_after = Some(r.str(ACCOUNT_BYTES_MAX, "account name")?).filter(|name| !name.is_empty());
        let mut names = Vec::new();
        while !r.is_empty() {
            names.push(r.str(ACCOUNT_BYTES_MAX, "account name")?);
        }
        Ok(AccountPage { more_after, names })
    }
}

/// Characters that show as nothing, or as a blank, without being white space.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}')
}

/// Whether these bytes may name an account: 1 to 255 bytes of UTF-8 without `|`, any kind of blank, or control
/// characters.
pub fn is_account(name: &str) -> bool {
    let odd = |c: char| c == '|' || c.is_whitespace() || c.is_control() || is_invisible(c);
    !name.is_empty() && name.len() <= ACCOUNT_BYTES_MAX && !name.chars().any(odd)
}

/// Whether this may be said: no control characters but TAB. How long it may be is another matter.
pub fn is_text(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\t')
}

/// Whether this is no longer than a message may be.
pub fn is_short(text: &str) -> bool {
    text.chars().nth(TEXT_CHARS_MAX).is_none()
}

fn name<'a>(r: &mut Reader<'a>) -> Decoded<&'a str> {
    let name = r.str(ACCOUNT_BYTES_MAX, "account name")?;
    if is_account(name) {
        Ok(name)
    } else {
        Err(DecodeError { field: "account name" })
    }
}

impl<'a> ChatOperation<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(service::CHAT);
        match *self {
            ChatOperation::Create { name } => {
                out.put_u8(1);
                out.put_str(name);
            }
            ChatOperation::Login { name } => {
                out.put_u8(2);
                out.put_str(name);
            }
            ChatOperation::Logout => out.put_u8(3),
            ChatOperation::Delete => out.put_u8(4),
            ChatOperation::Send { to, text } => {
                out.put_u8(5);
                out.put_str(to);
                out.put_str(text);
            }
            ChatOperation::Receive { queued, wait_ms } => {
                out.put_u8(6);
                out.put_bool(queued);
                out.put_varint(wait_ms);
            }
            ChatOperation::Confirm { upto } => {
                out.put_u8(7);
                out.put_varint(upto.0);
            }
        }
    }

    /// `fields` is what follows the service's byte.
    pub fn decode(fields: &'a [u8]) -> Decoded<ChatOperation<'a>> {
        let mut reader = Reader::new(fields);
        let r = &mut reader;
        let operation = match r.u8("chat operation")? {
            1 => ChatOperation::Create { name: name(r)? },
            2 => ChatOperation::Login { name: name(r)? },
            3 => ChatOperation::Logout,
            4 => ChatOperation::Delete,
            5 => ChatOperation::Send { to: name(r)?, text: r.str(OPERATION_BYTES_MAX, "text")? },
            6 => ChatOperation::Receive { queued: r.bool("queued")?, wait_ms: r.varint("wait")? },
            7 => ChatOperation::Confirm { upto: MessageNumber(r.varint("message number")?) },
            _ => return Err(DecodeError { field: "chat operation" }),
        };
        reader.end("chat operation")?;
        Ok(operation)
    }
}

impl<'a> ChatQuery<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(service::CHAT);
        match *self {
            ChatQuery::Accounts { pattern, after } => {
                out.put_u8(128);
                out.put_str(pattern);
                out.put_str(after);
            }
        }
    }

    /// `fields` is what follows the service's byte.
    pub fn decode(fields: &'a [u8]) -> Decoded<ChatQuery<'a>> {
        let mut reader = Reader::new(fields);
        let r = &mut reader;
        let query = match r.u8("chat query")? {
            128 => ChatQuery::Accounts {
                pattern: r.str(PATTERN_BYTES_MAX, "pattern")?,
                after: r.str(ACCOUNT_BYTES_MAX, "account name")?,
            },
            _ => return Err(DecodeError { field: "chat query" }),
        };
        reader.end("chat query")?;
        Ok(query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn round_trip(operation: ChatOperation<'_>) {
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        assert_eq!(bytes[0], service::CHAT);
        assert_eq!(ChatOperation::decode(&bytes[1..]), Ok(operation));
        assert!(ChatOperation::decode(&[&bytes[1..], &[0]].concat()).is_err());
    }

    quickcheck! {
        fn operations_come_back(text: String, number: u64, queued: bool) -> bool {
            for name in ["alice", "-1", "Zo\u{eb}"] {
                round_trip(ChatOperation::Create { name });
                round_trip(ChatOperation::Login { name });
                round_trip(ChatOperation::Send { to: name, text: &text });
            }
            round_trip(ChatOperation::Logout);
            round_trip(ChatOperation::Delete);
            round_trip(ChatOperation::Receive { queued, wait_ms: number });
            round_trip(ChatOperation::Confirm { upto: MessageNumber(number) });
            let (mut bytes, pattern) = (Vec::new(), text.chars().take(20).collect::<String>());
            let query = ChatQuery::Accounts { pattern: &pattern, after: "alice" };
            query.encode(&mut bytes);
            assert_eq!(ChatQuery::decode(&bytes[1..]), Ok(query));
            let page = AccountPage { more_after: queued.then_some("zoe"), names: vec!["alice", "bob"] };
            bytes.clear();
            page.encode(&mut bytes);
            AccountPage::decode(&mut Reader::new(&bytes)) == Ok(page)
        }

        fn garbage_never_panics(bytes: Vec<u8>) -> bool {
            let _ = ChatOperation::decode(&bytes);
            let _ = ChatQuery::decode(&bytes);
            let _ = Message::decode(&mut Reader::new(&bytes));
            let _ = AccountPage::decode(&mut Reader::new(&bytes));
            true
        }
    }

    #[test]
    fn names_are_seen_and_have_no_blanks() {
        assert!(is_account("alice") && is_account("5") && is_account("\u{e9}\u{4e2d}") && is_account(&"x".repeat(255)));
        for odd in "\t\n\u{b}\u{c}\r \u{1c}\u{85}\u{a0}\u{1680}\u{2000}\u{2003}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\
                    \u{205f}\u{3000}\u{200b}\u{feff}\u{2060}\u{180e}\u{ad}\u{3164}\0\u{7f}|"
            .chars()
        {
            for name in [format!("a{odd}b"), format!("{odd}a"), format!("a{odd}"), odd.to_string()] {
                assert!(!is_account(&name), "{name:?}");
            }
        }
        assert!(!is_account("") && !is_account(&"x".repeat(256)));
    }

    #[test]
    fn characters_are_counted_not_bytes() {
        for c in ["x", "\u{e9}", "\u{4e2d}", "\u{1f600}"] {
            assert!(is_short(&c.repeat(280)) && !is_short(&c.repeat(281)), "{c}");
        }
        assert!(is_text("a\tb|c") && !is_text("a\nb") && !is_text("\u{1b}[2J") && !is_text("\u{85}"));
    }
}
