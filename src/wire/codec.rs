//! Bytes to values and back: big-endian integers, variable-length integers, length-prefixed strings.
//!
//! A [`Reader`] never panics and never allocates by a length it was told: every length is held against what is there.

use byteorder::{BigEndian, ByteOrder};
use std::fmt;

use crate::limits::COUNTER_MAX;

/// Names the field at which bytes stopped making sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeError {
    pub field: &'static str,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed {}", self.field)
    }
}

impl std::error::Error for DecodeError {}

pub type Decoded<T> = Result<T, DecodeError>;

/// Reads from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub fn take(&mut self, count: usize, field: &'static str) -> Decoded<&'a [u8]> {
        if count > self.bytes.len() {
            return Err(DecodeError { field });
        }
        let (head, tail) = self.bytes.split_at(count);
        self.bytes = tail;
        Ok(head)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    pub fn u8(&mut self, field: &'static str) -> Decoded<u8> {
        Ok(self.take(1, field)?[0])
    }

    pub fn u16(&mut self, field: &'static str) -> Decoded<u16> {
        Ok(BigEndian::read_u16(self.take(2, field)?))
    }

    pub fn u32(&mut self, field: &'static str) -> Decoded<u32> {
        Ok(BigEndian::read_u32(self.take(4, field)?))
    }

    pub fn u64(&mut self, field: &'static str) -> Decoded<u64> {
        Ok(BigEndian::read_u64(self.take(8, field)?))
    }

    /// A counter of 64 bits: one beyond [`COUNTER_MAX`] is malformed, so that to count on never overflows.
    pub fn counter(&mut self, field: &'static str) -> Decoded<u64> {
        self.u64(field).and_then(|value| if value <= COUNTER_MAX { Ok(value) } else { Err(DecodeError { field }) })
    }

    /// A bool stored as a byte; anything but 0 and 1 is malformed.
    pub fn bool(&mut self, field: &'static str) -> Decoded<bool> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError { field }),
        }
    }

    /// A variable-length integer: seven bits a byte, lowest first, at most ten bytes, in its shortest form.
    pub fn varint(&mut self, field: &'static str) -> Decoded<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8(field)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
                return Err(DecodeError { field });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError { field })
    }

    /// A byte string behind its length as a varint, no longer than `max`.
    pub fn bytes(&mut self, max: usize, field: &'static str) -> Decoded<&'a [u8]> {
        let length = self.varint(field)?;
        if length > max as u64 {
            return Err(DecodeError { field });
        }
        self.take(length as usize, field)
    }

    /// A UTF-8 string behind its length as a varint, no longer than `max` bytes.
    pub fn str(&mut self, max: usize, field: &'static str) -> Decoded<&'a str> {
        std::str::from_utf8(self.bytes(max, field)?).map_err(|_| DecodeError { field })
    }

    /// A list's count as a varint, no greater than `max`.
    pub fn count(&mut self, max: usize, field: &'static str) -> Decoded<usize> {
        let count = self.varint(field)?;
        if count > max as u64 {
            return Err(DecodeError { field });
        }
        Ok(count as usize)
    }

    /// Nothing may be left.
    pub fn end(self, field: &'static str) -> Decoded<()> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(DecodeError { field })
        }
    }
}

/// What a `Vec<u8>` needs to be written to; the mirror of [`Reader`].
pub trait Put {
    fn put_u8(&mut self, value: u8);
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_bool(&mut self, value: bool);
    fn put_varint(&mut self, value: u64);
    fn put_bytes(&mut self, bytes: &[u8]);
    fn put_str(&mut self, text: &str);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_bool(&mut self, value: bool) {
        self.push(u8::from(value));
    }

    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.extend_from_slice(bytes);
    }

    fn put_str(&mut self, text: &str) {
        self.put_bytes(text.as_bytes());
    }
}

/// The number of bytes [`Put::put_varint`] writes.
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    quickcheck! {
        fn varints_come_back(value: u64) -> bool {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            let mut r = Reader::new(&bytes);
            bytes.len() == varint_len(value) && r.varint("v") == Ok(value) && r.is_empty()
        }

        fn any_bytes_are_a_varint_or_an_error(bytes: Vec<u8>) -> bool {
            let mut r = Reader::new(&bytes);
            match r.varint("v") {
                // One value has one form: what was read is what would be written.
                Ok(value) => {
                    let mut again = Vec::new();
                    again.put_varint(value);
                    bytes.starts_with(&again)
                }
                Err(e) => e.field == "v",
            }
        }
    }

    #[test]
    fn lengths_are_held_against_what_is_there() {
        let mut claims_4_gib = Vec::new();
        claims_4_gib.put_varint(u64::from(u32::MAX));
        assert_eq!(Reader::new(&claims_4_gib).bytes(usize::MAX, "item"), Err(DecodeError { field: "item" }));
        assert_eq!(Reader::new(&[5, 1, 2]).bytes(100, "item"), Err(DecodeError { field: "item" }));
        assert_eq!(Reader::new(&[2, 1, 2]).bytes(1, "item"), Err(DecodeError { field: "item" }));
        assert_eq!(Reader::new(&[2, 1, 2]).bytes(2, "item"), Ok(&[1u8, 2][..]));
    }
}
