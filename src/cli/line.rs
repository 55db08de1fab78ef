//! The line protocol both ways: how a command line falls into words, and how an item stands in a line.
//!
//! What is printed by [`escape`] is read back by [`unescape`], byte for byte.

use crate::client::Error;

/// Appends the item as it stands in a line: `\\`, `\n`, `\r`, `\0`, `\xHH` for other control bytes but TAB, and a
/// leading `!` as `\!`.
pub fn escape(item: &[u8], out: &mut Vec<u8>) {
    if item.first() == Some(&b'!') {
        out.push(b'\\');
    }
    let mut rest = item;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\' || byte != b'\t' && byte.is_ascii_control()) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0 => out.extend_from_slice(b"\\0"),
            byte => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// The item that stands so in a line. An escape that [`escape`] never writes is a bad request, but `\xHH` may stand
/// for any byte and `\!` anywhere.
pub fn unescape(text: &[u8]) -> Result<Vec<u8>, Error> {
    let mut item = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        item.extend_from_slice(&rest[..at]);
        let (byte, length) = match rest[at + 1..] {
            [b'\\', ..] => (b'\\', 2),
            [b'n', ..] => (b'\n', 2),
            [b'r', ..] => (b'\r', 2),
            [b'0', ..] => (0, 2),
            [b'!', ..] => (b'!', 2),
            [b'x', high, low, ..] if hex(high).is_some() && hex(low).is_some() => {
                (hex(high).unwrap_or(0) << 4 | hex(low).unwrap_or(0), 4)
            }
            _ => {
                let shown = String::from_utf8_lossy(&rest[at..rest.len().min(at + 4)]).into_owned();
                return Err(Error::bad_request(format!("unknown escape at {shown:?}")));
            }
        };
        item.push(byte);
        rest = &rest[at + length..];
    }
    item.extend_from_slice(rest);
    Ok(item)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Whether there is nothing but blanks.
pub fn is_blank_line(line: &[u8]) -> bool {
    line.iter().all(|&byte| is_blank(byte))
}

/// The first word and what follows it, behind the one blank that ends it; `None` for what follows if none does.
pub fn split_word(line: &[u8]) -> (&[u8], Option<&[u8]>) {
    let start = line.iter().position(|&byte| !is_blank(byte)).unwrap_or(line.len());
    let line = &line[start..];
    match line.iter().position(|&byte| is_blank(byte)) {
        Some(end) => (&line[..end], Some(&line[end + 1..])),
        None => (line, None),
    }
}

/// All words of a line.
pub fn words(line: &[u8]) -> Vec<Vec<u8>> {
    line.split(|&byte| is_blank(byte)).filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect()
}

/// A message for people on one line, and no longer than that.
pub fn one_line(message: &str) -> String {
    const LONGEST: usize = 1000;
    let shown = message.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c });
    let mut shown: String = shown.collect();
    if message.chars().nth(LONGEST).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn escaped(item: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        escape(item, &mut line);
        line
    }

    quickcheck! {
        fn what_is_printed_is_read_back(item: Vec<u8>) -> bool {
            let line = escaped(&item);
            let one_line = !line.iter().any(|&byte| byte != b'\t' && byte.is_ascii_control());
            one_line && line.first() != Some(&b'!') && unescape(&line) == Ok(item)
        }

        fn whatever_is_read_is_an_item_or_a_bad_request(line: Vec<u8>) -> bool {
            match unescape(&line) {
                Ok(item) => unescape(&escaped(&item)) == Ok(item),
                Err(e) => e.exit_status() == 65,
            }
        }
    }

    #[test]
    fn escapes_are_those_of_the_contract() {
        assert_eq!(escaped(b"a\\b\nc\rd\0e\x01\x7f\tf"), b"a\\\\b\\nc\\rd\\0e\\x01\\x7f\tf");
        assert_eq!(escaped(b"!x!"), b"\\!x!");
        assert_eq!(escaped("gr\u{fc}n \u{85}".as_bytes()), "gr\u{fc}n \u{85}".as_bytes());
        assert_eq!(unescape(b"\\x41\\x0A\\!"), Ok(b"A\n!".to_vec()));
        for bad in [&b"\\"[..], b"\\t", b"\\x", b"\\x4", b"\\xg0", b"a\\"] {
            assert!(unescape(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn words_end_at_one_blank() {
        assert_eq!(split_word(b"  qPush 1  a b"), (&b"qPush"[..], Some(&b"1  a b"[..])));
        assert_eq!(split_word(b"1  a b"), (&b"1"[..], Some(&b" a b"[..])));
        assert_eq!(split_word(b"1 "), (&b"1"[..], Some(&b""[..])));
        assert_eq!(split_word(b"1"), (&b"1"[..], None));
        assert_eq!(words(b" a\t b "), [b"a".to_vec(), b"b".to_vec()]);
        assert!(is_blank_line(b" \t") && !is_blank_line(b" x"));
    }
}
