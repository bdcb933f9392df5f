//! Which build a program is of. The two programs are made together, and what one hands over, only its own other half understands.

/// The environment's variable in which `dit-cli` tells the engine its build.
pub const VARIABLE: &str = "DIT_CLI_BUILD";

/// This program's: the version, and the commit that it was built from, where that is known.
pub fn of_this() -> String {
    match option_env!("DIT_GIT_COMMIT") {
        Some(commit) => format!(concat!(env!("CARGO_PKG_VERSION"), " ({})"), commit),
        None => env!("CARGO_PKG_VERSION").to_owned(),
    }
}
