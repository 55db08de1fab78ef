//! What a user could have written: a shell script in which everybody is killed, and every line arrives all the same.

use std::process::Command;

use crate::ftqc::dies_with_us;
use crate::net::Net;

/// `FTQ_LINES` lines, a hundred to an item; or as many as an ordinary run has time for.
#[test]
fn a_script_in_which_everybody_is_killed_loses_nothing() {
    let Some(_net) = Net::private("a_script_in_which_everybody_is_killed_loses_nothing") else { return };
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_ftqc")).parent().expect("it is in a directory");
    let mut script = Command::new("bash");
    script.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/processes/shell.sh")).arg(programs);
    let (count, batch) = std::env::var("FTQ_LINES").map_or(("20000".into(), "20"), |lines| (lines, "100"));
    script.env("COUNT", count).env("BATCH", batch).env_remove("FTQ_KEY");
    let status = dies_with_us(&mut script).status().expect("bash is there");
    assert!(status.success(), "{status}");
}
