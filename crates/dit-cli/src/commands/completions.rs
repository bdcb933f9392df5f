use anyhow::Result;
use clap::CommandFactory;

use crate::{
    args::{Cli, CompletionsArgs},
    speak::print_out,
};

pub fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "dit-cli", &mut script);
    print_out(format_args!("{}", String::from_utf8_lossy(&script)))
}
