//! The availability log. The model keeps every site there ever was with all its changes: what is read at a slot is what
//! they say, nothing is missing from a history, and nothing ever falls below zero.

use ftq::rng::Rng;
use ftq::types::{GroupTime, Slot};
use ftq::wire::answer::Code;
use ftq::wire::codec::Put;
use ftq::wire::stock::{Availability, Change, Done, SiteRow, StockOperation, StockQuery};

use super::super::model::Expected;
use super::super::plan::Load;
use super::super::workload::Bytes;
use super::{Asker, Naive, BAD};

#[derive(Debug)]
struct Site {
    name: String,
    zip: String,
    deleted: Option<Slot>,
    /// The first is its making.
    changes: Vec<Change>,
}

impl Site {
    fn is_there(&self, slot: Slot) -> bool {
        self.changes[0].slot <= slot && self.deleted.is_none_or(|gone| gone > slot)
    }

    /// What was done to it up to this slot.
    fn upto(&self, slot: Slot) -> &[Change] {
        &self.changes[..self.changes.partition_point(|change| change.slot <= slot)]
    }

    fn put_row(&self, slot: Slot, out: &mut Bytes) {
        let availability = self.upto(slot).last().expect("it was made before").availability;
        SiteRow { availability, zip: &self.zip, name: &self.name }.encode(out);
    }
}

#[derive(Debug, Default)]
pub struct Stock {
    sites: Vec<Site>,
    now: GroupTime,
}

/// What a difference leads to, counted without bounds.
fn sum(present: Availability, by: i64) -> Result<Availability, Expected> {
    let Availability::Count(count) = present else { return Err(BAD) };
    match i128::from(count) + i128::from(by) {
        below if below < 0 => Err(Expected::Error(Code::Empty)),
        sum if sum > i128::from(i64::MAX) => Err(BAD),
        sum => Ok(Availability::Count(sum as u64)),
    }
}

impl Stock {
    fn change(
        &mut self,
        slot: Slot,
        name: &str,
        done: Done,
        make: impl FnOnce(Availability) -> Result<Availability, Expected>,
    ) -> Result<Availability, Expected> {
        let time = self.now;
        let site = self.sites.iter_mut().find(|site| site.deleted.is_none() && site.name == name);
        let site = site.ok_or(Expected::Error(Code::NoSite))?;
        let availability = make(site.changes.last().expect("it was made").availability)?;
        site.changes.push(Change { slot, time, done, availability });
        Ok(availability)
    }

    fn done(&mut self, slot: Slot, operation: StockOperation<'_>) -> Result<Expected, Expected> {
        match operation {
            StockOperation::New { name, zip } => {
                if self.sites.iter().any(|site| site.deleted.is_none() && site.name == name) {
                    return Err(Expected::Error(Code::Exists));
                }
                let made = Change { slot, time: self.now, done: Done::Made, availability: Availability::Count(0) };
                let (name, zip) = (name.to_owned(), zip.to_owned());
                self.sites.push(Site { name, zip, deleted: None, changes: vec![made] });
                Ok(Expected::nothing())
            }
            StockOperation::Set { name, to } => {
                self.change(slot, name, Done::Set, |_| Ok(to)).map(|_| Expected::nothing())
            }
            StockOperation::Change { name, by } => {
                let now = self.change(slot, name, Done::Changed { by }, |present| sum(present, by))?;
                let mut fields = Vec::new();
                now.put(&mut fields);
                Ok(Expected::Ok(fields))
            }
            StockOperation::Delete { name } => {
                let site = self.sites.iter_mut().find(|site| site.deleted.is_none() && site.name == name);
                site.ok_or(Expected::Error(Code::NoSite))?.deleted = Some(slot);
                Ok(Expected::nothing())
            }
        }
    }
}

impl Naive for Stock {
    fn begin(&mut self, _slot: Slot, now: GroupTime) {
        self.now = now;
    }

    fn execute(&mut self, slot: Slot, _asker: Asker, fields: &[u8]) -> Option<Expected> {
        let Ok(operation) = StockOperation::decode(fields) else { return Some(BAD) };
        Some(self.done(slot, operation).unwrap_or_else(|refused| refused))
    }

    fn find(&self, slot: Slot, fields: &[u8]) -> Expected {
        let Ok(query) = StockQuery::decode(fields) else { return BAD };
        let mut there: Vec<&Site> = self.sites.iter().filter(|site| site.is_there(slot)).collect();
        let mut fields = Vec::new();
        let (name, from) = match query {
            StockQuery::List { after } => {
                there.retain(|site| site.name.as_str() > after);
                there.sort_by(|a, b| a.name.cmp(&b.name));
                there.iter().for_each(|site| site.put_row(slot, &mut fields));
                return Expected::Ok(fields);
            }
            StockQuery::View { name } => (name, None),
            StockQuery::History { name, from } => (name, Some(from)),
        };
        let Some(site) = there.iter().find(|site| site.name == name) else { return Expected::Error(Code::NoSite) };
        match from {
            None => site.put_row(slot, &mut fields),
            Some(from) => {
                fields.put_varint(from);
                site.upto(slot).iter().skip(from as usize).for_each(|change| change.put(&mut fields));
            }
        }
        Expected::Ok(fields)
    }
}

/// What a client asks: nothing that it has to remember.
#[derive(Debug, Default)]
pub struct Habit;

fn name(rng: &mut Rng, load: &Load) -> String {
    match rng.below(40) {
        0 => " ".to_owned(),
        _ => format!("Site \"{}\", \u{e9}", rng.below(load.queues.min(4))),
    }
}

impl super::Habit for Habit {
    fn operation(&mut self, rng: &mut Rng, load: &Load, _client: usize, _number: u64) -> Bytes {
        let name = &name(rng, load)[..];
        let operation = match rng.below(20) {
            0..=2 => StockOperation::New { name, zip: "02138" },
            3..=4 => StockOperation::Set { name, to: Availability::Count(rng.below(12)) },
            5 => StockOperation::Set {
                name,
                to: *rng.pick(&[Availability::Flag(true), Availability::Count(Availability::COUNT_MAX)]),
            },
            6 if rng.chance(500_000) => StockOperation::Delete { name },
            _ => StockOperation::Change { name, by: rng.below(31) as i64 - 15 },
        };
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        bytes
    }

    fn query(&mut self, rng: &mut Rng, load: &Load) -> Bytes {
        let name = &name(rng, load)[..];
        let query = match rng.below(4) {
            0 => StockQuery::List { after: if rng.chance(200_000) { name } else { "" } },
            1 => StockQuery::View { name },
            _ => StockQuery::History { name, from: if rng.chance(200_000) { rng.below(20) } else { 0 } },
        };
        let mut bytes = Vec::new();
        query.encode(&mut bytes);
        bytes
    }
}
