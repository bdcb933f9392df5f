//! Means and covariances of features, kept in npz files as Dhariwal & Nichol ship them.

use std::{io::Write, path::Path};

use dit_files::AtomicFile;
use tch::{Kind, Tensor};

use super::npz::{Npz, bad};
use crate::{Error, numbers::Gaussian};

/// What a reference's statistics are: `mu`, `sigma` of the pooled features, `mu_s`, `sigma_s` of the spatial ones.
#[derive(Debug)]
pub struct Statistics {
    /// Of the pooled features.
    pub pooled: Gaussian,
    /// Of the spatial features, where there are any.
    pub spatial: Option<Gaussian>,
}

impl Statistics {
    /// Those in the archive at `path`; none if it holds none.
    ///
    /// # Errors
    /// [`Error::Input`], [`Error::NonFinite`], [`Error::TensorShape`].
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        let npz = Npz::open(path)?;
        let gaussian = |mean: &str, covariance: &str| -> Result<Option<Gaussian>, Error> {
            match (npz.has(mean), npz.has(covariance)) {
                (false, false) => Ok(None),
                (true, true) => Ok(Some(Gaussian::new(npz.numbers(mean)?, npz.numbers(covariance)?)?)),
                _ => Err(bad(path, format!("it has one of {mean} and {covariance}, but not the other"))),
            }
        };
        let Some(pooled) = gaussian("mu", "sigma")? else { return Ok(None) };
        Ok(Some(Self { pooled, spatial: gaussian("mu_s", "sigma_s")? }))
    }

    /// Writes them to `path`, as float64, together with the text in `notes` (as `notes.npy`, uint8).
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::Io`], [`Error::Torch`].
    pub fn write(&self, path: &Path, notes: &str) -> Result<(), Error> {
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
        members.push(("notes.npy".to_owned(), npy_of("|u1", &[notes.len()], notes.as_bytes())));
        let mut file = AtomicFile::create(path)?;
        file.file_mut().write_all(&zip(&members)).map_err(Error::io("write", path))?;
        file.commit().map_err(Error::io("write", path))
    }
}

/// A float64 array as a NumPy file.
fn npy(x: &Tensor) -> Result<Vec<u8>, Error> {
    let values: Vec<f64> = Vec::try_from(&x.f_to_kind(Kind::Double)?.f_flatten(0, -1)?)?;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let shape: Vec<usize> = x.size().iter().map(|&extent| extent as usize).collect();
    Ok(npy_of("<f8", &shape, &bytes))
}

fn npy_of(descr: &str, shape: &[usize], values: &[u8]) -> Vec<u8> {
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
fn zip(members: &[(String, Vec<u8>)]) -> Vec<u8> {
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
