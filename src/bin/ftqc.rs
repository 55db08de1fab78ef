//! The client's program; see ftqc(1).

use std::process::ExitCode;

/// Run by the loader, before the language's runtime puts /dev/null where a standard stream is closed: without stdout
/// an item would be popped for nobody.
#[used]
#[link_section = ".init_array"]
static NEEDS_STDOUT: extern "C" fn() = needs_stdout;

extern "C" fn needs_stdout() {
    const MESSAGE: &[u8] = b"ftqc: stdout: it is closed\n";
    // SAFETY: async-signal-safe calls that touch no memory but the message, which lives for ever.
    unsafe {
        if libc::fcntl(1, libc::F_GETFD) == -1 {
            libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len());
            libc::_exit(74);
        }
    }
}

fn main() -> ExitCode {
    ExitCode::from(ftq::cli::run(std::env::args_os().skip(1)))
}
