//! Completion for the shells, from the table of commands: `help --completion bash`. Each shell has a frame, a script of
//! its own with places like `@commands@`, which are filled in here. Labels are asked of the group.

use crate::cli::options::Known;
use crate::cli::table::{Command, COMMANDS, GLOBAL};

const BASH: &str = include_str!("frame.bash");
const ZSH: &str = include_str!("frame.zsh");
const FISH: &str = include_str!("frame.fish");
/// Operands beyond so many are not told apart: whatever may be repeated is the same up to there.
const OPERANDS_MAX: usize = 9;

/// What may stand in one place.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Kind {
    Label,
    File,
    Command,
    /// One of these words.
    Words(Vec<&'static str>),
    /// Nothing that could be guessed.
    Any,
}

impl Kind {
    /// By the name of the place in a synopsis: `LABEL`, `push|pop`, `items=N`.
    fn of(name: &'static str) -> Kind {
        match name {
            "LABEL" => Kind::Label,
            "FILE" | "OUT" => Kind::File,
            "COMMAND" => Kind::Command,
            name if name.starts_with(|c: char| c.is_ascii_lowercase()) => {
                let word = |word: &'static str| word.find('=').map_or(word, |end| &word[..=end]);
                Kind::Words(name.split('|').map(word).collect())
            }
            _ => Kind::Any,
        }
    }

    /// As the frame of bash knows it.
    fn bash(&self) -> String {
        match self {
            Kind::Label => "label".to_string(),
            Kind::File => "file".to_string(),
            Kind::Command => "command".to_string(),
            Kind::Words(words) => format!("={}", words.join(" ")),
            Kind::Any => "any".to_string(),
        }
    }

    /// The action of `_arguments` in zsh.
    fn zsh(&self) -> String {
        match self {
            Kind::Label => "_ftqc_labels".to_string(),
            Kind::File => "_files".to_string(),
            Kind::Command => "_ftqc_commands".to_string(),
            Kind::Words(words) => format!("({})", words.join(" ")),
            Kind::Any => " ".to_string(),
        }
    }

    /// What fish offers there, if anything.
    fn fish(&self) -> Option<String> {
        match self {
            Kind::Label => Some("(__ftqc_labels)".to_string()),
            Kind::File => Some("(__fish_complete_path (commandline -ct))".to_string()),
            Kind::Command => Some(names().collect::<Vec<_>>().join(" ")),
            Kind::Words(words) => Some(words.join(" ")),
            Kind::Any => None,
        }
    }
}

/// The places behind a command's name and options, in order, as its synopsis has them; and whether the last one may be
/// repeated. What follows `--` is another program's.
fn places(synopsis: &'static str) -> (Vec<(&'static str, Kind)>, bool) {
    let (mut places, mut repeats): (Vec<(&'static str, Kind)>, bool) = (Vec::new(), false);
    let (mut rest, mut optional_words) = (synopsis, 0);
    while let Some(start) = rest.find(|c: char| !c.is_whitespace()) {
        rest = &rest[start..];
        let end = if rest.starts_with('[') { rest.find(']').map(|at| at + 1) } else { rest.find(' ') };
        let (word, behind) = rest.split_at(end.unwrap_or(rest.len()));
        // `[ITEM...]` and `[ARG]...` alike.
        let (dots, behind) = behind.strip_prefix("...").map_or((false, behind), |behind| (true, behind));
        rest = behind;
        let inner = word.trim_start_matches('[').trim_end_matches(']');
        if inner == "--" {
            break;
        }
        if inner.starts_with('-') || inner == "OPTION..." {
            continue;
        }
        repeats = dots || inner.ends_with("...");
        let name = inner.trim_end_matches("...");
        places.push((name, Kind::of(name)));
        optional_words = if word.starts_with('[') { optional_words + 1 } else { 0 };
        match_any_order(&mut places, optional_words);
    }
    (places, repeats)
}

/// Optional words may come in any order: of the last so many places each takes what any of them does.
fn match_any_order(places: &mut [(&'static str, Kind)], count: usize) {
    let last = places.len() - count;
    let words = |kind: &Kind| if let Kind::Words(words) = kind { words.clone() } else { Vec::new() };
    let mut all: Vec<&'static str> = places[last..].iter().flat_map(|(_, kind)| words(kind)).collect();
    all.sort_unstable();
    all.dedup();
    for (_, kind) in &mut places[last..] {
        if matches!(kind, Kind::Words(_)) {
            *kind = Kind::Words(all.clone());
        }
    }
}

impl Command {
    /// The kinds of its operands by number from 1 on.
    fn operand_kinds(&self) -> Vec<(usize, &'static str, Kind)> {
        let (mut places, repeats) = places(self.synopsis);
        while let Some(last) = places.last().filter(|_| repeats && places.len() < OPERANDS_MAX).cloned() {
            places.push(last);
        }
        places.into_iter().enumerate().map(|(at, (name, kind))| (at + 1, name, kind)).collect()
    }

    fn own_options(&self) -> &'static [Known] {
        self.options.unwrap_or_default()
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|command| command.name)
}

/// Commands whose operands begin right behind the name.
fn bare() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().filter(|command| command.options.is_none()).map(|command| command.name)
}

/// `-s` and `--servers`.
fn forms(option: &Known) -> Vec<String> {
    let letter = (option.letter != 0).then(|| format!("-{}", char::from(option.letter)));
    let name = (!option.name.is_empty()).then(|| format!("--{}", option.name));
    [letter, name].into_iter().flatten().collect()
}

/// Fills in the places of a frame; the first line with a place that stands alone takes several lines.
fn fill(frame: &str, values: &[(&str, String)]) -> String {
    let filled = values.iter().fold(frame.to_string(), |text, (place, value)| text.replace(place, value));
    filled.trim_end().to_string()
}

fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

/// The script for a shell, if it is one of bash, zsh and fish.
pub fn script(shell: &[u8]) -> Option<String> {
    match shell {
        b"bash" => Some(bash()),
        b"zsh" => Some(zsh()),
        b"fish" => Some(fish()),
        _ => None,
    }
}

// ---- bash

fn bash() -> String {
    let options = |options: &[Known]| {
        let one = |option: &Known| {
            let equals =
                |form: String| if form.starts_with("--") && !option.value.is_empty() { form + "=" } else { form };
            forms(option).into_iter().map(equals).collect::<Vec<_>>().join(" ")
        };
        options.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    let own = COMMANDS.iter().filter(|command| !command.own_options().is_empty());
    let own = own.map(|command| format!("    {}) echo '{}' ;;", command.name, options(command.own_options())));
    let operands = COMMANDS.iter().flat_map(|command| {
        let told = command.operand_kinds().into_iter().filter(|(_, _, kind)| *kind != Kind::Any);
        told.map(|(number, _, kind)| format!("    {}:{number}) echo '{}' ;;", command.name, kind.bash()))
    });
    fill(
        BASH,
        &[
            (
                "@values@",
                lines(valued().map(|(at, kind)| format!("    {}) echo '{}' ;;", at.join(" | "), kind.bash()))),
            ),
            ("@options@", lines(own)),
            ("@globals@", options(GLOBAL)),
            ("@operands@", lines(operands)),
            ("@commands@", names().collect::<Vec<_>>().join(" ")),
            ("@bare@", bare().collect::<Vec<_>>().join(" | ")),
        ],
    )
}

/// The options that take a value, as patterns `COMMAND:OPTION`, and what the value may be.
fn valued() -> impl Iterator<Item = (Vec<String>, Kind)> {
    let of = |command: &'static str, options: &'static [Known]| {
        let valued = options.iter().filter(|option| !option.value.is_empty());
        valued.map(move |option| {
            let at = forms(option).into_iter().map(|form| format!("{command}:{form}")).collect();
            (at, Kind::of(option.value))
        })
    };
    let own = COMMANDS.iter().flat_map(move |command| of(command.name, command.own_options()));
    own.chain(of("*", GLOBAL))
}

// ---- zsh

/// In single quotes, for `_arguments` or `_describe`.
fn zsh_text(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| {
        let escape = matches!(c, '[' | ']' | ':' | '\\').then_some('\\');
        escape.into_iter().chain([c])
    });
    escaped.collect::<String>().replace('\'', "'\\''")
}

/// An option as `_arguments` has it.
fn zsh_option(option: &Known) -> String {
    let takes = !option.value.is_empty();
    let (letter, equals) = if takes { ("+", "=") } else { ("", "") };
    let marked = |form: &String| if form.starts_with("--") { form.clone() + equals } else { form.clone() + letter };
    let summary = zsh_text(option.summary);
    let value = match takes {
        true => format!(":{}:{}", zsh_text(option.value), Kind::of(option.value).zsh()),
        false => String::new(),
    };
    match &forms(option)[..] {
        [one] => format!("'{}[{summary}]{value}'", marked(one)),
        both => {
            let marked: Vec<String> = both.iter().map(marked).collect();
            format!("'({})'{{{}}}'[{summary}]{value}'", both.join(" "), marked.join(","))
        }
    }
}

fn zsh() -> String {
    let commands = COMMANDS.iter().map(|command| format!("        '{}:{}'", command.name, zsh_text(command.summary)));
    let globals = GLOBAL.iter().map(|option| format!("        {}", zsh_option(option)));
    let operands = COMMANDS.iter().map(|command| {
        let places = command.operand_kinds().into_iter();
        let places = places.map(|(number, name, kind)| format!("'{number}::{}:{}'", zsh_text(name), kind.zsh()));
        let own = command.own_options().iter().map(zsh_option);
        let words: Vec<String> = own.chain(places).collect();
        let globals = if command.options.is_some() { " $ftqc_globals" } else { "" };
        format!("    {})\n        _arguments -S -A '-*'{globals} \\\n            {}\n        ;;", command.name, {
            let none = "'*: : '".to_string();
            if words.is_empty() {
                none
            } else {
                words.join(" \\\n            ")
            }
        })
    });
    let values = [("@commands@", lines(commands)), ("@globals@", lines(globals)), ("@operands@", lines(operands))];
    fill(ZSH, &values)
}

// ---- fish

fn fish_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// An option, offered under this condition.
fn fish_option(option: &Known, condition: &str) -> String {
    let mut line = format!("complete -c ftqc -n {}", fish_text(condition));
    if option.letter != 0 {
        line += &format!(" -s {}", char::from(option.letter));
    }
    if !option.name.is_empty() {
        line += &format!(" -l {}", option.name);
    }
    if !option.value.is_empty() {
        line += " -x";
        if let Some(offer) = Kind::of(option.value).fish() {
            line += &format!(" -a {}", fish_text(&offer));
        }
    }
    format!("{line} -d {}", fish_text(option.summary))
}

fn fish() -> String {
    let bare = bare().collect::<Vec<_>>().join(" ");
    let globals = GLOBAL.iter().map(|option| fish_option(option, "__ftqc_options"));
    let commands = COMMANDS.iter().flat_map(|command| {
        let first =
            format!("complete -c ftqc -n '__ftqc_at \"\" 1' -a {} -d {}", command.name, fish_text(command.summary));
        let behind = format!("__ftqc_options {}", command.name);
        let options = command.own_options().iter().map(move |option| fish_option(option, &behind));
        let operands = command.operand_kinds().into_iter().filter_map(|(number, name, kind)| {
            let offer = kind.fish()?;
            let condition = format!("__ftqc_at {} {number}", command.name);
            Some(format!("complete -c ftqc -n '{condition}' -a {} -d {}", fish_text(&offer), fish_text(name)))
        });
        std::iter::once(first).chain(options).chain(operands).collect::<Vec<_>>()
    });
    let values = valued().flat_map(|(at, _)| at).map(|at| fish_text(&at)).collect::<Vec<_>>().join(" ");
    fill(FISH, &[("@values@", values), ("@bare@", bare), ("@lines@", lines(globals.chain(commands)))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synopsis_tells_what_may_stand_where() {
        let kinds = |synopsis| places(synopsis).0.into_iter().map(|(_, kind)| kind).collect::<Vec<_>>();
        assert_eq!(kinds("[-n COUNT] [-w] [--wait=SECS] LABEL"), [Kind::Label]);
        assert_eq!(kinds("[OPTION...] LABEL [ITEM...]"), [Kind::Label, Kind::Any]);
        assert!(places("[OPTION...] LABEL [ITEM...]").1);
        let limits = Kind::Words(vec!["bytes=", "items="]);
        assert_eq!(kinds("LABEL [items=N] [bytes=N]"), [Kind::Label, limits.clone(), limits]);
        assert_eq!(kinds("end FILE"), [Kind::Words(vec!["end"]), Kind::File]);
        assert_eq!(kinds("[-j N] LABEL -- CMD [ARG...]"), [Kind::Label]);
        assert_eq!(kinds("[OPTION...] [push|pop]"), [Kind::Words(vec!["pop", "push"])]);
        assert_eq!(kinds(""), []);
    }

    #[test]
    fn every_place_is_filled_in() {
        for shell in ["bash", "zsh", "fish"] {
            let text = script(shell.as_bytes()).expect("a shell we know");
            for command in COMMANDS {
                assert!(text.contains(command.name), "{shell} lacks {}", command.name);
                for option in command.own_options() {
                    let form = if option.name.is_empty() {
                        char::from(option.letter).to_string()
                    } else {
                        option.name.to_string()
                    };
                    assert!(text.contains(&form), "{shell} lacks {form}");
                }
            }
            for place in ["values", "options", "globals", "operands", "commands", "bare", "lines"] {
                assert!(!text.contains(&format!("@{place}@")), "{shell} has @{place}@");
            }
        }
        assert_eq!(script(b"csh"), None);
    }
}
