//! kill -9 at random moments.

use std::time::Duration;

use dit_fetch::test_server::{Response, Server};
use dit_weights::{Checkpoint, OpenOptions, sha256_of};
use serde_json::json;

use crate::bench::{Bench, Tiny, tiny_dit, tiny_entry};

const KILLS: u64 = 50;

#[test]
fn fifty_kills_lose_nothing() {
    let tiny = tiny_dit();
    let server = Server::start({
        let file = tiny.file.clone();
        // A quarter of a second for the whole file.
        let piece = file.len() / 50;
        move |request| Response::file(request, &file, "\"1\"").pace(piece, Duration::from_millis(5))
    });
    let bench = Bench::new(&json!([tiny_entry(&server, &tiny)]));
    let mut complete = 0;
    for i in 0..KILLS {
        let mut child = bench.command(&["tiny"]).spawn().expect("the program runs");
        // Spread evenly over the time that a whole fetch takes, in no order.
        std::thread::sleep(Duration::from_millis(i * 37 % KILLS * 7));
        let ended = child.try_wait().expect("the program can be waited for").is_some();
        child.kill().expect("the program can be killed");
        child.wait().expect("the program can be waited for");
        check_files(&bench, &tiny);
        if ended {
            // It was faster than the kill: begin anew.
            complete += 1;
            std::fs::remove_dir_all(bench.weights()).expect("the folder can be deleted");
        }
    }
    let resumed = server.requests().iter().filter(|request| request.start().is_some()).count();
    eprintln!(
        "{KILLS} kills: {resumed} transfers went on where one was killed, {complete} fetches ended before their kill"
    );
    assert!(resumed > 0, "no kill hit a transfer");
    assert!(complete < KILLS, "no kill hit anything");

    bench.run(&["tiny"]).expect(0, &["ready: tiny"]);
    check_files(&bench, &tiny);
    bench.run(&["--verify", "tiny"]).expect(0, &["verified"]);
    let litter: Vec<_> = std::fs::read_dir(bench.weights())
        .expect("the folder exists")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
        .filter(|name| !["tiny.safetensors", ".fetched", ".fetch.lock"].contains(&name.as_str()))
        .collect();
    assert!(litter.is_empty(), "{litter:?}");
}

/// Whatever has a final name is whole and right.
#[track_caller]
fn check_files(bench: &Bench, tiny: &Tiny) {
    let path = |name: &str| bench.weights().join(name);
    assert!(!path("Tiny.pt.bad").exists() && !path("tiny.safetensors.bad").exists());
    if path("Tiny.pt").exists() {
        assert_eq!(sha256_of(&[path("Tiny.pt")]).expect("a hash"), tiny.sha256);
    }
    if path("tiny.safetensors").exists() {
        let checkpoint = Checkpoint::open(path("tiny.safetensors"), &OpenOptions::default()).expect("a whole file");
        assert_eq!(checkpoint.config(), &tiny.config);
        let origin = checkpoint.metadata().origin.as_ref().map(|origin| origin.sha256.as_str());
        assert_eq!(origin, Some(tiny.sha256.as_str()));
    }
}
