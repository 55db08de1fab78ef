//! What a request asks for: resource, method, parameters and body, each judged before anything is done. Pure.

use std::collections::BTreeMap;

use crate::limits::{ADDRESS_BYTES_MAX, KV_VALUE_BYTES_MAX};
use crate::limits::{HTTP_WAIT_MAX_MS, JSON_DEPTH_MAX, KV_ADDRESSES_MAX, KV_KEY_BYTES_MAX, KV_LIST_MAX};
use crate::reactor::http::parse::{Method, Request};
use crate::reactor::http::response::Response;
use crate::wire::json;
use crate::wire::kv::{is_address, is_key, Condition, Needs};

/// Keys in a page unless told otherwise.
const LIST_COUNT: usize = 100;
const RESOURCES: &str = "/kvs/KEY, /kvs, /view, /livez, /readyz, /status and /metrics";

/// What a read of keys must see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sight {
    pub needs: Needs,
    /// How long it may wait for that.
    pub wait_ms: u64,
    /// The view is asked; else the replica's own state is enough.
    pub linearizable: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    Get { key: String, sight: Sight },
    List { prefix: String, after: String, count: usize, sight: Sight },
    Put { key: String, value: String, needs: Needs, condition: Condition },
    Delete { key: String, needs: Needs, condition: Condition },
    View,
    AddToView { address: String },
    RemoveFromView { address: String },
    Live,
    Ready,
    Status,
    Metrics,
}

type Routed<T> = Result<T, Response>;

fn bad(why: impl AsRef<str>) -> Response {
    Response::error(400, why.as_ref())
}

/// What is asked, or what to answer where it makes no sense. Keys may have up to `key_chars_max` characters.
pub fn route(request: Request, key_chars_max: usize) -> Routed<Asked> {
    let method = if request.method == Method::Head { Method::Get } else { request.method };
    let path = request.path.as_str();
    if let Some(key) = path.strip_prefix("/kvs/") {
        let key = key_of(key, key_chars_max)?;
        return match method {
            Method::Get => Ok(Asked::Get { key, sight: sight(&request)? }),
            Method::Put => put(key, &request),
            Method::Delete => {
                let needs = Body::read(&request.body)?.needs()?;
                Ok(Asked::Delete { key, needs, condition: condition(&request)? })
            }
            Method::Head | Method::Other => Err(not_allowed("GET, HEAD, PUT, DELETE")),
        };
    }
    match (path, method) {
        ("/kvs", Method::Get) => list(&request),
        ("/view", Method::Get) => Ok(Asked::View),
        ("/view", Method::Put) => Ok(Asked::AddToView { address: Body::read(&request.body)?.address()? }),
        ("/view", Method::Delete) => Ok(Asked::RemoveFromView { address: Body::read(&request.body)?.address()? }),
        ("/livez", Method::Get) => Ok(Asked::Live),
        ("/readyz", Method::Get) => Ok(Asked::Ready),
        ("/status", Method::Get) => Ok(Asked::Status),
        ("/metrics", Method::Get) => Ok(Asked::Metrics),
        ("/view", _) => Err(not_allowed("GET, HEAD, PUT, DELETE")),
        ("/kvs" | "/livez" | "/readyz" | "/status" | "/metrics", _) => Err(not_allowed("GET, HEAD")),
        _ => Err(Response::error(404, &format!("there is nothing here; there are {RESOURCES}"))),
    }
}

fn not_allowed(methods: &str) -> Response {
    Response::error(405, &format!("only {methods}")).with("Allow", methods.to_owned())
}

fn put(key: String, request: &Request) -> Routed<Asked> {
    let body = Body::read(&request.body)?;
    let value = body.value.ok_or_else(|| bad("the body has no \"value\""))?;
    if value.len() > KV_VALUE_BYTES_MAX {
        return Err(Response::error(
            413,
            &format!("a value has at most {KV_VALUE_BYTES_MAX} bytes, not {}", value.len()),
        ));
    }
    Ok(Asked::Put { key, value: value.to_owned(), needs: body.needs()?, condition: condition(request)? })
}

fn list(request: &Request) -> Routed<Asked> {
    let text = |name| Ok::<String, Response>(parameter(&request.query, name)?.unwrap_or_default());
    let (prefix, after) = (text("prefix")?, text("after")?);
    for (name, value) in [("prefix", &prefix), ("after", &after)] {
        if value.len() > KV_KEY_BYTES_MAX {
            return Err(bad(format!("{name} has more than {KV_KEY_BYTES_MAX} bytes")));
        }
    }
    let limit = parameter(&request.query, "limit")?;
    let count = limit.map_or(Some(LIST_COUNT), |limit| limit.parse().ok().filter(|n| (1..=KV_LIST_MAX).contains(n)));
    let count = count.ok_or_else(|| bad(format!("limit must be a number from 1 to {KV_LIST_MAX}")))?;
    Ok(Asked::List { prefix, after, count, sight: sight(request)? })
}

fn sight(request: &Request) -> Routed<Sight> {
    let linearizable = match parameter(&request.query, "consistency")?.as_deref() {
        None | Some("causal") => false,
        Some("linearizable") => true,
        Some(_) => return Err(bad("consistency is causal or linearizable")),
    };
    Ok(Sight { needs: Body::read(&request.body)?.needs()?, wait_ms: wait_ms(request)?, linearizable })
}

/// `Prefer: wait=SECS` (RFC 7240); other preferences are not for us.
fn wait_ms(request: &Request) -> Routed<u64> {
    let wanted = request.prefer.iter().flat_map(|list| list.split([',', ';']));
    let wait = wanted.filter_map(|one| one.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"));
    let Some((_, secs)) = wait else { return Ok(0) };
    let secs = secs.trim().trim_matches('"').parse::<u64>().map_err(|_| bad("Prefer: wait= takes whole seconds"))?;
    Ok(secs.saturating_mul(1000).min(HTTP_WAIT_MAX_MS))
}

/// `If-Match: "VERSION"` or `*`, `If-None-Match: *`.
fn condition(request: &Request) -> Routed<Condition> {
    match (request.if_match.as_deref(), request.if_none_match.as_deref()) {
        (None, None) => Ok(Condition::Any),
        (Some(_), Some(_)) => Err(bad("both If-Match and If-None-Match")),
        (Some("*"), None) => Ok(Condition::Present),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(_)) => Err(bad("If-None-Match: only * is understood with a write")),
        (Some(tag), None) => {
            let digits = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let version = digits.parse().ok().filter(|_| is_number);
            version.map(Condition::Version).ok_or_else(|| bad("If-Match takes one version, as ETag has it, or *"))
        }
    }
}

fn key_of(encoded: &str, key_chars_max: usize) -> Routed<String> {
    let key = percent_decoded(encoded, false).map_err(|why| bad(format!("the key {why}")))?;
    let chars = key.chars().count();
    if key.is_empty() {
        return Err(bad("the key is empty"));
    }
    if chars > key_chars_max {
        return Err(bad(format!("a key has at most {key_chars_max} characters, not {chars}")));
    }
    if !is_key(&key) {
        return Err(bad(format!("a key has at most {KV_KEY_BYTES_MAX} bytes and no control characters")));
    }
    Ok(key)
}

/// The value of a query's parameter; given twice it is refused.
fn parameter(query: &str, name: &str) -> Routed<Option<String>> {
    let mut found = None;
    for pair in query.split('&') {
        let (own, value) = pair.split_once('=').unwrap_or((pair, ""));
        if own != name {
            continue;
        }
        let value = percent_decoded(value, true).map_err(|why| bad(format!("{name} {why}")))?;
        if found.replace(value).is_some() {
            return Err(bad(format!("{name} is given twice")));
        }
    }
    Ok(found)
}

/// What stands behind `%HH`; in a form `+` is a blank. Errors say what it does wrong.
fn percent_decoded(text: &str, is_form: bool) -> Result<String, &'static str> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(match byte {
            b'%' => {
                let digit = |at: usize| behind.get(at).and_then(|&byte| char::from(byte).to_digit(16));
                let (high, low) = digit(0).zip(digit(1)).ok_or("has a % without two hexadecimal digits")?;
                rest = &behind[2..];
                (high << 4 | low) as u8
            }
            b'+' if is_form => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8")
}

/// The members of a body that are known here, as they were sent; others are not looked at.
#[derive(Default)]
struct Body<'a> {
    value: Option<&'a str>,
    metadata: Option<&'a str>,
    address: Option<&'a str>,
}

impl<'a> Body<'a> {
    /// No body at all is an empty object.
    fn read(body: &'a [u8]) -> Routed<Body<'a>> {
        let mut read = Body::default();
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(read);
        }
        let text = std::str::from_utf8(body).map_err(|_| bad("the body is not UTF-8"))?;
        // The value in it may be as deep as values may be.
        let members = json::members(text, JSON_DEPTH_MAX + 1).map_err(|e| bad(format!("the body is {e}")))?;
        for (name, value) in members {
            let name = string(name).ok_or_else(|| bad("a name in the body is not text"))?;
            let place = match name.as_str() {
                "value" => &mut read.value,
                "causal-metadata" => &mut read.metadata,
                "socket-address" => &mut read.address,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(bad(format!("\"{name}\" stands twice in the body")));
            }
        }
        Ok(read)
    }

    fn needs(&self) -> Routed<Needs> {
        let Some(metadata) = self.metadata.filter(|metadata| *metadata != "null") else { return Ok(Needs::default()) };
        let malformed = |why: &str| bad(format!("malformed causal-metadata: {why}"));
        let members = json::members(metadata, 2).map_err(|_| malformed("it is an object of counters, or null"))?;
        if members.len() > KV_ADDRESSES_MAX {
            return Err(malformed(&format!("more than {KV_ADDRESSES_MAX} counters")));
        }
        let mut needs = BTreeMap::new();
        for (name, counter) in members {
            let address = string(name).filter(|name| is_address(name)).ok_or_else(|| malformed("no address"))?;
            if !counter.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(malformed(&format!("the counter of {address} is no whole number")));
            }
            // No state reaches what does not fit.
            let counter = counter.parse().unwrap_or(u64::MAX);
            if needs.insert(address, counter).is_some() {
                return Err(malformed("an address stands twice"));
            }
        }
        Ok(Needs(needs))
    }

    fn address(&self) -> Routed<String> {
        let text = self.address.ok_or_else(|| bad("the body has no \"socket-address\""))?;
        let wrong = || bad(format!("\"socket-address\" is HOST:PORT, at most {ADDRESS_BYTES_MAX} bytes"));
        string(text).filter(|address| is_address(address)).ok_or_else(wrong)
    }
}

/// A JSON string's text; none where it is something else, or stands for no text.
fn string(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn request(method: Method, target: &str, body: &str) -> Request {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Request {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            keeps: true,
            if_match: None,
            if_none_match: None,
            prefer: None,
            body: body.as_bytes().to_vec(),
        }
    }

    fn routed(method: Method, target: &str, body: &str) -> Asked {
        route(request(method, target, body), 50).unwrap_or_else(|r| panic!("{target} {body}: {r:?}"))
    }

    fn status(method: Method, target: &str, body: &str) -> u16 {
        let response = route(request(method, target, body), 50).expect_err(target);
        assert!(response.body.starts_with(b"{\"error\":\""), "{response:?}");
        response.status
    }

    fn needs(list: &[(&str, u64)]) -> Needs {
        Needs(list.iter().map(|&(address, count)| (address.to_owned(), count)).collect())
    }

    fn sight(needs: Needs) -> Sight {
        Sight { needs, wait_ms: 0, linearizable: false }
    }

    #[test]
    fn keys_are_decoded() {
        for (path, key) in [
            ("/kvs/abc", "abc"),
            ("/kvs/a%20b+c", "a b+c"),
            ("/kvs/%E2%82%AC", "\u{20ac}"),
            ("/kvs/a%2Fb", "a/b"),
            ("/kvs/a/b", "a/b"),
            ("/kvs/%25", "%"),
        ] {
            assert_eq!(routed(Method::Get, path, ""), Asked::Get { key: key.into(), sight: sight(Needs::default()) });
        }
        for path in ["/kvs/", "/kvs/%", "/kvs/%2", "/kvs/%zz", "/kvs/%ff", "/kvs/a%00", "/kvs/a%0a"] {
            assert_eq!(status(Method::Get, path, ""), 400, "{path}");
        }
        let long = |count: usize| format!("/kvs/{}", "%C3%A4".repeat(count));
        routed(Method::Get, &long(50), "");
        assert_eq!(status(Method::Get, &long(51), ""), 400);
        assert_eq!(status(Method::Put, &long(51), "{\"value\":1}"), 400);
    }

    #[test]
    fn values_stay_as_they_were_sent() {
        for value in ["-1.50e+9999", "{\"b\": [1,2 ,3]}", "null", "\"\\u00e4\"", "123456789012345678901234567890"] {
            let body = format!(" {{\"causal-metadata\" : null,\"other\":1,\"value\": {value} }}\n");
            let put =
                Asked::Put { key: "k".into(), value: value.into(), needs: Needs::default(), condition: Condition::Any };
            assert_eq!(routed(Method::Put, "/kvs/k", &body), put);
        }
    }

    #[test]
    fn bodies_that_make_no_sense_are_refused() {
        let deep = |depth: usize| format!("{{\"value\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        routed(Method::Put, "/kvs/k", &deep(JSON_DEPTH_MAX));
        let large = format!("{{\"value\":\"{}\"}}", "x".repeat(KV_VALUE_BYTES_MAX));
        assert_eq!(status(Method::Put, "/kvs/k", &large), 413);
        let too_deep = deep(JSON_DEPTH_MAX + 1);
        for body in [
            "",
            "{}",
            "[]",
            "1",
            "{",
            "{\"value\":}",
            "{\"value\":1,}",
            "{\"value\":1}x",
            "{\"value\":01}",
            "{\"value\":1,\"value\":2}",
            "{\"value\":1,\"val\\u0075e\":2}",
            "{value:1}",
            too_deep.as_str(),
        ] {
            assert_eq!(status(Method::Put, "/kvs/k", body), 400, "{body}");
        }
        let mut bytes = request(Method::Put, "/kvs/k", "");
        bytes.body = b"{\"value\":\"\xff\"}".to_vec();
        assert_eq!(route(bytes, 50).expect_err("no text").status, 400);
    }

    #[test]
    fn metadata_is_counters_by_address() {
        let get = |metadata: &str| routed(Method::Get, "/kvs/k", &format!("{{\"causal-metadata\":{metadata}}}"));
        let asked = |needs| Asked::Get { key: "k".into(), sight: sight(needs) };
        assert_eq!(get("null"), asked(Needs::default()));
        assert_eq!(get("{}"), asked(Needs::default()));
        assert_eq!(get("{\"a:1\":2, \"b:2\" : 0}"), asked(needs(&[("a:1", 2), ("b:2", 0)])));
        assert_eq!(get("{\"a:1\":99999999999999999999999}"), asked(needs(&[("a:1", u64::MAX)])));
        let many = (0..=KV_ADDRESSES_MAX).map(|n| format!("\"h{n}:1\":1")).collect::<Vec<_>>().join(",");
        let many = format!("{{{many}}}");
        for bad in [
            "1",
            "[]",
            "\"x\"",
            "true",
            "{\"a:1\":-1}",
            "{\"a:1\":1.5}",
            "{\"a:1\":1e3}",
            "{\"a:1\":\"1\"}",
            "{\"a:1\":null}",
            "{\"a:1\":{}}",
            "{\"\":1}",
            "{\"a b\":1}",
            "{\"a:1\":1,\"a\\u003a1\":2}",
            &many,
        ] {
            for method in [Method::Get, Method::Delete] {
                assert_eq!(status(method, "/kvs/k", &format!("{{\"causal-metadata\":{bad}}}")), 400, "{bad}");
            }
            let put = format!("{{\"value\":1,\"causal-metadata\":{bad}}}");
            assert_eq!(status(Method::Put, "/kvs/k", &put), 400, "{bad}");
        }
    }

    #[test]
    fn headers_say_how_long_and_on_what_condition() {
        let mut asked = request(Method::Get, "/kvs/k?consistency=linearizable", "");
        asked.prefer = Some("respond-async, wait=5".into());
        let Ok(Asked::Get { sight, .. }) = route(asked.clone(), 50) else { panic!("a read") };
        assert!(sight.linearizable && sight.wait_ms == 5000);
        asked.prefer = Some("wait=999999999999999999".into());
        assert!(matches!(route(asked.clone(), 50), Ok(Asked::Get { sight, .. }) if sight.wait_ms == HTTP_WAIT_MAX_MS));
        asked.prefer = Some("wait=-1".into());
        assert_eq!(route(asked, 50).expect_err("no time").status, 400);
        assert_eq!(status(Method::Get, "/kvs/k?consistency=strong", ""), 400);
        assert_eq!(status(Method::Get, "/kvs/k?consistency=causal&consistency=causal", ""), 400);

        let condition = |if_match: Option<&str>, if_none_match: Option<&str>| {
            let mut asked = request(Method::Delete, "/kvs/k", "");
            asked.if_match = if_match.map(str::to_owned);
            asked.if_none_match = if_none_match.map(str::to_owned);
            match route(asked, 50) {
                Ok(Asked::Delete { condition, .. }) => Some(condition),
                _ => None,
            }
        };
        assert_eq!(condition(None, None), Some(Condition::Any));
        assert_eq!(condition(Some("\"7\""), None), Some(Condition::Version(7)));
        assert_eq!(condition(Some("7"), None), Some(Condition::Version(7)));
        assert_eq!(condition(Some("*"), None), Some(Condition::Present));
        assert_eq!(condition(None, Some("*")), Some(Condition::Absent));
        for bad in ["", "\"x\"", "\"1\", \"2\"", "-1", "+1", "W/\"1\"", "99999999999999999999"] {
            assert_eq!(condition(Some(bad), None), None, "{bad}");
        }
        assert_eq!((condition(Some("1"), Some("*")), condition(None, Some("\"1\""))), (None, None));
    }

    #[test]
    fn listings_take_parameters() {
        let list = |prefix: &str, after: &str, count| Asked::List {
            prefix: prefix.into(),
            after: after.into(),
            count,
            sight: sight(Needs::default()),
        };
        assert_eq!(routed(Method::Get, "/kvs", ""), list("", "", LIST_COUNT));
        assert_eq!(routed(Method::Head, "/kvs?prefix=a%2F&after=a/b+c&limit=7&x=y", ""), list("a/", "a/b c", 7));
        for bad in ["limit=0", "limit=1001", "limit=-1", "limit=x", "prefix=%", "limit=1&limit=1"] {
            assert_eq!(status(Method::Get, &format!("/kvs?{bad}"), ""), 400, "{bad}");
        }
        assert_eq!(status(Method::Put, "/kvs", "{}"), 405);
    }

    #[test]
    fn the_view_takes_addresses() {
        let address = || "h:80".to_owned();
        let body = "{\"socket-address\":\"h:80\"}";
        assert_eq!(routed(Method::Get, "/view", ""), Asked::View);
        assert_eq!(routed(Method::Put, "/view", body), Asked::AddToView { address: address() });
        assert_eq!(routed(Method::Delete, "/view", body), Asked::RemoveFromView { address: address() });
        for bad in ["", "{}", "{\"socket-address\":7}", "{\"socket-address\":\"\"}", "{\"socket-address\":\"a b\"}"] {
            assert_eq!(status(Method::Put, "/view", bad), 400, "{bad}");
        }
    }

    #[test]
    fn what_is_not_there_is_told() {
        assert_eq!(status(Method::Get, "/", ""), 404);
        assert_eq!(status(Method::Get, "/kvsx", ""), 404);
        assert_eq!(status(Method::Other, "/kvs/k", ""), 405);
        let refused = route(request(Method::Put, "/metrics", ""), 50).expect_err("read only");
        assert_eq!((refused.status, refused.headers), (405, vec![("Allow", "GET, HEAD".to_owned())]));
        for (path, asked) in [
            ("/livez", Asked::Live),
            ("/readyz", Asked::Ready),
            ("/status", Asked::Status),
            ("/metrics", Asked::Metrics),
        ] {
            assert_eq!(routed(Method::Get, path, ""), asked);
        }
    }

    quickcheck! {
        fn garbage_is_answered(path: String, query: String, body: Vec<u8>) -> bool {
            for method in [Method::Get, Method::Put, Method::Delete, Method::Other] {
                for path in ["/view".to_owned(), "/kvs".to_owned(), format!("/kvs/{path}"), path.clone()] {
                    let mut asked = request(method, "", "");
                    (asked.path, asked.query, asked.body) = (path, query.clone(), body.clone());
                    if let Err(response) = route(asked, 50) {
                        assert!((400..500).contains(&response.status));
                    }
                }
            }
            true
        }
    }
}
