//! Options on a command line of bytes: `-n 5`, `-n5`, `-ej`, `--wait=5`, `--wait 5`; `--` or the first operand ends
//! them, so that an operand may begin with a dash.

/// One option that a command knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// Its letter, or 0.
    pub letter: u8,
    /// Its name without dashes, or "".
    pub name: &'static str,
    /// What its value is called; "" if it takes none.
    pub value: &'static str,
    pub summary: &'static str,
}

impl Known {
    /// `-n COUNT`, `-s, --servers LIST`
    pub fn synopsis(&self) -> String {
        let letter = (self.letter != 0).then(|| format!("-{}", char::from(self.letter)));
        let name = (!self.name.is_empty()).then(|| format!("--{}", self.name));
        let both: Vec<String> = [letter, name].into_iter().flatten().collect();
        format!("{} {}", both.join(", "), self.value).trim_end().to_string()
    }
}

/// One option as it was given, and its value (empty if it takes none).
pub type Given<'a> = (Known, &'a [u8]);

/// Reads the options in front of the operands; returns them and how many words they take, `--` included.
/// Errors say which is unknown or lacks its value.
pub fn scan<'a>(words: &'a [Vec<u8>], known: &[Known]) -> Result<(Vec<Given<'a>>, usize), String> {
    let mut given = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        at += 1;
        match word.as_slice() {
            b"--" => return Ok((given, at)),
            [b'-', b'-', long @ ..] => {
                let (name, value) = match long.iter().position(|&byte| byte == b'=') {
                    Some(end) => (&long[..end], Some(&long[end + 1..])),
                    None => (long, None),
                };
                let found = known.iter().find(|k| !k.name.is_empty() && k.name.as_bytes() == name);
                let option = *found.ok_or_else(|| unknown(&word[..name.len() + 2]))?;
                match (option.value.is_empty(), value) {
                    (true, Some(_)) => return Err(format!("option --{} takes no value", option.name)),
                    (true, None) => given.push((option, &[][..])),
                    (false, Some(value)) => given.push((option, value)),
                    (false, None) => given.push((option, next(words, &mut at, option)?)),
                }
            }
            [b'-', letters @ ..] if !letters.is_empty() => {
                for (k, &letter) in letters.iter().enumerate() {
                    let found = known.iter().find(|k| k.letter == letter && letter != 0);
                    let option = *found.ok_or_else(|| unknown(&[b'-', letter]))?;
                    if option.value.is_empty() {
                        given.push((option, &[][..]));
                        continue;
                    }
                    let rest = &letters[k + 1..];
                    given.push((option, if rest.is_empty() { next(words, &mut at, option)? } else { rest }));
                    break;
                }
            }
            _ => return Ok((given, at - 1)),
        }
    }
    Ok((given, at))
}

/// Whether the value of the last option in this word stands in the next one.
pub fn lacks_value(word: &[u8], known: &[Known]) -> bool {
    let is_last = |option: &&Known| match word {
        [b'-', b'-', name @ ..] => !option.name.is_empty() && option.name.as_bytes() == name,
        [b'-', letters @ ..] => option.letter != 0 && letters.last() == Some(&option.letter),
        _ => false,
    };
    known.iter().find(is_last).is_some_and(|option| !option.value.is_empty())
}

fn next<'a>(words: &'a [Vec<u8>], at: &mut usize, option: Known) -> Result<&'a [u8], String> {
    let value = words.get(*at).ok_or_else(|| format!("option {} lacks its value", option.synopsis()))?;
    *at += 1;
    Ok(value)
}

fn unknown(word: &[u8]) -> String {
    format!("unknown option '{}'", String::from_utf8_lossy(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Known] = &[
        Known { letter: b'n', name: "", value: "COUNT", summary: "" },
        Known { letter: b'v', name: "verbose", value: "", summary: "" },
        Known { letter: 0, name: "wait", value: "SECS", summary: "" },
    ];

    fn scanned(line: &str) -> Result<(String, usize), String> {
        let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        let (given, taken) = scan(&words, KNOWN)?;
        let one = |(option, value): &Given<'_>| format!("{}:{}", option.synopsis(), String::from_utf8_lossy(value));
        Ok((given.iter().map(one).collect::<Vec<_>>().join(";"), taken))
    }

    #[test]
    fn options_end_at_the_first_operand() {
        assert_eq!(scanned("-n 5 jobs -v"), Ok(("-n COUNT:5".into(), 2)));
        assert_eq!(scanned("-vn5 -- -5"), Ok(("-v, --verbose:;-n COUNT:5".into(), 2)));
        assert_eq!(
            scanned("--wait=3 --wait 4 --verbose"),
            Ok(("--wait SECS:3;--wait SECS:4;-v, --verbose:".into(), 4))
        );
        assert_eq!(scanned("- x"), Ok((String::new(), 0)));
        for (word, lacks) in
            [("-n", true), ("-vn", true), ("--wait", true), ("-v", false), ("-n5", false), ("n", false)]
        {
            assert_eq!(lacks_value(word.as_bytes(), KNOWN), lacks, "{word}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, why) in [
            ("-x", "unknown option '-x'"),
            ("--nope=1", "unknown option '--nope'"),
            ("-n", "option -n COUNT lacks its value"),
            ("--verbose=1", "option --verbose takes no value"),
        ] {
            assert_eq!(scanned(line), Err(why.to_string()));
        }
    }
}
