//! WebDataset: members that share a path up to the first dot of its last part are one sample.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::file::SharedFile;
use super::listing::Listing;
use super::members::MemberStore;
use super::names::key;
use super::tar::{Member, Members};
use super::{Source, SourceKind};
use crate::Error;

/// The most that a label's text is believed to take.
const MOST_LABEL_BYTES: u64 = 1 << 20;

/// What is known of the sample being read.
#[derive(Default)]
struct Sample {
    name: Vec<u8>,
    picture: Option<Member>,
    label: Option<i64>,
}

/// The samples of `archives`, in that order.
pub(super) fn open(path: &Path, archives: Vec<PathBuf>) -> Result<Source, Error> {
    let read = archives.par_iter().map(|archive| samples(archive)).collect::<Result<Vec<_>, Error>>()?;
    let mut store = MemberStore::new(archives);
    let mut records = Vec::new();
    for (samples, archive) in read.into_iter().zip(0..) {
        for (key, label, picture) in samples {
            store.push(archive, &picture);
            records.push((key, label));
        }
    }
    Source::new(SourceKind::WebDataset, path, Listing::numbered(path, records)?, store)
}

/// Whether this archive's samples carry labels; judged by its first few members.
pub(super) fn has_labels(archive: &Path) -> Result<bool, Error> {
    const FEW: usize = 64;
    let file = SharedFile::open(archive)?;
    let mut members = Members::new(&file);
    for _ in 0..FEW {
        match members.next()? {
            Some(member) if matches!(split(&member.name).1.as_slice(), b"cls" | b"json") => return Ok(true),
            Some(_) => {}
            None => break,
        }
    }
    Ok(false)
}

/// Key, label and picture of every sample that has a picture.
fn samples(archive: &Path) -> Result<Vec<(String, i64, Member)>, Error> {
    let file = SharedFile::open(archive)?;
    let stem = archive.file_stem().unwrap_or_default().as_encoded_bytes();
    let mut found = Vec::new();
    let mut finish = |sample: Sample| -> Result<(), Error> {
        let Some(picture) = sample.picture else { return Ok(()) };
        let key = key(&[stem, b"/".as_slice(), &sample.name].concat());
        let Some(label) = sample.label else {
            return Err(Error::Source {
                path: archive.to_owned(),
                problem: format!("{key} has no label"),
                help: "each picture needs a .cls member with its class as a number, or a .json member with \"label\" or \"cls\"",
            });
        };
        found.push((key, label, picture));
        Ok(())
    };
    let mut members = Members::new(&file);
    let mut sample = Sample::default();
    while let Some(member) = members.next()? {
        let (name, extension) = split(&member.name);
        if name != sample.name {
            finish(std::mem::take(&mut sample))?;
            sample.name = name;
        }
        match extension.as_slice() {
            b"jpg" | b"jpeg" | b"png" | b"webp" if sample.picture.is_none() => sample.picture = Some(member),
            b"cls" => sample.label = Some(label(&file, &member, plain_label)?),
            b"json" if sample.label.is_none() => sample.label = label(&file, &member, json_label).ok(),
            _ => {}
        }
    }
    finish(sample)?;
    Ok(found)
}

/// A member's path up to the first dot of its last part, and what follows the dot in lower case.
fn split(path: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let last = path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    match path[last..].iter().position(|&byte| byte == b'.') {
        Some(dot) => (path[..last + dot].to_vec(), path[last + dot + 1..].to_ascii_lowercase()),
        None => (path.to_vec(), Vec::new()),
    }
}

fn label(file: &SharedFile, member: &Member, parse: impl Fn(&[u8]) -> Option<i64>) -> Result<i64, Error> {
    let text = file.read_up_to(member.offset, member.size.min(MOST_LABEL_BYTES) as usize)?;
    parse(&text).ok_or_else(|| Error::Archive {
        path: file.path().to_owned(),
        offset: member.offset,
        problem: format!("{} holds no class number", key(&member.name)),
    })
}

fn plain_label(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

fn json_label(text: &[u8]) -> Option<i64> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let named = ["label", "cls"].into_iter().find_map(|name| value.get(name)?.as_i64());
    named.or_else(|| value.as_i64())
}
