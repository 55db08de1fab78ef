//! The client's part in the availability log.

use super::{malformed, Answer, Ask, Client, Error};
use crate::wire::codec::Reader;
use crate::wire::stock::{is_site, is_zip, HistoryPage, SiteRow, StockOperation, StockQuery};

pub use crate::wire::stock::{Availability, Change, Done as StockDone};

/// One site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    pub availability: Availability,
    pub zip: String,
    pub name: String,
}

impl From<SiteRow<'_>> for Site {
    fn from(row: SiteRow<'_>) -> Site {
        Site { availability: row.availability, zip: row.zip.to_string(), name: row.name.to_string() }
    }
}

/// What happened to a site, in order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct History {
    /// So many changes before the first one here are not kept any more.
    pub dropped: u64,
    pub changes: Vec<Change>,
}

impl Client {
    fn stock(&mut self, operation: StockOperation<'_>) -> Result<Answer, Error> {
        self.session.call(Ask::Request, |out| operation.encode(out))
    }

    fn stock_query(&mut self, query: StockQuery<'_>) -> Result<Answer, Error> {
        self.session.call(Ask::Query, |out| query.encode(out))
    }

    /// Adds a site with availability 0. `Exists` if there is one of that name.
    pub fn stock_new(&mut self, name: &str, zip: &str) -> Result<(), Error> {
        self.stock(StockOperation::New { name: checked_site(name)?, zip: checked_zip(zip)? }).map(drop)
    }

    /// `NoSite` if there is none, as for all others.
    pub fn stock_set(&mut self, name: &str, to: Availability) -> Result<(), Error> {
        self.stock(StockOperation::Set { name: checked_site(name)?, to }).map(drop)
    }

    /// Changes a count by a difference; returns what it came to. `Empty` where it would fall below zero.
    pub fn stock_change(&mut self, name: &str, by: i64) -> Result<Availability, Error> {
        let answer = self.stock(StockOperation::Change { name: checked_site(name)?, by })?;
        availability(&answer)
    }

    /// Removes a site with its history.
    pub fn stock_delete(&mut self, name: &str) -> Result<(), Error> {
        self.stock(StockOperation::Delete { name: checked_site(name)? }).map(drop)
    }

    pub fn stock_view(&mut self, name: &str) -> Result<Site, Error> {
        let answer = self.stock_query(StockQuery::View { name: checked_site(name)? })?;
        let row = sites(&answer)?.into_iter().next();
        row.map(Site::from).ok_or_else(|| malformed(crate::wire::DecodeError { field: "site" }))
    }

    /// All sites, by name.
    pub fn stock_list(&mut self) -> Result<Vec<Site>, Error> {
        let mut list: Vec<Site> = Vec::new();
        loop {
            let after = list.last().map_or(String::new(), |site| site.name.clone());
            let answer = self.stock_query(StockQuery::List { after: &after })?;
            let page = sites(&answer)?;
            if page.is_empty() {
                return Ok(list);
            }
            list.extend(page.into_iter().map(Site::from));
        }
    }

    /// What happened to a site, from its making on.
    pub fn stock_history(&mut self, name: &str) -> Result<History, Error> {
        let mut history = History::default();
        loop {
            let from = history.dropped + history.changes.len() as u64;
            let answer = self.stock_query(StockQuery::History { name: checked_site(name)?, from })?;
            let page = history_page(&answer)?;
            if page.from != from {
                // What was read so far is not kept any more, or was never there.
                history = History { dropped: page.from, changes: Vec::new() };
            }
            if page.changes.is_empty() {
                return Ok(history);
            }
            history.changes.extend(page.changes);
        }
    }
}

/// The name, if a site may have it.
pub fn checked_site(name: &str) -> Result<&str, Error> {
    if is_site(name) {
        return Ok(name);
    }
    let why = "a site's name is 1 to 255 bytes of UTF-8, not only blanks, and without control characters";
    Err(Error::bad_request(why))
}

/// The ZIP code, if it may be one.
pub fn checked_zip(zip: &str) -> Result<&str, Error> {
    if is_zip(zip) {
        Ok(zip)
    } else {
        Err(Error::bad_request("a ZIP code is 1 to 16 letters and digits, with dashes and blanks between them"))
    }
}

/// Reads an answer that is an availability.
pub fn availability(answer: &Answer) -> Result<Availability, Error> {
    let mut r = Reader::new(&answer.body);
    let availability = Availability::get(&mut r).map_err(malformed)?;
    r.end("availability").map_err(malformed)?;
    Ok(availability)
}

/// Reads an answer that is sites, in place.
pub fn sites(answer: &Answer) -> Result<Vec<SiteRow<'_>>, Error> {
    let (mut r, mut rows) = (Reader::new(&answer.body), Vec::new());
    while !r.is_empty() {
        rows.push(SiteRow::decode(&mut r).map_err(malformed)?);
    }
    Ok(rows)
}

/// Reads an answer that is a part of a history.
pub fn history_page(answer: &Answer) -> Result<HistoryPage, Error> {
    HistoryPage::decode(&mut Reader::new(&answer.body)).map_err(malformed)
}
