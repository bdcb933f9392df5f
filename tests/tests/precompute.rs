//! `dit-cli precompute-latents` as its users run it, whatever happens to it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use dit_tests::{dit_cli, fail_in, fixture, read_tensor, relative_error, root, succeed_in, write_png};
use dit_vae::{AutoencoderKl, LatentCodec};
use dit_weights::VaeCheckpoint;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// xorshift64*, Vigna 2016.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// `count` pictures of many sizes in two classes, and the folder that they are in.
fn pictures(folder: &Path, count: usize) -> PathBuf {
    let data = folder.join("data");
    let mut random = Random(count as u64 + 1);
    for index in 0..count {
        let class = data.join(["cats", "dogs"][index % 2]);
        fs::create_dir_all(&class).unwrap();
        let (width, height) = (20 + random.below(30) as u32, 20 + random.below(30) as u32);
        let base: [u64; 3] = std::array::from_fn(|_| random.below(200));
        let pixels: Vec<u8> =
            (0..width * height).flat_map(|_| base.map(|base| (base + random.below(56)) as u8)).collect();
        write_png(&class.join(format!("{index:05}.png")), width, height, &pixels);
    }
    data
}

/// Arguments of a quick run: a tiny VAE on two threads.
fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let vae = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/vae-small");
    let common = ["precompute-latents", "--data", "data", "--vae", vae, "--image-size", "32", "--threads", "1"];
    let more = [&["--shard-size", "16", "--workers", "2"], more].concat();
    [&common[..], &more[..]].concat()
}

/// Every file and its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())).collect()
}

#[track_caller]
fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (contents(a), contents(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in &a {
        assert!(b[name] == *bytes, "{name} differs");
    }
}

/// Bytes of the shards and journals in `folder`: how far a run is.
fn written(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let latents = |name: &str| name.ends_with(".safetensors") || name.ends_with(".journal");
    let entries = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(latents));
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

fn start(folder: &Path, args: &[&str]) -> Child {
    dit_cli().current_dir(folder).args(args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// Waits until `out` holds so many bytes; false if the process ended before.
fn wait_for(child: &mut Child, out: &Path, bytes: u64) -> bool {
    let started = Instant::now();
    while written(out) < bytes {
        assert!(started.elapsed() < Duration::from_secs(300), "nothing happens");
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

#[test]
fn the_demo_codec_gives_the_reference_moments() {
    let folder = tempfile::tempdir().unwrap();
    let io = fixture("fashion/io.safetensors");
    let images = read_tensor(&io, "moments_in"); // (16, 3, 32, 32), of 8-bit levels
    let levels = ((&images + 1.0) * 127.5).round().to_kind(Kind::Uint8).permute([0, 2, 3, 1]).contiguous();
    fs::create_dir_all(folder.path().join("data/all")).unwrap();
    for index in 0..16 {
        let pixels = Vec::<u8>::try_from(levels.get(index).view(-1)).unwrap();
        write_png(&folder.path().join(format!("data/all/{index:02}.png")), 32, 32, &pixels);
    }
    let args = ["precompute-latents", "--data", "data", "--out", "out", "--vae", "vae-fashion-demo", "--json"];
    let ran = succeed_in(folder.path(), &[&args[..], &["--image-size", "32", "--store", "f32"]].concat());
    let summary: Value = serde_json::from_str(&ran.stdout).expect("stdout is JSON and nothing else");
    assert_eq!((summary["records"].as_u64(), summary["shards"].as_u64()), (Some(16), Some(1)));

    let shard = folder.path().join("out/shard-000000.safetensors");
    let moments = read_tensor(&shard, "moments");
    assert_eq!(moments.size(), [16, 2, 8, 8, 8]);
    assert_eq!(Vec::<i64>::try_from(read_tensor(&shard, "labels")).unwrap(), [0; 16]);
    for (name, first) in [("moments_mean", 0), ("moments_logvar", 4)] {
        let stored = moments.select(1, 0).narrow(1, first, 4);
        let error = relative_error(&stored, &read_tensor(&io, name));
        assert!(error < 2e-5, "{name}: {error:e}");
    }
    let vae = VaeCheckpoint::open(root().join("weights/demo/vae-fashion")).unwrap();
    let codec = AutoencoderKl::load(&vae, Device::Cpu, Kind::Float).unwrap();
    let _no_grad = tch::no_grad_guard();
    let flipped = codec.encode(&images.flip([3])).unwrap();
    let expected = Tensor::cat(&[flipped.mean(), flipped.logvar()], 1);
    let error = relative_error(&moments.select(1, 1), &expected);
    assert!(error < 2e-5, "mirror images: {error:e}");
}

#[test]
fn killed_at_any_moment_it_continues_to_the_same_bytes() {
    let kills = if dit_tests::slow_tests() { 50 } else { 10 };
    let folder = tempfile::tempdir().unwrap();
    let data = pictures(folder.path(), 150);
    fs::write(data.join("cats/broken.png"), b"\x89PNG\r\n\x1a\nno more").unwrap();
    let more = ["--max-skipped", "0.01", "--batch-size", "3"];
    succeed_in(folder.path(), &arguments(&[&["--out", "whole"], &more[..]].concat()));
    let whole = folder.path().join("whole");
    let total = written(&whole);
    for workers in ["1", "5"] {
        let args = arguments(&[&["--out", workers], &more[..]].concat());
        let args: Vec<&str> = args.iter().map(|&arg| if arg == "2" { workers } else { arg }).collect();
        succeed_in(folder.path(), &args);
        assert_same(&whole, &folder.path().join(workers));
    }
    let out = folder.path().join("out");
    let args = arguments(&[&["--out", "out"], &more[..]].concat());
    let mut random = Random(0x0ddb_1a5e_5bad_5eed);
    let mut killed = 0;
    for kill in 0..kills {
        let mut child = start(folder.path(), &args);
        // Anywhere in its part of the run; now and then before anything is written.
        let target = (total * kill + random.below(total)) / kills;
        wait_for(&mut child, &out, if kill % 5 == 4 { 0 } else { target });
        thread::sleep(Duration::from_micros(random.below(20_000)));
        killed += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(killed * 2 > kills, "only {killed} of {kills} runs were still running when they were killed");
    succeed_in(folder.path(), &args);
    assert_same(&whole, &out);
    succeed_in(folder.path(), &["precompute-latents", "--out", "out", "--verify"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_at_once_and_a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path(), 60);
    let args = arguments(&["--out", "out", "--image-size", "256"]);
    let args: Vec<&str> = args.into_iter().filter(|&arg| arg != "32").collect();
    let twice = args.iter().position(|&arg| arg == "--image-size").unwrap();
    let args = [&args[..twice], &args[twice + 1..]].concat();
    let mut child = start(folder.path(), &args);
    assert!(wait_for(&mut child, &folder.path().join("out"), 1), "ended before it was interrupted");
    fail_in(folder.path(), &args, &["being written by another process"]);
    // SAFETY: a signal to a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("the same command continues"), "{stderr}");
    let inspected = succeed_in(folder.path(), &["inspect", "out"]);
    assert!(inspected.stdout.contains("NOT finished"), "{}", inspected.stdout);
    fail_in(folder.path(), &["precompute-latents", "--out", "out", "--verify"], &["not finished", "--data"]);
    // Settings that depend on the machine are those that the folder was begun with.
    let without_threads: Vec<&str> = args.iter().copied().filter(|&arg| arg != "--threads" && arg != "1").collect();
    succeed_in(folder.path(), &without_threads);
}

#[test]
fn bad_pictures_are_skipped_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let data = pictures(folder.path(), 20);
    let whole = fs::read(data.join("cats/00000.png")).unwrap();
    fs::write(data.join("cats/cut.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(data.join("dogs/empty.jpg"), b"").unwrap();
    fs::write(data.join("dogs/text.jpg"), b"<html>not found</html>").unwrap();
    fail_in(
        folder.path(),
        &arguments(&["--out", "out"]),
        &["1 of 23 pictures", "0 are allowed", "cats/cut.png: ", "--max-skipped", "out/skipped.jsonl"],
    );
    let ran = succeed_in(folder.path(), &arguments(&["--out", "out", "--max-skipped", "0.2", "--json"]));
    let summary: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((summary["records"].as_u64(), summary["skipped"].as_u64()), (Some(20), Some(3)));
    let skipped = fs::read_to_string(folder.path().join("out/skipped.jsonl")).unwrap();
    let keys: Vec<Value> = skipped.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: Vec<&str> = keys.iter().map(|line| line["key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), 3, "{skipped}");
    for reason in ["not a picture: it is empty", "it begins with the text"] {
        assert!(skipped.contains(reason), "{skipped}");
    }
    for (key, file) in keys.iter().zip(["cut.png", "empty.jpg", "text.jpg"]) {
        assert!(key.ends_with(file), "{skipped}");
    }
    let labels = read_tensor(&folder.path().join("out/shard-000000.safetensors"), "labels");
    assert_eq!(labels.size(), [15], "16 records but one");
}

#[test]
fn damage_and_other_settings_are_found() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path(), 40);
    succeed_in(folder.path(), &arguments(&["--out", "out"]));
    let out = folder.path().join("out");
    let before = contents(&out);
    let inspected: Value =
        serde_json::from_str(&succeed_in(folder.path(), &["inspect", "out", "--json"]).stdout).unwrap();
    assert_eq!(inspected["kind"], "latents");
    assert_eq!((&inspected["finished"], &inspected["scale"]), (&Value::from(true), &Value::from(0.18215)));
    assert_eq!(inspected["class_names"], serde_json::json!(["cats", "dogs"]));
    let text = succeed_in(folder.path(), &["inspect", "out"]).stdout;
    assert!(text.contains("3 of 3 shards, finished") && text.contains("40, 0 skipped"), "{text}");

    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/../weights/demo/vae-fashion");
    let args = arguments(&["--out", "out", "--store", "f32"]);
    let vae = args.iter().position(|&arg| arg == "--vae").unwrap();
    let mut args = args;
    args[vae + 1] = other;
    fail_in(folder.path(), &args, &["vae.sha256", "store: \"f16\" there, \"f32\" asked for", "scaling_factor"]);
    fail_in(folder.path(), &arguments(&["--out", "out", "--limit", "39"]), &["source.records: 40 there, 39"]);
    fs::write(folder.path().join("data/cats/new.png"), b"").unwrap();
    fail_in(folder.path(), &arguments(&["--out", "out"]), &["source.fingerprint"]);
    fs::remove_file(folder.path().join("data/cats/new.png")).unwrap();
    assert!(contents(&out) == before, "what is refused changes nothing");

    let shard = out.join("shard-000001.safetensors");
    let mut bytes = before["shard-000001.safetensors"].clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&shard, &bytes).unwrap();
    let verify = ["precompute-latents", "--out", "out", "--verify"];
    fail_in(folder.path(), &verify, &["shard-000001.safetensors: its SHA-256"]);
    // A header that no longer can be read: what to do is said once.
    bytes[..8].fill(0xff);
    fs::write(&shard, &bytes).unwrap();
    let ran = fail_in(folder.path(), &verify, &["not a sound safetensors file", "command that made it again"]);
    assert_eq!(ran.stderr.matches("help:").count(), 1, "{}", ran.stderr);
    let ran = succeed_in(folder.path(), &arguments(&["--out", "out", "--verify"]));
    assert!(ran.stderr.contains("shard-000001.safetensors is made again"), "{}", ran.stderr);
    assert!(contents(&out) == before);
    succeed_in(folder.path(), &verify);
}

/// A limit on the size of files stands in for a full disk: the same calls fail, in the same places.
#[cfg(unix)]
#[test]
fn a_full_disk_is_a_clear_error_and_nothing_is_half_written() {
    use std::os::unix::process::CommandExt;
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path(), 40);
    succeed_in(folder.path(), &arguments(&["--out", "whole"]));
    let shard = contents(&folder.path().join("whole"))["shard-000000.safetensors"].len() as u64;
    // Too little for a journal's first batch, for a whole journal, for a shard.
    for room in [1000, shard / 2, shard - 1] {
        let mut command = dit_cli();
        command.current_dir(folder.path()).args(arguments(&["--out", "out"]));
        // SAFETY: between fork and exec only calls that are safe in a signal handler.
        unsafe {
            command.pre_exec(move || {
                let limit = libc::rlimit { rlim_cur: room, rlim_max: room };
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                if libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let full = stderr.contains("File too large") || stderr.contains("is full");
        assert!(full && stderr.contains("it continues where it stopped"), "{stderr}");
        let names: Vec<String> = contents(&folder.path().join("out")).into_keys().collect();
        let finished = |name: &String| !name.ends_with(".part") && !name.ends_with(".safetensors");
        assert!(names.iter().all(finished), "{room}: {names:?}");
    }
    succeed_in(folder.path(), &arguments(&["--out", "out"]));
    assert_same(&folder.path().join("whole"), &folder.path().join("out"));
}

#[test]
fn arguments_that_cannot_be_honoured_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path(), 2);
    let fail = |more: &[&str], expected: &[&str]| drop(fail_in(folder.path(), &arguments(more), expected));
    fail(&["--out", "out", "--batch-size", "0"], &["--batch-size 0"]);
    fail(&["--out", "out", "--max-skipped", "1.5"], &["--max-skipped 1.5"]);
    fail(&["--out", "out", "--limit", "0"], &["--limit 0"]);
    fail(&["--out", "out", "--device", "tpu"], &["auto, cpu, cuda"]);
    fail(&["--out", "data"], &["not empty", "another folder"]);
    let bare = |args: &[&str], expected: &[&str]| {
        drop(fail_in(folder.path(), &[&["precompute-latents"], args].concat(), expected));
    };
    bare(&["--out", "out"], &["--data"]);
    bare(&["--out", "none", "--verify"], &["no manifest.json"]);
    let for_32 = "note: 256 px, the default; vae-fashion-demo was made for 32: --image-size 32";
    bare(&["--data", "none", "--out", "out", "--vae", "vae-fashion-demo"], &["none", for_32]);
    bare(&["--data", "data", "--out", "out", "--vae", "dit-fashion-demo"], &["is a dit"]);
    bare(
        &["--data", "data", "--out", "out", "--vae", "vae-fashion-demo", "--image-size", "30"],
        &["multiples of 4", "another size"],
    );
    assert!(!folder.path().join("out").exists(), "nothing is left behind");
}
