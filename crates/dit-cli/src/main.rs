//! Command line of the DiT toolkit.
fn main() { println!("{}", tch::get_num_threads()); }
