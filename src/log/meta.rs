//! `meta`: what a replica must never forget about itself and the views. Four pages in two pairs (DESIGN 5.1): a write
//! fills both pages of the older pair, so no single bad page makes a spoken promise forgotten.
//!
//! ```text
//! magic u32 | CRC-32C u32, of all that follows | length u32 | format u16 | generation u64 | the fields | zeros
//! ```

use byteorder::{BigEndian, ByteOrder};

use crate::limits::{META_PAGE_BYTES, REPLICA_ID_MAX};
use crate::types::{Birth, ClusterId, Incarnation, ReplicaId, WriteNumber};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::view::{ballot, put_ballot, Ballot, View};

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
    /// The last run stopped by its own will, with all it had said on the disk.
    pub clean: bool,
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
        page.put_bool(self.clean);
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
        let clean = r.bool("clean")?;
        r.end("meta")?;
        Ok(Meta { clean, generation, id, cluster, birth, incarnation, installed, heard, promised, accepted, directory })
    }
}

fn put_view(out: &mut Vec<u8>, view: Option<&View>) {
    out.put_bool(view.is_some());
    view.iter().for_each(|v| v.encode(out));
}

fn view(r: &mut Reader<'_>) -> Decoded<Option<View>> {
    Ok(if r.bool("view")? { Some(View::decode(r)?) } else { None })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::limits::{ADDRESS_BYTES_MAX, CHAIN_MAX, REPLICAS_MAX};
    use crate::log::record::tests::hex;
    use crate::rng::Rng;
    use crate::types::{Digest, Epoch, GroupTime, Run, Slot};
    use crate::wire::view::{BookEntry, Durability, Link, Policy};
    use quickcheck::quickcheck;

    pub(crate) fn view(epoch: u64, members: usize, address_bytes: usize) -> View {
        let runs = (1..=members as u8).map(|id| Run {
            id: ReplicaId(id),
            birth: Birth(u64::MAX),
            incarnation: Incarnation(u64::from(id)),
        });
        let entries = (1..=members as u8).map(|id| BookEntry {
            id: ReplicaId(id),
            address: "a".repeat(address_bytes),
            http: Some("h".repeat(address_bytes)),
        });
        View {
            cluster: ClusterId(9),
            epoch: Epoch(epoch),
            ballot: Ballot { round: 1, id: ReplicaId(2), birth: Birth(3), incarnation: Incarnation(4) },
            members: runs.collect(),
            base: Slot(epoch * 10),
            chain: (epoch.saturating_sub(CHAIN_MAX as u64)..epoch)
                .map(|earlier| Link { epoch: Epoch(earlier), base: Slot(earlier * 10) })
                .collect(),
            base_digest: Digest(5),
            base_time: GroupTime(6),
            policy: Policy::Dynamic,
            min_members: 1,
            durability: Durability::Disk,
            book: entries.collect(),
        }
    }

    /// A meta whose every field comes from the seed.
    fn meta(generation: u64, seed: u64) -> Meta {
        let mut rng = Rng::new(seed);
        let mut ballot = |round| Ballot {
            round,
            id: ReplicaId(rng.between(1, 64) as u8),
            birth: Birth(rng.next_u64()),
            incarnation: Incarnation(rng.below(9)),
        };
        let (promised, accepted) = (ballot(7), ballot(8));
        let small = view(rng.below(100), rng.between(1, 5) as usize, 14);
        Meta {
            generation,
            id: ReplicaId(rng.between(1, 64) as u8),
            cluster: ClusterId(rng.next_u64()),
            birth: Birth(rng.next_u64()),
            incarnation: Incarnation(rng.next_u64()),
            installed: Some(small.clone()).filter(|_| rng.chance(500_000)),
            heard: Some(small.clone()).filter(|_| rng.chance(500_000)),
            promised: Some(promised).filter(|_| rng.chance(500_000)),
            accepted: Some((accepted, small)).filter(|_| rng.chance(500_000)),
            clean: rng.chance(500_000),
            directory: [rng.next_u64(), rng.next_u64()],
        }
    }

    fn apply(file: &mut [u8], write: &MetaWrite) {
        file[write.offset as usize..][..write.bytes.len()].copy_from_slice(&write.bytes);
    }

    #[test]
    fn golden_page() {
        let meta = Meta {
            generation: 3,
            id: ReplicaId(2),
            cluster: ClusterId(0x11),
            birth: Birth(0x22),
            incarnation: Incarnation(0x33),
            promised: Some(Ballot { round: 4, id: ReplicaId(5), birth: Birth(6), incarnation: Incarnation(7) }),
            directory: [0x44, 0x55],
            ..Meta::default()
        };
        let write = meta.write(WriteNumber(1));
        let page = "6674714d1fbc47b20000005d0001000000000000000302000000000000001100000000000000220000000000000033"
            .to_owned()
            + "00000000000000440000000000000055"
            + "0000"
            + "0100000000000000040500000000000000060000000000000007"
            + "00"
            + "00";
        assert_eq!(page.len() / 2, 0x5d);
        assert_eq!(hex(&write.bytes[..0x5d]), page);
        assert!(write.bytes[0x5d..META_PAGE_BYTES].iter().all(|&b| b == 0));
        assert_eq!(write.bytes[..META_PAGE_BYTES], write.bytes[META_PAGE_BYTES..]);
        assert_eq!(write.offset, 2 * META_PAGE_BYTES as u64);
    }

    #[test]
    fn the_largest_meta_fits_a_page() {
        let view = view(crate::limits::COUNTER_MAX / 10, REPLICAS_MAX, ADDRESS_BYTES_MAX);
        let meta = Meta {
            installed: Some(view.clone()),
            heard: Some(view.clone()),
            promised: Some(view.ballot),
            accepted: Some((view.ballot, view)),
            ..Meta::default()
        };
        let mut file = vec![0; META_BYTES];
        apply(&mut file, &meta.write(WriteNumber(1)));
        assert_eq!(Meta::choose(&file), Ok(Some(meta)));
    }

    #[test]
    fn nothing_written_is_no_meta_and_no_error() {
        assert_eq!(Meta::choose(&[]), Ok(None));
        assert_eq!(Meta::choose(&vec![0; META_BYTES]), Ok(None));
        let mut file = vec![0; META_BYTES];
        file[5] = 1;
        assert_eq!(Meta::choose(&file), Err(DecodeError { field: "meta" }));
    }

    #[test]
    fn a_page_of_a_newer_format_is_not_passed_over() {
        let mut file = vec![0; META_BYTES];
        apply(&mut file, &meta(1, 1).write(WriteNumber(1)));
        let mut newer = meta(2, 2).write(WriteNumber(2));
        let length = BigEndian::read_u32(&newer.bytes[LENGTH_AT..]) as usize;
        newer.bytes[LENGTH_AT + 5] = 2;
        let crc = crc32c::crc32c(&newer.bytes[CHECKED_FROM..length]);
        BigEndian::write_u32(&mut newer.bytes[CRC_AT..], crc);
        apply(&mut file, &newer);
        assert_eq!(Meta::choose(&file), Err(DecodeError { field: "format" }));
    }

    quickcheck! {
        fn no_single_bad_page_makes_it_forget(seed: u64, writes: u8) -> bool {
            let mut file = vec![0; META_BYTES];
            let writes = u64::from(writes % 9) + 1;
            (1..=writes).for_each(|g| apply(&mut file, &meta(g, seed ^ g).write(WriteNumber(g))));
            let newest = meta(writes, seed ^ writes);
            (0..4).all(|page| {
                let mut bad = file.clone();
                let mut rng = Rng::new(seed);
                bad[page * META_PAGE_BYTES..][..META_PAGE_BYTES].iter_mut().for_each(|b| *b = rng.next_u64() as u8);
                Meta::choose(&bad) == Ok(Some(newest.clone()))
            })
        }

        fn a_torn_write_leaves_the_former_or_the_new(seed: u64, writes: u8) -> bool {
            let mut rng = Rng::new(seed);
            let mut file = vec![0; META_BYTES];
            let writes = u64::from(writes % 9) + 1;
            (1..=writes).for_each(|g| apply(&mut file, &meta(g, seed ^ g).write(WriteNumber(g))));
            let former = meta(writes, seed ^ writes);
            let new = meta(writes + 1, !seed);
            let write = new.write(WriteNumber(99));
            let kept = [50_000, 500_000, 990_000][rng.below(3) as usize];
            for (k, sector) in write.bytes.chunks(512).enumerate() {
                if rng.chance(kept) {
                    file[write.offset as usize + k * 512..][..512].copy_from_slice(sector);
                }
            }
            let found = Meta::choose(&file).expect("the other pair is whole").expect("written before");
            found == former || found == new
        }

        fn any_bytes_are_a_meta_or_an_error(seed: u64, body: Vec<u8>) -> bool {
            let mut file = meta(4, seed).page();
            // The checksum right, the fields anything.
            let at = (seed % 90) as usize + LENGTH_AT + 4;
            let end = (at + body.len()).min(META_PAGE_BYTES);
            file[at..end].copy_from_slice(&body[..end - at]);
            let length = (BigEndian::read_u32(&file[LENGTH_AT..]) as usize).min(META_PAGE_BYTES);
            let crc = crc32c::crc32c(&file[CHECKED_FROM..length.max(CHECKED_FROM)]);
            BigEndian::write_u32(&mut file[CRC_AT..], crc);
            match Meta::choose(&file) {
                Ok(meta) => meta.is_some_and(|m| Meta::choose(&m.page()) == Ok(Some(m))),
                Err(e) => e.field == "meta" || e.field == "format",
            }
        }
    }
}
