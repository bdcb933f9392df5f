//! kill -9, fifty times. Each kill follows an event, not a time, so that it hits what it is meant to hit on any machine.

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dit_fetch::test_server::{Ending, Response, Server};
use dit_weights::{Checkpoint, OpenOptions, sha256_of};
use serde_json::json;

use crate::bench::{Bench, Tiny, tiny_dit, tiny_entry};

/// Kills during the transfer.
const TRANSFER: usize = 30;
/// Kills after it: hashing, renaming, converting, recording, deleting.
const AFTER: usize = 20;
/// Fewer bytes than this are not kept: the beginning of a file is looked at first.
const HEAD: usize = 512;

/// A server that releases so many bytes at a time and then waits until the client is gone.
struct Gate {
    server: Server,
    piece: Arc<AtomicUsize>,
}

impl Gate {
    fn new(tiny: &Tiny) -> Self {
        let file = tiny.file.clone();
        let piece = Arc::new(AtomicUsize::new(usize::MAX));
        let released = piece.clone();
        let server = Server::start(move |request| {
            let answer = Response::file(request, &file, "\"1\"");
            match released.load(Ordering::SeqCst) {
                usize::MAX => answer,
                piece => answer.ending(Ending::Stall(piece)),
            }
        });
        Gate { server, piece }
    }

    fn release(&self, piece: usize) {
        self.piece.store(piece, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.server.requests().len()
    }
}

#[test]
fn fifty_kills_lose_nothing() {
    let tiny = tiny_dit();
    let gate = Gate::new(&tiny);
    let bench = Bench::new(&json!([tiny_entry(&gate.server, &tiny)]));

    for i in 0..TRANSFER {
        let before = part(&bench);
        // Different lengths, none of them a multiple of a page; all together less than the file.
        let piece = HEAD + 1 + i * 7_919 % (tiny.file.len() / TRANSFER - HEAD - 1);
        gate.release(piece);
        let asked = gate.asked();
        let mut child = bench.command(&["tiny", "--timeout", "600"]).spawn().expect("the program runs");
        match i % 3 {
            // Somewhere between the request and the first bytes.
            0 => until(&mut child, || gate.asked() > asked),
            // Somewhere among the bytes.
            1 => until(&mut child, || part(&bench) > before),
            // When all that was released is there.
            _ => until(&mut child, || part(&bench) == before + piece),
        }
        kill(&mut child);
        check_files(&bench, &tiny);
        let last = gate.server.requests().pop().expect("it has asked");
        assert_eq!(last.start().unwrap_or(0), before, "it goes on from what had arrived");
    }
    assert!(part(&bench) > TRANSFER / 3 * HEAD, "the parts add up");

    gate.release(usize::MAX);
    let mut complete = 0;
    for i in 0..AFTER {
        // Every other time from what the last kill left.
        if i % 2 == 0 {
            std::fs::remove_dir_all(bench.weights()).expect("the folder can be deleted");
        }
        let stage = ["Tiny.pt.part", "Tiny.pt", ".fetched/work", "tiny.safetensors", ".fetched/tiny.json"][i % 5];
        let mut child = bench.command(&["tiny"]).spawn().expect("the program runs");
        let ended = |child: &mut Child| child.try_wait().expect("the program can be waited for").is_some();
        // A stage may be over before it is seen; then it is a later one that the kill hits, or the end.
        while !bench.weights().join(stage).exists() && !ended(&mut child) {
            std::thread::yield_now();
        }
        complete += usize::from(ended(&mut child));
        kill(&mut child);
        check_files(&bench, &tiny);
    }
    eprintln!("{TRANSFER} kills during the transfer; {AFTER} after it, {complete} of them too late");

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

/// Bytes of the file that have arrived.
fn part(bench: &Bench) -> usize {
    std::fs::metadata(bench.weights().join("Tiny.pt.part")).map_or(0, |m| m.len() as usize)
}

/// Waits for something that the program is bound to do: it cannot end before.
#[track_caller]
fn until(child: &mut Child, happened: impl Fn() -> bool) {
    while !happened() {
        assert!(child.try_wait().expect("the program can be waited for").is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn kill(child: &mut Child) {
    child.kill().expect("the program can be killed");
    child.wait().expect("the program can be waited for");
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
