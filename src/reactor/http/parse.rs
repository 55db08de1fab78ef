//! Requests out of a stream of bytes (RFC 9112), each bounded, whatever pieces they come in. Pure.
//!
//! What another reader of the same bytes could understand otherwise is refused, not guessed: two lengths, a length
//! beside chunks, a coding that is not `chunked` alone, a header given twice that is read here.

use memchr::memchr;

use crate::limits::{HTTP_BODY_BYTES_MAX, HTTP_HEADERS_MAX, HTTP_HEAD_BYTES_MAX};

/// Bytes of a line that says how long a chunk is.
const CHUNK_LINE_BYTES_MAX: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Get,
    Head,
    Put,
    Delete,
    /// One that no resource here knows.
    Other,
}

/// A whole request. Of the headers only what is read here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub method: Method,
    /// The target without its query, percent-encoded as it came.
    pub path: String,
    pub query: String,
    /// The connection stays open.
    pub keeps: bool,
    pub if_match: Option<String>,
    pub if_none_match: Option<String>,
    pub prefer: Option<String>,
    pub body: Vec<u8>,
}

/// A request that can't be read: the connection is of no further use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    pub status: u16,
    pub why: String,
}

/// What the bytes so far come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// More must come.
    More,
    /// The client waits for a word before it sends the body; told once.
    Expects,
    Whole(Request),
}

#[derive(Debug)]
enum Body {
    /// So many bytes.
    Length(usize),
    /// Chunks: bytes left of the present one, and the line end behind it.
    Chunks { left: usize, ends: bool },
    /// Behind the last chunk, up to an empty line; bytes of it so far.
    Trailer(usize),
}

#[derive(Debug)]
struct Begun {
    request: Request,
    body: Body,
    expects: bool,
}

/// Bytes that came and are not read yet. What is taken off its front is only counted, so that a thousand small parts
/// are not moved a thousand times.
#[derive(Debug, Default)]
struct Unread {
    bytes: Vec<u8>,
    taken: usize,
}

impl Unread {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.taken));
        self.bytes.extend_from_slice(bytes);
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.bytes.len() {
            // A large body's room is not kept for an idle connection.
            *self = Unread::default();
        }
    }

    /// Moves up to `most` bytes to the end of `body`; says how many.
    fn move_to(&mut self, body: &mut Vec<u8>, most: usize) -> usize {
        let count = self.rest().len().min(most);
        body.extend_from_slice(&self.rest()[..count]);
        self.take(count);
        count
    }
}

/// One connection's bytes.
#[derive(Debug, Default)]
pub struct Parser {
    unread: Unread,
    /// Up to where there is no end of the head.
    searched: usize,
    begun: Option<Begun>,
}

fn wrong(status: u16, why: impl Into<String>) -> Unreadable {
    Unreadable { status, why: why.into() }
}

impl Parser {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.unread.feed(bytes);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.unread.rest().len() + self.begun.as_ref().map_or(0, |begun| begun.request.body.len())
    }

    /// Nothing of a request has come.
    pub fn is_idle(&self) -> bool {
        self.unread.rest().is_empty() && self.begun.is_none()
    }

    /// The next request, as far as it has come.
    pub fn next_request(&mut self) -> Result<Parsed, Unreadable> {
        if self.begun.is_none() {
            let Some(end) = self.head_end()? else { return Ok(Parsed::More) };
            let begun = read_head(&self.unread.rest()[..end])?;
            self.unread.take(end);
            self.searched = 0;
            self.begun = Some(begun);
        }
        let begun = self.begun.as_mut().expect("it has begun");
        if !begun.read_body(&mut self.unread)? {
            let expects = std::mem::take(&mut begun.expects) && self.unread.rest().is_empty();
            return Ok(if expects { Parsed::Expects } else { Parsed::More });
        }
        Ok(Parsed::Whole(self.begun.take().expect("it has begun").request))
    }

    /// Where the head ends, empty lines before it skipped.
    fn head_end(&mut self) -> Result<Option<usize>, Unreadable> {
        let blank = self.unread.rest().iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
        if blank > 0 {
            self.unread.take(blank);
            self.searched = 0;
        }
        let unread = self.unread.rest();
        while let Some(found) = memchr(b'\n', &unread[self.searched..]) {
            let line_end = self.searched + found + 1;
            let ended = match unread[line_end..] {
                [b'\n', ..] => Some(line_end + 1),
                [b'\r', b'\n', ..] => Some(line_end + 2),
                // The next bytes tell.
                [] | [b'\r'] => break,
                _ => None,
            };
            if let Some(end) = ended.filter(|&end| end <= HTTP_HEAD_BYTES_MAX) {
                return Ok(Some(end));
            }
            self.searched = line_end;
        }
        if unread.len() > HTTP_HEAD_BYTES_MAX {
            return Err(wrong(431, format!("the head has more than {HTTP_HEAD_BYTES_MAX} bytes")));
        }
        Ok(None)
    }
}

impl Begun {
    /// Takes what has come of the body. True when it is whole.
    fn read_body(&mut self, unread: &mut Unread) -> Result<bool, Unreadable> {
        let body = &mut self.request.body;
        loop {
            match &mut self.body {
                Body::Length(left) => {
                    *left -= unread.move_to(body, *left);
                    return Ok(*left == 0);
                }
                Body::Chunks { left, ends } if *left > 0 || *ends => {
                    *left -= unread.move_to(body, *left);
                    match unread.rest() {
                        _ if *left > 0 => return Ok(false),
                        [b'\r', b'\n', ..] => unread.take(2),
                        [] | [b'\r'] => return Ok(false),
                        _ => return Err(wrong(400, "a chunk is longer than it says")),
                    }
                    *ends = false;
                }
                Body::Chunks { .. } => {
                    let Some((used, size)) = chunk_line(unread.rest())? else { return Ok(false) };
                    if size > (HTTP_BODY_BYTES_MAX - body.len()) as u64 {
                        return Err(too_large());
                    }
                    unread.take(used);
                    let next = Body::Chunks { left: size as usize, ends: true };
                    self.body = if size == 0 { Body::Trailer(0) } else { next };
                }
                Body::Trailer(read) => {
                    let end = memchr(b'\n', unread.rest());
                    if *read + end.unwrap_or(unread.rest().len()) > HTTP_HEAD_BYTES_MAX {
                        return Err(wrong(431, "the trailer is too long"));
                    }
                    let Some(end) = end else { return Ok(false) };
                    let is_last = matches!(unread.rest()[..end], [] | [b'\r']);
                    unread.take(end + 1);
                    *read += end + 1;
                    if is_last {
                        return Ok(true);
                    }
                }
            }
        }
    }
}

fn too_large() -> Unreadable {
    wrong(413, format!("the body has more than {HTTP_BODY_BYTES_MAX} bytes"))
}

/// The size of the next chunk, and how many bytes its line takes.
fn chunk_line(unread: &[u8]) -> Result<Option<(usize, u64)>, Unreadable> {
    match httparse::parse_chunk_size(unread) {
        Ok(httparse::Status::Complete((used, _))) if used > CHUNK_LINE_BYTES_MAX => {
            Err(wrong(400, "the line of a chunk's size is too long"))
        }
        Ok(httparse::Status::Complete(found)) => Ok(Some(found)),
        Ok(httparse::Status::Partial) if unread.len() > CHUNK_LINE_BYTES_MAX => {
            Err(wrong(400, "the line of a chunk's size is too long"))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(wrong(400, "a chunk's size is malformed")),
    }
}

/// What the headers say, each at most once.
#[derive(Default)]
struct Headers<'a> {
    hosts: usize,
    length: Option<&'a str>,
    coding: Option<&'a str>,
    connection: Option<&'a str>,
    expect: Option<&'a str>,
    if_match: Option<&'a str>,
    if_none_match: Option<&'a str>,
    prefer: Option<&'a str>,
}

impl<'a> Headers<'a> {
    fn read(headers: &[httparse::Header<'a>]) -> Result<Headers<'a>, Unreadable> {
        let mut read = Headers::default();
        for header in headers {
            let name = header.name.to_ascii_lowercase();
            let place = match name.as_str() {
                "host" => {
                    read.hosts += 1;
                    continue;
                }
                "content-length" => &mut read.length,
                "transfer-encoding" => &mut read.coding,
                "connection" => &mut read.connection,
                "expect" => &mut read.expect,
                "if-match" => &mut read.if_match,
                "if-none-match" => &mut read.if_none_match,
                "prefer" => &mut read.prefer,
                _ => continue,
            };
            let value = std::str::from_utf8(header.value).map_err(|_| wrong(400, format!("{name} is not text")))?;
            if place.replace(value.trim()).is_some() {
                return Err(wrong(400, format!("{name} is given twice")));
            }
        }
        Ok(read)
    }

    fn body(&self, minor: u8) -> Result<Body, Unreadable> {
        match (self.length, self.coding) {
            (Some(_), Some(_)) => Err(wrong(400, "both content-length and transfer-encoding")),
            (None, Some(_)) if minor == 0 => Err(wrong(400, "transfer-encoding in HTTP/1.0")),
            (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Ok(Body::Chunks { left: 0, ends: false }),
            (None, Some(_)) => Err(wrong(501, "a transfer-encoding other than chunked")),
            (Some(length), None) => {
                if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(wrong(400, "content-length is not a number"));
                }
                let length = length.parse::<usize>().ok().filter(|&length| length <= HTTP_BODY_BYTES_MAX);
                length.map(Body::Length).ok_or_else(too_large)
            }
            (None, None) => Ok(Body::Length(0)),
        }
    }

    fn keeps(&self, minor: u8) -> bool {
        let has = |option: &str| {
            self.connection.is_some_and(|list| list.split(',').any(|o| o.trim().eq_ignore_ascii_case(option)))
        };
        !has("close") && (minor >= 1 || has("keep-alive"))
    }

    fn expects(&self) -> Result<bool, Unreadable> {
        match self.expect {
            None => Ok(false),
            Some(what) if what.eq_ignore_ascii_case("100-continue") => Ok(true),
            Some(_) => Err(wrong(417, "only 100-continue may be expected")),
        }
    }
}

fn read_head(head: &[u8]) -> Result<Begun, Unreadable> {
    let mut fields = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(wrong(400, "the head makes no sense")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(wrong(431, format!("more than {HTTP_HEADERS_MAX} headers")));
        }
        Err(httparse::Error::Version) if says_1_x(head) => return Err(wrong(400, "the target has a blank in it")),
        Err(httparse::Error::Version) => return Err(wrong(505, "this is neither HTTP/1.1 nor HTTP/1.0")),
        Err(e) => return Err(wrong(400, format!("the head makes no sense: {e}"))),
    }
    let minor = parsed.version.expect("parsed");
    let headers = Headers::read(parsed.headers)?;
    if headers.hosts > 1 || headers.hosts == 0 && minor >= 1 {
        return Err(wrong(400, "there must be one host header"));
    }
    let method = match parsed.method.expect("parsed") {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        _ => Method::Other,
    };
    let (path, query) = target(parsed.path.expect("parsed"))?;
    let owned = |value: Option<&str>| value.map(str::to_owned);
    let request = Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        keeps: headers.keeps(minor),
        if_match: owned(headers.if_match),
        if_none_match: owned(headers.if_none_match),
        prefer: owned(headers.prefer),
        body: Vec::new(),
    };
    Ok(Begun { request, body: headers.body(minor)?, expects: headers.expects()? && minor >= 1 })
}

/// Whether the first line ends with a version that is spoken here: then the words before it are too many.
fn says_1_x(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

/// Path and query of a target, which may name the host as well.
fn target(target: &str) -> Result<(&str, &str), Unreadable> {
    let rest = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => &rest[rest.find('/').unwrap_or(rest.len())..],
        _ => target,
    };
    let rest = rest.split('#').next().expect("a split has a first part");
    match rest.split_once('?') {
        _ if !rest.starts_with('/') => Err(wrong(400, "the target must be a path")),
        Some((path, query)) => Ok((path, query)),
        None => Ok((rest, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn fed(bytes: &[u8]) -> Parser {
        let mut parser = Parser::default();
        parser.feed(bytes);
        parser
    }

    fn whole(bytes: &[u8]) -> Request {
        match fed(bytes).next_request() {
            Ok(Parsed::Whole(request)) => request,
            other => panic!("{}: {other:?}", String::from_utf8_lossy(bytes)),
        }
    }

    fn status(bytes: &[u8]) -> u16 {
        fed(bytes).next_request().expect_err("must be refused").status
    }

    /// A head with these lines, and what follows it.
    fn put(lines: &str, rest: &str) -> Vec<u8> {
        format!("PUT /kvs/a HTTP/1.1\r\nHost: h\r\n{lines}\r\n{rest}").into_bytes()
    }

    #[test]
    fn a_request_is_read_with_what_matters() {
        let request = whole(
            b"\r\nDELETE /kvs/%61b?x=1&y HTTP/1.1\r\nhost: h:1\r\nIf-Match: \"7\"\r\nPrefer: wait=3\r\n\
              Content-Length: 2\r\nX: y\r\n\r\n{}",
        );
        assert_eq!(
            (request.method, request.path.as_str(), request.query.as_str()),
            (Method::Delete, "/kvs/%61b", "x=1&y")
        );
        assert_eq!((request.if_match.as_deref(), request.prefer.as_deref()), (Some("\"7\""), Some("wait=3")));
        assert_eq!((request.body.as_slice(), request.keeps), (&b"{}"[..], true));
        assert_eq!(whole(b"GET http://h:80/view HTTP/1.1\r\nHost: h\r\n\r\n").path, "/view");
        assert_eq!(whole(b"GET /view HTTP/1.1\nHost: h\n\n").path, "/view");
        assert_eq!(whole(b"BREW /pot HTTP/1.1\r\nHost: h\r\n\r\n").method, Method::Other);
    }

    #[test]
    fn connections_are_kept_as_the_version_says() {
        let keeps = |head: &str| whole(head.as_bytes()).keeps;
        assert!(keeps("GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.1\r\nHost: h\r\nConnection: foo, Close\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn chunks_are_put_together() {
        let request =
            whole(&put("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n"));
        assert_eq!(request.body, b"abc0123456789");
        assert_eq!(whole(&put("Transfer-Encoding: Chunked\r\n", "0\r\n\r\n")).body, b"");
        let chunked = |rest: &str| status(&put("Transfer-Encoding: chunked\r\n", rest));
        assert_eq!(chunked("x\r\n"), 400);
        assert_eq!(chunked("1\r\nab\r\n"), 400);
        assert_eq!(chunked("ffffffffffffffff\r\n"), 413);
        assert_eq!(chunked("fffffffffffffffff\r\n"), 400);
        assert_eq!(chunked(&format!("1;{}", "x".repeat(300))), 400);
        assert_eq!(chunked(&format!("0\r\n{}", "x: y\r\n".repeat(4000))), 431);
        assert_eq!(chunked(&format!("{:x}\r\n", HTTP_BODY_BYTES_MAX + 1)), 413);
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        assert_eq!(status(&put("Content-Length: 1\r\nContent-Length: 1\r\n", "a")), 400);
        assert_eq!(status(&put("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")), 400);
        assert_eq!(status(&put("Transfer-Encoding: gzip, chunked\r\n", "")), 501);
        assert_eq!(status(&put("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "")), 400);
        assert_eq!(status(b"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
        for length in ["", "+1", "-1", "1,1", "0x1", "1 1"] {
            assert_eq!(status(&put(&format!("Content-Length: {length}\r\n"), "a")), 400, "{length}");
        }
        assert_eq!(status(&put("Host: other\r\n", "")), 400);
        assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status(&put("If-Match: \"1\"\r\nIf-Match: \"2\"\r\n", "")), 400);
        assert_eq!(status(&put("Content-Length : 1\r\n", "a")), 400);
        assert_eq!(status(&put("X: a\r\n b\r\n", "")), 400);
        assert_eq!(status(b"GET /kvs/a b HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
    }

    #[test]
    fn everything_is_bounded() {
        assert_eq!(status(&put(&format!("Content-Length: {}\r\n", HTTP_BODY_BYTES_MAX + 1), "")), 413);
        assert_eq!(status(&put(&format!("Content-Length: {}\r\n", u128::MAX), "")), 413);
        assert_eq!(status(&vec![b'a'; HTTP_HEAD_BYTES_MAX + 1]), 431);
        assert_eq!(status(&put(&format!("X: {}\r\n", "x".repeat(HTTP_HEAD_BYTES_MAX)), "")), 431);
        assert_eq!(status(&put(&"X: y\r\n".repeat(HTTP_HEADERS_MAX), "")), 431);
        assert_eq!(fed(&vec![b'a'; HTTP_HEAD_BYTES_MAX]).next_request(), Ok(Parsed::More));
        assert_eq!(status(b"GET / HTTP/2.0\r\n\r\n"), 505);
        assert_eq!(status(b"\x16\x03\x01\n\n"), 400);
        assert_eq!(status(b"GET * HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
    }

    #[test]
    fn who_waits_for_a_word_gets_it_once() {
        let head = put("Content-Length: 3\r\nExpect: 100-continue\r\n", "");
        let mut parser = fed(&head);
        assert_eq!(parser.next_request(), Ok(Parsed::Expects));
        assert_eq!(parser.next_request(), Ok(Parsed::More));
        parser.feed(b"abc");
        assert!(matches!(parser.next_request(), Ok(Parsed::Whole(request)) if request.body == b"abc"));
        assert!(parser.is_idle());
        assert!(matches!(fed(&[&head[..], b"abc"].concat()).next_request(), Ok(Parsed::Whole(_))), "it did not wait");
        assert_eq!(status(&put("Expect: magic\r\n", "")), 417);
        let large = put(&format!("Content-Length: {}\r\nExpect: 100-continue\r\n", usize::MAX), "");
        assert_eq!(status(&large), 413, "before anything is sent");
    }

    #[test]
    fn what_is_pipelined_comes_one_by_one() {
        let one = put("Content-Length: 1\r\n", "x");
        let two = put("Transfer-Encoding: chunked\r\n", "1\r\ny\r\n0\r\n\r\n");
        let stream = [&one[..], &two, &one].concat();
        let bodies = |parser: &mut Parser| {
            std::iter::from_fn(|| match parser.next_request() {
                Ok(Parsed::Whole(request)) => Some(request.body[0]),
                Ok(_) => None,
                Err(e) => panic!("{e:?}"),
            })
            .collect::<Vec<u8>>()
        };
        assert_eq!(bodies(&mut fed(&stream)), b"xyx");
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        for byte in &stream {
            parser.feed(&[*byte]);
            found.extend(bodies(&mut parser));
        }
        assert_eq!(found, b"xyx");
        assert!(parser.is_idle() && parser.bytes() == 0);
    }

    quickcheck! {
        fn garbage_is_refused_or_waits(pieces: Vec<Vec<u8>>, cut: u8) -> bool {
            let sound = put("Transfer-Encoding: chunked\r\n", "1\r\nx\r\n");
            let stream = [&sound[usize::from(cut) % 60..], &pieces.concat()].concat();
            let mut parser = Parser::default();
            for piece in pieces.iter().map(Vec::as_slice).chain([&stream[..]]) {
                parser.feed(piece);
                while let Ok(Parsed::Whole(_) | Parsed::Expects) = parser.next_request() {}
            }
            true
        }
    }
}
