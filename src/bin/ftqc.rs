//! The client's program; see ftqc(1).

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(ftq::cli::run(std::env::args_os().skip(1)))
}
