//! `cargo xtask fetch-weights` as a process, against servers on the loopback interface.

mod bench;
mod command;
mod full_size;
mod killed;
mod tls;
