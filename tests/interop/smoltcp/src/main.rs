//! A guest without a machine: smoltcp, straight on a tunnel.
//!
//!     smoltcp URL ORIGIN WEB
//!
//! opens the tunnel at URL, tries everything once and prints a line for each check, as the Linux guests do:
//! "AERO-CHECK <name> ok|failed <what was seen>". WEB is the address of the world's web server. Exit status 0 when
//! every check is ok, 1 otherwise, 2 for a wrong call.

mod checks;
mod dhcp;
mod dns;
mod guest;
mod tunnel;

use std::process::ExitCode;
use std::time::Duration;

use guest::Guest;
use tunnel::{Failure, Tunnel};

/// In all; a tenth of it is usual on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, origin, web] = &arguments[..] else {
        eprintln!("usage: smoltcp URL ORIGIN WEB");
        return ExitCode::from(2);
    };
    match run(url, origin, web) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smoltcp: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(url: &str, origin: &str, web: &str) -> Result<(), Failure> {
    let web = web.parse()?;
    let mut guest = Guest::new(Tunnel::open(url, origin)?, LIMIT);
    let failed = checks::all(&mut guest, web);
    guest.tunnel.close(Duration::from_secs(30))?;
    if failed == 0 { Ok(()) } else { Err(format!("{failed} checks failed").into()) }
}
