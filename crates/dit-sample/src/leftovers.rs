//! What a killed run left unfinished.

use std::fs;

use dit_files::{is_unfinished, remove_unfinished};

use crate::OutputPaths;

/// Removes unfinished files of a run that is continued. A run without a folder of pictures cannot be, and is left alone: another
/// one may be writing under the same names.
pub(crate) fn remove(paths: &OutputPaths) {
    let Some(dir) = &paths.dir else { return };
    // What cannot be removed is a hidden file, and does no harm.
    let files = [&paths.png, &paths.npz, &paths.latents, &paths.animation, &paths.trajectory];
    for path in files.into_iter().flatten() {
        let _ = remove_unfinished(path);
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_unfinished_picture) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// `.000012.png.Xy1.part`.
fn is_unfinished_picture(name: &str) -> bool {
    let of = name.strip_prefix('.').and_then(|name| name.split_once(".png.")).map(|(of, _)| of);
    is_unfinished(name) && of.is_some_and(is_number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_of_a_killed_run_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        let left = ["dir/.000012.png.Xy1.part", ".all.npz.Ab2.part"];
        let others = ["dir/000012.png", "dir/.notes.png.Xy1.part", "dir/.000012.png", ".other.npz.Ab2.part", "all.npz"];
        for name in left.iter().chain(&others) {
            fs::write(at(name), "").unwrap();
        }
        let npz = OutputPaths { npz: Some(at("all.npz")), ..OutputPaths::default() };
        remove(&npz);
        assert!(left.iter().all(|name| at(name).exists()), "a run that cannot be continued takes nothing away");
        remove(&OutputPaths { dir: Some(at("dir")), ..npz });
        assert!(!left.iter().any(|name| at(name).exists()));
        assert!(others.iter().all(|name| at(name).exists()));
    }
}
