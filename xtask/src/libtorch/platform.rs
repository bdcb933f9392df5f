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
    /// While it is made: the download is on the disk up to three times (pip's temporary file, pip's cache, and
    /// the file that is unpacked).
    pub fn peak(self) -> u64 {
        self.download.saturating_mul(3).saturating_add(self.unpacked)
    }
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
    fn the_peak_counts_the_download_three_times() {
        assert_eq!(Sizes { download: 10, unpacked: 7 }.peak(), 37);
        assert_eq!(Sizes { download: u64::MAX, unpacked: 7 }.peak(), u64::MAX);
    }
}
