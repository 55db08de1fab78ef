//! The availability log: sites with their ZIP codes, what is to be had there, and every change of it with its place in
//! the order and its group time.
//!
//! A count never falls below zero, whatever differences come in which order. The history of a site is complete up to
//! `HISTORY_MAX` changes; beyond them the oldest go, and whoever reads it sees how many. It goes with its site.

use super::{Answers, Refusal, Service, Who};
use crate::broken;
use crate::limits::{BATCH_BYTES_MAX, COUNTER_MAX, HISTORY_MAX, SITES_MAX, SITE_BYTES_MAX, ZIP_BYTES_MAX};
use crate::types::{At, GroupTime, SessionId};
use crate::wire::answer::Code;
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::stock::{is_site, is_zip, Availability, Change, Done, SiteRow, StockOperation, StockQuery};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

const SNAPSHOT_VERSION: u8 = 1;
/// Bytes of memory a site takes without its changes and beside its name and ZIP code.
const SITE_OVERHEAD: u64 = 192;
/// Bytes that a change takes, its share of the room that a growing list keeps included.
const CHANGE_BYTES: u64 = 2 * std::mem::size_of::<Change>() as u64;
/// Bytes of a change in an answer, at most.
const CHANGE_FRAME_BYTES: usize = 40;

#[derive(Debug)]
struct Site {
    zip: Box<str>,
    /// The number of the first change that is kept; 0 is the site's making.
    first: u64,
    /// Never empty: the last change has what is to be had now.
    changes: VecDeque<Change>,
}

impl Site {
    fn availability(&self) -> Availability {
        self.changes.back().map_or(Availability::default(), |change| change.availability)
    }

    /// How many changes more, or none, there are once this one is kept.
    fn change(&mut self, at: At, done: Done, availability: Availability) -> u64 {
        self.changes.push_back(Change { slot: at.slot, time: at.time, done, availability });
        if self.changes.len() <= HISTORY_MAX {
            return 1;
        }
        self.changes.pop_front();
        self.first += 1;
        0
    }

    fn memory_bytes(&self, name: &str) -> u64 {
        SITE_OVERHEAD + (name.len() + self.zip.len()) as u64 + self.changes.len() as u64 * CHANGE_BYTES
    }
}

/// All sites.
#[derive(Default, Debug)]
pub struct Stock {
    sites: BTreeMap<Box<str>, Site>,
    memory: u64,
}

fn no_site(name: &str) -> Refusal {
    Refusal(Code::NoSite, format!("no site is called {name}"))
}

/// What so many come to when `by` is added.
fn changed(name: &str, present: Availability, by: i64) -> Result<Availability, Refusal> {
    let Availability::Count(count) = present else {
        let message = format!("the availability of {name} is {present}, which is no number");
        return Err(Refusal(Code::BadRequest, message));
    };
    match count.checked_add_signed(by) {
        Some(sum) if sum <= Availability::COUNT_MAX => Ok(Availability::Count(sum)),
        Some(_) => Err(Refusal(Code::BadRequest, format!("there are at most {}", Availability::COUNT_MAX))),
        None if by < 0 && broken::is("below-zero") => Ok(Availability::Count(0)),
        None if by < 0 => Err(Refusal(Code::Empty, format!("{name} has {count}: {by} would be below zero"))),
        None => Err(Refusal(Code::BadRequest, format!("there are at most {}", Availability::COUNT_MAX))),
    }
}

impl Stock {
    fn site(&self, name: &str) -> Result<&Site, Refusal> {
        self.sites.get(name).ok_or_else(|| no_site(name))
    }

    /// Changes a site to what `make` says of its present availability.
    fn change(
        &mut self,
        at: At,
        name: &str,
        done: Done,
        make: impl FnOnce(Availability) -> Result<Availability, Refusal>,
    ) -> Result<Availability, Refusal> {
        let site = self.sites.get_mut(name).ok_or_else(|| no_site(name))?;
        let before = site.availability();
        let availability = make(before)?;
        if before != availability || !broken::is("same-again-forgotten") {
            self.memory += site.change(at, done, availability) * CHANGE_BYTES;
        }
        Ok(availability)
    }

    fn execute(&mut self, at: At, operation: StockOperation<'_>, answer: &mut Vec<u8>) -> Result<(), Refusal> {
        match operation {
            StockOperation::New { name, zip } => {
                if self.sites.contains_key(name) {
                    return Err(Refusal(Code::Exists, format!("there is a site called {name}")));
                }
                if self.sites.len() >= SITES_MAX {
                    return Err(Refusal(Code::Full, format!("there are {SITES_MAX} sites already")));
                }
                let mut site = Site { zip: zip.into(), first: 0, changes: VecDeque::new() };
                site.change(at, Done::Made, Availability::default());
                self.memory += site.memory_bytes(name);
                self.sites.insert(name.into(), site);
                answer.put_u8(Code::Ok as u8);
            }
            StockOperation::Set { name, to } => {
                self.change(at, name, Done::Set, |_| Ok(to))?;
                answer.put_u8(Code::Ok as u8);
            }
            StockOperation::Change { name, by } => {
                let now = self.change(at, name, Done::Changed { by }, |present| changed(name, present, by))?;
                answer.put_u8(Code::Ok as u8);
                now.put(answer);
            }
            StockOperation::Delete { name } => {
                let site = self.sites.remove(name).ok_or_else(|| no_site(name))?;
                self.memory -= site.memory_bytes(name);
                answer.put_u8(Code::Ok as u8);
            }
        }
        Ok(())
    }

    fn find(&self, query: StockQuery<'_>, answer: &mut Vec<u8>) -> Result<(), Refusal> {
        match query {
            StockQuery::List { after } => {
                answer.put_u8(Code::Ok as u8);
                let begin = answer.len();
                for (name, site) in self.sites.range::<str, _>((Bound::Excluded(after), Bound::Unbounded)) {
                    SiteRow { availability: site.availability(), zip: &site.zip, name }.encode(answer);
                    if answer.len() - begin + SITE_BYTES_MAX + CHANGE_FRAME_BYTES > BATCH_BYTES_MAX {
                        break;
                    }
                }
            }
            StockQuery::View { name } => {
                let site = self.site(name)?;
                answer.put_u8(Code::Ok as u8);
                SiteRow { availability: site.availability(), zip: &site.zip, name }.encode(answer);
            }
            StockQuery::History { name, from } => {
                let site = self.site(name)?;
                let from = from.max(site.first);
                answer.put_u8(Code::Ok as u8);
                answer.put_varint(from);
                let skipped = usize::try_from(from - site.first).unwrap_or(usize::MAX);
                let page = site.changes.iter().skip(skipped).take(BATCH_BYTES_MAX / CHANGE_FRAME_BYTES);
                page.for_each(|change| change.put(answer));
            }
        }
        Ok(())
    }
}

impl Service for Stock {
    fn apply(&mut self, at: At, who: Who, operation: &[u8], out: &mut Answers) {
        let operation = StockOperation::decode(operation).map_err(Refusal::from);
        out.answer(who, |answer| {
            if let Err(refusal) = operation.and_then(|operation| self.execute(at, operation, answer)) {
                refusal.put(answer);
            }
        });
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        let query = StockQuery::decode(query).map_err(Refusal::from);
        if let Err(refusal) = query.and_then(|query| self.find(query, answer)) {
            refusal.put(answer);
        }
    }

    fn tick(&mut self, _at: At, _out: &mut Answers) {}

    fn ended(&mut self, _session: SessionId, _out: &mut Answers) {}

    fn due(&self) -> Option<GroupTime> {
        None
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        out.put_u8(SNAPSHOT_VERSION);
        out.put_varint(self.sites.len() as u64);
        for (name, site) in &self.sites {
            out.put_str(name);
            out.put_str(&site.zip);
            out.put_varint(site.first);
            out.put_varint(site.changes.len() as u64);
            site.changes.iter().for_each(|change| change.put(out));
        }
    }

    fn restore(&mut self, snapshot: &[u8]) -> Decoded<()> {
        let wrong = |field| Err(DecodeError { field });
        let mut r = Reader::new(snapshot);
        if r.u8("stock version")? != SNAPSHOT_VERSION {
            return wrong("stock version");
        }
        let mut stock = Stock::default();
        for _ in 0..r.count(SITES_MAX, "site count")? {
            let (name, zip) = (r.str(SITE_BYTES_MAX, "site")?, r.str(ZIP_BYTES_MAX, "ZIP code")?);
            let in_order = stock.sites.last_key_value().is_none_or(|(last, _)| **last < *name);
            if !in_order || !is_site(name) || !is_zip(zip) {
                return wrong("site");
            }
            let (first, count) = (r.varint("first change")?, r.count(HISTORY_MAX, "change count")?);
            if first > COUNTER_MAX || count == 0 {
                return wrong("change count");
            }
            let changes = (0..count).map(|_| Change::get(&mut r)).collect::<Decoded<_>>()?;
            let site = Site { zip: zip.into(), first, changes };
            stock.memory += site.memory_bytes(name);
            stock.sites.insert(name.into(), site);
        }
        *self = stock;
        r.end("stock")
    }

    fn memory_bytes(&self) -> u64 {
        self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{RequestNumber, Slot};
    use crate::wire::answer::split;
    use crate::wire::stock::HistoryPage;
    use quickcheck::quickcheck;

    const NAME: &str = "St. Mary's, \"East\"";

    fn at(slot: u64) -> At {
        At { slot: Slot(slot), position: 0, time: GroupTime(slot * 1000) }
    }

    /// The code, and what follows it.
    fn execute(stock: &mut Stock, slot: u64, operation: StockOperation<'_>) -> (Code, Vec<u8>) {
        let (mut bytes, mut out) = (Vec::new(), Answers::default());
        operation.encode(&mut bytes);
        stock.apply(at(slot), Who { session: SessionId::NONE, number: RequestNumber(1) }, &bytes[1..], &mut out);
        let (_, answer) = out.iter().next().expect("one answer");
        let (code, fields) = split(answer).expect("an answer");
        (code, fields.to_vec())
    }

    fn change(stock: &mut Stock, slot: u64, by: i64) -> Result<Availability, Code> {
        match execute(stock, slot, StockOperation::Change { name: NAME, by }) {
            (Code::Ok, fields) => Ok(Availability::get(&mut Reader::new(&fields)).expect("an availability")),
            (code, _) => Err(code),
        }
    }

    fn find(stock: &Stock, query: StockQuery<'_>) -> (Code, Vec<u8>) {
        let (mut bytes, mut answer) = (Vec::new(), Vec::new());
        query.encode(&mut bytes);
        stock.query(&bytes[1..], &mut answer);
        let (code, fields) = split(&answer).expect("an answer");
        (code, fields.to_vec())
    }

    fn history(stock: &Stock, from: u64) -> HistoryPage {
        let (code, fields) = find(stock, StockQuery::History { name: NAME, from });
        assert_eq!(code, Code::Ok);
        HistoryPage::decode(&mut Reader::new(&fields)).expect("a page")
    }

    fn snapshot(stock: &Stock) -> Vec<u8> {
        let mut out = Vec::new();
        stock.snapshot(&mut out);
        out
    }

    fn with_site() -> Stock {
        let mut stock = Stock::default();
        assert_eq!(execute(&mut stock, 1, StockOperation::New { name: NAME, zip: "02138" }), (Code::Ok, vec![]));
        stock
    }

    #[test]
    fn a_count_never_falls_below_zero() {
        let mut stock = with_site();
        assert_eq!(change(&mut stock, 2, -1), Err(Code::Empty));
        assert_eq!(change(&mut stock, 3, 5), Ok(Availability::Count(5)));
        assert_eq!(change(&mut stock, 4, -6), Err(Code::Empty));
        assert_eq!(change(&mut stock, 5, i64::MIN), Err(Code::Empty));
        assert_eq!(change(&mut stock, 6, -5), Ok(Availability::Count(0)));
        assert_eq!(change(&mut stock, 7, i64::MAX), Ok(Availability::Count(Availability::COUNT_MAX)));
        assert_eq!(change(&mut stock, 8, 1), Err(Code::BadRequest));
        assert_eq!(change(&mut stock, 9, i64::MAX), Err(Code::BadRequest));
        let flag = StockOperation::Set { name: NAME, to: Availability::Flag(true) };
        assert_eq!(execute(&mut stock, 10, flag).0, Code::Ok);
        assert_eq!(change(&mut stock, 11, 1), Err(Code::BadRequest));
        // What was refused is no part of the history.
        let slots: Vec<u64> = history(&stock, 0).changes.iter().map(|change| change.slot.0).collect();
        assert_eq!(slots, [1, 3, 6, 7, 10]);
    }

    #[test]
    fn the_history_says_what_where_and_when() {
        let mut stock = with_site();
        let set = |to| StockOperation::Set { name: NAME, to: Availability::Count(to) };
        assert_eq!(execute(&mut stock, 4, set(7)).0, Code::Ok);
        assert_eq!(execute(&mut stock, 5, set(7)).0, Code::Ok, "the same again is a change, too");
        assert_eq!(change(&mut stock, 6, -3), Ok(Availability::Count(4)));
        let one = |slot: u64, done, count| Change {
            slot: Slot(slot),
            time: GroupTime(slot * 1000),
            done,
            availability: Availability::Count(count),
        };
        let all =
            [one(1, Done::Made, 0), one(4, Done::Set, 7), one(5, Done::Set, 7), one(6, Done::Changed { by: -3 }, 4)];
        assert_eq!(history(&stock, 0), HistoryPage { from: 0, changes: all.to_vec() });
        assert_eq!(history(&stock, 3), HistoryPage { from: 3, changes: all[3..].to_vec() });
        assert_eq!(history(&stock, u64::MAX), HistoryPage { from: u64::MAX, changes: vec![] });
        assert_eq!(execute(&mut stock, 7, StockOperation::Delete { name: NAME }).0, Code::Ok);
        assert_eq!(stock.memory_bytes(), 0);
        assert_eq!(execute(&mut stock, 8, StockOperation::New { name: NAME, zip: "1" }).0, Code::Ok);
        assert_eq!(history(&stock, 0).changes, [one(8, Done::Made, 0)], "another site");
    }

    #[test]
    fn beyond_the_limit_the_oldest_changes_go_and_are_counted() {
        let mut stock = with_site();
        for slot in 2..=HISTORY_MAX as u64 + 10 {
            assert!(change(&mut stock, slot, 1).is_ok());
        }
        let (mut from, mut slots) = (0, Vec::new());
        loop {
            let page = history(&stock, from);
            assert_eq!(page.from, from.max(10));
            from = page.from + page.changes.len() as u64;
            if page.changes.is_empty() {
                break;
            }
            slots.extend(page.changes.iter().map(|change| change.slot.0));
        }
        assert_eq!(slots, (11..=HISTORY_MAX as u64 + 10).collect::<Vec<_>>());
        let mut copy = Stock::default();
        copy.restore(&snapshot(&stock)).expect("just written");
        assert_eq!((snapshot(&copy), copy.memory_bytes()), (snapshot(&stock), stock.memory_bytes()));
    }

    #[test]
    fn sites_are_found_by_their_names() {
        let mut stock = with_site();
        assert_eq!(execute(&mut stock, 2, StockOperation::New { name: NAME, zip: "1" }).0, Code::Exists);
        for query in [StockQuery::View { name: "x" }, StockQuery::History { name: "x", from: 0 }] {
            assert_eq!(find(&stock, query).0, Code::NoSite);
        }
        let name = "x";
        for operation in [
            StockOperation::Set { name, to: Availability::Flag(true) },
            StockOperation::Change { name, by: 1 },
            StockOperation::Delete { name },
        ] {
            assert_eq!(execute(&mut stock, 3, operation).0, Code::NoSite);
        }
        for k in 0..20_000 {
            execute(&mut stock, 4, StockOperation::New { name: &format!("{k:05}"), zip: "00501" });
        }
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let (code, fields) = find(&stock, StockQuery::List { after: &after });
            assert!(code == Code::Ok && fields.len() <= BATCH_BYTES_MAX);
            let mut r = Reader::new(&fields);
            let before = names.len();
            while !r.is_empty() {
                names.push(SiteRow::decode(&mut r).expect("a row").name.to_string());
            }
            match names[before..].last() {
                Some(last) => after = last.clone(),
                None => break,
            }
        }
        assert_eq!(names.len(), 20_001);
        assert!(names.is_sorted());
    }

    quickcheck! {
        fn a_snapshot_is_the_whole_state(story: Vec<(u8, u8, i64, u64)>) -> bool {
            let (mut stock, mut copy) = (Stock::default(), Stock::default());
            for (slot, &(what, name, by, count)) in story.iter().enumerate() {
                let name = ["a", "b b", NAME][usize::from(name % 3)];
                let to = [Availability::Count(count >> 1), Availability::Flag(count % 2 == 0)][usize::from(what >> 7)];
                let operation = match what % 8 {
                    0..=2 => StockOperation::New { name, zip: "02138" },
                    3 => StockOperation::Set { name, to },
                    7 => StockOperation::Delete { name },
                    _ => StockOperation::Change { name, by },
                };
                let answer = execute(&mut stock, slot as u64, operation);
                assert_eq!(answer, execute(&mut copy, slot as u64, operation));
                let bytes = snapshot(&copy);
                copy.restore(&bytes).expect("just written");
                assert_eq!(snapshot(&copy), bytes);
                assert_eq!(stock.memory_bytes(), copy.memory_bytes());
            }
            snapshot(&stock) == snapshot(&copy)
        }

        fn arbitrary_bytes_never_panic(operations: Vec<(u8, Vec<u8>)>, bytes: Vec<u8>, odd: Vec<(usize, u8)>) -> bool {
            let (mut stock, mut out) = (with_site(), Answers::default());
            for (kind, bytes) in &operations {
                let fields = [&[*kind][..], bytes].concat();
                stock.apply(at(9), Who { session: SessionId::NONE, number: RequestNumber(9) }, &fields, &mut out);
                stock.query(&fields, &mut Vec::new());
            }
            let _ = Stock::default().restore(&bytes);
            let mut bytes = snapshot(&stock);
            odd.iter().for_each(|&(at, value)| { let at = at % bytes.len(); bytes[at] = value });
            if stock.restore(&bytes).is_ok() {
                assert_eq!(snapshot(&stock), bytes, "what is read writes what was read");
                let _ = change(&mut stock, 10, -1);
            }
            true
        }
    }
}
