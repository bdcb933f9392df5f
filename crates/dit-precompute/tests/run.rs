//! Runs over pictures in memory: what comes out is a function of the records and the settings alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use dit_data::{
    CropRecipe, Rgb,
    shard::{
        Encoding, EncodingPrecision, Flips, FolderWriter, LatentFolder, PictureVersion, Settings, SourceIdentity,
        Store, VaeIdentity,
    },
};
use dit_precompute::{Error, Picture, PictureError, Progress, Records, Report, RunOptions, run};
use dit_vae::{AutoencoderKl, LatentCodec};
use dit_weights::VaeCheckpoint;
use tch::{Device, Kind, Tensor};

const SIDE: usize = 16;

/// Pictures of every shape, some of them bad, and a source that may fail.
#[derive(Default)]
struct Pictures {
    bad: BTreeSet<u64>,
    panics: BTreeSet<u64>,
    /// The source fails when this record is read, unless it is 0.
    fails_at: u64,
    reads: AtomicU64,
}

fn picture(index: u64) -> Rgb {
    let (width, height) = (17 + index as usize % 9, 16 + index as usize % 5);
    let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut level = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    Rgb::new(width, height, (0..width * height * 3).map(|_| level()).collect()).unwrap()
}

impl Records for Pictures {
    fn key(&self, index: u64) -> String {
        format!("picture \"{index}\"")
    }

    fn label(&self, index: u64) -> i64 {
        (index % 3) as i64
    }

    fn picture(&self, index: u64) -> Result<Picture<'_>, PictureError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if index == self.fails_at && index > 0 {
            let source = io::Error::other("the disk was pulled out");
            return Err(PictureError::Source(dit_data::Error::Io { action: "read", path: "x".into(), source }));
        }
        assert!(!self.panics.contains(&index), "a fault in a decoder");
        if self.bad.contains(&index) {
            return Err(PictureError::Bad(format!("bad picture {index}")));
        }
        Ok(picture(index).into())
    }
}

struct Codec {
    codec: AutoencoderKl,
    identity: VaeIdentity,
}

fn codec() -> Codec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/vae-small");
    let checkpoint = VaeCheckpoint::open(path).unwrap();
    let identity = VaeIdentity {
        name: "vae-small".to_owned(),
        sha256: checkpoint.sha256().unwrap().to_owned(),
        config: checkpoint.config().clone(),
    };
    tch::set_num_threads(1);
    Codec { codec: AutoencoderKl::load(&checkpoint, Device::Cpu, Kind::Float).unwrap(), identity }
}

fn settings(codec: &Codec) -> Settings {
    Settings {
        image_size: SIDE,
        crop: CropRecipe::Adm,
        flips: Flips::Both,
        store: Store::F16,
        shard_size: 10,
        vae: codec.identity.clone(),
        source: SourceIdentity { fingerprint: "generated".to_owned(), records: 47 },
        encoding: Encoding { device: "cpu".to_owned(), precision: EncodingPrecision::Fp32, threads: 1, batch_size: 3 },
    }
}

fn classes() -> Vec<String> {
    ["a", "b", "c"].map(str::to_owned).to_vec()
}

fn run_with(
    folder: &Path,
    codec: &Codec,
    settings: &Settings,
    records: &Pictures,
    options: &RunOptions,
) -> Result<Report, Error> {
    let _no_grad = tch::no_grad_guard();
    let writer = FolderWriter::open(folder, settings.clone(), classes())?;
    run(records, &codec.codec, writer, options, &mut |_: Progress| {})
}

fn options(workers: usize) -> RunOptions {
    RunOptions { workers, max_skipped: 0.2 }
}

/// Every file and its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())).collect()
}

fn some_bad() -> Pictures {
    Pictures { bad: [3, 4, 5, 19, 20, 46].into(), panics: [31].into(), ..Pictures::default() }
}

#[test]
fn workers_and_interruptions_do_not_show() {
    let codec = codec();
    let settings = settings(&codec);
    let whole = tempfile::tempdir().unwrap();
    let report = run_with(whole.path(), &codec, &settings, &some_bad(), &options(2)).unwrap();
    let expected = contents(whole.path());
    let summary = report.manifest.summary.unwrap();
    assert_eq!((summary.records, summary.skipped, report.manifest.shards.len()), (40, 7, 5));
    assert_eq!((report.progress.done, report.progress.skipped, report.progress.resumed), (47, 7, 0));
    let names = ["shard-000000.safetensors", "shard-000004.safetensors", "skipped.jsonl", "manifest.json", ".lock"];
    assert!(names.iter().all(|name| expected.contains_key(*name)) && expected.len() == 8, "{:?}", expected.keys());
    let skipped = String::from_utf8(expected["skipped.jsonl"].clone()).unwrap();
    let third = r#"{"record":5,"key":"picture \"5\"","reason":"bad picture 5"}"#;
    assert!(skipped.lines().count() == 7 && skipped.lines().nth(2) == Some(third), "{skipped}");
    assert!(skipped.contains("the decoder failed"), "{skipped}");

    for workers in [1, 5] {
        let folder = tempfile::tempdir().unwrap();
        run_with(folder.path(), &codec, &settings, &some_bad(), &options(workers)).unwrap();
        assert!(contents(folder.path()) == expected, "{workers} workers made other bytes");
    }
    // Interrupted at every record, again and again, in one folder.
    let folder = tempfile::tempdir().unwrap();
    for fails_at in (1..47).step_by(2) {
        let records = Pictures { fails_at, ..some_bad() };
        let error = run_with(folder.path(), &codec, &settings, &records, &options(1 + fails_at as usize % 3));
        assert!(error.is_err() || fails_at < 46, "the source failed at {fails_at}");
        assert!(LatentFolder::open(folder.path()).is_err(), "an unfinished folder is not read");
    }
    let last = some_bad();
    run_with(folder.path(), &codec, &settings, &last, &options(2)).unwrap();
    assert!(contents(folder.path()) == expected, "interruptions show");
    let reads = last.reads.into_inner();
    assert!(reads <= 6, "{reads} pictures were read again");
    // And a finished folder is left as it is.
    let nothing = Pictures::default();
    run_with(folder.path(), &codec, &settings, &nothing, &options(2)).unwrap();
    assert_eq!(nothing.reads.into_inner(), 0);
    assert!(contents(folder.path()) == expected);
}

#[test]
fn what_is_stored_is_what_the_codec_gives() {
    let codec = codec();
    let no_grad = tch::no_grad_guard();
    for (store, tolerance) in [(Store::F32, 2e-5), (Store::F16, 1e-3)] {
        let settings = Settings { store, ..settings(&codec) };
        let folder = tempfile::tempdir().unwrap();
        let records = Pictures { bad: [7].into(), ..Pictures::default() };
        run_with(folder.path(), &codec, &settings, &records, &options(2)).unwrap();
        let latents = LatentFolder::open_verified(folder.path()).unwrap();
        let keys: Vec<String> = (0..5).flat_map(|shard| latents.keys(shard).unwrap()).collect();
        let kept: Vec<u64> = (0..47).filter(|&index| index != 7).collect();
        assert_eq!(keys, kept.iter().map(|&index| records.key(index)).collect::<Vec<_>>());
        for (place, &index) in kept.iter().enumerate() {
            assert_eq!(latents.label(place as u64), Some(records.label(index)));
            let cropped = CropRecipe::Adm.apply(picture(index), SIDE).unwrap();
            let levels: Vec<f32> = cropped.pixels().iter().map(|&level| f32::from(level)).collect();
            let image = Tensor::from_slice(&levels).view([1, 16, 16, 3]).permute([0, 3, 1, 2]) / 127.5 - 1.0;
            for (version, image) in
                [(PictureVersion::AsIs, image.shallow_clone()), (PictureVersion::Mirrored, image.flip([3]))]
            {
                let expected = codec.codec.encode(&image).unwrap();
                let stored = latents.moments(place as u64, version).unwrap();
                let mean: Vec<f32> = stored.mean().collect();
                let logvar: Vec<f32> = stored.logvar().collect();
                for (values, expected) in [(mean, expected.mean()), (logvar, expected.logvar())] {
                    let difference = Tensor::from_slice(&values) - expected.view(-1);
                    let relative = (difference.norm() / expected.norm()).double_value(&[]);
                    assert!(relative < tolerance, "record {index}, {version:?}: {relative}");
                }
            }
        }
    }
    drop(no_grad);
}

#[test]
fn too_many_bad_pictures_end_the_run_with_their_list() {
    let codec = codec();
    let settings = settings(&codec);
    let folder = tempfile::tempdir().unwrap();
    let strict = RunOptions { workers: 2, max_skipped: 0.1 }; // 4 of 47
    let error = run_with(folder.path(), &codec, &settings, &some_bad(), &strict).unwrap_err();
    let message = error.to_string();
    for part in ["5 of 47", "4 are allowed", "bad picture 20", "skipped.jsonl"] {
        assert!(message.contains(part), "{message}");
    }
    let list = fs::read_to_string(folder.path().join("skipped.jsonl")).unwrap();
    assert_eq!(list.lines().count(), 5, "{list}");
    // With more patience it goes on, and ends as if nothing had been.
    run_with(folder.path(), &codec, &settings, &some_bad(), &options(2)).unwrap();
    let whole = tempfile::tempdir().unwrap();
    run_with(whole.path(), &codec, &settings, &some_bad(), &options(2)).unwrap();
    assert!(contents(folder.path()) == contents(whole.path()));
}

#[test]
fn other_settings_a_second_writer_and_foreign_folders_are_refused() {
    let codec = codec();
    let settings = settings(&codec);
    let folder = tempfile::tempdir().unwrap();
    run_with(folder.path(), &codec, &settings, &Pictures::default(), &options(2)).unwrap();
    let before = contents(folder.path());
    let refused = |asked: Settings, parts: &[&str]| {
        let error = run_with(folder.path(), &codec, &asked, &Pictures::default(), &options(2)).unwrap_err();
        let message = error.to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    let mut other = settings.clone();
    other.image_size = 32;
    other.vae.sha256 = "0".repeat(64);
    other.encoding.threads = 2;
    refused(other, &["image_size: 16 there, 32 asked for", "vae.sha256", "encoding.threads: 1 there, 2"]);
    refused(Settings { image_size: 18, ..settings.clone() }, &["multiples of 4"]);
    let renamed = VaeIdentity { name: "another name".to_owned(), ..codec.identity.clone() };
    let same = Settings { vae: renamed, ..settings.clone() };
    run_with(folder.path(), &codec, &same, &Pictures::default(), &options(2)).unwrap();
    let held = FolderWriter::open(folder.path(), settings.clone(), classes()).unwrap();
    refused(settings.clone(), &["being written by another process"]);
    drop(held);
    assert!(contents(folder.path()) == before);

    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("thesis.tex"), "").unwrap();
    let error = FolderWriter::open(foreign.path(), settings, classes()).unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
    assert_eq!(contents(foreign.path()).len(), 1);
}

#[test]
fn damaged_shards_are_found_and_made_again() {
    let codec = codec();
    let settings = settings(&codec);
    let folder = tempfile::tempdir().unwrap();
    run_with(folder.path(), &codec, &settings, &some_bad(), &options(2)).unwrap();
    let before = contents(folder.path());
    let change = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = before[name].clone();
        change(&mut bytes);
        fs::write(folder.path().join(name), bytes).unwrap();
    };
    change("shard-000001.safetensors", &|bytes| *bytes.last_mut().unwrap() ^= 1);
    change("shard-000003.safetensors", &|bytes| bytes.truncate(bytes.len() - 7));
    let error = dit_data::shard::verify(folder.path()).unwrap_err().to_string();
    assert!(error.contains("shard-000001.safetensors: its SHA-256 is"), "{error}");
    assert!(error.contains("shard-000003.safetensors: it has"), "{error}");
    assert!(!error.contains("shard-000000"), "{error}");
    let error = LatentFolder::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("shard-000003.safetensors"), "{error}");
    let error = LatentFolder::open_verified(folder.path()).unwrap_err().to_string();
    assert!(error.contains("shard-000001.safetensors"), "{error}");
    run_with(folder.path(), &codec, &settings, &some_bad(), &options(2)).unwrap();
    assert!(contents(folder.path()) == before, "only what was damaged is made again, to the byte");

    change("skipped.jsonl", &|bytes| bytes.truncate(10));
    assert!(dit_data::shard::verify(folder.path()).is_err());
    run_with(folder.path(), &codec, &settings, &some_bad(), &options(2)).unwrap();
    assert!(contents(folder.path()) == before);
    dit_data::shard::verify(folder.path()).unwrap();
}
