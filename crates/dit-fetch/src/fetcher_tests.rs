//! Whole fetches, from a manifest to checkpoints that are ready.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dit_catalog::Catalog;
use dit_config::DitConfig;
use dit_weights::{
    Checkpoint, OpenOptions, TensorSource, TensorView, TorchFile, VaeCheckpoint, WeightsKind, torch_save,
};
use serde_json::{Value, json};

use crate::cancel::Cancel;
use crate::digest::Hasher;
use crate::error::FetchError;
use crate::fetcher::{Fetched, Fetcher};
use crate::install::Input;
use crate::list::{State, list};
use crate::observe::{Event, Observer};
use crate::retry::RetryPolicy;
use crate::settings::{Network, Originals, Settings, Timeouts};
use crate::test_server::{Ending, Response, Server, content};
use crate::trust::Trust;
use crate::verify::Finding;

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

/// What a server holds, by path.
type Files = Vec<(String, Vec<u8>)>;

fn serve(files: Files) -> Server {
    Server::start(move |request| match files.iter().find(|(path, _)| *path == request.path) {
        Some((_, content)) => Response::file(request, content, "\"1\""),
        None => Response::new(404, "<html>not here"),
    })
}

/// A folder with a manifest in it.
struct Bench {
    root: tempfile::TempDir,
    settings: Settings,
    log: Log,
}

impl Bench {
    fn new(checkpoints: Value) -> Self {
        Self::with(checkpoints, &[])
    }

    fn with(checkpoints: Value, vars: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let var = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let mut settings = Settings::from_vars(&root.path().join("weights"), &var).unwrap();
        settings.timeouts = Timeouts { connect: Duration::from_secs(30), read: Duration::from_secs(30) };
        settings.retry = RetryPolicy { attempts: 2, first_delay: Duration::from_millis(1), ..RetryPolicy::default() };
        std::fs::create_dir_all(&settings.dir).unwrap();
        let bench = Bench { root, settings, log: Log::default() };
        bench.write_manifest(checkpoints);
        bench
    }

    fn manifest(&self) -> PathBuf {
        self.root.path().join("lab.json")
    }

    fn write_manifest(&self, checkpoints: Value) {
        std::fs::write(self.manifest(), json!({ "checkpoints": checkpoints }).to_string()).unwrap();
    }

    fn catalog(&self) -> Catalog {
        Catalog::load(&self.manifest()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn on<T>(&self, act: impl FnOnce(&Fetcher<'_>) -> T) -> T {
        let catalog = self.catalog();
        act(&Fetcher::new(&catalog, &self.manifest(), &self.settings, &self.log, &Cancel::new()))
    }

    fn fetch(&self, names: &[&str]) -> Result<Fetched, FetchError> {
        let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
        self.on(|fetcher| fetcher.fetch(&names))
    }

    fn state(&self, name: &str) -> State {
        list(&self.catalog(), &self.settings.dir).into_iter().find(|row| row.name == name).unwrap().state
    }

    fn findings(&self, names: &[&str]) -> Vec<Finding> {
        let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
        self.on(|fetcher| fetcher.verify(&names)).unwrap().into_iter().map(|c| c.finding).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.settings.dir.join(name)
    }

    /// All files below the weights folder but the lock, sorted.
    fn files(&self) -> Vec<String> {
        fn walk(dir: &Path, root: &Path, into: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, root, into);
                } else {
                    into.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        let mut names = Vec::new();
        walk(&self.settings.dir, &self.settings.dir, &mut names);
        names.retain(|name| name != ".fetch.lock");
        names.sort();
        names
    }

    fn said(&self, text: &str) -> bool {
        self.log.0.lock().unwrap().iter().any(|line| line.contains(text))
    }
}

/// The smallest DiT: its configuration and the `.pt` file that the original's training script would publish.
fn tiny_dit(seed: u64) -> (DitConfig, Vec<u8>) {
    let config: DitConfig = "DiT-S/8".parse().unwrap();
    let config = config
        .with(|spec| {
            spec.hidden = 32;
            spec.depth = 2;
            spec.heads = 4;
            spec.num_classes = 3;
            spec.latent = dit_config::LatentSize::square(16);
        })
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.pt");
    let tensors = config.tensors().into_iter().enumerate().map(|(i, spec)| {
        let numel: usize = spec.shape.iter().product();
        let values: Vec<f32> =
            content(numel, seed + i as u64).iter().map(|&b| (f32::from(b) - 192.0) / 640.0).collect();
        Ok((spec.name.clone(), TensorView::from_f32(spec.shape.clone(), &values)?))
    });
    torch_save::write_state_dict(&path, tensors).unwrap();
    (config, std::fs::read(path).unwrap())
}

fn dit_entry(server: &Server, file: &[u8]) -> Value {
    json!({"name": "tiny", "kind": "dit", "license": "CC-BY-NC-4.0", "config": {"num_heads": 4},
           "files": [{"path": "Tiny.pt", "urls": [server.url("/Tiny.pt")], "bytes": file.len(), "sha256": sha256(file)}]})
}

/// Bytes that stand for a VAE's; those with a published hash are not opened.
fn vae_files() -> (Vec<u8>, Vec<u8>) {
    (b"{\"in_channels\": 3}".to_vec(), content(200_000, 3))
}

fn vae_entry(server: &Server) -> Value {
    let (config, weights) = vae_files();
    json!({"name": "v", "kind": "vae", "license": "MIT", "files": [
        {"path": "config.json", "urls": [server.url("/v/config.json")], "bytes": config.len(), "sha256": sha256(&config)},
        {"path": "diffusion_pytorch_model.safetensors", "urls": [server.url("/v/w")], "bytes": weights.len(),
         "sha256": sha256(&weights)}]})
}

fn vae_server() -> Server {
    let (config, weights) = vae_files();
    serve(vec![("/v/config.json".to_owned(), config), ("/v/w".to_owned(), weights)])
}

const VAE_RESULT: [&str; 3] = [".fetched/v.json", "v/config.json", "v/diffusion_pytorch_model.safetensors"];

#[test]
fn a_vae_is_put_into_its_folder_and_is_not_fetched_twice() {
    let server = vae_server();
    let bench = Bench::new(json!([vae_entry(&server)]));
    assert_eq!(bench.state("v"), State::Missing { arrived: 0 });
    let expected = Fetched { ready: vec![], installed: vec!["v".to_owned()] };
    assert_eq!(bench.fetch(&["v", "v"]).unwrap(), expected);
    assert_eq!(bench.files(), VAE_RESULT);
    assert_eq!(std::fs::read(bench.path("v/diffusion_pytorch_model.safetensors")).unwrap(), vae_files().1);
    assert_eq!(bench.state("v"), State::Verified);
    assert_eq!(bench.findings(&["v"]), [Finding::Good, Finding::Good]);
    assert!(bench.said("any use"), "the licence is announced");

    let asked = server.requests().len();
    assert_eq!(bench.fetch(&["v"]).unwrap().ready, ["v"]);
    assert_eq!(server.requests().len(), asked);
    assert_eq!(bench.log.0.lock().unwrap().iter().filter(|line| line.contains("any use")).count(), 1);
}

#[test]
fn a_dit_is_converted_with_its_configuration_and_the_hash_of_its_source() {
    let (config, file) = tiny_dit(1);
    let server = serve(vec![("/Tiny.pt".to_owned(), file.clone())]);
    let bench = Bench::new(json!([dit_entry(&server, &file)]));
    bench.fetch(&["tiny"]).unwrap();
    assert_eq!(bench.files(), [".fetched/tiny.json", "tiny.safetensors"]);
    assert!(bench.said("Non-commercial use only"));

    let checkpoint = Checkpoint::open(bench.path("tiny.safetensors"), &OpenOptions::default()).unwrap();
    assert_eq!(checkpoint.config(), &config);
    let origin = checkpoint.metadata().origin.clone().unwrap();
    assert_eq!((origin.name.as_str(), origin.sha256), ("Tiny.pt", sha256(&file)));
    assert_eq!(bench.findings(&["tiny"]), [Finding::Good]);
}

#[test]
fn a_feature_network_is_kept_as_it_is_published() {
    // No checkpoint that anything here could convert, and on its second address only.
    let file = content(150_000, 9);
    let server = serve(vec![("/mirror/inception.pth".to_owned(), file.clone())]);
    let entry = |sha256: &str| {
        json!([{"name": "inception", "kind": "features", "license": "Apache-2.0", "files": [
            {"path": "pt_inception.pth", "urls": [server.url("/gone.pth"), server.url("/mirror/inception.pth")],
             "bytes": file.len(), "sha256": sha256}]}])
    };
    let mut bench = Bench::new(entry(&sha256(&file)));
    assert_eq!(bench.state("inception"), State::Missing { arrived: 0 });
    let expected = Fetched { ready: vec![], installed: vec!["inception".to_owned()] };
    assert_eq!(bench.fetch(&["inception"]).unwrap(), expected);
    assert_eq!(bench.files(), [".fetched/inception.json", "pt_inception.pth"]);
    assert_eq!(std::fs::read(bench.path("pt_inception.pth")).unwrap(), file);
    assert_eq!((bench.state("inception"), bench.findings(&["inception"])), (State::Verified, vec![Finding::Good]));
    bench.settings.network = Network::Offline;
    assert_eq!(bench.fetch(&["inception"]).unwrap().ready, ["inception"]);

    // Other bytes than the manifest's are not installed.
    let bench = Bench::new(entry(&sha256(b"others")));
    assert!(bench.fetch(&["inception"]).is_err());
    assert!(!bench.path("pt_inception.pth").exists(), "{:?}", bench.files());
}

#[test]
fn originals_can_be_kept() {
    let (_, file) = tiny_dit(1);
    let server = serve(vec![("/Tiny.pt".to_owned(), file.clone())]);
    let mut bench = Bench::new(json!([dit_entry(&server, &file)]));
    bench.settings.originals = Originals::Keep;
    bench.fetch(&["tiny"]).unwrap();
    assert_eq!(bench.files(), [".fetched/tiny.json", "Tiny.pt", "tiny.safetensors"]);
    assert_eq!(bench.findings(&["tiny"]), [Finding::Good, Finding::Good]);
    // It is used again when the result is gone.
    std::fs::remove_file(bench.path("tiny.safetensors")).unwrap();
    bench.settings.network = Network::Offline;
    bench.fetch(&["tiny"]).unwrap();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn the_ema_weights_of_a_training_checkpoint_are_taken() {
    let path = fixtures().join("dit-training/checkpoint.pt");
    let file = std::fs::read(&path).unwrap();
    let server = serve(vec![("/Tiny.pt".to_owned(), file.clone())]);
    let bench = Bench::new(json!([dit_entry(&server, &file)]));
    bench.fetch(&["tiny"]).unwrap();
    let checkpoint = Checkpoint::open(bench.path("tiny.safetensors"), &OpenOptions::default()).unwrap();
    assert_eq!(checkpoint.metadata().weights, Some(WeightsKind::Ema));
    let file = TorchFile::open(&path).unwrap();
    let name = "final_layer.linear.weight";
    let [ema, raw] = [("ema", name.to_owned()), ("model", format!("module.{name}"))]
        .map(|(place, name)| file.state_dict(place).unwrap().read(&name).unwrap().to_f32().unwrap());
    assert_eq!(checkpoint.read(name).unwrap().to_f32().unwrap(), ema);
    assert_ne!(ema, raw);
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

#[test]
fn an_existing_hub_cache_is_used() {
    #[track_caller]
    fn check(network: Network) {
        let (_, file) = tiny_dit(1);
        let (config, weights) = vae_files();
        let cache = tempfile::tempdir().unwrap();
        let put = |repo: &str, name: &str, content: &[u8]| {
            let dir = cache.path().join(format!("hub/models--{repo}/snapshots/0123456789"));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(name), content).unwrap();
        };
        put("o--dit", "Tiny.pt", &file);
        put("o--vae", "config.json", &config);
        put("o--vae", "w.safetensors", &weights);
        let url = |repo: &str, name: &str| json!([format!("https://huggingface.co/o/{repo}/resolve/01234/{name}")]);
        let entries = json!([
            {"name": "tiny", "kind": "dit", "license": "X", "config": {"num_heads": 4}, "files": [
                {"path": "Tiny.pt", "urls": url("dit", "Tiny.pt"), "sha256": sha256(&file)}]},
            {"name": "v", "kind": "vae", "license": "X", "files": [
                {"path": "config.json", "urls": url("vae", "config.json"), "sha256": sha256(&config)},
                {"path": "w.safetensors", "urls": url("vae", "w.safetensors"), "sha256": sha256(&weights)}]}
        ]);
        let vars = [("HF_HOME", cache.path().to_str().unwrap()), ("HF_ENDPOINT", "http://127.0.0.1:9")];
        let mut bench = Bench::with(entries, &vars);
        bench.settings.network = network;
        bench.fetch(&["tiny", "v"]).unwrap();
        let mut expected = [&VAE_RESULT[..], &[".fetched/tiny.json", "tiny.safetensors"]].concat();
        expected.sort_unstable();
        assert_eq!(bench.files(), expected);
        // The cache is as it was.
        let kept = cache.path().join("hub/models--o--dit/snapshots/0123456789/Tiny.pt");
        assert_eq!(sha256(&std::fs::read(kept).unwrap()), sha256(&file));
    }
    check(Network::Online);
    check(Network::Offline);
}

#[test]
fn a_damaged_hub_cache_is_not_used() {
    let (config, weights) = vae_files();
    let server = serve(vec![
        ("/o/vae/resolve/main/config.json".to_owned(), config.clone()),
        ("/o/vae/resolve/main/w.safetensors".to_owned(), weights.clone()),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let dir = cache.path().join("models--o--vae/snapshots/main");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("w.safetensors"), &weights[1..]).unwrap();
    let url = |name: &str| json!([format!("https://huggingface.co/o/vae/resolve/main/{name}")]);
    let entries = json!([{"name": "v", "kind": "vae", "license": "X", "files": [
        {"path": "config.json", "urls": url("config.json"), "sha256": sha256(&config)},
        {"path": "w.safetensors", "urls": url("w.safetensors"), "sha256": sha256(&weights)}]}]);
    let vars = [("HF_HUB_CACHE", cache.path().to_str().unwrap()), ("HF_ENDPOINT", &server.url(""))];
    let bench = Bench::with(entries, &vars);
    bench.fetch(&["v"]).unwrap();
    assert!(bench.said("not used"));
    assert_eq!(bench.files(), VAE_RESULT);
}

#[test]
fn offline_never_asks_anybody() {
    let server = vae_server();
    let mut bench = Bench::new(json!([vae_entry(&server)]));
    bench.settings.network = Network::Offline;
    let error = bench.fetch(&["v"]).unwrap_err();
    assert_eq!(error.exit_code(), 26);
    assert!(error.to_string().contains("--offline"), "{error}");
    assert_eq!(server.requests().len(), 0);
    bench.settings.network = Network::Online;
    bench.fetch(&["v"]).unwrap();
    bench.settings.network = Network::Offline;
    assert_eq!(bench.fetch(&["v"]).unwrap().ready, ["v"]);
}

#[test]
fn without_a_published_hash_the_first_fetch_is_trusted_and_no_other() {
    let (_, first) = tiny_dit(1);
    let (_, second) = tiny_dit(2);
    let swapped = std::sync::Arc::new(AtomicBool::new(false));
    let server = Server::start({
        let (first, second, swapped) = (first.clone(), second.clone(), swapped.clone());
        move |request| match swapped.load(Ordering::SeqCst) {
            false => Response::file(request, &first, "\"1\""),
            true => Response::file(request, &second, "\"2\""),
        }
    });
    let mut entry = dit_entry(&server, &first);
    entry["files"][0].as_object_mut().unwrap().remove("sha256");
    entry["files"][0].as_object_mut().unwrap().remove("bytes");
    let bench = Bench::new(json!([entry]));
    bench.fetch(&["tiny"]).unwrap();
    assert!(bench.said("the manifest has no hash"));
    let record = std::fs::read_to_string(bench.root.path().join("lab.lock.json")).unwrap();
    assert!(record.contains(&sha256(&first)) && record.contains("tiny/Tiny.pt"), "{record}");

    std::fs::remove_file(bench.path("tiny.safetensors")).unwrap();
    swapped.store(true, Ordering::SeqCst);
    let error = bench.fetch(&["tiny"]).unwrap_err();
    assert_eq!(error.exit_code(), 20);
    assert!(error.to_string().contains("manifest.lock.json"), "{error}");
    assert_eq!(bench.files(), [".fetched/tiny.json", "Tiny.pt.bad"]);

    swapped.store(false, Ordering::SeqCst);
    bench.fetch(&["tiny"]).unwrap();
    assert_eq!(bench.state("tiny"), State::Verified);
}

#[test]
fn what_is_no_checkpoint_is_neither_trusted_nor_used() {
    let junk = content(5_000, 8);
    let server = serve(vec![("/Tiny.pt".to_owned(), junk.clone())]);
    let mut entry = dit_entry(&server, &junk);
    entry["files"][0].as_object_mut().unwrap().remove("sha256");
    let bench = Bench::new(json!([entry]));
    let error = bench.fetch(&["tiny"]).unwrap_err();
    assert_eq!(error.exit_code(), 21);
    assert!(!bench.root.path().join("lab.lock.json").exists());
    assert_eq!(bench.files(), ["Tiny.pt.bad"]);
    assert_eq!(bench.state("tiny"), State::Missing { arrived: 0 });
}

/// A checkpoint for which nobody vouches, and what is left of it when making it into a safetensors file fails.
#[track_caller]
fn keeps_the_original(spoil: impl FnOnce(&mut Value), fail: impl FnOnce(&Bench) -> FetchError, exit_code: u8) {
    let (_, file) = tiny_dit(1);
    let server = serve(vec![("/Tiny.pt".to_owned(), file.clone())]);
    let mut entry = dit_entry(&server, &file);
    entry["files"][0].as_object_mut().unwrap().remove("sha256");
    let right = entry.clone();
    spoil(&mut entry);
    let bench = Bench::new(json!([entry]));
    let error = fail(&bench);
    assert_eq!(error.exit_code(), exit_code, "{error}");
    assert!(!bench.root.path().join("lab.lock.json").exists());
    assert_eq!(sha256(&std::fs::read(bench.path("Tiny.pt")).unwrap()), sha256(&file));

    bench.write_manifest(json!([right]));
    bench.fetch(&["tiny"]).unwrap();
    assert_eq!(server.requests().len(), 1);
    assert_eq!(bench.files(), [".fetched/tiny.json", "tiny.safetensors"]);
}

#[test]
fn a_failure_that_is_not_the_files_fault_keeps_it() {
    // The manifest does not say how many heads.
    keeps_the_original(|entry| entry["config"] = json!({}), |bench| bench.fetch(&["tiny"]).unwrap_err(), 21);
    // Ctrl-C during the conversion.
    let interrupted = |bench: &Bench| {
        struct Interrupts(Cancel);
        impl Observer for Interrupts {
            fn observe(&self, event: &Event<'_>) {
                if matches!(event, Event::Converting { .. }) {
                    self.0.cancel();
                }
            }
        }
        let (catalog, cancel) = (bench.catalog(), Cancel::new());
        let observer = Interrupts(cancel.clone());
        Fetcher::new(&catalog, &bench.manifest(), &bench.settings, &observer, &cancel)
            .fetch(&["tiny".to_owned()])
            .unwrap_err()
    };
    keeps_the_original(|_| (), interrupted, 130);
    // A folder is where the result should be.
    let in_the_way = |bench: &Bench| {
        std::fs::create_dir(bench.path("tiny.safetensors")).unwrap();
        let error = bench.fetch(&["tiny"]).unwrap_err();
        std::fs::remove_dir(bench.path("tiny.safetensors")).unwrap();
        error
    };
    keeps_the_original(|_| (), in_the_way, 27);
}

#[test]
fn room_for_the_result_is_asked_for_once_the_length_is_known() {
    let (_, file) = tiny_dit(1);
    let server = serve(vec![]);
    let bench = Bench::new(json!([dit_entry(&server, &file)]));
    std::fs::write(bench.path("Tiny.pt"), &file).unwrap();
    let input = Input {
        path: bench.path("Tiny.pt"),
        borrowed: false,
        bytes: 1 << 60,
        sha256: sha256(&file),
        from: "a test".to_owned(),
        verified: false,
    };
    let mut trust = Trust::open(&bench.manifest(), &bench.settings.dir).unwrap();
    let error = bench.on(|fetcher| fetcher.install(&fetcher.catalog.entries()[0], &[input], &mut trust)).unwrap_err();
    assert_eq!(error.exit_code(), 22);
    assert_eq!(bench.files(), ["Tiny.pt"]);
}

#[test]
fn one_failure_does_not_keep_the_rest_from_coming() {
    let (config, weights) = vae_files();
    let server = serve(vec![("/v/config.json".to_owned(), config), ("/v/w".to_owned(), weights)]);
    let gone = json!({"name": "gone", "kind": "dit", "license": "X", "files": [
        {"path": "gone.pt", "urls": [server.url("/gone.pt"), server.url("/gone2.pt")]}]});
    let bench = Bench::new(json!([gone, vae_entry(&server)]));
    let error = bench.fetch(&["gone", "v"]).unwrap_err();
    assert_eq!(error.exit_code(), 16);
    assert_eq!(bench.files(), VAE_RESULT);
}

#[test]
fn unknown_names_are_told_before_anything_happens() {
    let server = vae_server();
    let bench = Bench::new(json!([vae_entry(&server)]));
    let error = bench.fetch(&["v", "w", "x"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("`w`") && error.to_string().contains("`x`"), "{error}");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_disk_that_is_too_small_is_told_before_anything_happens() {
    let server = vae_server();
    let mut entry = vae_entry(&server);
    entry["files"][1]["bytes"] = json!(1u64 << 60);
    let bench = Bench::new(json!([entry]));
    let error = bench.fetch(&["v"]).unwrap_err();
    assert_eq!(error.exit_code(), 22);
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn damage_is_found_put_aside_and_mended() {
    let server = vae_server();
    let bench = Bench::new(json!([vae_entry(&server)]));
    bench.fetch(&["v"]).unwrap();
    let path = bench.path("v/diffusion_pytorch_model.safetensors");
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    let mut damaged = vae_files().1;
    damaged[1000] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    assert_eq!(bench.state("v"), State::Present);
    // Even where length and time are as they were.
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    assert_eq!(bench.state("v"), State::Verified);
    let now = bench.path("v/diffusion_pytorch_model.safetensors.bad");
    assert_eq!(bench.findings(&["v"]), [Finding::Good, Finding::PutAside { now: now.clone() }]);
    assert!(now.is_file());
    assert_eq!(bench.findings(&["v"]), [Finding::Good, Finding::Missing]);
    bench.fetch(&["v"]).unwrap();
    assert_eq!(bench.findings(&["v"]), [Finding::Good, Finding::Good]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_read_only_folder_can_be_verified() {
    let server = vae_server();
    let bench = Bench::new(json!([vae_entry(&server)]));
    bench.fetch(&["v"]).unwrap();
    // The lock cannot be made, as on a read-only file system, whoever runs the test: sysfs takes no files.
    std::fs::remove_file(bench.path(".fetch.lock")).unwrap();
    std::os::unix::fs::symlink("/sys/no-such-file", bench.path(".fetch.lock")).unwrap();
    assert_eq!(bench.findings(&["v"]), [Finding::Good, Finding::Good]);
    std::fs::write(bench.path("v/config.json"), "{}").unwrap();
    assert_eq!(bench.findings(&["v"]), [Finding::Damaged, Finding::Good]);
    assert_eq!(bench.files(), VAE_RESULT);
}

#[test]
fn a_file_that_was_touched_is_hashed_again() {
    #[track_caller]
    fn check(damage: bool) {
        let (_, file) = tiny_dit(1);
        let server = serve(vec![("/Tiny.pt".to_owned(), file.clone())]);
        let bench = Bench::new(json!([dit_entry(&server, &file)]));
        bench.fetch(&["tiny"]).unwrap();
        let path = bench.path("tiny.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        if damage {
            bytes.pop();
        }
        std::fs::write(&path, bytes).unwrap();
        let fetched = bench.fetch(&["tiny"]).unwrap();
        assert_eq!(fetched.installed.len(), usize::from(damage));
        assert_eq!(bench.path("tiny.safetensors.bad").exists(), damage);
        assert_eq!(bench.state("tiny"), State::Verified);
    }
    check(false);
    check(true);
}

#[test]
fn a_new_version_in_the_manifest_is_fetched() {
    let (_, first) = tiny_dit(1);
    let (_, second) = tiny_dit(2);
    let server = serve(vec![("/Tiny.pt".to_owned(), first.clone()), ("/2/Tiny.pt".to_owned(), second.clone())]);
    let bench = Bench::new(json!([dit_entry(&server, &first)]));
    bench.fetch(&["tiny"]).unwrap();
    let mut entry = dit_entry(&server, &second);
    entry["files"][0]["urls"] = json!([server.url("/2/Tiny.pt")]);
    bench.write_manifest(json!([entry]));
    assert_eq!(bench.fetch(&["tiny"]).unwrap().installed, ["tiny"]);
    let checkpoint = Checkpoint::open(bench.path("tiny.safetensors"), &OpenOptions::default()).unwrap();
    assert_eq!(checkpoint.metadata().origin.clone().unwrap().sha256, sha256(&second));
}

#[test]
fn a_result_without_a_receipt_is_adopted_left_alone_or_put_aside() {
    #[track_caller]
    fn check(prepare: impl FnOnce(&Bench), requests: usize, state: State) {
        let (_, file) = tiny_dit(1);
        let server = serve(vec![("/Tiny.pt".to_owned(), file.clone())]);
        let bench = Bench::new(json!([dit_entry(&server, &file)]));
        bench.fetch(&["tiny"]).unwrap();
        std::fs::remove_file(bench.path(".fetched/tiny.json")).unwrap();
        prepare(&bench);
        bench.fetch(&["tiny"]).unwrap();
        assert_eq!(server.requests().len(), requests);
        assert_eq!(bench.state("tiny"), state);
    }
    // Killed at the last moment.
    check(|_| (), 1, State::Verified);
    // The user's own.
    check(
        |bench| {
            let (_, other) = tiny_dit(2);
            let pt = bench.root.path().join("own.pt");
            std::fs::write(&pt, other).unwrap();
            let options = dit_weights::ConvertOptions {
                open: OpenOptions { heads: Some(4), ..OpenOptions::default() },
                ..dit_weights::ConvertOptions::default()
            };
            dit_weights::convert(&pt, bench.path("tiny.safetensors"), &options, &mut |_| ()).unwrap();
        },
        1,
        State::Present,
    );
    // Half a file.
    check(|bench| std::fs::write(bench.path("tiny.safetensors"), "half").unwrap(), 2, State::Verified);
}

#[test]
fn a_file_that_the_user_put_there_is_used_if_it_is_right() {
    #[track_caller]
    fn check(right: bool) {
        let (_, file) = tiny_dit(1);
        let server = serve(vec![("/Tiny.pt".to_owned(), file.clone())]);
        let bench = Bench::new(json!([dit_entry(&server, &file)]));
        std::fs::write(bench.path("Tiny.pt"), if right { file } else { tiny_dit(2).1 }).unwrap();
        bench.fetch(&["tiny"]).unwrap();
        assert_eq!(server.requests().len(), usize::from(!right));
        assert_eq!(bench.path("Tiny.pt.bad").exists(), !right);
    }
    check(true);
    check(false);
}

#[test]
fn litter_of_a_killed_conversion_is_cleared() {
    let server = vae_server();
    let bench = Bench::new(json!([vae_entry(&server)]));
    let work = bench.path(".fetched/work");
    std::fs::create_dir_all(&work).unwrap();
    std::fs::write(work.join(".v.safetensors.Ab3xYz.part"), "half").unwrap();
    std::fs::write(work.join("v.safetensors"), "whole, but not in its place").unwrap();
    bench.fetch(&["v"]).unwrap();
    assert_eq!(bench.files(), VAE_RESULT);
}

#[test]
fn originals_that_a_killed_run_did_not_delete_are_deleted_by_the_next() {
    #[track_caller]
    fn check(killed: impl FnOnce(&Bench), kept: &[&str]) {
        let (_, file) = tiny_dit(1);
        let server = serve(vec![("/Tiny.pt".to_owned(), file.clone())]);
        let mut bench = Bench::new(json!([dit_entry(&server, &file)]));
        bench.settings.originals = Originals::Keep;
        bench.fetch(&["tiny"]).unwrap();
        killed(&bench);
        bench.settings.originals = Originals::Delete;
        bench.fetch(&["tiny"]).unwrap();
        assert_eq!(bench.files(), [&[".fetched/tiny.json"], kept, &["tiny.safetensors"]].concat());
        assert_eq!((bench.state("tiny"), server.requests().len()), (State::Verified, 1));
        assert!(!std::fs::read_to_string(bench.path(".fetched/tiny.json")).unwrap().contains("deleting"));
    }
    // Before the receipt was written.
    check(|bench| std::fs::remove_file(bench.path(".fetched/tiny.json")).unwrap(), &[]);
    // After that.
    let receipt = |bench: &Bench| {
        let path = bench.path(".fetched/tiny.json");
        let mut receipt: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        receipt["deleting"] = json!(true);
        std::fs::write(path, receipt.to_string()).unwrap();
    };
    check(receipt, &[]);
    // Before the record of the first fetch, of a file for which nobody vouches.
    let record = |bench: &Bench| {
        let mut entry: Value = serde_json::from_slice(&std::fs::read(bench.manifest()).unwrap()).unwrap();
        entry["checkpoints"][0]["files"][0]["sha256"] = Value::Null;
        bench.write_manifest(entry["checkpoints"].take());
        std::fs::remove_file(bench.path(".fetched/tiny.json")).unwrap();
    };
    check(record, &[]);
    // Not killed: what the user asked to keep stays.
    check(|_| (), &["Tiny.pt"]);
}

#[test]
fn checkpoints_of_the_repository_are_checked_but_never_fetched() {
    let file = content(1000, 4);
    let entry = json!([{"name": "demo", "kind": "dit", "license": "MIT", "files": [
        {"path": "demo/d.safetensors", "sha256": sha256(&file)}]}]);
    let bench = Bench::new(entry);
    let error = bench.fetch(&["demo"]).unwrap_err();
    assert_eq!(error.exit_code(), 23);
    assert!(error.to_string().contains("missing"), "{error}");
    std::fs::create_dir_all(bench.path("demo")).unwrap();
    std::fs::write(bench.path("demo/d.safetensors"), &file).unwrap();
    assert_eq!(bench.fetch(&["demo"]).unwrap().ready, ["demo"]);
    assert_eq!(bench.findings(&["demo"]), [Finding::Good]);
    std::fs::write(bench.path("demo/d.safetensors"), &file[1..]).unwrap();
    assert!(bench.fetch(&["demo"]).unwrap_err().to_string().contains("damaged"));
    assert_eq!(bench.findings(&["demo"]), [Finding::Damaged]);
    assert!(bench.path("demo/d.safetensors").is_file());
}

#[test]
fn a_mirror_is_asked_first_and_may_lack_files() {
    let (config, weights) = vae_files();
    let original = vae_server();
    let mirror = serve(vec![("/m/v/config.json".to_owned(), config), ("/m/v/w".to_owned(), weights)]);
    let mut bench = Bench::new(json!([vae_entry(&original)]));
    bench.settings.set_mirror(&mirror.url("/m")).unwrap();
    bench.fetch(&["v"]).unwrap();
    assert_eq!(original.requests().len(), 0);
    assert_eq!(bench.files(), VAE_RESULT);

    let poor = serve(vec![]);
    let mut bench = Bench::new(json!([vae_entry(&original)]));
    bench.settings.set_mirror(&poor.url("")).unwrap();
    bench.fetch(&["v"]).unwrap();
    assert_eq!(original.requests().len(), 2);
}

#[test]
fn what_arrived_shows_in_the_list_and_is_not_fetched_again() {
    let (config, weights) = vae_files();
    let server = Server::start(move |request| match request.path.as_str() {
        "/v/config.json" => Response::file(request, &config, "\"c\""),
        _ => Response::file(request, &weights, "\"1\"").ending(Ending::Cut(if request.number < 3 {
            70_000
        } else {
            usize::MAX
        })),
    });
    let mut bench = Bench::new(json!([vae_entry(&server)]));
    bench.settings.retry.attempts = 1;
    bench.settings.jobs = std::num::NonZeroUsize::MIN;
    assert_eq!(bench.fetch(&["v"]).unwrap_err().exit_code(), 13);
    let config = vae_files().0.len() as u64;
    assert_eq!(bench.state("v"), State::Missing { arrived: 70_000 + config });
    assert_eq!(bench.fetch(&["v"]).unwrap_err().exit_code(), 13);
    assert_eq!(bench.state("v"), State::Missing { arrived: 140_000 + config });
    bench.fetch(&["v"]).unwrap();
    let starts: Vec<_> = server.requests().iter().map(|r| r.start()).collect();
    assert_eq!(starts, [None, None, Some(70_000), Some(140_000)]);
}

#[test]
fn a_vae_in_bin_is_converted() {
    let source = fixtures().join("vae-small");
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("w.bin");
    let vae = VaeCheckpoint::open(&source).unwrap();
    torch_save::write_state_dict(&bin, vae.infos().keys().map(|name| Ok((name.clone(), vae.read(name)?)))).unwrap();
    let (config, weights) = (std::fs::read(source.join("config.json")).unwrap(), std::fs::read(&bin).unwrap());
    let server = serve(vec![("/c".to_owned(), config), ("/w".to_owned(), weights.clone())]);
    let bench = Bench::new(json!([{"name": "v", "kind": "vae", "license": "MIT", "files": [
        {"path": "config.json", "urls": [server.url("/c")]},
        {"path": "diffusion_pytorch_model.bin", "urls": [server.url("/w")]}]}]));
    bench.fetch(&["v"]).unwrap();
    assert_eq!(bench.files(), VAE_RESULT);
    let vae = VaeCheckpoint::open(bench.path("v")).unwrap();
    assert_eq!(vae.config(), VaeCheckpoint::open(&source).unwrap().config());
    assert_eq!(vae.metadata().origin.clone().unwrap().sha256, sha256(&weights));
}
