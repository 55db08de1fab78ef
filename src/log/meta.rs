//! `meta`: what a replica must never forget about itself and the views. Four pages in two pairs (DESIGN 5.1): a write
//! fills both pages of the older pair, so no single bad page makes a spoken promise forgotten.
//!
//! ```text
//! magic u32 | CRC-32C u32, of all that follows | length u32 | format u16 | generation u64 | the fields | zeros
//! ```

use byteorder::{BigEndian, ByteOrder};

use crate::group::view::{ballot, put_ballot, Ballot, View};
use crate::limits::{META_PAGE_BYTES, REPLICA_ID_MAX};
use crate::types::{Birth, ClusterId, Incarnation, ReplicaId, WriteNumber};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};

const MAGIC: [u8; 4] = *b"ftqM";
const FORMAT: u16 = 1;
const CRC_AT: usize = 4;
const CHECKED_FROM: usize = 8;
const LENGTH_AT: usize = 8;

/// The durable facts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// Raised with every write.
    pub generation: u64,
    pub id: ReplicaId,
    /// 0 until the replica is part of a group.
    pub cluster: ClusterId,
    pub birth: Birth,
    pub incarnation: Incarnation,
    /// The last view installed as a member.
    pub installed: Option<View>,
    /// The newest record of a view without this replica: it only takes the vote away.
    pub heard: Option<View>,
    /// The ballot promised for the decree after `installed`.
    pub promised: Option<Ballot>,
    /// The value accepted for the decree after `installed`, and under which ballot.
    pub accepted: Option<(Ballot, View)>,
    /// What the driver tells of the data directory itself: inode and creation time, for it to be known again.
    pub directory: [u64; 2],
}

/// Bytes to be written into `meta` at `offset`, and then synced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaWrite {
    pub number: WriteNumber,
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// Bytes of the whole file: four pages.
pub const META_BYTES: usize = 4 * META_PAGE_BYTES;

impl Meta {
    /// Both pages of the older pair, for this generation: even generations fill the first pair.
    pub fn write(&self, number: WriteNumber) -> MetaWrite {
        let mut bytes = self.page();
        bytes.extend_from_within(..);
        MetaWrite { number, offset: self.generation % 2 * 2 * META_PAGE_BYTES as u64, bytes }
    }

    /// The highest generation with a valid page; `Ok(None)` for a file of zeros or no bytes at all, an error where
    /// there are bytes but no valid page, or a whole page of a format this program doesn't know.
    pub fn choose(file: &[u8]) -> Decoded<Option<Meta>> {
        if file.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let mut newest: Option<Meta> = None;
        for page in file.chunks(META_PAGE_BYTES).take(META_BYTES / META_PAGE_BYTES) {
            match Meta::decode(page) {
                Ok(meta) if newest.as_ref().is_none_or(|n| n.generation < meta.generation) => newest = Some(meta),
                // Of a newer program: what it promised must not be forgotten.
                Err(e) if e.field == "format" => return Err(e),
                Ok(_) | Err(_) => {}
            }
        }
        newest.map(Some).ok_or(DecodeError { field: "meta" })
    }

    fn page(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(2 * META_PAGE_BYTES);
        page.extend_from_slice(&MAGIC);
        page.put_u32(0);
        page.put_u32(0);
        page.put_u16(FORMAT);
        page.put_u64(self.generation);
        page.put_u8(self.id.0);
        [self.cluster.0, self.birth.0, self.incarnation.0].iter().for_each(|&value| page.put_u64(value));
        self.directory.iter().for_each(|&value| page.put_u64(value));
        put_view(&mut page, self.installed.as_ref());
        put_view(&mut page, self.heard.as_ref());
        page.put_bool(self.promised.is_some());
        self.promised.iter().for_each(|&b| put_ballot(&mut page, b));
        put_view(&mut page, self.accepted.as_ref().map(|(_, view)| view));
        self.accepted.iter().for_each(|&(b, _)| put_ballot(&mut page, b));
        let length = page.len();
        assert!(length <= META_PAGE_BYTES, "the largest views fit a page of meta");
        BigEndian::write_u32(&mut page[LENGTH_AT..], length as u32);
        let crc = crc32c::crc32c(&page[CHECKED_FROM..]);
        BigEndian::write_u32(&mut page[CRC_AT..], crc);
        page.resize(META_PAGE_BYTES, 0);
        page
    }

    fn decode(page: &[u8]) -> Decoded<Meta> {
        let mut r = Reader::new(page);
        if r.take(MAGIC.len(), "magic")? != MAGIC {
            return Err(DecodeError { field: "magic" });
        }
        let crc = r.u32("checksum")?;
        let length = r.u32("length")? as usize;
        if !(CHECKED_FROM..=page.len()).contains(&length) {
            return Err(DecodeError { field: "length" });
        }
        if crc32c::crc32c(&page[CHECKED_FROM..length]) != crc {
            return Err(DecodeError { field: "checksum" });
        }
        let mut r = Reader::new(&page[LENGTH_AT + 4..length.max(LENGTH_AT + 4)]);
        if r.u16("format")? != FORMAT {
            return Err(DecodeError { field: "format" });
        }
        let generation = r.u64("generation")?;
        let id = ReplicaId(r.u8("replica id")?);
        if id.0 > REPLICA_ID_MAX {
            return Err(DecodeError { field: "replica id" });
        }
        let cluster = ClusterId(r.u64("cluster")?);
        let (birth, incarnation) = (Birth(r.u64("birth")?), Incarnation(r.u64("incarnation")?));
        let directory = [r.u64("directory")?, r.u64("directory")?];
        let (installed, heard) = (view(&mut r)?, view(&mut r)?);
        let promised = if r.bool("promised")? { Some(ballot(&mut r)?) } else { None };
        let accepted = match view(&mut r)? {
            Some(view) => Some((ballot(&mut r)?, view)),
            None => None,
        };
        r.end("meta")?;
        Ok(Meta { generation, id, cluster, birth, incarnation, installed, heard, promised, accepted, directory })
    }
}

fn put_view(out: &mut Vec<u8>, view: Option<&View>) {
    out.put_bool(view.is_some());
    view.iter().for_each(|v| v.encode(out));
}

fn view(r: &mut Reader<'_>) -> Decoded<Option<View>> {
    Ok(if r.bool("view")? { Some(View::decode(r)?) } else { None })
}
