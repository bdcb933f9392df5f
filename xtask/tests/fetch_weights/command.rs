//! Flags, messages, exit codes.

use std::process::{Command, Stdio};
use std::time::Duration;

use dit_fetch::test_server::{Ending, Request, Response, Server};
use dit_weights::{Checkpoint, OpenOptions, sha256_of};
use serde_json::{Value, json};

use crate::bench::{Bench, Outcome, Tiny, tiny_dit, tiny_entry};

fn serve(tiny: &Tiny) -> Server {
    let file = tiny.file.clone();
    Server::start(move |request| Response::file(request, &file, "\"1\""))
}

#[test]
fn a_checkpoint_from_the_first_fetch_to_its_repair() {
    let tiny = tiny_dit();
    let server = serve(&tiny);
    let bench = Bench::new(&json!([tiny_entry(&server, &tiny)]));
    let row = |outcome: Outcome| outcome.stdout.lines().nth(1).unwrap_or_default().to_owned();
    assert!(row(bench.run(&["--list"]).expect(0, &["NAME", "SIZE", "LICENCE", "STATE"])).ends_with("missing"));
    bench.run(&["--verify"]).expect(0, &["nothing to verify"]);
    bench.run(&["--verify", "tiny"]).expect(24, &["missing"]);

    bench
        .run(&["tiny"])
        .expect(0, &["CC-BY-NC-4.0", "Non-commercial use only", "tiny/Tiny.pt: verified", "ready: tiny"]);
    assert!(row(bench.run(&["--list"])).ends_with("verified"));
    let path = bench.weights().join("tiny.safetensors");
    let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(checkpoint.config(), &tiny.config);
    assert!(!bench.weights().join("Tiny.pt").exists());
    let again = bench.run(&["--all"]).expect(0, &["ready: tiny"]);
    assert!(!again.stderr.contains("licence"), "{}", again.stderr);
    assert_eq!(server.requests().len(), 1);

    bench.run(&["--verify"]).expect(0, &["verified  tiny"]);
    let mut bytes = std::fs::read(&path).unwrap();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    std::fs::write(&path, bytes).unwrap();
    bench.run(&["--verify"]).expect(24, &["damaged   tiny", "tiny.safetensors.bad"]);
    bench.run(&["tiny", "--keep-original", "--jobs", "1"]).expect(0, &["ready: tiny"]);
    assert_eq!(sha256_of(&[bench.weights().join("Tiny.pt")]).unwrap(), tiny.sha256);
}

#[test]
fn names_and_flags_are_checked() {
    let tiny = tiny_dit();
    let server = serve(&tiny);
    let bench = Bench::new(&json!([tiny_entry(&server, &tiny)]));
    bench.run(&["tinny"]).expect(2, &["`tinny`", "did you mean `tiny`"]);
    bench.run(&[]).expect(2, &["dit-xl-2-256", "tiny"]);
    bench.run(&["tiny", "--all"]).expect(2, &["--all"]);
    bench.run(&["tiny", "--jobs", "0"]).expect(2, &["--jobs"]);
    bench.run(&["tiny", "--mirror", "mirror.example"]).expect(2, &["--mirror", "http"]);
    bench.run_with(&["tiny"], &[("HTTPS_PROXY", "nonsense://me:s3cret@x")]).expect(2, &["HTTPS_PROXY"]);
    bench.run(&["tiny", "--offline"]).expect(26, &["--offline"]);
    assert_eq!(server.requests().len(), 0);

    std::fs::write(bench.root().join("lab.json"), r#"{"checkpoints": [], "extra": 1}"#).unwrap();
    bench.run(&["tiny"]).expect(2, &["lab.json", "extra"]);
}

#[test]
fn help_fits_a_narrow_terminal() {
    let bench = Bench::new(&json!([]));
    let help = bench.run(&["--help"]).expect(0, &["Examples:", "--mirror", "HF_TOKEN"]);
    for line in help.stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

/// The program's exit code and words when the server answers so.
#[track_caller]
fn check(answer: impl Fn(&Request) -> Response + Send + Sync + 'static, code: i32, said: &[&str]) -> (Bench, Outcome) {
    check_with(&["tiny"], answer, code, said)
}

#[track_caller]
fn check_with(
    args: &[&str],
    answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
    code: i32,
    said: &[&str],
) -> (Bench, Outcome) {
    let tiny = tiny_dit();
    let server = Server::start(answer);
    let bench = Bench::new(&json!([tiny_entry(&server, &tiny)]));
    let variables = [("HF_TOKEN", "hf_s3cret"), ("HF_ENDPOINT", &server.url("") as &str)];
    let outcome = bench.run_with(args, &variables).expect(code, said);
    assert!(!outcome.stderr.contains("hf_s3cret") && !outcome.stdout.contains("hf_s3cret"));
    assert!(!bench.weights().join("tiny.safetensors").exists());
    (bench, outcome)
}

#[test]
fn each_failure_has_its_code_and_says_what_to_do() {
    check(|_| Response::new(401, ""), 14, &["401", "HF_TOKEN"]);
    check(|_| Response::new(403, ""), 15, &["403", "licence"]);
    check(|_| Response::new(404, ""), 16, &["404", "--mirror"]);
    check(|_| Response::new(503, ""), 17, &["503", "attempt 2 of 2"]);
    check(|_| Response::new(200, "<!DOCTYPE html>"), 21, &["an HTML page"]);
    let (bench, _) =
        check(|_| Response::new(200, vec![7; tiny_dit().file.len()]), 20, &["wrong sha256", "Tiny.pt.bad"]);
    assert!(bench.weights().join("Tiny.pt.bad").is_file());
    check(|_| Response::new(200, vec![7; 10]), 20, &["10 bytes"]);
    let file = tiny_dit().file;
    // Nothing ever comes after nine bytes, so that no time limit can be too short.
    check_with(
        &["tiny", "--timeout", "1"],
        move |request| Response::file(request, &file, "\"1\"").ending(Ending::Stall(9)),
        13,
        &["sent nothing for 1 s", "run the same command again"],
    );
}

#[test]
fn hosts_that_cannot_be_reached_are_told_apart() {
    let tiny = tiny_dit();
    let entry = |url: String| -> Value {
        json!([{"name": "tiny", "kind": "dit", "license": "MIT", "files": [
            {"path": "Tiny.pt", "urls": [url], "bytes": tiny.file.len(), "sha256": tiny.sha256}]}])
    };
    let closed = serve(&tiny).port();
    Bench::new(&entry(format!("http://127.0.0.1:{closed}/x"))).run(&["tiny"]).expect(11, &["refused", "HTTPS_PROXY"]);
    let nowhere = "http://no-such-host.invalid/x".to_owned();
    Bench::new(&entry(nowhere)).run(&["tiny"]).expect(10, &["no-such-host.invalid", "no DNS"]);
}

#[test]
fn a_disk_that_is_too_small_is_told_first() {
    let tiny = tiny_dit();
    let server = serve(&tiny);
    let mut entry = tiny_entry(&server, &tiny);
    entry["files"][0]["bytes"] = json!(1u64 << 60);
    Bench::new(&json!([entry])).run(&["tiny"]).expect(22, &["full", "--dir"]);
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let tiny = tiny_dit();
    let server = serve(&tiny);
    let bench = Bench::new(&json!([tiny_entry(&server, &tiny)]));
    let closed = |args: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = bench.command(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        Outcome::of(&output)
    };
    closed(&["--list"]).expect(0, &[]);
    bench.run(&["tiny"]).expect(0, &["ready: tiny"]);
    closed(&["--verify"]).expect(0, &[]);
}

/// Nobody vouches for the file, and there is no room for what is made of it: the file must not be blamed.
#[test]
fn a_disk_that_fills_up_during_the_conversion_loses_nothing() {
    let tiny = tiny_dit();
    let server = serve(&tiny);
    let mut entry = tiny_entry(&server, &tiny);
    entry["files"][0]["sha256"] = Value::Null;
    let bench = Bench::new(&json!([entry]));
    let original = bench.weights().join("Tiny.pt");
    std::fs::create_dir_all(bench.weights()).unwrap();
    std::fs::write(&original, &tiny.file).unwrap();
    // A limit on the length of files stands for the full disk: no privilege is needed for it. 64 units are 32 or 64 KiB.
    let program = bench.command(&["tiny"]);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""])
        .arg(program.get_program())
        .args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    assert!(tiny.file.len() > 200_000);
    Outcome::of(&limited.output().unwrap()).expect(22, &["full", "--dir"]);
    assert_eq!(sha256_of(&[&original]).unwrap(), tiny.sha256);

    bench.run(&["tiny"]).expect(0, &["ready: tiny"]);
    assert_eq!(server.requests().len(), 0);
}

/// A server that sends half of the file and then nothing, and the program waiting for the rest.
fn waiting(tiny: &Tiny, bench: &Bench) -> std::process::Child {
    let mut child = bench.command(&["tiny", "--timeout", "600"]).spawn().expect("the program runs");
    let part = bench.weights().join("Tiny.pt.part");
    let half = tiny.file.len() as u64 / 2;
    while std::fs::metadata(&part).map_or(0, |m| m.len()) < half {
        assert!(child.try_wait().expect("the program can be waited for").is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn half_server(tiny: &Tiny) -> Server {
    let file = tiny.file.clone();
    Server::start(move |request| {
        let answer = Response::file(request, &file, "\"1\"");
        if request.number == 0 { answer.ending(Ending::Stall(file.len() / 2)) } else { answer }
    })
}

#[test]
fn interrupted_it_keeps_what_arrived_and_goes_on_from_there() {
    let tiny = tiny_dit();
    let server = half_server(&tiny);
    let bench = Bench::new(&json!([tiny_entry(&server, &tiny)]));
    let child = waiting(&tiny, &bench);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    Outcome::of(&child.wait_with_output().unwrap()).expect(130, &["interrupted", "what arrived is kept"]);
    bench.run(&["--list"]).expect(0, &["arrived)"]);
    bench.run(&["tiny"]).expect(0, &["ready: tiny"]);
    assert_eq!(server.requests().last().unwrap().start(), Some(tiny.file.len() / 2));
}

#[test]
fn two_at_once_do_not_get_into_each_others_way() {
    let tiny = tiny_dit();
    let server = half_server(&tiny);
    let bench = Bench::new(&json!([tiny_entry(&server, &tiny)]));
    let mut first = waiting(&tiny, &bench);
    bench.run(&["tiny"]).expect(25, &["another fetch-weights", &format!("process {}", first.id())]);
    first.kill().unwrap();
    first.wait().unwrap();
    bench.run(&["tiny"]).expect(0, &["ready: tiny"]);
}
