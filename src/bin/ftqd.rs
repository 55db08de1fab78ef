//! ftqd(8): one replica, or a lab of several.

fn main() {
    let args: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    std::process::exit(ftq::reactor::start::main(&args, ftq::lab::run));
}
