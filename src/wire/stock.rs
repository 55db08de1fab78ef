//! The operations and queries of the availability log as bytes, service 3 of [`crate::wire::operation`]. Numbers are
//! append-only.

use crate::limits::{SITE_BYTES_MAX, ZIP_BYTES_MAX};
use crate::types::{GroupTime, Slot};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::operation::service;
use std::fmt;

/// What is to be had at a site: so many, or whether at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Availability {
    /// At most `i64::MAX`.
    Count(u64),
    Flag(bool),
}

impl Default for Availability {
    fn default() -> Availability {
        Availability::Count(0)
    }
}

impl Availability {
    /// The greatest count.
    pub const COUNT_MAX: u64 = i64::MAX as u64;

    /// As it stands in commands and lists: a whole number in decimal, `True` or `False`.
    pub fn from_text(text: &str) -> Option<Availability> {
        match text {
            "True" => Some(Availability::Flag(true)),
            "False" => Some(Availability::Flag(false)),
            digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|&count| count <= Availability::COUNT_MAX).map(Availability::Count)
            }
            _ => None,
        }
    }

    pub fn put(self, out: &mut Vec<u8>) {
        match self {
            Availability::Count(count) => {
                out.put_u8(0);
                out.put_varint(count);
            }
            Availability::Flag(flag) => out.put_u8(1 + u8::from(flag)),
        }
    }

    pub fn get(r: &mut Reader<'_>) -> Decoded<Availability> {
        match r.u8("availability")? {
            0 => match r.varint("availability")? {
                count if count <= Availability::COUNT_MAX => Ok(Availability::Count(count)),
                _ => Err(DecodeError { field: "availability" }),
            },
            1 => Ok(Availability::Flag(false)),
            2 => Ok(Availability::Flag(true)),
            _ => Err(DecodeError { field: "availability" }),
        }
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Availability::Count(count) => fmt::Display::fmt(count, f),
            Availability::Flag(true) => f.pad("True"),
            Availability::Flag(false) => f.pad("False"),
        }
    }
}

/// Operations. Answers are given as what follows [`crate::wire::answer::Code::Ok`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StockOperation<'a> {
    /// Adds a site with availability 0. Answer: nothing. `Exists` if there is one of that name.
    New { name: &'a str, zip: &'a str },
    /// Answer: nothing. `NoSite`, as for the next two.
    Set { name: &'a str, to: Availability },
    /// Adds a difference to a count. Answer: the new [`Availability`]. `Empty` where it would fall below zero,
    /// `BadRequest` where it is no count, or would be too great.
    Change { name: &'a str, by: i64 },
    /// Removes a site and its history. Answer: nothing.
    Delete { name: &'a str },
}

/// Queries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StockQuery<'a> {
    /// Answer: rows of [`SiteRow`] until the end, by name from the first one greater than `after`, in no more than
    /// `BATCH_BYTES_MAX`. The list is at its end where there is no row.
    List { after: &'a str },
    /// Answer: a [`SiteRow`]. `NoSite`, as for the next.
    View { name: &'a str },
    /// Answer: [`HistoryPage`], from the change with this number on, counted from 0 at the site's making.
    History { name: &'a str, from: u64 },
}

/// One site in an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SiteRow<'a> {
    pub availability: Availability,
    pub zip: &'a str,
    pub name: &'a str,
}

impl<'a> SiteRow<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.availability.put(out);
        out.put_str(self.zip);
        out.put_str(self.name);
    }

    pub fn decode(r: &mut Reader<'a>) -> Decoded<SiteRow<'a>> {
        let availability = Availability::get(r)?;
        Ok(SiteRow { availability, zip: r.str(ZIP_BYTES_MAX, "ZIP code")?, name: r.str(SITE_BYTES_MAX, "site")? })
    }
}

/// What was done to a site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Done {
    Made,
    Set,
    Changed { by: i64 },
}

/// One change of a site, and where in the order it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    pub slot: Slot,
    pub time: GroupTime,
    pub done: Done,
    /// What it came to.
    pub availability: Availability,
}

impl Change {
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_varint(self.slot.0);
        out.put_u64(self.time.0);
        match self.done {
            Done::Made => out.put_u8(0),
            Done::Set => out.put_u8(1),
            Done::Changed { by } => {
                out.put_u8(2);
                out.put_u64(by as u64);
            }
        }
        self.availability.put(out);
    }

    pub fn get(r: &mut Reader<'_>) -> Decoded<Change> {
        let (slot, time) = (Slot(r.varint("slot")?), GroupTime(r.u64("time")?));
        let done = match r.u8("change")? {
            0 => Done::Made,
            1 => Done::Set,
            2 => Done::Changed { by: r.u64("difference")? as i64 },
            _ => return Err(DecodeError { field: "change" }),
        };
        Ok(Change { slot, time, done, availability: Availability::get(r)? })
    }
}

/// A part of a site's history: at its end where there is no change in it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct HistoryPage {
    /// The number of the first change in it; greater than what was asked for where older ones are not kept.
    pub from: u64,
    pub changes: Vec<Change>,
}

impl HistoryPage {
    /// Reads to the end of the answer.
    pub fn decode(r: &mut Reader<'_>) -> Decoded<HistoryPage> {
        let from = r.varint("change number")?;
        let mut changes = Vec::new();
        while !r.is_empty() {
            changes.push(Change::get(r)?);
        }
        Ok(HistoryPage { from, changes })
    }
}

/// Whether these bytes may name a site: 1 to 255 bytes of UTF-8 without control characters, and not only blanks.
pub fn is_site(name: &str) -> bool {
    name.len() <= SITE_BYTES_MAX && !name.chars().all(char::is_whitespace) && !name.chars().any(char::is_control)
}

/// Whether this is a ZIP code of any country: 1 to 16 letters, digits, dashes, or blanks between them.
pub fn is_zip(zip: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b' ');
    !zip.is_empty() && zip.len() <= ZIP_BYTES_MAX && zip.trim() == zip && zip.bytes().all(fits)
}

fn site<'a>(r: &mut Reader<'a>) -> Decoded<&'a str> {
    let name = r.str(SITE_BYTES_MAX, "site")?;
    if is_site(name) {
        Ok(name)
    } else {
        Err(DecodeError { field: "site" })
    }
}

fn zip<'a>(r: &mut Reader<'a>) -> Decoded<&'a str> {
    let zip = r.str(ZIP_BYTES_MAX, "ZIP code")?;
    if is_zip(zip) {
        Ok(zip)
    } else {
        Err(DecodeError { field: "ZIP code" })
    }
}

impl<'a> StockOperation<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(service::STOCK);
        match *self {
            StockOperation::New { name, zip } => {
                out.put_u8(1);
                out.put_str(name);
                out.put_str(zip);
            }
            StockOperation::Set { name, to } => {
                out.put_u8(2);
                out.put_str(name);
                to.put(out);
            }
            StockOperation::Change { name, by } => {
                out.put_u8(3);
                out.put_str(name);
                out.put_u64(by as u64);
            }
            StockOperation::Delete { name } => {
                out.put_u8(4);
                out.put_str(name);
            }
        }
    }

    /// `fields` is what follows the service's byte.
    pub fn decode(fields: &'a [u8]) -> Decoded<StockOperation<'a>> {
        let mut reader = Reader::new(fields);
        let r = &mut reader;
        let operation = match r.u8("stock operation")? {
            1 => StockOperation::New { name: site(r)?, zip: zip(r)? },
            2 => StockOperation::Set { name: site(r)?, to: Availability::get(r)? },
            3 => StockOperation::Change { name: site(r)?, by: r.u64("difference")? as i64 },
            4 => StockOperation::Delete { name: site(r)? },
            _ => return Err(DecodeError { field: "stock operation" }),
        };
        reader.end("stock operation")?;
        Ok(operation)
    }
}

impl<'a> StockQuery<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(service::STOCK);
        match *self {
            StockQuery::List { after } => {
                out.put_u8(128);
                out.put_str(after);
            }
            StockQuery::View { name } => {
                out.put_u8(129);
                out.put_str(name);
            }
            StockQuery::History { name, from } => {
                out.put_u8(130);
                out.put_str(name);
                out.put_varint(from);
            }
        }
    }

    /// `fields` is what follows the service's byte.
    pub fn decode(fields: &'a [u8]) -> Decoded<StockQuery<'a>> {
        let mut reader = Reader::new(fields);
        let r = &mut reader;
        let query = match r.u8("stock query")? {
            128 => StockQuery::List { after: r.str(SITE_BYTES_MAX, "site")? },
            129 => StockQuery::View { name: site(r)? },
            130 => StockQuery::History { name: site(r)?, from: r.varint("change number")? },
            _ => return Err(DecodeError { field: "stock query" }),
        };
        reader.end("stock query")?;
        Ok(query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn round_trip(operation: StockOperation<'_>) {
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        assert_eq!(bytes[0], service::STOCK);
        assert_eq!(StockOperation::decode(&bytes[1..]), Ok(operation));
        assert!(StockOperation::decode(&[&bytes[1..], &[0]].concat()).is_err());
    }

    fn query_round_trip(query: StockQuery<'_>) {
        let mut bytes = Vec::new();
        query.encode(&mut bytes);
        assert_eq!(StockQuery::decode(&bytes[1..]), Ok(query));
    }

    quickcheck! {
        fn operations_come_back(count: u64, by: i64, flag: bool) -> bool {
            let to = Availability::Count(count % (Availability::COUNT_MAX + 1));
            for name in ["Clinic", "St. Mary's, \"East\"", " x "] {
                round_trip(StockOperation::New { name, zip: "02138" });
                round_trip(StockOperation::Set { name, to });
                round_trip(StockOperation::Set { name, to: Availability::Flag(flag) });
                round_trip(StockOperation::Change { name, by });
                round_trip(StockOperation::Delete { name });
                query_round_trip(StockQuery::View { name });
                query_round_trip(StockQuery::List { after: name });
                query_round_trip(StockQuery::History { name, from: count });
            }
            let (slot, time, done) = (Slot(count), GroupTime(count), Done::Changed { by });
            let change = Change { slot, time, done, availability: to };
            let mut bytes = Vec::new();
            bytes.put_varint(count);
            change.put(&mut bytes);
            let page = HistoryPage { from: count, changes: vec![change] };
            HistoryPage::decode(&mut Reader::new(&bytes)) == Ok(page)
        }

        fn garbage_never_panics(bytes: Vec<u8>) -> bool {
            let _ = StockOperation::decode(&bytes);
            let _ = StockQuery::decode(&bytes);
            let _ = SiteRow::decode(&mut Reader::new(&bytes));
            let _ = HistoryPage::decode(&mut Reader::new(&bytes));
            true
        }
    }

    #[test]
    fn availability_is_a_count_or_a_flag() {
        for (text, availability) in [
            ("0", Some(Availability::Count(0))),
            ("007", Some(Availability::Count(7))),
            ("9223372036854775807", Some(Availability::Count(i64::MAX as u64))),
            ("True", Some(Availability::Flag(true))),
            ("False", Some(Availability::Flag(false))),
        ] {
            assert_eq!(Availability::from_text(text), availability, "{text}");
        }
        for odd in
            ["", "-1", "+1", "1.5", "1e3", "9223372036854775808", "99999999999999999999", "true", "x", " 1", "\u{661}"]
        {
            assert_eq!(Availability::from_text(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn names_and_zip_codes() {
        assert!(is_site("a") && is_site("St. Mary's, \"East\"") && is_site("l") && is_site(&"x".repeat(255)));
        for odd in ["", " ", "\u{a0}\u{3000}", "a\nb", "a\tb", "\0"] {
            assert!(!is_site(odd), "{odd:?}");
        }
        assert!(!is_site(&"x".repeat(256)));
        assert!(is_zip("02138") && is_zip("00000-0000") && is_zip("SW1A 1AA"));
        for odd in ["", " 02138", "021,38", "\u{661}", "12345678901234567", "a\tb"] {
            assert!(!is_zip(odd), "{odd:?}");
        }
    }
}
