//! The kinds of machine that libtorch is published for.

use anyhow::{Result, bail};

use super::VERSION;

/// With or without CUDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Cpu,
    Cuda,
}

impl Variant {
    /// As in the names of the cache's folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

/// A machine that libtorch runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    LinuxX86_64,
    LinuxAarch64,
    MacArm64,
}

impl Platform {
    /// The one this program was built for.
    pub fn current() -> Result<Self> {
        if cfg!(all(target_os = "linux", not(target_env = "gnu"))) {
            bail!("libtorch {VERSION} needs glibc, and this is another C library; set LIBTORCH to one built for it");
        }
        match (std::env::consts::OS, std::env::consts::ARCH) {
            ("linux", "x86_64") => Ok(Self::LinuxX86_64),
            ("linux", "aarch64") => Ok(Self::LinuxAarch64),
            ("macos", "aarch64") => Ok(Self::MacArm64),
            (os, arch) => {
                bail!("no libtorch {VERSION} is published for {os} on {arch}; set LIBTORCH to a folder that has one")
            }
        }
    }

    /// As in the names of the cache's folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::LinuxX86_64 => "linux-x86_64",
            Self::LinuxAarch64 => "linux-aarch64",
            Self::MacArm64 => "macos-arm64",
        }
    }

    /// Refuses a C library that the libraries would not load on.
    pub fn require_c_library(self) -> Result<()> {
        match self {
            Self::LinuxX86_64 | Self::LinuxAarch64 => glibc().map_or(Ok(()), |version| require_glibc(&version)),
            Self::MacArm64 => Ok(()),
        }
    }

    /// The platform tags that pip may choose a wheel by. pip takes each literally: a wheel for an older glibc
    /// than the newest named here is found only if its tag is listed too.
    pub fn wheel_tags(self) -> Vec<String> {
        let arch = match self {
            Self::LinuxX86_64 => "x86_64",
            Self::LinuxAarch64 => "aarch64",
            // pip knows by itself that a wheel for an older macOS will do.
            Self::MacArm64 => return vec!["macosx_14_0_arm64".to_owned()],
        };
        let mut tags: Vec<String> = (17..=28).rev().map(|minor| format!("manylinux_2_{minor}_{arch}")).collect();
        tags.push(format!("manylinux2014_{arch}"));
        tags
    }

    /// The official archive, for machines without pip. `None` where there is none.
    pub fn official_zip(self, variant: Variant) -> Option<String> {
        let base = "https://download.pytorch.org/libtorch";
        match (self, variant) {
            (Self::LinuxX86_64, Variant::Cpu) => {
                Some(format!("{base}/cpu/libtorch-shared-with-deps-{VERSION}%2Bcpu.zip"))
            }
            (Self::LinuxX86_64, Variant::Cuda) => {
                Some(format!("{base}/cu128/libtorch-shared-with-deps-{VERSION}%2Bcu128.zip"))
            }
            (Self::MacArm64, Variant::Cpu) => Some(format!("{base}/cpu/libtorch-macos-arm64-{VERSION}.zip")),
            (Self::LinuxAarch64, _) | (Self::MacArm64, Variant::Cuda) => None,
        }
    }

    /// Upper bounds in bytes of what is downloaded from pip and of what stays on the disk.
    pub fn sizes(self, variant: Variant) -> Sizes {
        let (download, unpacked) = match (self, variant) {
            (Self::LinuxX86_64, Variant::Cpu) => (550_000_000, 530_000_000),
            (Self::LinuxAarch64, Variant::Cpu) => (440_000_000, 380_000_000),
            (Self::MacArm64, _) => (85_000_000, 300_000_000),
            (Self::LinuxX86_64 | Self::LinuxAarch64, Variant::Cuda) => (2_700_000_000, 4_000_000_000),
        };
        Sizes { download, unpacked }
    }
}

/// Bytes that a set-up needs.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    download: u64,
    unpacked: u64,
}

impl Sizes {
    /// While it is made with pip: what is still to be downloaded is on the disk up to three times (pip's temporary file,
    /// pip's cache, and the file that is unpacked).
    pub fn by_pip(self, present: u64) -> u64 {
        self.download.saturating_sub(present).saturating_mul(3).saturating_add(self.unpacked)
    }

    /// The same with the official archive, which is on the disk once.
    pub fn by_archive(self, present: u64) -> u64 {
        self.download.saturating_sub(present).saturating_add(self.unpacked)
    }
}

/// The oldest glibc that libtorch runs on, as the tag of its wheels says.
const OLDEST_GLIBC: (u32, u32) = (2, 28);

fn require_glibc(version: &str) -> Result<()> {
    let mut numbers = version.split('.').map_while(|part| part.parse().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else { return Ok(()) };
    let (oldest_major, oldest_minor) = OLDEST_GLIBC;
    if (major, minor) < OLDEST_GLIBC {
        bail!(
            "libtorch {VERSION} needs glibc {oldest_major}.{oldest_minor} or newer, and this system has {version}; use a \
             newer system (Debian 10, Ubuntu 18.10, RHEL 8 or later), or set LIBTORCH to one built for this"
        );
    }
    Ok(())
}

/// The version of glibc that this process runs on.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn glibc() -> Option<String> {
    // SAFETY: it returns a pointer to a string of glibc's own, which ends with a zero byte and never changes.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    version.to_str().ok().map(str::to_owned)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn glibc() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_has_wheels_for_its_own_processor() {
        for (platform, suffix) in
            [(Platform::LinuxX86_64, "_x86_64"), (Platform::LinuxAarch64, "_aarch64"), (Platform::MacArm64, "_arm64")]
        {
            let tags = platform.wheel_tags();
            assert!(!tags.is_empty() && tags.iter().all(|tag| tag.ends_with(suffix)), "{tags:?}");
        }
        let linux = Platform::LinuxX86_64.wheel_tags();
        assert_eq!(linux.first().unwrap(), "manylinux_2_28_x86_64", "torch's own tag comes first");
        assert!(linux.contains(&"manylinux2014_x86_64".to_owned()), "and the CUDA run time's is there");
    }

    #[test]
    fn official_archives_are_of_this_version_and_over_https() {
        for platform in [Platform::LinuxX86_64, Platform::LinuxAarch64, Platform::MacArm64] {
            for variant in [Variant::Cpu, Variant::Cuda] {
                if let Some(url) = platform.official_zip(variant) {
                    assert!(url.starts_with("https://") && url.contains(VERSION) && url.ends_with(".zip"), "{url}");
                }
            }
        }
        assert_eq!(Platform::MacArm64.official_zip(Variant::Cuda), None);
    }

    #[test]
    fn pip_has_the_download_three_times_and_what_is_there_is_not_needed() {
        let sizes = Sizes { download: 10, unpacked: 7 };
        for (present, by_pip, by_archive) in [(0, 37, 17), (4, 25, 13), (10, 7, 7), (11, 7, 7)] {
            assert_eq!((sizes.by_pip(present), sizes.by_archive(present)), (by_pip, by_archive), "{present}");
        }
        assert_eq!(Sizes { download: u64::MAX, unpacked: 7 }.by_pip(0), u64::MAX);
    }

    #[test]
    fn an_old_glibc_is_refused_before_anything_is_downloaded() {
        for version in ["2.28", "2.36", "2.40.9000", "3.0", "of nobody"] {
            require_glibc(version).unwrap_or_else(|error| panic!("{version}: {error}"));
        }
        for version in ["2.27", "2.17", "1.99"] {
            let error = require_glibc(version).unwrap_err().to_string();
            assert!(error.contains("glibc 2.28 or newer") && error.contains(version), "{error}");
        }
        Platform::current().unwrap().require_c_library().unwrap();
    }
}
