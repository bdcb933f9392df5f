//! Every command and how many options it has: `cargo run -p dit-args --example options`.

use clap::CommandFactory;

fn main() {
    for command in dit_args::Cli::command().get_subcommands() {
        println!("{:<20} {:>3} options", command.get_name(), command.get_opts().count());
    }
}
