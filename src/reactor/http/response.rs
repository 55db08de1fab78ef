//! What is answered: a status, a body, and what of them goes into the head.

use serde_json::{json, Value};

pub const JSON: &str = "application/json";
pub const TEXT: &str = "text/plain; charset=utf-8";
/// Prometheus' own text format.
pub const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// What a client that waits for a word is told.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    pub status: u16,
    pub kind: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn new(status: u16, kind: &'static str, body: impl Into<Vec<u8>>) -> Response {
        Response { status, kind, headers: Vec::new(), body: body.into() }
    }

    pub fn json(status: u16, value: &Value) -> Response {
        Response::new(status, JSON, format!("{value}\n"))
    }

    /// `{"error": text}`; what is refused for now may be tried again after a second.
    pub fn error(status: u16, why: &str) -> Response {
        let response = Response::json(status, &json!({ "error": why }));
        if status == 503 {
            return response.with("Retry-After", "1".into());
        }
        response
    }

    pub fn with(mut self, name: &'static str, value: String) -> Response {
        self.headers.push((name, value));
        self
    }

    /// Appends the answer; without the body where the request was HEAD.
    pub fn print(&self, keeps: bool, is_head: bool, out: &mut Vec<u8>) {
        let Response { status, kind, headers, body } = self;
        let connection = if keeps { "keep-alive" } else { "close" };
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             Connection: {connection}\r\n",
            phrase(*status),
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        for (name, value) in headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if !is_head {
            out.extend_from_slice(body);
        }
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(response: &Response, keeps: bool, is_head: bool) -> String {
        let mut out = Vec::new();
        response.print(keeps, is_head, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn an_answer_has_its_length_and_its_kind() {
        let response = Response::json(200, &json!({"a": 1})).with("ETag", "\"7\"".into());
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\
                        Cache-Control: no-store\r\nConnection: keep-alive\r\nETag: \"7\"\r\n\r\n{\"a\":1}\n";
        assert_eq!(printed(&response, true, false), expected);
        assert_eq!(printed(&response, true, true), expected.strip_suffix("{\"a\":1}\n").expect("the body"));
        assert!(printed(&response, false, false).contains("Connection: close\r\n"));
    }

    #[test]
    fn what_may_be_tried_again_says_when() {
        let error = Response::error(503, "not \"primary\"");
        assert_eq!(error.body, b"{\"error\":\"not \\\"primary\\\"\"}\n");
        assert_eq!(error.headers, [("Retry-After", "1".to_owned())]);
        assert!(Response::error(404, "no").headers.is_empty());
    }
}
