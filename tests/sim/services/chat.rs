//! The chat. The model keeps every message that was ever sent, and whether it was handed over and confirmed; so each
//! answer is judged by what its receiver has yet to get: nothing is lost, overtakes another, or comes twice unmarked.

use std::mem::take;

use ftq::limits::{SPAN_MS_MAX, TEXT_CHARS_MAX};
use ftq::rng::Rng;
use ftq::types::{GroupTime, SessionId, Slot};
use ftq::wire::answer::{split, Code};
use ftq::wire::chat::{AccountPage, ChatOperation, ChatQuery, Message, MessageNumber};
use ftq::wire::codec::{Put, Reader};
use ftq::wire::operation::service;

use super::super::model::Expected;
use super::super::plan::Load;
use super::super::workload::Bytes;
use super::{Asker, Naive, BAD};

#[derive(Debug)]
struct Letter {
    from: String,
    text: String,
    /// It was handed to some session, and to the one that is logged in now.
    handed: bool,
    handed_here: bool,
    /// It goes out without being asked for.
    released: bool,
    confirmed: bool,
}

#[derive(Debug)]
struct Login {
    session: SessionId,
    here: bool,
    /// The request that waits for messages, and until when.
    waits: Option<(u64, GroupTime)>,
}

#[derive(Debug)]
struct Account {
    name: String,
    created: Slot,
    deleted: Option<Slot>,
    /// From the first on, whatever became of them.
    letters: Vec<Letter>,
    login: Option<Login>,
}

impl Account {
    fn begin_login(&mut self, session: SessionId) {
        self.login = Some(Login { session, here: true, waits: None });
        self.letters.iter_mut().for_each(|letter| (letter.handed_here, letter.released) = (false, false));
    }

    fn has_news(&self) -> bool {
        self.letters.iter().any(|letter| letter.released && !letter.handed_here && !letter.confirmed)
    }

    /// All that is to be handed over now.
    fn hand_over(&mut self) -> Expected {
        let (mut list, mut count) = (Vec::new(), 0);
        for (index, letter) in self.letters.iter_mut().enumerate() {
            if letter.released && !letter.handed_here && !letter.confirmed {
                let number = MessageNumber(index as u64 + 1);
                Message { number, again: letter.handed, from: &letter.from, text: &letter.text }.encode(&mut list);
                (letter.handed, letter.handed_here) = (true, true);
                count += 1;
            }
        }
        let mut fields = Vec::new();
        fields.put_varint(count);
        fields.extend_from_slice(&list);
        Expected::Ok(fields)
    }

    fn unconfirmed(&self) -> u64 {
        self.letters.iter().filter(|letter| !letter.confirmed).count() as u64
    }
}

/// All accounts there ever were.
#[derive(Debug, Default)]
pub struct Chat {
    accounts: Vec<Account>,
    now: GroupTime,
    answers: Vec<(Asker, Expected)>,
}

impl Chat {
    fn living(&mut self) -> impl Iterator<Item = &mut Account> {
        self.accounts.iter_mut().filter(|account| account.deleted.is_none())
    }

    fn named(&mut self, name: &str) -> Option<&mut Account> {
        self.living().find(|account| account.name == name)
    }

    fn own(&mut self, session: SessionId) -> Option<&mut Account> {
        self.living().find(|account| account.login.as_ref().is_some_and(|login| login.session == session))
    }

    fn end_wait(&mut self, session: SessionId) {
        let Some(account) = self.own(session) else { return };
        let Some((number, _)) = account.login.as_mut().and_then(|login| login.waits.take()) else { return };
        let expected = account.hand_over();
        self.answers.push(((session, number), expected));
    }

    /// Whoever waits, has a connection and gets something, gets it now.
    fn serve(&mut self, name: &str) {
        let Some(account) = self.named(name).filter(|account| account.has_news()) else { return };
        if let Some(session) = account.login.as_ref().filter(|login| login.here).map(|login| login.session) {
            self.end_wait(session);
        }
    }

    fn log_in(&mut self, session: SessionId, name: &str) -> Expected {
        let mut told = None;
        let Some(account) = self.named(name) else { return Expected::Error(Code::NoAccount) };
        if let Some(login) = &account.login {
            if login.here {
                return Expected::Error(Code::Exists);
            }
            told = login.waits.map(|(number, _)| (login.session, number));
        }
        account.begin_login(session);
        let unconfirmed = account.unconfirmed();
        self.answers.extend(told.map(|asker| (asker, BAD)));
        Expected::number(unconfirmed)
    }

    fn send(&mut self, from: String, to: &str, text: &str) -> Expected {
        if text.chars().count() > TEXT_CHARS_MAX {
            return Expected::Error(Code::TooLarge);
        }
        if text.contains('\u{7}') {
            return BAD;
        }
        let Some(account) = self.named(to) else { return Expected::Error(Code::NoAccount) };
        let text = text.to_owned();
        let letter = Letter { from, text, handed: false, handed_here: false, released: false, confirmed: false };
        account.letters.push(letter);
        let here = account.login.as_ref().is_some_and(|login| login.here);
        if account.login.is_some() {
            account.letters.iter_mut().for_each(|letter| letter.released = true);
        }
        self.serve(to);
        Expected::Ok(vec![u8::from(here)])
    }

    fn receive(&mut self, (session, number): Asker, queued: bool, wait_ms: u64) -> Option<Expected> {
        let now = self.now;
        let Some(account) = self.own(session).filter(|_| wait_ms <= SPAN_MS_MAX) else { return Some(BAD) };
        if queued {
            account.letters.iter_mut().for_each(|letter| letter.released = true);
        }
        if wait_ms == 0 || account.has_news() {
            return Some(account.hand_over());
        }
        let login = account.login.as_mut().expect("it is its own");
        login.waits = Some((number, GroupTime(now.0 + wait_ms * 1_000_000)));
        None
    }

    fn confirm(&mut self, session: SessionId, upto: MessageNumber) -> Expected {
        let Some(account) = self.own(session) else { return BAD };
        // All below what was handed over last are confirmed, or were handed over with it.
        let within = account.letters.iter_mut().take(usize::try_from(upto.0).unwrap_or(usize::MAX));
        let within: Vec<&mut Letter> = within.collect();
        if (within.len() as u64) < upto.0 || within.iter().any(|letter| !letter.handed_here && !letter.confirmed) {
            return BAD;
        }
        within.into_iter().for_each(|letter| letter.confirmed = true);
        Expected::nothing()
    }
}

impl Naive for Chat {
    fn begin(&mut self, _slot: Slot, now: GroupTime) {
        self.now = now;
        let waits = |account: &mut Account| {
            let login = account.login.as_ref()?;
            login.waits.filter(|&(_, until)| until <= now).map(|(_, until)| (until, login.session))
        };
        let mut over: Vec<_> = self.living().filter_map(waits).collect();
        over.sort_unstable();
        over.into_iter().for_each(|(_, session)| self.end_wait(session));
    }

    fn execute(&mut self, slot: Slot, asker: Asker, fields: &[u8]) -> Option<Expected> {
        let session = asker.0;
        self.end_wait(session);
        let Ok(operation) = ChatOperation::decode(fields) else { return Some(BAD) };
        let own = self.own(session).map(|account| account.name.clone());
        let entering = matches!(operation, ChatOperation::Create { .. } | ChatOperation::Login { .. });
        if entering == own.is_some() {
            return Some(BAD);
        }
        let own = own.unwrap_or_default();
        Some(match operation {
            ChatOperation::Create { name } if self.named(name).is_some() => Expected::Error(Code::Exists),
            ChatOperation::Create { name } => {
                let name = name.to_owned();
                let mut account = Account { name, created: slot, deleted: None, letters: Vec::new(), login: None };
                account.begin_login(session);
                self.accounts.push(account);
                Expected::nothing()
            }
            ChatOperation::Login { name } => self.log_in(session, name),
            ChatOperation::Logout => {
                self.session_ended(slot, session);
                Expected::nothing()
            }
            ChatOperation::Delete => {
                let account = self.own(session).expect("it is logged in");
                account.deleted = Some(slot);
                Expected::number(account.unconfirmed())
            }
            ChatOperation::Send { to, text } => self.send(own, to, text),
            ChatOperation::Receive { queued, wait_ms } => return self.receive(asker, queued, wait_ms),
            ChatOperation::Confirm { upto } => self.confirm(session, upto),
        })
    }

    fn find(&self, slot: Slot, fields: &[u8]) -> Expected {
        let Ok(ChatQuery::Accounts { pattern, after }) = ChatQuery::decode(fields) else { return BAD };
        let Some((_, matches)) = PATTERNS.iter().find(|(known, _)| *known == pattern) else { return BAD };
        let there = |a: &&Account| a.created <= slot && a.deleted.is_none_or(|gone| gone > slot);
        let names = self.accounts.iter().filter(there).map(|account| account.name.as_str());
        let mut names: Vec<&str> = names.filter(|name| *name > after && matches(name)).collect();
        names.sort_unstable();
        let mut page = Vec::new();
        AccountPage { more_after: None, names }.encode(&mut page);
        Expected::Ok(page)
    }

    fn step_aside(&mut self, _slot: Slot, session: SessionId, aside: bool) {
        let Some(account) = self.own(session) else { return };
        account.login.iter_mut().for_each(|login| login.here = !aside);
        let name = account.name.clone();
        self.serve(&name);
    }

    fn session_ended(&mut self, _slot: Slot, session: SessionId) {
        if let Some(account) = self.own(session) {
            account.login = None;
        }
    }

    fn take_answers(&mut self) -> Vec<(Asker, Expected)> {
        take(&mut self.answers)
    }
}

/// Whether a name is one that the pattern beside it matches.
type Matches = fn(&str) -> bool;

/// What accounts are asked for, and which these are; all else makes no sense as a pattern.
const PATTERNS: [(&str, Matches); 6] = [
    ("", |_| true),
    ("user-1", |name| name.starts_with("user-1")),
    ("user-[02]$", |name| name == "user-0" || name == "user-2"),
    (".*-[^1]", |name| !name.ends_with('1')),
    ("ser", |_| false),
    ("other|user-(0|1)$", |name| name == "user-0" || name == "user-1"),
];
const NO_PATTERNS: [&str; 4] = ["(", "user-[", "u{2,1}", "((a{200}){200}){200}"];

/// What a client remembers.
#[derive(Debug, Default)]
pub struct Habit {
    /// The last message that was handed to it.
    handed: u64,
}

fn text(rng: &mut Rng, client: usize, number: u64) -> String {
    let mut text = format!("{client}/{number} \u{e9}");
    match rng.below(40) {
        0 => text.extend(std::iter::repeat_n('\u{4e2d}', TEXT_CHARS_MAX - text.chars().count())),
        1 => text.extend(std::iter::repeat_n('\u{1f600}', TEXT_CHARS_MAX + 1 - text.chars().count())),
        2 => text.push('\u{7}'),
        _ => {}
    }
    text
}

impl super::Habit for Habit {
    fn operation(&mut self, rng: &mut Rng, load: &Load, client: usize, number: u64) -> Bytes {
        let name = match rng.below(60) {
            0 => "odd name".to_owned(),
            _ => format!("user-{}", rng.below(load.queues.min(4))),
        };
        let text = text(rng, client, number);
        let operation = match rng.below(100) {
            0..=11 => ChatOperation::Create { name: &name },
            12..=31 => ChatOperation::Login { name: &name },
            32..=34 => ChatOperation::Logout,
            35..=36 => ChatOperation::Delete,
            37..=66 => ChatOperation::Send { to: &name, text: &text },
            67..=76 => ChatOperation::Receive { queued: true, wait_ms: 0 },
            77..=88 => ChatOperation::Receive { queued: false, wait_ms: rng.below(1_500) },
            _ => {
                let upto =
                    *rng.pick(&[self.handed, self.handed, self.handed, self.handed.saturating_sub(1), self.handed + 1]);
                ChatOperation::Confirm { upto: MessageNumber(upto) }
            }
        };
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        bytes
    }

    fn query(&mut self, rng: &mut Rng, _load: &Load) -> Bytes {
        let pattern = if rng.chance(200_000) { *rng.pick(&NO_PATTERNS) } else { rng.pick(&PATTERNS).0 };
        let after = if rng.chance(200_000) { "user-1" } else { "" };
        let mut bytes = Vec::new();
        ChatQuery::Accounts { pattern, after }.encode(&mut bytes);
        bytes
    }

    fn hear(&mut self, operation: &[u8], answer: &[u8]) {
        let is_receive = operation.starts_with(&[service::CHAT, 6]);
        if let (true, Ok((Code::Ok, fields))) = (is_receive, split(answer)) {
            let mut r = Reader::new(fields);
            let count = r.varint("count").expect("it is answered with a list");
            for _ in 0..count {
                self.handed = Message::decode(&mut r).expect("of messages").number.0;
            }
        }
    }
}
