//! Event files, read as TensorBoard reads them: by a reader of records and protocol-buffer messages that is written here.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dit_config::{BlockDesign, DitConfig, DitSpec, LatentSize, Numerics, Sigma};
use dit_image::{Caption, Picture, write_png};
use dit_model::{Dit, Initialization};
use dit_train::{
    BucketLosses, EvaluationReport, Event, Losses, NonFiniteReport, Observer, Remedy, SampleLoss, Stage, StopRequest,
    ValidationReport, WindowReport, watch::TensorBoard,
};
use tch::{Device, nn::VarStore};

/// CRC-32C a bit at a time, rotated and shifted as the format wants it.
fn masked_crc(data: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    let crc = !data.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step));
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// What the records of a file hold, their checksums checked.
#[track_caller]
fn records(file: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut records) = (file, Vec::new());
    while !rest.is_empty() {
        let (length, after) = rest.split_at(8);
        let bytes = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let (crc_of_length, after) = after.split_at(4);
        let (data, after) = after.split_at(bytes);
        let (crc_of_data, after) = after.split_at(4);
        assert_eq!(crc_of_length, masked_crc(length).to_le_bytes());
        assert_eq!(crc_of_data, masked_crc(data).to_le_bytes());
        records.push(data);
        rest = after;
    }
    records
}

#[derive(Debug, PartialEq)]
enum Value<'a> {
    Integer(u64),
    Double(f64),
    Float(f32),
    Bytes(&'a [u8]),
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for place in 0.. {
        let (byte, after) = rest.split_first().unwrap();
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// The fields of a message: numbers and values, in their order.
#[track_caller]
fn fields(mut rest: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest);
        let mut take = |count: usize| {
            let (taken, after) = rest.split_at(count);
            rest = after;
            taken
        };
        let value = match key & 7 {
            0 => Value::Integer(varint(&mut rest)),
            1 => Value::Double(f64::from_le_bytes(take(8).try_into().unwrap())),
            2 => {
                let length = varint(&mut rest) as usize;
                let (taken, after) = rest.split_at(length);
                rest = after;
                Value::Bytes(taken)
            }
            5 => Value::Float(f32::from_le_bytes(take(4).try_into().unwrap())),
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

/// What an event says.
#[derive(Debug, PartialEq)]
enum What {
    Version(String),
    /// `SessionLog.status`.
    Session(u64),
    Scalars(Vec<(String, f32)>),
    /// Tag, height, width, colour space, bytes.
    Picture(String, [u64; 3], Vec<u8>),
}

/// The step and the content of an event whose time is about now.
#[track_caller]
fn event(record: &[u8]) -> (u64, What) {
    let (mut step, mut what) = (0, None);
    for (number, value) in fields(record) {
        match (number, value) {
            (1, Value::Double(seconds)) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
                assert!((now - seconds).abs() < 3600.0, "{seconds} s since 1970");
            }
            (2, Value::Integer(at)) => step = at,
            (3, Value::Bytes(version)) => what = Some(What::Version(text(version))),
            (5, Value::Bytes(summary)) => what = Some(content(summary)),
            (7, Value::Bytes(session)) => match fields(session)[..] {
                [(1, Value::Integer(status))] => what = Some(What::Session(status)),
                ref other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
    (step, what.expect("an event says something"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn content(summary: &[u8]) -> What {
    let mut scalars = Vec::new();
    for (number, value) in fields(summary) {
        let (1, Value::Bytes(value)) = (number, value) else { panic!("field {number} of a summary") };
        match fields(value)[..] {
            [(1, Value::Bytes(tag)), (2, Value::Float(value))] => scalars.push((text(tag), value)),
            [(1, Value::Bytes(tag)), (4, Value::Bytes(image))] => match fields(image)[..] {
                [
                    (1, Value::Integer(height)),
                    (2, Value::Integer(width)),
                    (3, Value::Integer(colours)),
                    (4, Value::Bytes(encoded)),
                ] => return What::Picture(text(tag), [height, width, colours], encoded.to_vec()),
                ref other => panic!("{other:?}"),
            },
            ref other => panic!("{other:?}"),
        }
    }
    What::Scalars(scalars)
}

/// The event files of a run, in their order.
fn files(run: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(run.join("tensorboard")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[track_caller]
fn read(file: &Path) -> Vec<(u64, What)> {
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(name.contains("tfevents"), "TensorBoard looks at no file of the name {name}");
    records(&fs::read(file).unwrap()).into_iter().map(event).collect()
}

fn scalars(pairs: &[(&str, f32)]) -> What {
    What::Scalars(pairs.iter().map(|(tag, value)| ((*tag).to_owned(), *value)).collect())
}

/// How a session begins: what is of later steps in earlier files does not count.
fn beginning(step: u64) -> [(u64, What); 2] {
    [(0, What::Version("brain.Event:2".to_owned())), (step + 1, What::Session(1))]
}

fn losses_of(timestep: u32, mse: f64, vb: f64) -> BucketLosses {
    let mut losses = BucketLosses::new(1000);
    losses.add(&SampleLoss { timestep, weight: 1.0, total: mse + vb, mse: Some(mse), vb: Some(vb) });
    losses
}

fn window(step: u64) -> WindowReport {
    let losses = Losses { total: 0.75, mse: Some(0.5), vb: Some(0.25) };
    let by_bucket = losses_of(205, 0.375, 0.125);
    WindowReport { step, steps: 10, losses, by_bucket, lr: 1e-4, grad_norm: 2.5, images_per_second: 100.0 }
}

/// What TensorBoard has of it.
fn window_scalars() -> What {
    scalars(&[
        ("train/loss", 0.75),
        ("train/mse", 0.5),
        ("train/vb", 0.25),
        ("train_by_timestep/0200-0299", 0.5),
        ("train_mse_by_timestep/0200-0299", 0.375),
        ("train_vb_by_timestep/0200-0299", 0.125),
        ("train/lr", 1e-4),
        ("train/grad_norm", 2.5),
        ("train/images_per_second", 100.0),
    ])
}

fn start(board: &mut TensorBoard, step: u64) {
    board.observe(&Event::Started { step, steps: 100, owed: &[] }).unwrap();
}

#[test]
fn each_session_has_a_file_of_its_own_that_takes_back_what_came_after_its_beginning() {
    let run = tempfile::tempdir().unwrap();
    for step in [0, 200] {
        let mut board = TensorBoard::new(run.path());
        start(&mut board, step);
        board.observe(&Event::Window(&window(step + 100))).unwrap();
        board.observe(&Event::Window(&window(step + 200))).unwrap();
        board.observe(&Event::CheckpointWritten { step, path: run.path(), time: Duration::ZERO }).unwrap();
    }
    let files = files(run.path());
    assert_eq!(files.len(), 2);
    for (file, step) in files.iter().zip([0, 200]) {
        let windows = [(step + 100, window_scalars()), (step + 200, window_scalars())];
        assert_eq!(read(file), beginning(step).into_iter().chain(windows).collect::<Vec<_>>());
    }
}

#[test]
fn going_back_begins_another_file() {
    let run = tempfile::tempdir().unwrap();
    let mut board = TensorBoard::new(run.path());
    start(&mut board, 0);
    let (place, tensor) = ("blocks.3".to_owned(), "output of blocks.3".to_owned());
    let report = NonFiniteReport { step: 305, stage: Stage::Forward, place, tensor };
    board.observe(&Event::NonFinite { report: &report, remedy: Remedy::RolledBack { to: 300 } }).unwrap();
    board.observe(&Event::Window(&window(400))).unwrap();
    let files = files(run.path());
    assert_eq!(files.len(), 2);
    assert_eq!(read(&files[0]), beginning(0));
    assert_eq!(read(&files[1]), beginning(300).into_iter().chain([(400, window_scalars())]).collect::<Vec<_>>());
}

/// A network, which is asked nothing.
fn small() -> DitConfig {
    DitConfig::new(DitSpec {
        block: BlockDesign::AdaLn,
        hidden: 4,
        depth: 1,
        heads: 1,
        patch: 2,
        mlp_ratio: 1.0,
        in_channels: 4,
        latent: LatentSize::square(2),
        num_classes: 1,
        label_dropout: 0.0,
        sigma: Sigma::Fixed,
        numerics: Numerics::Original,
    })
    .unwrap()
}

#[test]
fn validation_evaluation_and_pictures_are_there() {
    let run = tempfile::tempdir().unwrap();
    let mut board = TensorBoard::new(run.path());
    start(&mut board, 0);
    let (raw, ema) = (losses_of(999, 0.5, 0.25), losses_of(0, 0.125, 0.0625));
    board.observe(&Event::Validation(&ValidationReport { step: 20, images: 1, raw, ema })).unwrap();
    let report = EvaluationReport {
        step: 30,
        samples: 500,
        features: "demo".to_owned(),
        cfg_scale: 1.5,
        fid: 12.5,
        interval: [12.0, 13.0],
        time: Duration::from_secs(2),
    };
    board.observe(&Event::Evaluation(&report)).unwrap();

    // Where pictures were drawn for the same event: three rows of five.
    let picture = Picture::from_rgb((0..45).collect(), 5, 3).unwrap();
    fs::create_dir(run.path().join("samples")).unwrap();
    let path = run.path().join("samples/step-00000040.png");
    write_png(&path, &picture, &Caption::default()).unwrap();
    let ema = Dit::new(&VarStore::new(Device::Cpu).root(), &small(), Initialization::Empty);
    let stop = StopRequest::new();
    board.observe(&Event::SamplesDue { step: 40, ema: &ema, stop: &stop }).unwrap();
    // None were drawn.
    board.observe(&Event::SamplesDue { step: 50, ema: &ema, stop: &stop }).unwrap();

    let validation = scalars(&[
        ("validation/loss", 0.75),
        ("validation/mse", 0.5),
        ("validation/vb", 0.25),
        ("validation_by_timestep/0900-0999", 0.75),
        ("validation_mse_by_timestep/0900-0999", 0.5),
        ("validation_vb_by_timestep/0900-0999", 0.25),
        ("validation_ema/loss", 0.1875),
        ("validation_ema/mse", 0.125),
        ("validation_ema/vb", 0.0625),
        ("validation_ema_by_timestep/0000-0099", 0.1875),
        ("validation_ema_mse_by_timestep/0000-0099", 0.125),
        ("validation_ema_vb_by_timestep/0000-0099", 0.0625),
    ]);
    let png = fs::read(&path).unwrap();
    let expected = [
        (20, validation),
        (30, scalars(&[("evaluation/fid_of_500_samples", 12.5)])),
        (40, What::Picture("samples".to_owned(), [3, 5, 3], png)),
    ];
    let found = read(&files(run.path())[0]);
    assert_eq!(found, beginning(0).into_iter().chain(expected).collect::<Vec<_>>());
}
