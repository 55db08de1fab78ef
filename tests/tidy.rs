//! The style is a test: what reviewers would otherwise say again and again. Every complaint names file and line.

use std::fs;
use std::path::{Path, PathBuf};

const COLUMNS_MAX: usize = 120;
const FUNCTION_LINES_MAX: usize = 70;
/// Lines before a file's own tests.
const FILE_LINES_MAX: usize = 600;
const MODULE_DOC_LINES_MAX: usize = 12;

/// What decides has no clock, socket, file, thread or order of its own (DESIGN section 2).
const PURE: &[&str] = &[
    "src/types.rs",
    "src/limits.rs",
    "src/rng.rs",
    "src/wire/",
    "src/log/",
    "src/group/",
    "src/replica/",
    "src/service/",
];
const IMPURE: &[&str] = &[
    "std::time",
    "std::fs",
    "std::thread",
    "std::env",
    "std::process",
    "std::os",
    "std::io",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "HashMap",
    "HashSet",
    "RandomState",
    "Instant",
    "SystemTime",
    "Mutex",
    "RwLock",
    "Atomic",
    "thread_local!",
    "static mut",
    "libc::",
    "mio::",
    "println!",
    "eprintln!",
    "crate::reactor",
    "crate::client",
    "crate::cli",
];

/// Put together here, so that this file does not complain of itself.
fn unfinished() -> Vec<String> {
    [("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("todo", "!("), ("unimplemented", "!("), ("dbg", "!(")]
        .map(|(a, b)| format!("{a}{b}"))
        .to_vec()
}

struct Source {
    /// Relative to the crate's root.
    path: String,
    text: String,
}

impl Source {
    /// The lines before the file's own tests.
    fn before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.text).take_while(|(_, line)| *line != "#[cfg(test)]")
    }
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn collect(directory: &Path, root: &Path, sources: &mut Vec<Source>) {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("a readable directory").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, root, sources);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let path = path.strip_prefix(root).expect("below the root").to_str().expect("our names are text");
            sources.push(Source { path: path.to_owned(), text });
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    collect(&root.join("src"), root, &mut sources);
    collect(&root.join("tests"), root, &mut sources);
    assert!(sources.len() > 20, "this crate has more files than {}", sources.len());
    sources
}

/// Fails with all complaints at once.
fn complain(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// A line without its comment and without its strings' contents, roughly: enough to look for names.
fn code_of(line: &str) -> &str {
    line.split("//").next().expect("a split has a first part")
}

#[test]
fn lines_fit() {
    let mut complaints = Vec::new();
    for source in sources() {
        for (number, line) in numbered(&source.text) {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                complaints.push(format!("{}:{number}: {columns} columns", source.path));
            }
            if line != line.trim_end() || line.contains('\t') {
                complaints.push(format!("{}:{number}: white space at the end, or a tab", source.path));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn nothing_is_left_for_later() {
    let (mut complaints, words) = (Vec::new(), unfinished());
    for source in sources() {
        for (number, line) in numbered(&source.text) {
            for word in words.iter().filter(|w| line.contains(w.as_str())) {
                complaints.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    complain(&complaints);
}

/// What is asserted holds in every build: the simulator runs in one without debug assertions, as users do.
#[test]
fn assertions_hold_in_every_build() {
    let (mut complaints, name) = (Vec::new(), format!("{}_assert", "debug"));
    for source in sources() {
        for (number, line) in numbered(&source.text) {
            if line.contains(&name) {
                complaints.push(format!("{}:{number}: an assertion of debug builds only", source.path));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn pure_modules_are_pure() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|s| PURE.iter().any(|p| s.path.starts_with(p))) {
        // Whole files may be tests; the switch of the broken variants is never part of a release.
        if source.path.ends_with("/tests.rs") || source.path == "src/broken.rs" {
            continue;
        }
        for (number, line) in source.before_tests() {
            for name in IMPURE.iter().filter(|n| code_of(line).contains(*n)) {
                complaints.push(format!("{}:{number}: {name} in a pure module", source.path));
            }
        }
    }
    complain(&complaints);
}

/// Dependencies point one way: bin, reactor, replica, then group, service and log, then wire.
#[test]
fn group_knows_no_queues_and_services_no_views() {
    let mut complaints = Vec::new();
    for source in sources() {
        let forbidden: &[&str] = match source.path.split('/').nth(1) {
            Some("group") => &["crate::service", "crate::replica", "crate::log", "wire::operation"],
            Some("service") => &["crate::group", "crate::replica", "crate::log"],
            Some("log") => &["crate::group", "crate::service", "crate::replica"],
            Some("wire") => &["crate::group", "crate::log", "crate::service", "crate::replica"],
            _ => continue,
        };
        for (number, line) in source.before_tests() {
            for name in forbidden.iter().filter(|n| source.path.starts_with("src/") && code_of(line).contains(*n)) {
                complaints.push(format!("{}:{number}: {name} from here", source.path));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn modules_say_what_they_are() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|s| !s.path.ends_with("/tests.rs")) {
        let doc = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        if doc == 0 {
            complaints.push(format!("{}:1: must begin with //!", source.path));
        }
        let prose = source.text.lines().take(doc).take_while(|line| !line.starts_with("//! ```")).count();
        if prose > MODULE_DOC_LINES_MAX && source.path != "src/lib.rs" {
            complaints.push(format!("{}:1: {prose} lines of module doc", source.path));
        }
    }
    complain(&complaints);
}

#[test]
fn files_are_one_concept_long() {
    let mut complaints = Vec::new();
    for source in sources() {
        let lines = source.before_tests().count();
        if lines > FILE_LINES_MAX {
            complaints.push(format!("{}: {lines} lines before its tests", source.path));
        }
    }
    complain(&complaints);
}

/// Relies on rustfmt: a function's `}` stands in the column of its `fn`.
#[test]
fn functions_fit_a_screen() {
    let mut complaints = Vec::new();
    for source in sources() {
        let mut open: Vec<(usize, usize)> = Vec::new();
        for (number, line) in numbered(&source.text) {
            let indent = line.len() - line.trim_start().len();
            if is_function(line) && !line.ends_with(';') && !line.ends_with('}') {
                open.push((indent, number));
            }
            if line.trim_start().starts_with('}') {
                while let Some((_, start)) = open.pop_if(|(column, _)| *column >= indent) {
                    let lines = number - start + 1;
                    if lines > FUNCTION_LINES_MAX {
                        complaints.push(format!("{}:{start}: a function of {lines} lines", source.path));
                    }
                }
            }
        }
        assert!(open.is_empty(), "{}:{}: a function that does not end", source.path, open[0].1);
    }
    complain(&complaints);
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let qualifiers = ["pub", "pub(crate)", "pub(super)", "const", "unsafe", "extern", "\"C\"", "async"];
    words.find(|word| !qualifiers.contains(word)) == Some("fn")
}

/// What `failures.md` names between backquotes or quotation marks is there: a function, a transcript, or a word of the
/// simulator or of the broken variants.
#[test]
fn the_failures_of_others_are_tried() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let table = fs::read_to_string(root.join("failures.md")).expect("part of the sources");
    let sources = sources();
    let exists = |name: &str| {
        let (function, literal) = (format!("fn {name}("), format!("\"{name}\""));
        let named = |source: &Source| source.text.contains(&function) || source.text.contains(&literal);
        root.join("transcripts").join(format!("{name}.txt")).exists() || sources.iter().any(named)
    };
    let (mut complaints, mut names) = (Vec::new(), 0);
    for (number, line) in numbered(&table).filter(|(_, line)| line.starts_with("| ") && line.contains(['`', '"'])) {
        for name in ['`', '"'].iter().flat_map(|&mark| line.split(mark).skip(1).step_by(2)) {
            names += 1;
            if !exists(name) {
                complaints.push(format!("tests/failures.md:{number}: there is no {name}"));
            }
        }
    }
    complain(&complaints);
    assert!(names > 80, "only {names} names were found");
}
