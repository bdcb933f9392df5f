//! Means and covariances of features, kept in npz files as Dhariwal & Nichol ship them.

use std::{io::Write, path::Path};

use dit_files::AtomicFile;
use tch::{Kind, Tensor};

use super::StatisticsNotes;
use super::npz::{Npz, bad};
use crate::{Error, numbers::Gaussian};

/// The most that notes may take.
const MOST_NOTES: usize = 1 << 16;

/// What a reference's statistics are: `mu`, `sigma` of the pooled features, `mu_s`, `sigma_s` of the spatial ones.
#[derive(Debug)]
pub struct Statistics {
    /// Of the pooled features.
    pub pooled: Gaussian,
    /// Of the spatial features, where there are any.
    pub spatial: Option<Gaussian>,
    /// Of which pictures and features they are, where this toolkit wrote them.
    pub notes: Option<StatisticsNotes>,
}

impl Statistics {
    /// Those in the archive at `path`; none if it holds none.
    ///
    /// # Errors
    /// [`Error::Input`], of what is no mean or covariance too.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        let npz = Npz::open(path)?;
        let gaussian = |mean: &str, covariance: &str| -> Result<Option<Gaussian>, Error> {
            match (npz.has(mean), npz.has(covariance)) {
                (false, false) => Ok(None),
                (true, true) => {
                    let gaussian = Gaussian::new(npz.numbers(mean)?, npz.numbers(covariance)?);
                    gaussian.map(Some).map_err(|error| in_file(path, &format!("{mean} and {covariance}"), error))
                }
                _ => Err(bad(path, format!("it has one of {mean} and {covariance}, but not the other"))),
            }
        };
        let Some(pooled) = gaussian("mu", "sigma")? else { return Ok(None) };
        let notes = if npz.has("notes") { npz.bytes("notes", MOST_NOTES)? } else { None };
        let notes = notes.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(Some(Self { pooled, spatial: gaussian("mu_s", "sigma_s")?, notes }))
    }

    /// Writes them to `path`, as float64, together with the notes (as `notes.npy`, uint8).
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::Io`], [`Error::Torch`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let mut members = Vec::new();
        let mut add = |name: &str, x: &Tensor| -> Result<(), Error> {
            members.push((format!("{name}.npy"), npy(x)?));
            Ok(())
        };
        add("mu", self.pooled.mean())?;
        add("sigma", self.pooled.covariance())?;
        if let Some(spatial) = &self.spatial {
            add("mu_s", spatial.mean())?;
            add("sigma_s", spatial.covariance())?;
        }
        if let Some(notes) = &self.notes {
            let text = serde_json::json!(notes).to_string();
            members.push(("notes.npy".to_owned(), npy_of("|u1", &[text.len()], text.as_bytes())));
        }
        let mut file = AtomicFile::create(path)?;
        file.file_mut().write_all(&zip(&members)).map_err(Error::io("write", path))?;
        file.commit().map_err(Error::io("write", path))
    }
}

/// What is wrong with numbers that a file gave, as an error of that file.
fn in_file(path: &Path, names: &str, error: Error) -> Error {
    let problem = match error {
        Error::NonFinite { what, count } => format!("{what} are not finite ({count} of them)"),
        Error::NotCovariance { problem } => format!("the covariance {problem}"),
        Error::TensorShape { what, actual, expected } => format!("{what} of shape {actual:?}, expected {expected}"),
        other => return other,
    };
    let help = "make or download the statistics again";
    Error::Input { path: path.to_owned(), problem: format!("{names}: {problem}"), help }
}

/// A float64 array as a NumPy file.
fn npy(x: &Tensor) -> Result<Vec<u8>, Error> {
    let values: Vec<f64> = Vec::try_from(&x.f_to_kind(Kind::Double)?.f_flatten(0, -1)?)?;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let shape: Vec<usize> = x.size().iter().map(|&extent| extent as usize).collect();
    Ok(npy_of("<f8", &shape, &bytes))
}

pub(crate) fn npy_of(descr: &str, shape: &[usize], values: &[u8]) -> Vec<u8> {
    let extents: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", extents.trim_end());
    // The header's length, with its first ten bytes and the line's end, is a multiple of 64.
    let padded = (10 + text.len() + 1).next_multiple_of(64) - 10 - 1;
    text.extend(std::iter::repeat_n(' ', padded - text.len()));
    text.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((text.len() as u16).to_le_bytes());
    file.extend(text.bytes());
    file.extend(values);
    file
}

/// A zip file of stored members, below 4 GiB.
pub(crate) fn zip(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for (name, bytes) in members {
        let mut checksum = flate2::Crc::new();
        checksum.update(bytes);
        let mut common = Vec::new();
        // Version 2.0, no flags, stored, midnight of 1 January 1980.
        for field in [20u16, 0, 0, 0, 1 << 5 | 1] {
            common.extend(field.to_le_bytes());
        }
        for field in [checksum.sum(), bytes.len() as u32, bytes.len() as u32] {
            common.extend(field.to_le_bytes());
        }
        common.extend((name.len() as u16).to_le_bytes());
        common.extend(0u16.to_le_bytes());
        let offset = file.len() as u32;
        file.extend(b"PK\x03\x04");
        file.extend(&common);
        file.extend(name.bytes());
        file.extend(bytes);
        directory.extend(b"PK\x01\x02");
        directory.extend(20u16.to_le_bytes());
        directory.extend(&common);
        // No comment, first disk, no attributes.
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.bytes());
    }
    let (offset, length, count) = (file.len() as u32, directory.len() as u32, members.len() as u16);
    file.extend(directory);
    file.extend(b"PK\x05\x06");
    for field in [0u16, 0, count, count] {
        file.extend(field.to_le_bytes());
    }
    for field in [length, offset] {
        file.extend(field.to_le_bytes());
    }
    file.extend(0u16.to_le_bytes());
    file
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use flate2::{Compression, write::DeflateEncoder};
    use tch::Device;

    use super::*;
    use crate::{Fit, Pictures};

    fn statistics() -> Statistics {
        let options = (Kind::Double, Device::Cpu);
        let gaussian = |width: i64| Gaussian::new(Tensor::arange(width, options), Tensor::eye(width, options)).unwrap();
        let notes = StatisticsNotes {
            software: "a test".to_owned(),
            pictures: "12ab".to_owned(),
            count: 7,
            network: "demo".to_owned(),
            weights: "34cd".to_owned(),
        };
        Statistics { pooled: gaussian(3), spatial: Some(gaussian(2)), notes: Some(notes) }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        for spoiled in [false, true] {
            let mut written = statistics();
            if spoiled {
                (written.spatial, written.notes) = (None, None);
            }
            written.write(&path).unwrap();
            let found = Statistics::read(&path).unwrap().unwrap();
            assert_eq!(found.pooled.mean(), written.pooled.mean());
            assert_eq!(found.spatial.is_some(), !spoiled);
            assert_eq!(found.notes, written.notes);
        }
        fs::write(
            &path,
            zip(&[("other.npy".to_owned(), npy(&Tensor::ones([2], (Kind::Double, Device::Cpu))).unwrap())]),
        )
        .unwrap();
        assert!(Statistics::read(&path).unwrap().is_none());
    }

    #[test]
    fn what_is_no_gaussian_is_an_error_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Double, Device::Cpu));
        for (mean, covariance, expected) in [
            (ones(&[3]) * f64::NAN, ones(&[3, 3]), "finite (3 of them)"),
            (ones(&[3]), ones(&[3, 3]) / 0.0, "finite (9 of them)"),
            (ones(&[3]), ones(&[3, 2]), "of shape [3, 3, 2], expected (D) and (D, D)"),
            (ones(&[3, 1]), ones(&[3, 3]), "of shape [3, 1, 3, 3]"),
            (ones(&[3]), ones(&[3, 3]).tril(-1), "the covariance is not symmetric"),
        ] {
            for (names, other) in [(["mu", "sigma"], ["mu_s", "sigma_s"]), (["mu_s", "sigma_s"], ["mu", "sigma"])] {
                let right = statistics().pooled;
                let members: Vec<_> = [(names, &mean, &covariance), (other, right.mean(), right.covariance())]
                    .into_iter()
                    .flat_map(|(names, mean, covariance)| [(names[0], mean), (names[1], covariance)])
                    .map(|(name, x)| (format!("{name}.npy"), npy(x).unwrap()))
                    .collect();
                fs::write(&path, zip(&members)).unwrap();
                let message = Statistics::read(&path).unwrap_err().to_string();
                let names = format!("a.npz: {} and {}: ", names[0], names[1]);
                assert!([&*names, expected, "help:"].iter().all(|text| message.contains(text)), "{message}");
            }
        }
    }

    #[test]
    fn notes_of_others_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        for text in ["not ours", "{}", "[1]"] {
            let mut members = Vec::new();
            for (name, x) in
                [("mu", statistics().pooled.mean().copy()), ("sigma", statistics().pooled.covariance().copy())]
            {
                members.push((format!("{name}.npy"), npy(&x).unwrap()));
            }
            members.push(("notes.npy".to_owned(), npy_of("|u1", &[text.len()], text.as_bytes())));
            fs::write(&path, zip(&members)).unwrap();
            assert_eq!(Statistics::read(&path).unwrap().unwrap().notes, None, "{text}");
        }
    }

    /// Every byte of `bytes` that belongs to an array, changed, is found.
    #[track_caller]
    fn check_damage(path: &Path, bytes: &[u8], at: usize, read: &dyn Fn() -> Result<(), Error>) {
        fs::write(path, bytes).unwrap();
        read().unwrap();
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1;
        fs::write(path, damaged).unwrap();
        let message = read().unwrap_err().to_string();
        assert!(message.contains("checksum") && message.contains("help: the file is damaged"), "{message}");
    }

    #[test]
    fn changed_bytes_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        statistics().write(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let read = || Statistics::read(&path).map(|_| ());
        // A value of sigma: the second array's.
        let sigma = bytes.windows(9).position(|window| window == b"sigma.npy").unwrap();
        check_damage(&path, &bytes, sigma + 9 + 128 + 3, &read);

        // Pictures, stored; then deflated, where the checksum in the directory is another.
        let pictures = npy_of("|u1", &[2, 4, 4, 3], &[7; 96]);
        let hash = || Pictures::open(&path, Fit::AsIs)?.sha256().map(|_| ());
        let stored = zip(&[("arr_0.npy".to_owned(), pictures.clone())]);
        check_damage(&path, &stored, 30 + 9 + 128 + 50, &hash);

        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&pictures).unwrap();
        let deflated = encoder.finish().unwrap();
        let mut file = zip(&[("arr_0.npy".to_owned(), deflated.clone())]);
        let mut checksum = flate2::Crc::new();
        checksum.update(&pictures);
        let directory = file.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        for header in [0, directory + 2] {
            file[header + 8] = 8; // deflated
            file[header + 14..header + 18].copy_from_slice(&checksum.sum().to_le_bytes());
            file[header + 22..header + 26].copy_from_slice(&(pictures.len() as u32).to_le_bytes());
        }
        check_damage(&path, &file, directory + 16, &hash);
    }
}
