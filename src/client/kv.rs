//! The client's part in the key-value store: values by key, as JSON text.

use super::{malformed, Answer, Ask, Client, Error};
use crate::limits::{JSON_DEPTH_MAX, KV_KEY_BYTES_MAX, KV_LIST_MAX, KV_VALUE_BYTES_MAX};
use crate::wire::answer::Code;
use crate::wire::json;
use crate::wire::kv::{is_key, Condition, Found, KvOperation, KvQuery, Listed, Needs, Written, CLIENTS};

/// A key, its version and its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    pub key: String,
    /// Names the write that gave it this value; later writes of anything have greater versions.
    pub version: u64,
    /// JSON, as it was put.
    pub value: String,
}

impl Client {
    /// Gives `key` this value, JSON of at most 960 KiB, whatever it has. Returns the version.
    pub fn kv_put(&mut self, key: &str, value: &str) -> Result<u64, Error> {
        self.kv_put_if(key, value, Condition::Any)
    }

    /// The same if the condition holds; else `Exists`, or `NoKey` where there is no such key.
    pub fn kv_put_if(&mut self, key: &str, value: &str, condition: Condition) -> Result<u64, Error> {
        let operation = put(checked_key(key)?, checked_value(value.as_bytes())?, condition);
        Ok(read_written(&self.session.call(Ask::Request, |out| operation.encode(out))?)?.version)
    }

    /// The version and the value, as it was put; `NoKey` if there is none.
    pub fn kv_get(&mut self, key: &str) -> Result<(u64, String), Error> {
        let query = KvQuery::Get { key: checked_key(key)? };
        let answer = self.session.call(Ask::Query, |out| query.encode(out))?;
        let (version, value) = read_found(&answer)?.ok_or_else(no_key)?;
        Ok((version, value.to_owned()))
    }

    /// Removes a key; `NoKey` if there is none.
    pub fn kv_delete(&mut self, key: &str) -> Result<(), Error> {
        let operation = delete(checked_key(key)?, Condition::Any);
        self.session.call(Ask::Request, |out| operation.encode(out)).map(drop)
    }

    /// Up to `count` keys (at most 1000, and about 256 KiB) that begin with `prefix` and come after `after`, in their
    /// order, and whether there are more.
    pub fn kv_list(&mut self, prefix: &str, after: &str, count: usize) -> Result<(Vec<Pair>, bool), Error> {
        let query = KvQuery::List { prefix, after, count: count.clamp(1, KV_LIST_MAX) };
        let answer = self.session.call(Ask::Query, |out| query.encode(out))?;
        let listed = read_listed(&answer)?;
        let pair =
            |&(key, version, value): &(&str, u64, &str)| Pair { key: key.to_owned(), version, value: value.to_owned() };
        Ok((listed.rows.iter().map(pair).collect(), listed.more))
    }
}

/// The operation that gives a key a value.
pub fn put<'a>(key: &'a str, value: &'a str, condition: Condition) -> KvOperation<'a> {
    KvOperation::Put { address: CLIENTS, needs: Needs::default(), condition, key, value }
}

/// The operation that removes a key.
pub fn delete(key: &str, condition: Condition) -> KvOperation<'_> {
    KvOperation::Delete { address: CLIENTS, needs: Needs::default(), condition, key }
}

/// The key, if it may be one.
pub fn checked_key(key: &str) -> Result<&str, Error> {
    if is_key(key) {
        return Ok(key);
    }
    let what = format!("a key is 1 to {KV_KEY_BYTES_MAX} bytes of UTF-8 without control characters");
    Err(Error::bad_request(what))
}

/// The value without blanks around it, if it is one.
pub fn checked_value(value: &[u8]) -> Result<&str, Error> {
    let value = json::value(value, JSON_DEPTH_MAX)
        .map_err(|e| Error::bad_request(format!("the value is {e}; a text stands in double quotes")))?;
    if value.len() > KV_VALUE_BYTES_MAX {
        let what = format!("a value has at most {KV_VALUE_BYTES_MAX} bytes, not {}", value.len());
        return Err(Error::refused(Code::TooLarge, what));
    }
    Ok(value)
}

/// That there is no such key.
pub fn no_key() -> Error {
    Error::refused(Code::NoKey, "there is no such key")
}

/// Reads the answer to a write.
pub fn read_written(answer: &Answer) -> Result<Written, Error> {
    Written::decode(&answer.body).map_err(malformed)
}

/// Reads the answer to a get: version and value.
pub fn read_found(answer: &Answer) -> Result<Option<(u64, &str)>, Error> {
    Ok(Found::decode(&answer.body).map_err(malformed)?.value)
}

/// Reads a page of a listing.
pub fn read_listed(answer: &Answer) -> Result<Listed<'_>, Error> {
    Listed::decode(&answer.body).map_err(malformed)
}
