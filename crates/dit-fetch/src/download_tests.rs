//! Downloads against a server that misbehaves.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::cancel::Cancel;
use crate::digest::Hasher;
use crate::download::{Arrived, Downloader, Expected, Target};
use crate::error::FetchError;
use crate::http::Client;
use crate::observe::{Event, Observer};
use crate::part::{Note, Origin, with_suffix};
use crate::retry::RetryPolicy;
use crate::settings::{Settings, Timeouts};
use crate::test_server::{Ending, Length, Request, Response, Server, content};

/// Keeps a line for each event.
#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Observer for Log {
    fn observe(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.hex()
}

/// A folder to download into, with quick retries.
struct Bench {
    dir: tempfile::TempDir,
    settings: Settings,
    cancel: Cancel,
    log: Log,
}

impl Bench {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(vars: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let var = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let mut settings = Settings::from_vars(dir.path(), &var).unwrap();
        settings.timeouts = Timeouts { connect: Duration::from_secs(30), read: Duration::from_secs(30) };
        settings.retry = RetryPolicy {
            attempts: 3,
            first_delay: Duration::from_millis(1),
            longest_delay: Duration::from_millis(20),
            progress_bytes: 1,
        };
        Bench { dir, settings, cancel: Cancel::new(), log: Log::default() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("x.pt")
    }

    fn target(&self, urls: &[String], content: &[u8]) -> Target {
        Target {
            label: "n/x.pt".to_owned(),
            path: self.path(),
            urls: urls.to_vec(),
            bytes: Some(content.len() as u64),
            expected: Some(Expected { sha256: sha256(content), origin: "the manifest".to_owned() }),
        }
    }

    fn fetch(&self, target: &Target) -> Result<Arrived, FetchError> {
        let client = Client::new(&self.settings, &self.cancel)?;
        Downloader { client: &client, retry: &self.settings.retry, observer: &self.log, cancel: &self.cancel }
            .fetch(target)
    }

    fn part(&self) -> Option<Vec<u8>> {
        std::fs::read(with_suffix(&self.path(), ".part")).ok()
    }

    /// Leaves what an interrupted run would have left.
    fn leave_part(&self, bytes: &[u8], origin: Option<Origin>) {
        std::fs::write(with_suffix(&self.path(), ".part"), bytes).unwrap();
        if let Some(origin) = origin {
            let note = Note { origin, flushed: bytes.len() as u64 };
            note.write(&with_suffix(&self.path(), ".part")).unwrap();
        }
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn said(&self, text: &str) -> bool {
        self.log.0.lock().unwrap().iter().any(|line| line.contains(text))
    }
}

const SIZE: usize = 300_000;
/// A read limit for tests whose subject is a stall. Nothing else may depend on it: a machine can be slower than that.
const SHORT: Duration = Duration::from_millis(500);

fn good() -> Vec<u8> {
    content(SIZE, 1)
}

/// Whatever the server does first, the file arrives whole, alone in its folder.
#[track_caller]
fn arrives(handler: impl Fn(&Request, &[u8]) -> Response + Send + Sync + 'static) -> (Server, Bench) {
    arrives_on(Bench::new(), handler)
}

#[track_caller]
fn arrives_on(bench: Bench, handler: impl Fn(&Request, &[u8]) -> Response + Send + Sync + 'static) -> (Server, Bench) {
    let file = good();
    let server = Server::start({
        let file = file.clone();
        move |request| handler(request, &file)
    });
    let arrived = bench.fetch(&bench.target(&[server.url("/x.pt")], &file)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((arrived.bytes, arrived.sha256), (SIZE as u64, sha256(&file)));
    assert!(std::fs::read(bench.path()).unwrap() == file);
    assert_eq!(bench.files(), ["x.pt"]);
    (server, bench)
}

/// The first answer is spoilt, later ones are not.
fn first(spoil: impl Fn(Response) -> Response) -> impl Fn(&Request, &[u8]) -> Response {
    move |request, file| {
        let answer = Response::file(request, file, "\"1\"");
        if request.number == 0 { spoil(answer) } else { answer }
    }
}

#[test]
fn a_good_server_is_asked_once() {
    let (server, bench) = arrives(first(|r| r));
    assert_eq!(server.requests().len(), 1);
    assert!(!bench.said("Retrying") && !bench.said("Restarted"));
}

#[test]
fn broken_transfers_go_on_where_they_broke() {
    #[track_caller]
    fn check(spoil: impl Fn(Response) -> Response + Send + Sync + 'static, resumes_at: usize) {
        let (server, bench) = arrives(first(spoil));
        let requests = server.requests();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[1].start(), Some(resumes_at));
        assert_eq!(requests[1].header("if-range"), Some("\"1\""));
        assert!(bench.said("Retrying"));
    }
    check(|r| r.ending(Ending::Cut(100_000)), 100_000);
    // Little enough to be in the client's system before the reset, whether or not the client has read it.
    check(|r| r.ending(Ending::Reset(30_000)), 30_000);
    check(|r| r.length(Length::Untold).ending(Ending::Cut(1_000)), 1_000);
    check(|r| r.length(Length::Chunked).ending(Ending::Cut(100_000)), 100_000);
}

#[test]
fn a_transfer_that_broke_before_its_first_byte_starts_again() {
    #[track_caller]
    fn check(spoil: impl Fn(Response) -> Response + Send + Sync + 'static) {
        let (server, _) = arrives(first(spoil));
        assert_eq!(server.requests()[1].start(), None);
    }
    check(|r| r.ending(Ending::Cut(0)));
    check(|r| r.ending(Ending::Reset(0)));
    check(|_| Response::new(500, "oops"));
    check(|_| Response::new(503, "").with("Retry-After", "0"));
    check(|_| Response::new(429, "slow down").with("Retry-After", "99999"));
}

#[test]
fn a_stalled_transfer_is_given_up_and_continued() {
    #[track_caller]
    fn check(stalls_at: usize) {
        let mut bench = Bench::new();
        bench.settings.timeouts.read = SHORT;
        // However slow the machine: a limit that passes too early costs one attempt of many.
        bench.settings.retry.attempts = 1000;
        let (server, bench) = arrives_on(bench, first(move |r| r.ending(Ending::Stall(stalls_at))));
        let starts: Vec<_> = server.requests().iter().map(Request::start).collect();
        assert_eq!(starts[0], None);
        assert!(starts.len() > 1 && starts[1].unwrap_or(0) <= stalls_at, "{starts:?}");
        assert!(bench.said("sent nothing for 0.5 s"));
    }
    check(50_000);
    check(0);
}

#[test]
fn chunks_and_untold_lengths_arrive() {
    arrives(first(|r| r.length(Length::Chunked)));
    arrives(first(|r| r.length(Length::Untold)));
    arrives(first(|r| r.length(Length::Chunked).pace(4_999, Duration::from_micros(100))));
}

#[test]
fn many_breaks_are_survived_while_there_is_progress() {
    let (server, _) = arrives(|request, file| Response::file(request, file, "\"1\"").ending(Ending::Cut(10_007)));
    assert_eq!(server.requests().len(), SIZE.div_ceil(10_007));
}

#[test]
fn a_server_that_ignores_ranges_is_asked_for_everything_again() {
    let (server, bench) = arrives(|request, file| {
        let whole = Response::new(200, file);
        if request.number == 0 { whole.ending(Ending::Cut(100_000)) } else { whole }
    });
    assert_eq!(server.requests()[1].start(), Some(100_000));
    assert!(bench.said("cannot continue a download"));
}

#[test]
fn a_server_that_refuses_ranges_is_asked_for_everything_again() {
    let (server, bench) = arrives(|request, file| match (request.number, request.start()) {
        (0, _) => Response::new(200, file).ending(Ending::Cut(100_000)),
        (_, Some(_)) => Response::new(416, ""),
        (_, None) => Response::new(200, file),
    });
    assert_eq!(server.requests().len(), 3);
    assert!(bench.said("refuses to go on"));
}

#[test]
fn a_server_that_sends_another_part_is_not_believed() {
    let (_, bench) = arrives(|request, file| match (request.number, request.start()) {
        (0, _) => Response::new(200, file).ending(Ending::Cut(100_000)),
        (_, Some(_)) => Response::new(206, &file[50..]).with("Content-Range", &format!("bytes 50-{}/{SIZE}", SIZE - 1)),
        (_, None) => Response::new(200, file),
    });
    assert!(bench.said("another part than was asked"));
}

#[test]
fn a_file_that_changes_midway_is_fetched_anew() {
    #[track_caller]
    fn check(honest: bool) {
        let old = content(SIZE, 99);
        let (_, bench) = arrives(move |request, file| match request.number {
            0 => Response::file(request, &old, "\"0\"").ending(Ending::Cut(100_000)),
            _ if honest => Response::file(request, file, "\"1\""),
            // Ignores If-Range and sends the rest of the new file, under the new tag.
            _ => match request.start() {
                Some(start) => Response::new(206, &file[start..])
                    .with("Content-Range", &format!("bytes {start}-{}/{SIZE}", SIZE - 1))
                    .with("ETag", "\"1\""),
                None => Response::file(request, file, "\"1\""),
            },
        });
        assert!(bench.said("the remote file changed"));
    }
    check(true);
    check(false);
}

#[test]
fn a_change_that_the_server_hides_is_found_by_the_hash() {
    let old = content(SIZE, 99);
    let (_, bench) = arrives(move |request, file| match (request.number, request.start()) {
        (0, _) => Response::new(200, old.clone()).ending(Ending::Cut(100_000)),
        (_, Some(start)) => {
            Response::new(206, &file[start..]).with("Content-Range", &format!("bytes {start}-{}/{SIZE}", SIZE - 1))
        }
        (_, None) => Response::new(200, file),
    });
    assert!(bench.said("pieces do not fit"));
}

#[test]
fn a_file_that_always_changes_is_given_up() {
    let versions = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let version = versions.fetch_add(1, Ordering::SeqCst);
        let tag = format!("\"{version}\"");
        match request.start() {
            // Never honours If-Range, and each answer is of another version.
            Some(start) => Response::new(206, &content(SIZE, 7)[start..])
                .with("Content-Range", &format!("bytes {start}-{}/{SIZE}", SIZE - 1))
                .with("ETag", &tag),
            None => Response::new(200, content(SIZE, 7)).with("ETag", &tag).ending(Ending::Cut(1000)),
        }
    });
    let bench = Bench::new();
    let error = bench.fetch(&bench.target(&[server.url("/x.pt")], &good())).unwrap_err();
    assert!(matches!(error, FetchError::Changing { .. }), "{error}");
    assert_eq!(error.exit_code(), 17);
}

#[test]
fn a_length_that_is_a_lie_is_named() {
    #[track_caller]
    fn check(claimed: u64) {
        let file = good();
        let server = Server::start({
            let file = file.clone();
            move |_| Response::new(200, file.clone()).length(Length::Claimed(claimed))
        });
        let bench = Bench::new();
        let error = bench.fetch(&bench.target(&[server.url("/x.pt")], &file)).unwrap_err();
        let FetchError::WrongSize { expected, actual, .. } = error else { panic!("{error}") };
        assert_eq!((expected, actual), (SIZE as u64, claimed));
        assert_eq!(bench.files(), [""; 0]);
    }
    check(SIZE as u64 + 1000);
    check(SIZE as u64 - 1000);
    check(0);
}

#[test]
fn a_length_that_is_a_lie_is_noticed_without_a_manifest_too() {
    let file = good();
    let server = Server::start({
        let file = file.clone();
        move |_| Response::new(200, file.clone()).length(Length::Claimed(SIZE as u64 + 5))
    });
    let bench = Bench::new();
    let target = Target { bytes: None, expected: None, ..bench.target(&[server.url("/x.pt")], &file) };
    let error = bench.fetch(&target).unwrap_err();
    assert!(matches!(error, FetchError::ConnectionLost { .. }), "{error}");
    assert_eq!(error.exit_code(), 13);
    assert!(!bench.path().exists());
}

#[test]
fn more_bytes_than_the_file_has_are_refused() {
    let server = Server::start(|_| Response::new(200, content(SIZE + 70_000, 1)).length(Length::Chunked));
    let bench = Bench::new();
    let error = bench.fetch(&bench.target(&[server.url("/x.pt")], &good())).unwrap_err();
    assert!(matches!(error, FetchError::WrongSize { .. }), "{error}");
    assert_eq!(bench.files(), [""; 0]);
}

#[test]
fn more_bytes_than_were_announced_are_thrown_away() {
    let file = good();
    let server = Server::start({
        let file = file.clone();
        move |request| match (request.number, request.start()) {
            (0, _) => Response::file(request, &file, "\"1\"").ending(Ending::Cut(100_000)),
            // The rest and more of it than the range says, which only an untold length lets through.
            (_, Some(start)) => Response::new(206, [&file[start..], b"and more"].concat())
                .with("Content-Range", &format!("bytes {start}-{}/{SIZE}", SIZE - 1))
                .with("ETag", "\"1\"")
                .length(Length::Chunked),
            (_, None) => Response::file(request, &file, "\"1\""),
        }
    });
    let bench = Bench::new();
    let target = Target { bytes: None, expected: None, ..bench.target(&[server.url("/x.pt")], &file) };
    assert_eq!(bench.fetch(&target).unwrap().sha256, sha256(&file));
    assert!(bench.said("more than it announced"));
    let starts: Vec<_> = server.requests().iter().map(Request::start).collect();
    assert_eq!(starts, [None, Some(100_000), None]);
}

#[test]
fn the_hubs_own_hash_counts_where_the_manifest_has_none() {
    /// What the hub names as the file's hash, whether the bytes come from the hub or from another host.
    #[track_caller]
    fn check(linked: impl Fn(&[u8]) -> String, by_hub: bool, right: bool) {
        let file = good();
        let linked = linked(&file);
        let port = std::sync::Arc::new(AtomicUsize::new(0));
        let server = Server::start({
            let (file, port) = (file.clone(), port.clone());
            move |request| match request.path.as_str() {
                "/o/n/resolve/main/x.pt" => {
                    let elsewhere = format!("http://localhost:{}/cdn", port.load(Ordering::SeqCst));
                    let answer = Response::redirect(&elsewhere);
                    if by_hub { answer.with("X-Linked-Etag", &linked) } else { answer }
                }
                _ => {
                    let answer = Response::file(request, &file, "\"1\"");
                    if by_hub { answer } else { answer.with("X-Linked-Etag", &linked) }
                }
            }
        });
        port.store(usize::from(server.port()), Ordering::SeqCst);
        let bench = Bench::with(&[("HF_ENDPOINT", &server.url(""))]);
        let url = bench.settings.hub.rewrite("https://huggingface.co/o/n/resolve/main/x.pt");
        let target = Target { bytes: None, expected: None, ..bench.target(&[url], &file) };
        match bench.fetch(&target) {
            Ok(arrived) => assert!(right && arrived.sha256 == sha256(&file)),
            Err(error) => {
                assert!(!right && error.exit_code() == 20, "{error}");
                assert!(error.to_string().contains("says the hub"), "{error}");
                assert_eq!(bench.files(), ["x.pt.bad"]);
            }
        }
    }
    let wrong = |_: &[u8]| format!("\"{}\"", sha256(b"another file"));
    check(|file| format!("\"{}\"", sha256(file)), true, true);
    check(|file| sha256(file).to_uppercase(), true, true);
    check(wrong, true, false);
    // Nobody but the hub is asked, and a git hash is no SHA-256.
    check(wrong, false, true);
    check(|_| "\"0123456789abcdef0123456789abcdef01234567\"".to_owned(), true, true);
}

/// Every request gets this answer; the download fails in this way, leaving these files.
#[track_caller]
fn fails(answer: Response, expected: &str, exit_code: u8, requests: usize, files: &[&str]) -> FetchError {
    fails_on(Bench::new(), answer, expected, exit_code, requests, files)
}

#[track_caller]
fn fails_on(
    bench: Bench,
    answer: Response,
    expected: &str,
    exit_code: u8,
    requests: usize,
    files: &[&str],
) -> FetchError {
    let server = Server::start(move |_| answer.clone());
    let error = bench.fetch(&bench.target(&[server.url("/x.pt?secret=1")], &good())).unwrap_err();
    assert!(format!("{error:?}").starts_with(expected), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("help: ") && !text.contains("secret"), "{text}");
    assert_eq!(error.exit_code(), exit_code);
    assert_eq!(server.requests().len(), requests);
    assert_eq!(bench.files(), files);
    error
}

#[test]
fn each_refusal_is_an_error_of_its_own() {
    fails(Response::new(401, ""), "Unauthorized", 14, 1, &[]);
    fails(Response::new(403, ""), "Forbidden", 15, 1, &[]);
    fails(Response::new(451, ""), "Forbidden", 15, 1, &[]);
    fails(Response::new(404, "<html>not here"), "NotFound", 16, 1, &[]);
    fails(Response::new(410, ""), "NotFound", 16, 1, &[]);
    fails(Response::new(418, ""), "Status", 17, 1, &[]);
    fails(Response::new(500, ""), "Status", 17, 3, &[]);
    fails(Response::new(503, "").with("Retry-After", "0"), "Status", 17, 3, &[]);
    let mut impatient = Bench::new();
    impatient.settings.timeouts.read = SHORT;
    fails_on(impatient, Response::new(200, good()).ending(Ending::Stall(0)), "Stalled", 13, 3, &[]);
    fails(Response::new(200, good()).ending(Ending::Reset(0)), "ConnectionLost", 13, 3, &[]);
    fails(Response::new(200, good()).with("Content-Encoding", "gzip"), "NotACheckpoint", 21, 1, &[]);
    fails(Response::new(416, ""), "Status", 17, 1, &[]);
    fails(Response::redirect("/x.pt"), "Redirect", 17, 11, &[]);
    fails(Response::redirect("ftp://127.0.0.1/x.pt"), "Redirect", 17, 1, &[]);
    fails(Response::new(302, ""), "Redirect", 17, 1, &[]);
}

#[test]
fn pages_are_refused_before_a_byte_is_kept() {
    fails(Response::new(200, "<!DOCTYPE html><html>log in"), "NotACheckpoint", 21, 1, &[]);
    fails(Response::new(200, good()).with("Content-Type", "text/html"), "NotACheckpoint", 21, 1, &[]);
    fails(Response::new(200, "\n <HTML>").length(Length::Chunked), "NotACheckpoint", 21, 1, &[]);
}

#[test]
fn a_file_with_the_wrong_hash_is_put_aside() {
    let error = fails(Response::new(200, content(SIZE, 2)), "WrongHash", 20, 1, &["x.pt.bad"]);
    let text = error.to_string();
    for part in ["x.pt.bad", &sha256(&good()), &sha256(&content(SIZE, 2)), "the manifest"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn nobody_at_the_other_end() {
    let port = {
        let server = Server::start(|_| Response::new(200, ""));
        server.port()
    };
    let bench = Bench::new();
    let error = bench.fetch(&bench.target(&[format!("http://127.0.0.1:{port}/x")], &good())).unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }), "{error}");
    assert_eq!(error.exit_code(), 11);
    let error = bench.fetch(&bench.target(&["http://no-such-host.invalid/x".to_owned()], &good())).unwrap_err();
    assert!(matches!(&error, FetchError::NoAddress { host } if host == "no-such-host.invalid"), "{error}");
    assert_eq!(error.exit_code(), 10);
    assert_eq!(bench.files(), [""; 0]);
}

#[test]
fn addresses_are_tried_in_order() {
    let file = good();
    let server = Server::start({
        let file = file.clone();
        move |request| match request.path.as_str() {
            "/missing" => Response::new(404, ""),
            "/page" => Response::new(200, "<html>"),
            "/bad" => Response::new(200, content(SIZE, 5)),
            "/half" => {
                Response::file(request, &file, "\"1\"").ending(Ending::Cut(if request.number == 3 { 5_000 } else { 0 }))
            }
            _ => Response::file(request, &file, "\"other host's tag\""),
        }
    });
    let bench = Bench::new();
    let urls: Vec<String> = ["/missing", "/page", "/bad", "/half", "/good"].iter().map(|p| server.url(p)).collect();
    let arrived = bench.fetch(&bench.target(&urls, &file)).unwrap();
    assert_eq!(arrived.url, server.url("/good"));
    // The hash is known, so another address may finish what this one began.
    let last = server.requests().pop().unwrap();
    assert_eq!((last.path.as_str(), last.start(), last.header("if-range")), ("/good", Some(5_000), None));
    assert_eq!(bench.files(), ["x.pt", "x.pt.bad"]);
}

#[test]
fn when_all_addresses_fail_each_is_told_and_the_gravest_decides() {
    let server = Server::start(|request| match request.path.as_str() {
        "/bad" => Response::new(200, content(SIZE, 5)),
        _ => Response::new(404, ""),
    });
    let bench = Bench::new();
    let urls = [server.url("/missing"), server.url("/bad")];
    let error = bench.fetch(&bench.target(&urls, &good())).unwrap_err();
    assert_eq!(error.exit_code(), 20);
    let text = error.to_string();
    assert!(
        text.contains("1. ") && text.contains("/missing") && text.contains("2. ") && text.contains("sha256"),
        "{text}"
    );
}

#[test]
fn a_part_from_an_earlier_run_is_continued() {
    #[track_caller]
    fn check(origin: Option<(&str, Option<&str>)>, first_request: (Option<usize>, Option<&str>)) {
        let file = good();
        let server = Server::start({
            let file = file.clone();
            move |request| Response::file(request, &file, "\"1\"")
        });
        let bench = Bench::new();
        let url = server.url("/x.pt");
        let origin = origin.map(|(host, etag)| Origin {
            url: if host == "same" { url.clone() } else { "http://elsewhere/x.pt".to_owned() },
            etag: etag.map(str::to_owned),
            last_modified: None,
            total: Some(SIZE as u64),
            sha256: None,
        });
        bench.leave_part(&file[..123_456], origin);
        bench.fetch(&bench.target(&[url], &file)).unwrap();
        let requests = server.requests();
        assert_eq!((requests[0].start(), requests[0].header("if-range")), first_request);
        assert_eq!(requests.len(), 1);
        assert_eq!(bench.files(), ["x.pt"]);
    }
    check(Some(("same", Some("\"1\""))), (Some(123_456), Some("\"1\"")));
    check(Some(("same", Some("\"0\""))), (Some(123_456), Some("\"0\"")));
    check(Some(("same", None)), (Some(123_456), None));
    check(Some(("elsewhere", Some("\"9\""))), (Some(123_456), None));
    check(None, (Some(123_456), None));
}

#[test]
fn a_damaged_part_is_found_by_the_hash_and_fetched_anew() {
    let file = good();
    let server = Server::start({
        let file = file.clone();
        move |request| Response::file(request, &file, "\"1\"")
    });
    let bench = Bench::new();
    bench.leave_part(&content(1000, 9), None);
    bench.fetch(&bench.target(&[server.url("/x.pt")], &file)).unwrap();
    assert!(std::fs::read(bench.path()).unwrap() == file);
    assert_eq!(bench.files(), ["x.pt"]);
}

#[test]
fn a_part_that_is_whole_already_needs_no_network() {
    let bench = Bench::new();
    let file = good();
    bench.leave_part(&file, None);
    bench.fetch(&bench.target(&["http://127.0.0.1:9/never-asked".to_owned()], &file)).unwrap();
    assert_eq!(bench.files(), ["x.pt"]);
}

#[test]
fn a_part_that_is_too_long_is_thrown_away() {
    let file = good();
    let server = Server::start({
        let file = file.clone();
        move |request| Response::file(request, &file, "\"1\"")
    });
    let bench = Bench::new();
    bench.leave_part(&content(SIZE + 1, 1), None);
    bench.fetch(&bench.target(&[server.url("/x.pt")], &file)).unwrap();
    assert_eq!(server.requests()[0].start(), None);
}

fn origin(url: &str, etag: &str) -> Origin {
    let total = Some(SIZE as u64);
    Origin { url: url.to_owned(), etag: Some(etag.to_owned()), last_modified: None, total, sha256: None }
}

#[test]
fn without_hash_and_size_only_the_same_version_is_continued() {
    #[track_caller]
    fn check(etag: &str, known: bool, restarts: bool) {
        let file = good();
        let server = Server::start({
            let file = file.clone();
            move |request| Response::file(request, &file, "\"1\"")
        });
        let bench = Bench::new();
        let url = server.url("/x.pt");
        let origin = origin(&url, etag);
        let old = if etag == "\"1\"" { file[..1000].to_vec() } else { content(1000, 42) };
        bench.leave_part(&old, known.then_some(origin));
        let target = Target { bytes: None, expected: None, ..bench.target(&[url], &file) };
        let arrived = bench.fetch(&target).unwrap();
        assert_eq!(arrived.sha256, sha256(&file));
        assert_eq!(bench.said("Restarted"), restarts);
    }
    check("\"1\"", true, false);
    check("\"0\"", true, true);
    check("\"1\"", false, true);
}

#[test]
fn without_a_hash_a_failed_run_flushes_what_arrived_and_the_next_goes_on_from_there() {
    let file = good();
    let server = Server::start({
        let file = file.clone();
        move |request| {
            let answer = Response::file(request, &file, "\"1\"");
            if request.number == 0 { answer.ending(Ending::Cut(100_000)) } else { answer }
        }
    });
    let mut bench = Bench::new();
    bench.settings.retry.attempts = 1;
    let target = Target { expected: None, ..bench.target(&[server.url("/x.pt")], &file) };
    assert_eq!(bench.fetch(&target).unwrap_err().exit_code(), 13);
    // Bytes that no flush vouches for, as a killed run leaves them.
    let mut part = bench.part().unwrap();
    part.extend([0; 5000]);
    std::fs::write(with_suffix(&bench.path(), ".part"), part).unwrap();
    assert_eq!(bench.fetch(&target).unwrap().sha256, sha256(&file));
    let starts: Vec<_> = server.requests().iter().map(Request::start).collect();
    assert_eq!(starts, [None, Some(100_000)]);
}

#[test]
fn without_hash_and_size_a_whole_part_is_recognised_by_416() {
    let file = good();
    let server = Server::start({
        let file = file.clone();
        move |request| Response::file(request, &file, "\"1\"")
    });
    let bench = Bench::new();
    let url = server.url("/x.pt");
    bench.leave_part(&file, Some(origin(&url, "\"1\"")));
    let target = Target { bytes: None, expected: None, ..bench.target(&[url], &file) };
    assert_eq!(bench.fetch(&target).unwrap().sha256, sha256(&file));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    #[track_caller]
    fn check(location: impl Fn(u16) -> String + Send + Sync + 'static, follows_with_token: bool) {
        let file = good();
        let port = std::sync::Arc::new(AtomicUsize::new(0));
        let server = Server::start({
            let (file, port) = (file.clone(), port.clone());
            move |request| match request.path.as_str() {
                "/o/n/resolve/main/x.pt" => Response::redirect(&location(port.load(Ordering::SeqCst) as u16)),
                _ => Response::file(request, &file, "\"1\""),
            }
        });
        port.store(usize::from(server.port()), Ordering::SeqCst);
        let endpoint = server.url("");
        let bench = Bench::with(&[("HF_ENDPOINT", &endpoint), ("HF_TOKEN", "hf_secret")]);
        let url = bench.settings.hub.rewrite("https://huggingface.co/o/n/resolve/main/x.pt");
        bench.fetch(&bench.target(&[url], &file)).unwrap();
        let sent: Vec<_> = server.requests().iter().map(|r| r.header("authorization").map(str::to_owned)).collect();
        let token = Some("Bearer hf_secret".to_owned());
        assert_eq!(sent, [token.clone(), if follows_with_token { token } else { None }]);
        assert!(!bench.said("hf_secret"));
    }
    check(|_| "/cdn/x.pt".to_owned(), true);
    check(|port| format!("http://127.0.0.1:{port}/cdn/x.pt"), true);
    check(|port| format!("http://localhost:{port}/cdn/x.pt"), false);
    check(|port| format!("//localhost:{port}/cdn/x.pt?signature=1"), false);
}

#[test]
fn a_range_survives_a_redirect() {
    let file = good();
    let server = Server::start({
        let file = file.clone();
        move |request| match request.path.as_str() {
            "/x.pt" => Response::redirect("/cdn"),
            _ => Response::file(request, &file, "\"1\"").ending(Ending::Cut(200_000)),
        }
    });
    let bench = Bench::new();
    bench.fetch(&bench.target(&[server.url("/x.pt")], &file)).unwrap();
    let asked: Vec<_> = server.requests().iter().map(|r| (r.path.clone(), r.start())).collect();
    let expected = [("/x.pt", None), ("/cdn", None), ("/x.pt", Some(200_000)), ("/cdn", Some(200_000))];
    assert_eq!(asked, expected.map(|(p, s)| (p.to_owned(), s)));
}

#[test]
fn a_proxy_is_asked_unless_the_host_is_exempt() {
    #[track_caller]
    fn check(no_proxy: &str, asked: bool) {
        let file = good();
        let server = Server::start({
            let file = file.clone();
            move |request| Response::file(request, &file, "\"1\"")
        });
        let proxy = Server::start(|_| Response::new(407, ""));
        let bench = Bench::with(&[("http_proxy", &proxy.url("")), ("NO_PROXY", no_proxy)]);
        let result = bench.fetch(&bench.target(&[server.url("/x.pt")], &file));
        assert_eq!(!proxy.requests().is_empty(), asked);
        if asked {
            assert_eq!(proxy.requests()[0].path, format!("127.0.0.1:{}", server.port()));
            let error = result.unwrap_err();
            assert!(matches!(error, FetchError::Proxy { .. }), "{error:?}");
        } else {
            result.unwrap();
        }
    }
    check("", true);
    check("example.com,127.0.0.1", false);
}

#[test]
fn a_cancelled_download_stops_at_once_and_keeps_what_arrived() {
    let file = good();
    let server = Server::start({
        let file = file.clone();
        move |request| Response::file(request, &file, "\"1\"").ending(Ending::Stall(100_000))
    });
    let mut bench = Bench::new();
    // Only the switch can end this: no read limit comes near.
    bench.settings.timeouts.read = Duration::from_secs(600);
    let target = bench.target(&[server.url("/x.pt")], &file);
    let error = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| bench.fetch(&target).unwrap_err());
        while bench.part().is_none_or(|part| part.len() < 100_000) {
            std::thread::sleep(Duration::from_millis(2));
        }
        bench.cancel.cancel();
        waiting.join().unwrap()
    });
    assert!(matches!(error, FetchError::Interrupted), "{error}");
    assert_eq!(bench.part().unwrap(), file[..100_000]);
    assert_eq!(bench.files(), ["x.pt.part", "x.pt.part.json"]);
}
