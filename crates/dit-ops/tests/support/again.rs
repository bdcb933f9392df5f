//! Programs of tests that start themselves again.

use std::process::Command;

/// This program: by what `DIT_TEST_RUNNER` names, a word a line, where the system would not run it by itself.
pub fn this_program() -> Command {
    let program = std::env::current_exe().expect("the system knows its name");
    let runner = std::env::var("DIT_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.lines();
    match words.next() {
        None => Command::new(program),
        Some(first) => {
            let mut command = Command::new(first);
            command.args(words).arg(program);
            command
        }
    }
}
