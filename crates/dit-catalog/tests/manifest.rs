//! Manifests: what is accepted, and that everything wrong is said.

use std::fs;

use dit_catalog::{Catalog, Error, Kind};

fn load(text: &str) -> Result<Catalog, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.json");
    fs::write(&path, text).unwrap();
    Catalog::load(&path)
}

#[test]
fn the_builtin_manifest_holds_the_published_facts() {
    let catalog = Catalog::builtin().unwrap();
    let names: Vec<_> = catalog.entries().iter().map(|entry| entry.name()).collect();
    assert_eq!(
        names,
        [
            "dit-xl-2-256",
            "dit-xl-2-512",
            "sd-vae-ft-ema",
            "sd-vae-ft-mse",
            "inception-fid",
            "dit-fashion-demo",
            "vae-fashion-demo",
            "features-fashion-demo"
        ]
    );

    let xl = catalog.get("dit-xl-2-256").unwrap();
    assert_eq!((xl.kind(), xl.license(), xl.bytes()), (Kind::Dit, "CC-BY-NC-4.0", Some(2_700_611_775)));
    assert!(xl.is_remote());
    assert_eq!(xl.hints().model.unwrap().to_string(), "DiT-XL/2");
    assert_eq!(xl.hints().image_size, Some(256));
    assert_eq!(xl.files()[0].sha256(), Some("9ec1876e4c03471bca126663a30e2d1b20610b6d2f87850a39a36f25cc685521"));
    assert_eq!(catalog.get("dit-xl-2-512").unwrap().bytes(), None);
    assert_eq!(catalog.get("sd-vae-ft-mse").unwrap().bytes(), Some(334_643_276 + 547));

    let inception = catalog.get("inception-fid").unwrap();
    assert_eq!((inception.kind(), inception.bytes()), (Kind::Features, Some(95_628_359)));
    assert_eq!(inception.files()[0].sha256(), Some("6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"));
    let weights = std::path::Path::new("w");
    assert_eq!(inception.path_in(weights), weights.join("pt_inception-2015-12-05-6726825d.pth"));

    for entry in catalog.entries() {
        let demo = entry.name().ends_with("-demo");
        assert_eq!(entry.is_remote(), !demo, "{}", entry.name());
        assert_eq!(entry.pairs_with().is_some(), entry.kind() == Kind::Dit, "{}", entry.name());
    }
}

#[test]
fn the_shape_is_the_documented_one() {
    let catalog = load(
        r#"{"checkpoints": [
            {"name": "dit-xl-2-256", "kind": "dit", "license": "CC-BY-NC-4.0", "pairs_with": "sd-vae-ft-ema",
             "config": {"model": "DiT-XL/2", "image_size": 256},
             "files": [{"path": "DiT-XL-2-256x256.pt", "urls": ["https://example.org/a.pt", "http://127.0.0.1:80/a"],
                        "bytes": 2700611775, "sha256": "9EC1876e4c03471bca126663a30e2d1b20610b6d2f87850a39a36f25cc685521"}]},
            {"name": "sd-vae-ft-ema", "kind": "vae", "license": "MIT", "pairs_with": null, "config": {},
             "files": [{"path": "config.json"}, {"path": "w.safetensors", "urls": [], "bytes": null, "sha256": null}]}]}"#,
    )
    .unwrap();
    let file = &catalog.entries()[0].files()[0];
    assert_eq!(file.urls().len(), 2);
    assert!(file.sha256().unwrap().starts_with("9ec1876e")); // one spelling
    assert!(!catalog.entries()[1].is_remote());
}

/// One `dit` with the given fields besides the name, license and files, or with the given files.
#[track_caller]
fn check_invalid(entries: &str, expected: &[&str]) {
    match load(&format!(r#"{{"checkpoints": [{entries}]}}"#)) {
        Err(Error::Invalid { origin, problems }) => {
            assert!(origin.ends_with("lab.json"));
            assert_eq!(problems.len(), expected.len(), "{problems:#?}");
            for (problem, expected) in problems.iter().zip(expected) {
                assert!(problem.contains(expected), "{problem}");
            }
        }
        other => panic!("{other:?}"),
    }
}

fn dit(name: &str, more: &str) -> String {
    format!(r#"{{"name": "{name}", "kind": "dit", "license": "MIT", {more} "files": [{{"path": "a"}}]}}"#)
}

fn vae(files: &str) -> String {
    format!(r#"{{"name": "v", "kind": "vae", "license": "MIT", "files": [{files}]}}"#)
}

#[test]
fn names_and_pairs_are_checked() {
    check_invalid("", &["lists no checkpoints"]);
    check_invalid(&[dit("a", ""), dit("A", "")].join(","), &["`A` is listed twice"]);
    for name in ["", "a/b", "..", ".a", "-a", "a.", "a b", "ä", &"a".repeat(101)] {
        check_invalid(&dit(name, ""), &["cannot be a file's"]);
    }
    check_invalid(&dit("a", r#""pairs_with": "b","#), &["pairs with `b`, which is not listed"]);
    check_invalid(&dit("a", r#""pairs_with": "a","#), &["pairs with `a`, which is no vae"]);
    check_invalid(&dit("a", r#""source": "a page","#), &["not an http or https address"]);
    let paired = vae(r#"{"path": "config.json"}"#).replace(r#""files""#, r#""pairs_with": "v", "files""#);
    check_invalid(&paired, &["pairs_with belongs to the dit"]);
    check_invalid(&dit("a", "").replace("MIT", " "), &["has no license"]);
}

#[test]
fn configurations_are_checked() {
    let config = |config: &str| dit("a", &format!(r#""config": {config},"#));
    check_invalid(&config(r#"{"model": "DiT-XXL/2"}"#), &["DiT-XXL/2"]);
    check_invalid(&config(r#"{"model": "DiT-XL/2", "image_size": 250}"#), &["multiple of 8"]);
    check_invalid(&config(r#"{"model": "DiT-XL/2", "num_heads": 12}"#), &["DiT-XL/2 has 16 heads, not 12"]);
    check_invalid(&config(r#"{"image_size": 0, "num_heads": 0}"#), &["image_size is 0", "num_heads is 0"]);
    let of_a_vae = vae(r#"{"path": "config.json"}"#).replace(r#""files""#, r#""config": {"num_heads": 1}, "files""#);
    check_invalid(&of_a_vae, &["is a vae: its configuration is its config.json"]);
}

#[test]
fn files_are_checked() {
    let files = |files: &str| format!(r#"{{"name": "a", "kind": "dit", "license": "MIT", "files": [{files}]}}"#);
    check_invalid(&files(""), &["has no files"]);
    for path in ["", "/a", "a//b", "../a", "a/..", "./a", "a/", r"a\\b", "c:a", r"a\u0000"] {
        check_invalid(&files(&format!(r#"{{"path": "{path}"}}"#)), &["paths are relative"]);
    }
    check_invalid(&files(r#"{"path": "a"}, {"path": "b"}"#), &["must be one file"]);
    check_invalid(
        &files(r#"{"path": "a", "urls": ["https://h/a"]}, {"path": "A"}"#),
        &["urls for some files only", "`A` twice"],
    );
    for url in ["ftp://h/a", "https://", "https:///a", "h/a", "https://h/a b", ""] {
        check_invalid(&files(&format!(r#"{{"path": "a", "urls": ["{url}"]}}"#)), &["must begin with https"]);
    }
    check_invalid(
        &files(r#"{"path": "a", "bytes": 0, "sha256": "abc"}"#),
        &["write null", "not 64 hexadecimal digits"],
    );
    check_invalid(&files(&format!(r#"{{"path": "a", "sha256": "{}"}}"#, "g".repeat(64))), &["64 hexadecimal"]);
    check_invalid(&vae(r#"{"path": "w.bin"}"#), &["exactly one of its files must be a config.json"]);
    check_invalid(&vae(r#"{"path": "config.json"}, {"path": "x/config.json"}"#), &["exactly one"]);
}

#[test]
fn everything_wrong_is_reported_at_once() {
    check_invalid(
        &[dit("a b", r#""pairs_with": "c","#), dit("d", r#""config": {"model": "x"},"#)].join(","),
        &["`a b` has a name", "`a b` pairs with `c`", "`d` has a config"],
    );
}

#[track_caller]
fn check_unparsable(text: &str, expected: &str) {
    match load(text) {
        Err(error @ Error::Parse { .. }) => assert!(error.to_string().contains(expected), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn unknown_and_missing_keys_are_errors() {
    check_unparsable("", "EOF");
    check_unparsable("<html>", "line 1 column 1");
    check_unparsable("{}", "missing field `checkpoints`");
    check_unparsable(r#"{"checkpoints": [], "version": 1}"#, "unknown field `version`");
    let entry = |entry: &str| format!(r#"{{"checkpoints": [{entry}]}}"#);
    check_unparsable(&entry(&dit("a", r#""url": "x","#)), "unknown field `url`");
    check_unparsable(&entry(&dit("a", r#""config": {"modle": "x"},"#)), "unknown field `modle`");
    check_unparsable(&entry(&dit("a", "").replace("\"path\"", "\"md5\": 1, \"path\"")), "unknown field `md5`");
    check_unparsable(&entry(&dit("a", "").replace("\"dit\"", "\"gan\"")), "unknown variant `gan`");
    check_unparsable(&entry(&dit("a", "").replace("\"license\": \"MIT\",", "")), "missing field `license`");
    check_unparsable(&entry(&dit("a", r#""name": "b","#)), "duplicate field `name`");
    check_unparsable(&entry(&dit("a", "").replace("\"a\"}", "\"a\", \"bytes\": -1}")), "line 1 column");
}

#[test]
fn an_unreadable_manifest_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Catalog::load(&folder.path().join("none.json")).unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "{error}");
    assert!(error.to_string().contains("none.json"));
}

#[test]
fn feature_networks_are_one_file() {
    let features = |more: &str, files: &str| {
        format!(r#"{{"name": "a", "kind": "features", "license": "MIT", {more} "files": [{files}]}}"#)
    };
    let fetched = r#"{"path": "a.pth", "urls": ["https://h/a"]}"#;
    let load_one = |entry: &str| load(&format!(r#"{{"checkpoints": [{entry}]}}"#));
    assert!(load_one(&features("", fetched)).is_ok());
    assert!(load_one(&features("", r#"{"path": "demo/a.safetensors"}"#)).is_ok());
    check_invalid(&features("", &format!("{fetched}, {}", fetched.replace("a.pth", "b.pth"))), &["must be one file"]);
    check_invalid(&features("", &fetched.replace("a.pth", "x/a.pth")), &["has no folder in its path"]);
    check_invalid(&features("", r#"{"path": "a.safetensors"}"#), &["has no folder in its path"]);
    check_invalid(&features(r#""config": {"num_heads": 2},"#, fetched), &["belongs to a dit"]);
    check_invalid(&features(r#""pairs_with": "b","#, fetched), &["belongs to a dit"]);
}

#[track_caller]
fn check_suggested(name: &str, expected: &[&str]) {
    match Catalog::builtin().unwrap().get(name) {
        Err(Error::Unknown { near, known, .. }) => {
            assert!(near.iter().map(String::as_str).eq(expected.iter().copied()), "{near:?}");
            assert_eq!(known.len(), 8);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn near_names_are_suggested() {
    check_suggested("dit-xl-2-265", &["dit-xl-2-256", "dit-xl-2-512"]);
    check_suggested("DiT-XL-2-512", &["dit-xl-2-512", "dit-xl-2-256"]);
    check_suggested("sd-vae-ft-ems", &["sd-vae-ft-ema", "sd-vae-ft-mse"]);
    check_suggested("zzz", &[]);
}
