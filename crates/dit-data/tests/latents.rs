//! Latents read back: order, shares, positions, flips and draws.

use std::{collections::BTreeSet, fs, path::Path};

use dit_config::{VaeConfig, VaeSpec};
use dit_data::{
    CropRecipe, Error,
    shard::{
        BatchOptions, EncodedBatch, Encoding, EncodingPrecision, FlipChoice, Flips, FolderWriter, LatentBatch,
        LatentBatches, LatentFolder, Manifest, PictureVersion, Position, PosteriorDraw, Settings, ShardBuffer, Share,
        Skipped, SourceIdentity, Store, VaeIdentity,
    },
};

const RECORDS: u64 = 103;
/// C · h · w: 4 channels of 2 × 2.
const LATENT: usize = 16;

fn settings(flips: Flips, store: Store) -> Settings {
    let spec = VaeSpec { block_out_channels: vec![32, 32], ..VaeSpec::default() };
    Settings {
        image_size: 4,
        crop: CropRecipe::Pad,
        flips,
        store,
        shard_size: 25,
        vae: VaeIdentity { name: "none".to_owned(), sha256: "0".repeat(64), config: VaeConfig::new(spec).unwrap() },
        source: SourceIdentity { fingerprint: "made up".to_owned(), records: RECORDS },
        encoding: Encoding { device: "cpu".to_owned(), precision: EncodingPrecision::Fp32, threads: 1, batch_size: 10 },
    }
}

/// The moments of a record: the mean of each mirror image, then log-variances.
fn moments(record: u64, flips: Flips) -> Vec<f32> {
    let version = |flip: usize| {
        let mean = (0..LATENT).map(move |place| record as f32 + place as f32 / 16.0 + 500.0 * flip as f32);
        mean.chain((0..LATENT).map(move |place| -2.0 + place as f32 / 8.0))
    };
    (0..flips.count()).flat_map(version).collect()
}

/// Records 30 and 31 are skipped: 101 are left.
fn make(folder: &Path, settings: &Settings) -> Manifest {
    let classes = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    let mut writer = FolderWriter::open(folder, settings.clone(), classes).unwrap();
    let layout = settings.layout().unwrap();
    for plan in writer.missing() {
        let mut shard = ShardBuffer::new(plan.index, plan.first, layout);
        let all = plan.first..plan.first + plan.covered;
        let (bad, good): (Vec<u64>, Vec<u64>) = all.partition(|record| [30, 31].contains(record));
        let keys = good.iter().map(|record| format!("key {record}")).collect();
        let labels = good.iter().map(|record| (record % 4) as i64).collect();
        let skipped = bad
            .into_iter()
            .map(|record| Skipped { record, key: format!("key {record}"), reason: "bad".to_owned() })
            .collect();
        let values: Vec<f32> = good.iter().flat_map(|&record| moments(record, settings.flips)).collect();
        shard.push(EncodedBatch::new(&layout, plan.first, keys, labels, skipped, &values).unwrap());
        writer.commit(shard).unwrap();
    }
    writer.finish().unwrap()
}

fn options(batch_size: usize) -> BatchOptions {
    let (flip, draw) = (FlipChoice::Random, PosteriorDraw::Sample);
    BatchOptions { batch_size, seed: 5, share: Share::ALL, flip, draw }
}

fn batches(folder: &Path, options: BatchOptions) -> LatentBatches {
    LatentBatches::new(LatentFolder::open_verified(folder).unwrap(), options).unwrap()
}

fn take(batches: &mut LatentBatches, count: usize) -> Vec<LatentBatch> {
    (0..count).map(|_| batches.next_batch().unwrap()).collect()
}

#[test]
fn records_are_where_their_keys_are() {
    let folder = tempfile::tempdir().unwrap();
    for (flips, store) in [(Flips::Both, Store::F32), (Flips::None, Store::F16)] {
        let folder = folder.path().join(format!("{flips:?}"));
        let manifest = make(&folder, &settings(flips, store));
        let summary = manifest.summary.clone().unwrap();
        assert_eq!((summary.records, summary.skipped), (101, 2));
        assert_eq!(summary.class_counts, [26, 26, 25, 24]);
        let latents = LatentFolder::open(&folder).unwrap();
        assert_eq!((latents.len(), latents.manifest()), (101, &manifest));
        let keys: Vec<String> = (0..5).flat_map(|shard| latents.keys(shard).unwrap()).collect();
        for (place, key) in keys.iter().enumerate() {
            let record: u64 = key.strip_prefix("key ").unwrap().parse().unwrap();
            assert_eq!(latents.label(place as u64), Some((record % 4) as i64));
            let expected = moments(record, flips);
            let view = latents.moments(place as u64, PictureVersion::AsIs).unwrap();
            let got: Vec<f32> = view.mean().chain(view.logvar()).collect();
            assert_eq!(got, expected[..2 * LATENT], "{key}"); // all of them are exact in f16
            match latents.moments(place as u64, PictureVersion::Mirrored) {
                Ok(view) => assert!(view.mean().eq(expected[2 * LATENT..3 * LATENT].iter().copied()), "{key}"),
                Err(error) => assert!(flips == Flips::None && error.to_string().contains("make it with mirror images")),
            }
        }
        assert!(latents.moments(101, PictureVersion::AsIs).is_err() && latents.label(101).is_none());
        // Mean and deviation, computed another way.
        let draws = keys.iter().flat_map(|key| {
            let all = moments(key[4..].parse().unwrap(), flips);
            let versions = all.chunks(2 * LATENT).map(|one| [&one[..4], &one[LATENT..LATENT + 4]].concat());
            versions.collect::<Vec<_>>()
        });
        let (mut sum, mut square, mut count) = (0.0, 0.0, 0.0);
        for draw in draws {
            for (mean, logvar) in draw[..4].iter().zip(&draw[4..]) {
                sum += f64::from(*mean);
                square += f64::from(*mean).powi(2) + f64::from(*logvar).exp();
                count += 1.0;
            }
        }
        let (mean, std) = (sum / count, (square / count - (sum / count).powi(2)).sqrt());
        assert!((summary.mean[0] - mean).abs() < 1e-9 * mean, "{} {mean}", summary.mean[0]);
        assert!((summary.std[0] - std).abs() < 1e-9 * std, "{} {std}", summary.std[0]);
    }
}

#[test]
fn an_epoch_has_every_record_once_and_the_next_another_order() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), &settings(Flips::Both, Store::F16));
    let mut all = batches(folder.path(), options(10));
    assert_eq!(all.batches_per_epoch(), 10);
    let epochs: Vec<Vec<u64>> = (0..3)
        .map(|epoch| {
            let taken = take(&mut all, 10);
            assert_eq!(all.position().epoch, epoch);
            assert!(taken.iter().all(|batch| batch.shape == [10, 4, 2, 2] && batch.latents.len() == 160));
            taken.into_iter().flat_map(|batch| batch.records).collect()
        })
        .collect();
    for epoch in &epochs {
        assert_eq!(epoch.iter().collect::<BTreeSet<_>>().len(), 100, "a record came twice");
    }
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
}

#[test]
fn shares_of_a_batch_make_the_whole_and_do_not_overlap() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), &settings(Flips::Both, Store::F16));
    let whole = take(&mut batches(folder.path(), options(12)), 17);
    for world in [2, 3, 4] {
        let mut joined: Vec<(Vec<f32>, Vec<u64>)> = vec![Default::default(); 17];
        for rank in 0..world {
            let share = Share::new(rank, world).unwrap();
            let mut part = batches(folder.path(), BatchOptions { share, ..options(12 / world) });
            for (batch, joined) in take(&mut part, 17).into_iter().zip(&mut joined) {
                joined.0.extend(batch.latents);
                joined.1.extend(batch.records);
            }
        }
        for (whole, joined) in whole.iter().zip(joined) {
            assert_eq!((&whole.latents, &whole.records), (&joined.0, &joined.1), "{world} processes");
        }
    }
    assert!(Share::new(2, 2).is_err());
}

#[test]
fn a_position_continues_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), &settings(Flips::Both, Store::F16));
    let mut run = batches(folder.path(), options(7));
    for _ in 0..40 {
        let text = serde_json::to_string(&run.position()).unwrap();
        let position: Position = serde_json::from_str(&text).unwrap();
        let latents = LatentFolder::open(folder.path()).unwrap();
        let mut continued = LatentBatches::at(latents, options(7), position).unwrap();
        let next = run.next_batch().unwrap();
        assert_eq!(continued.next_batch().unwrap(), next);
        assert_eq!(continued.position(), run.position());
    }
    // What was consumed is not seen again in the same epoch, even with other batches.
    let mut first = batches(folder.path(), options(30));
    let seen: BTreeSet<u64> = take(&mut first, 2).into_iter().flat_map(|batch| batch.records).collect();
    let latents = LatentFolder::open(folder.path()).unwrap();
    let mut rest = LatentBatches::at(latents, options(20), first.position()).unwrap();
    let later: BTreeSet<u64> = take(&mut rest, 2).into_iter().flat_map(|batch| batch.records).collect();
    assert!(seen.is_disjoint(&later) && later.len() == 40);

    let refused = |position: Position, options: BatchOptions, part: &str| {
        let latents = LatentFolder::open(folder.path()).unwrap();
        let error = LatentBatches::at(latents, options, position).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    let position = run.position();
    refused(Position { seed: 6, ..position }, options(7), "seed 6");
    refused(Position { records: 100, ..position }, options(7), "100 records");
    refused(position, options(102), "smaller batches");
    refused(position, options(0), "batch of 0");
}

#[test]
fn flips_and_draws_are_fair_and_the_records_own() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), &settings(Flips::Both, Store::F32));
    let epochs = 200;
    let (mut flipped, mut count, mut sum, mut square) = (0.0, 0.0, 0.0, 0.0);
    let mut run = batches(folder.path(), options(100));
    for batch in take(&mut run, epochs) {
        for (latent, record) in batch.latents.chunks(LATENT).zip(&batch.records) {
            let place = record + 2 * u64::from(*record >= 30); // two were skipped
            let is_flipped = latent[0] > 300.0;
            flipped += f64::from(u8::from(is_flipped));
            let base = place as f32 + if is_flipped { 500.0 } else { 0.0 };
            for (index, value) in latent.iter().enumerate() {
                let std = (0.5 * (-2.0 + index as f64 / 8.0)).exp();
                let noise = f64::from(value - base - index as f32 / 16.0) / std;
                count += 1.0;
                sum += noise;
                square += noise * noise;
            }
        }
    }
    // 20,000 flips and 320,000 normals: five standard deviations.
    let (heads, mean, variance): (f64, f64, f64) = (flipped / 20_000.0, sum / count, square / count);
    assert!((heads - 0.5).abs() < 0.018, "{heads} were flipped");
    assert!(mean.abs() < 0.009 && (variance - 1.0).abs() < 0.0125, "mean {mean}, variance {variance}");

    // Neither means nor unflipped batches change which records come, and the noise is that of the record.
    let sampled = batches(folder.path(), options(20)).next_batch().unwrap();
    let never = BatchOptions { flip: FlipChoice::Never, ..options(20) };
    let unflipped = batches(folder.path(), never).next_batch().unwrap();
    let means = batches(folder.path(), BatchOptions { draw: PosteriorDraw::Mean, ..never }).next_batch().unwrap();
    assert!(sampled.records == unflipped.records && means.records == sampled.records);
    for place in 0..20 {
        let of = |batch: &LatentBatch, index: usize| batch.latents[place * LATENT + index];
        let flip = if of(&sampled, 0) > 300.0 { 500.0 } else { 0.0 };
        let index = 3;
        assert!((of(&sampled, index) - flip - of(&unflipped, index)).abs() < 1e-3);
        let record = means.records[place];
        assert_eq!(of(&means, index), (record + 2 * u64::from(record >= 30)) as f32 + 3.0 / 16.0);
    }

    let unflippable = tempfile::tempdir().unwrap();
    make(unflippable.path(), &settings(Flips::None, Store::F16));
    let latents = LatentFolder::open(unflippable.path()).unwrap();
    assert!(LatentBatches::new(latents, options(5)).unwrap_err().to_string().contains("make it with mirror images"));
}

#[test]
fn values_that_cannot_be_stored_are_refused_by_name() {
    let check = |store: Store, value: f32, part: Option<&str>| {
        let layout = settings(Flips::None, store).layout().unwrap();
        let mut values = vec![0.0; layout.record_len()];
        values[7] = value;
        let made = EncodedBatch::new(&layout, 0, vec!["n01/x.png".to_owned()], vec![0], Vec::new(), &values);
        match (made, part) {
            (Ok(_), None) => {}
            (Err(error @ Error::LatentValue { .. }), Some(part)) => {
                let text = error.to_string();
                assert!(text.contains(part) && text.contains("n01/x.png"), "{text}");
            }
            (other, _) => panic!("{store:?} {value}: {other:?}"),
        }
    };
    check(Store::F16, 65504.0, None);
    check(Store::F16, 70000.0, Some("store f32"));
    check(Store::F32, 70000.0, None);
    check(Store::F32, f32::NAN, Some("compute in fp32"));
    check(Store::F16, f32::INFINITY, Some("compute in fp32"));
}

#[test]
fn manifests_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), &settings(Flips::Both, Store::F16));
    let path = folder.path().join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let refused = |from: &str, to: &str, part: &str| {
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = LatentFolder::open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::NotLatents { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    refused("\"version\": 1", "\"version\": 2", "version 2");
    refused("\"dit-latents\"", "\"latents\"", "format latents");
    refused("\"shard-000001", "\"../shard-000001", "contradicts");
    refused("\"first_record\": 25", "\"first_record\": 26", "contradicts");
    refused("\"skipped\": 2", "\"skipped\": 3", "contradicts");
    refused("\"shard_size\": 25", "\"shard_size\": 0", "0 records");
    refused("\"image_size\": 4", "\"image_size\": 5", "multiples of 2");
    refused("\"image_size\"", "\"surprise\": 1, \"image_size\"", "surprise");
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(matches!(LatentFolder::open(folder.path()), Err(Error::NotLatents { .. })));
    fs::remove_file(&path).unwrap();
    assert!(LatentFolder::open(folder.path()).unwrap_err().to_string().contains("no manifest.json"));
}
