use anyhow::Result;
use dit_args::CompletionsArgs;

use crate::speak::print_out;

pub fn run(args: &CompletionsArgs) -> Result<()> {
    print_out(format_args!("{}", args.script()))
}
