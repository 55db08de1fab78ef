//! The prompt: commands from a person at a terminal, one at a time, with line editing, a history and names completed
//! by TAB. What they come to is decided as in [`super::pipe`].

use crate::cli::line::is_blank_line;
use crate::cli::output::{complain, Output};
use crate::cli::pipe::{is_comment, Understand};
use crate::cli::table::Flow;
use crate::client::Session;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};
use std::io::{self, IsTerminal};

const PROMPT: &str = "ftq> ";
const INTERRUPTED: u8 = 128 + libc::SIGINT as u8;

/// Whether there is a person on the other side.
pub fn is_wanted() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Obeys commands until the person has no more of them. TAB completes these names.
pub fn run(session: &mut Session, out: &mut Output, stale: bool, understand: Understand<'_>, names: Vec<String>) {
    run_as(PROMPT, session, out, stale, understand, names);
}

/// The same under another prompt.
pub fn run_as(
    prompt: &str,
    session: &mut Session,
    out: &mut Output,
    stale: bool,
    understand: Understand<'_>,
    names: Vec<String>,
) {
    // Several lines that are pasted are several commands.
    let config = Config::builder().bracketed_paste(false).build();
    let mut editor = match Editor::<Names, MemHistory>::with_history(config, MemHistory::new()) {
        Ok(editor) => editor,
        Err(e) => return fail(out, &e),
    };
    editor.set_helper(Some(Names(names)));
    loop {
        let line = match editor.readline(prompt) {
            Ok(line) => line,
            Err(ReadlineError::Eof) => return,
            Err(ReadlineError::Interrupted) => return out.note_status(INTERRUPTED),
            Err(e) => return fail(out, &e),
        };
        if is_blank_line(line.as_bytes()) || is_comment(line.as_bytes()) {
            continue;
        }
        // A history that does not take a line is nothing to stop for.
        let _ = editor.add_history_entry(line.as_str());
        if matches!(line.trim(), "quit" | "exit") {
            return;
        }
        let flow = match understand(line.as_bytes(), out.style, stale) {
            Ok((plan, style)) => plan.carry_out(session, out, style),
            Err(refusal) => {
                out.error(&refusal.into_error());
                Flow::Goes
            }
        };
        out.flush();
        if flow == Flow::Ends {
            return;
        }
    }
}

fn fail(out: &mut Output, e: &ReadlineError) {
    complain(&format!("terminal: {e}"));
    out.note_status(74);
}

/// The names of commands.
struct Names(Vec<String>);

impl Names {
    /// Where the word before the cursor begins, and the names that begin with it; none but for a line's first word.
    fn beginning_with(&self, before: &str) -> (usize, Vec<String>) {
        let start = before.len() - before.trim_start().len();
        let word = &before[start..];
        let fits = |name: &&String| !word.contains(char::is_whitespace) && name.starts_with(word);
        (start, self.0.iter().filter(fits).map(|name| format!("{name} ")).collect())
    }
}

impl Completer for Names {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.beginning_with(&line[..at]))
    }
}

impl Hinter for Names {
    type Hint = String;
}

impl Highlighter for Names {}
impl Validator for Names {}
impl Helper for Names {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_completed() {
        let names = Names(["push", "purge", "pop"].map(str::to_string).to_vec());
        let found = |before: &str| names.beginning_with(before).1.join("");
        assert_eq!(found("pu"), "push purge ");
        assert_eq!(names.beginning_with("  pop"), (2, vec!["pop ".to_string()]));
        assert_eq!(found(""), "push purge pop ");
        assert_eq!(found("push pu"), "");
        assert_eq!(found("x"), "");
    }
}
