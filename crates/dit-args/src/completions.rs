use clap::{Args, CommandFactory};

use crate::Cli;

/// Print a completion script for your shell
#[derive(Args)]
#[command(after_help = "Example:
  dit-cli completions bash > ~/.local/share/bash-completion/completions/dit-cli")]
pub struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    pub shell: clap_complete::Shell,
}

impl CompletionsArgs {
    /// The script for the shell.
    pub fn script(&self) -> Vec<u8> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "dit-cli", &mut script);
        script
    }
}
