use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Cli;

/// Print a completion script for your shell
#[derive(Args)]
#[command(after_help = "Example:
  dit-cli completions bash > ~/.local/share/bash-completion/completions/dit-cli")]
pub struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    pub shell: Shell,
}

impl CompletionsArgs {
    /// The script for the shell.
    pub fn script(&self) -> String {
        match self.shell {
            // For bash clap_complete spells a hyphen of the program's name in two ways, and then finds the options of no command.
            Shell::Bash => self.script_for("dit_cli").replace(" dit_cli\n", " dit-cli\n"),
            _ => self.script_for("dit-cli"),
        }
    }

    fn script_for(&self, program: &str) -> String {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), program, &mut script);
        String::from_utf8_lossy(&script).into_owned()
    }
}
