//! JSON as text (RFC 8259): whether it is well formed, and the members of an object as they were sent, so that numbers
//! of any size come back digit for digit. What a service accepts must not hang on a library's version: two replicas
//! of different releases have to judge alike.

use std::fmt;

/// What is wrong, and at which byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JsonError {
    pub at: usize,
    pub what: &'static str,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not JSON: {} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for JsonError {}

/// The one value in `text`, the blanks around it taken off. Errors if there is none, something else beside it, or
/// arrays and objects within each other more than `depth_max` deep.
pub fn value(text: &[u8], depth_max: usize) -> Result<&str, JsonError> {
    let mut scan = Scan::new(text);
    scan.blanks();
    let start = scan.at;
    scan.value(depth_max)?;
    let end = scan.at;
    scan.end()?;
    std::str::from_utf8(&text[start..end]).map_err(|e| JsonError { at: start + e.valid_up_to(), what: "not UTF-8" })
}

/// The members of the object in `text`: names as they were sent, with their quotes and escapes, and values. Errors as
/// [`value`] does, and where there is no object.
pub fn members(text: &str, depth_max: usize) -> Result<Vec<(&str, &str)>, JsonError> {
    let mut scan = Scan::new(text.as_bytes());
    let mut members = Vec::new();
    scan.blanks();
    if scan.peek() != Some(b'{') {
        return Err(scan.error("no object"));
    }
    let depth_max = depth_max.checked_sub(1).ok_or_else(|| scan.error("nested too deeply"))?;
    scan.object(|scan| {
        let start = scan.at;
        scan.string()?;
        let name = &text[start..scan.at];
        scan.colon()?;
        let start = scan.at;
        scan.value(depth_max)?;
        members.push((name, &text[start..scan.at]));
        Ok(())
    })?;
    scan.end()?;
    Ok(members)
}

/// Reads on from a place, which never stands inside a character of UTF-8 where it says something of it.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

type Scanned = Result<(), JsonError>;

impl<'a> Scan<'a> {
    fn new(text: &'a [u8]) -> Scan<'a> {
        Scan { text, at: 0 }
    }

    fn error(&self, what: &'static str) -> JsonError {
        JsonError { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Scanned {
        self.blanks();
        if self.at == self.text.len() {
            Ok(())
        } else {
            Err(self.error("more than one value"))
        }
    }

    /// One value without recursion; what is open is kept as a list of brackets.
    fn value(&mut self, depth_max: usize) -> Scanned {
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    if open.len() == depth_max {
                        return Err(self.error("nested too deeply"));
                    }
                    self.at += 1;
                    self.blanks();
                    let close = if bracket == b'{' { b'}' } else { b']' };
                    if self.peek() == Some(close) {
                        self.at += 1;
                    } else {
                        open.push(close);
                        self.name_if_in_object(close)?;
                        continue;
                    }
                }
                _ => self.scalar()?,
            }
            // A value has ended, and with it perhaps what it stands in.
            loop {
                let Some(&close) = open.last() else { return Ok(()) };
                self.blanks();
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.blanks();
                        self.name_if_in_object(close)?;
                        break;
                    }
                    Some(byte) if byte == close => {
                        self.at += 1;
                        open.pop();
                    }
                    None => return Err(self.error("it ends too early")),
                    Some(_) => return Err(self.error("no comma and no closing bracket")),
                }
            }
        }
    }

    fn name_if_in_object(&mut self, close: u8) -> Scanned {
        if close != b'}' {
            return Ok(());
        }
        self.string()?;
        self.colon()
    }

    fn colon(&mut self) -> Scanned {
        self.blanks();
        if self.peek() != Some(b':') {
            return Err(self.error("no colon"));
        }
        self.at += 1;
        self.blanks();
        Ok(())
    }

    /// An object, each member read by `member`, which begins at the name.
    fn object(&mut self, mut member: impl FnMut(&mut Scan<'a>) -> Scanned) -> Scanned {
        self.at += 1;
        self.blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            member(self)?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                None => return Err(self.error("it ends too early")),
                Some(_) => return Err(self.error("no comma and no closing bracket")),
            }
            self.blanks();
        }
    }

    fn scalar(&mut self) -> Scanned {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            None => Err(self.error("it ends too early")),
            Some(_) => {
                let rest = &self.text[self.at..];
                let word = ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word.as_bytes()));
                self.at += word.ok_or_else(|| self.error("no value"))?.len();
                Ok(())
            }
        }
    }

    fn string(&mut self) -> Scanned {
        if self.peek() != Some(b'"') {
            return Err(self.error("no name in quotes"));
        }
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(self.error("it ends too early")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(0..=0x1f) => return Err(self.error("a control character in a string")),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Scanned {
        let hex = |from: usize| self.text.get(from..from + 4).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit));
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') if hex(self.at + 2) => self.at += 6,
            _ => return Err(self.error("an unknown escape")),
        }
        Ok(())
    }

    fn digits(&mut self) -> Scanned {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.error("no digit"));
        }
        Ok(())
    }

    fn number(&mut self) -> Scanned {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.error("a digit behind a leading 0"));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    const DEPTH: usize = 16;

    #[test]
    fn a_value_is_kept_as_it_was_sent() {
        for text in [
            "null",
            "-0",
            "123456789012345678901234567890",
            "1.50e+0400",
            "\"a\\u00e4\\\"\\/ \u{fc}\"",
            "[]",
            "{}",
            "[1, [2,{\"a\" : {}}] ,\n3]",
            "{\"a\":1,\"a\":2}",
        ] {
            assert_eq!(value(format!(" \n{text}\t").as_bytes(), DEPTH), Ok(text));
        }
    }

    #[test]
    fn what_is_no_json_is_refused_with_the_place() {
        for (text, at) in [
            ("", 0),
            ("  ", 2),
            ("nul", 0),
            ("01", 1),
            ("-", 1),
            ("1.", 2),
            ("1e", 2),
            ("+1", 0),
            (".5", 0),
            ("NaN", 0),
            ("'a'", 0),
            ("\"a", 2),
            ("\"\\x\"", 1),
            ("\"\\u12g4\"", 1),
            ("\"\n\"", 1),
            ("[1,]", 3),
            ("[1 2]", 3),
            ("[1}", 2),
            ("{1:2}", 1),
            ("{\"a\"}", 4),
            ("{\"a\":}", 5),
            ("{\"a\":1,}", 7),
            ("[", 1),
            ("1 2", 2),
            ("}", 0),
        ] {
            assert_eq!(value(text.as_bytes(), DEPTH).expect_err(text).at, at, "{text}");
        }
        assert_eq!(value(b"\"\xff\"", DEPTH).expect_err("bytes").what, "not UTF-8");
    }

    #[test]
    fn depth_is_bounded_without_a_stack() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(value(nested(DEPTH).as_bytes(), DEPTH).is_ok());
        assert_eq!(value(nested(DEPTH + 1).as_bytes(), DEPTH).expect_err("deep").what, "nested too deeply");
        assert!(value("[".repeat(1 << 20).as_bytes(), DEPTH).is_err());
        assert!(value(nested(1 << 16).as_bytes(), usize::MAX).is_ok());
        assert!(members("{\"a\":[]}", 1).is_err() && members("{\"a\":[]}", 2).is_ok());
    }

    #[test]
    fn members_come_in_their_order() {
        let found = members(" {\"b\" : 1 , \"\\u0061\":{\"x\":[2]}} ", DEPTH);
        assert_eq!(found, Ok(vec![("\"b\"", "1"), ("\"\\u0061\"", "{\"x\":[2]}")]));
        assert_eq!(members("{}", DEPTH), Ok(Vec::new()));
        assert_eq!(members("[]", DEPTH).expect_err("an array").what, "no object");
        for bad in ["{", "{\"a\":1", "{\"a\":1,}", "{} {}", "{a:1}"] {
            assert!(members(bad, DEPTH).is_err(), "{bad}");
        }
    }

    quickcheck! {
        /// The same verdict as a library that is held in high esteem, whatever is thrown at both; but that reads
        /// numbers, and none that is too large for it.
        fn others_judge_alike(picks: Vec<u8>) -> bool {
            let text = pieced(&picks);
            match (value(text.as_bytes(), 200), serde_json::from_str::<serde_json::Value>(&text)) {
                (Ok(_), Err(e)) => e.to_string().contains("out of range"),
                (own, theirs) => own.is_ok() == theirs.is_ok(),
            }
        }

        /// There are members where there is a value that is an object, and nowhere else.
        fn members_are_those_of_a_value(picks: Vec<u8>) -> bool {
            let text = pieced(&picks);
            let texts = [text.clone(), format!("{{{text}}}"), format!("{{\"a\":{text}}}")];
            texts.iter().all(|text| object_judged_alike(text))
        }

        fn garbage_is_an_object_for_both_or_for_none(bytes: Vec<u8>) -> bool {
            let is_value = value(&bytes, DEPTH).is_ok();
            std::str::from_utf8(&bytes).map_or(!is_value, object_judged_alike)
        }
    }

    fn pieced(picks: &[u8]) -> String {
        const PIECES: [&str; 20] = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"",
            "1",
            "0",
            "-",
            ".5",
            "e3",
            "true",
            "null",
            " ",
            "\\n",
            "\"\\u0041\"",
            "\n",
            "tru",
        ];
        picks.iter().map(|&p| PIECES[usize::from(p) % PIECES.len()]).collect()
    }

    fn object_judged_alike(text: &str) -> bool {
        let is_object = value(text.as_bytes(), DEPTH).is_ok_and(|value| value.starts_with('{'));
        match members(text, DEPTH) {
            Ok(found) => is_object && found.iter().all(|(name, held)| is_value(name) && is_value(held)),
            Err(_) => !is_object,
        }
    }

    fn is_value(text: &str) -> bool {
        value(text.as_bytes(), DEPTH) == Ok(text)
    }
}
