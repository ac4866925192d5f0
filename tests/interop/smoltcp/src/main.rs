//! A guest without a machine: smoltcp, straight on a tunnel.
//!
//!     smoltcp URL ORIGIN WEB [SECONDS]
//!
//! opens the tunnel at URL, tries everything once and prints a line for each check, as the Linux guests do:
//! "AERO-CHECK <name> ok|failed <what was seen>". WEB is the address of the world's web server. Exit status 0 when
//! every check is ok, 1 otherwise, 2 for a wrong call. It ends after SECONDS (170), whatever the server does.

mod checks;
mod dhcp;
mod dns;
mod guest;
mod tunnel;

use std::process::ExitCode;
use std::time::Duration;

use guest::Guest;
use tunnel::{Failure, Tunnel};

/// For the checks; a tenth of it is usual on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);
/// For everything, the handshakes at both ends too.
const WHOLE_SECONDS: u64 = 170;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (url, origin, web, seconds) = match &arguments[..] {
        [url, origin, web] => (url, origin, web, Ok(WHOLE_SECONDS)),
        [url, origin, web, seconds] => (url, origin, web, seconds.parse()),
        _ => return wrong_call(),
    };
    let Ok(seconds) = seconds else {
        return wrong_call();
    };
    end_after(Duration::from_secs(seconds));
    match run(url, origin, web) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smoltcp: {error}");
            ExitCode::FAILURE
        }
    }
}

fn wrong_call() -> ExitCode {
    eprintln!("usage: smoltcp URL ORIGIN WEB [SECONDS]");
    ExitCode::from(2)
}

/// A server that sends a byte now and then would be waited for without end.
fn end_after(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        eprintln!("smoltcp: not done after {limit:?}");
        std::process::exit(1);
    });
}

fn run(url: &str, origin: &str, web: &str) -> Result<(), Failure> {
    let web = web.parse()?;
    let mut guest = Guest::new(Tunnel::open(url, origin)?, LIMIT);
    let failed = checks::all(&mut guest, web);
    guest.tunnel.close(Duration::from_secs(30))?;
    if failed == 0 { Ok(()) } else { Err(format!("{failed} checks failed").into()) }
}
