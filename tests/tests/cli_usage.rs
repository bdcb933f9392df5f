//! What the program ends with, and the two programs that it is: `dit-cli`, which answers without libtorch what needs none, and the
//! engine beside it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dit_tests::{Ran, dit_cli, root, run_in};

const DONE: i32 = 0;
const FAILED: i32 = 1;
const WRONG_USAGE: i32 = 2;

#[track_caller]
fn check(ran: &Ran, code: i32, expected: &[&str]) {
    assert_eq!(ran.code, Some(code), "{}", ran.stderr);
    let text = if code == DONE { &ran.stdout } else { &ran.stderr };
    for part in expected {
        assert!(text.contains(part), "no '{part}' in\n{text}");
    }
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("picture.png"), b"\x89PNG\r\n\x1a\n and so on").unwrap();
    fs::write(at.join("bad.toml"), "[optim]\nlr = \"fast\"").unwrap();
    fs::write(at.join("names.json"), "[\"one\"]").unwrap();
    fs::write(at.join("empty.toml"), "").unwrap();
    let sample = |more: &[&str], code: i32, expected: &[&str]| {
        let args = [&["sample", "--ckpt", "dit-fashion-demo", "--sampler", "ddim"], more].concat();
        check(&run_in(at, &args), code, expected);
    };
    sample(&["--no-such-flag"], WRONG_USAGE, &["--no-such-flag"]);
    sample(&["--class", "Trousr"], WRONG_USAGE, &["Trouser"]);
    sample(&["--class", "10"], WRONG_USAGE, &["0 to 9"]);
    sample(&["--steps", "many"], WRONG_USAGE, &["not a step spacing"]);
    sample(&["--steps", "1001"], WRONG_USAGE, &["1000"]);
    sample(&["--eta", "2"], WRONG_USAGE, &["eta is 2"]);
    sample(&["--cfg-scale", "nan"], WRONG_USAGE, &["finite"]);
    sample(&["--cfg-interval", "5,0.3"], WRONG_USAGE, &["low first"]);
    sample(&["--cfg-interval", "5"], WRONG_USAGE, &["0.3,5"]);
    sample(
        &["--cfg-scale", "1", "--cfg-schedule", "linear"],
        WRONG_USAGE,
        &["a schedule of the scale has no effect", "--cfg-schedule"],
    );
    sample(&["--negative-class", "1,2"], WRONG_USAGE, &["expected one"]);
    sample(&["--interpolate", "classes", "1"], WRONG_USAGE, &["expected two"]);
    sample(&["--interpolate", "seeds", "1,2"], WRONG_USAGE, &["--interpolate seeds", "pass --class"]);
    sample(&["--interpolate", "seeds", "1,2", "--class", "1,2"], WRONG_USAGE, &["not of 2", "pass --class"]);
    sample(&["--interpolate", "classes", "1,2", "--frames", "1"], WRONG_USAGE, &["--frames 1", "2 or more"]);
    sample(&["--strength", "0.5"], WRONG_USAGE, &["--init"]);
    sample(&["--cache", "often"], WRONG_USAGE, &["`off` or a factor"]);
    sample(&["--device", "tpu"], WRONG_USAGE, &["auto, cpu, cuda"]);
    sample(&["--threads", "0"], WRONG_USAGE, &["--threads 0"]);
    sample(&["--model", "DiT-Z"], WRONG_USAGE, &["--model", "DiT-XL"]);
    sample(&["--vae", "none"], WRONG_USAGE, &["--latents"]);
    sample(&["--npz", "same", "--latents", "same"], WRONG_USAGE, &["a path of its own"]);
    sample(&["--noise", "picture.png"], FAILED, &["--noise picture.png", "no safetensors file", "`z` (N, C, H, W)"]);
    sample(&["--noise", "none"], FAILED, &["--noise none"]);
    sample(&["--out", "no/such/folder/x.png"], FAILED, &["create it"]);
    if cfg!(target_os = "linux") {
        sample(&["--out", "/proc/x.png"], FAILED, &["/proc/x.png: no file can be made in /proc"]);
    }
    for (args, code, expected) in [
        (&["inspect", "nothere"][..], FAILED, &["there is no file nothere, and no checkpoint is called"][..]),
        (
            &["convert", "dit-fashion-demo", "x.pt", "--class-names", "names.json"],
            WRONG_USAGE,
            &["x.pt: a .pt file has no place for class names"],
        ),
        (
            &["convert", "dit-fashion-demo", "x.safetensors", "--class-names", "names.json"],
            WRONG_USAGE,
            &["1 class names"],
        ),
        (&["train", "--plan", "--set", "optim.lr=fast"], WRONG_USAGE, &["optim.lr=fast"]),
        (&["train", "--plan", "--config", "bad.toml"], WRONG_USAGE, &["line 2"]),
        (&["train", "--plan", "--config", "none.toml"], FAILED, &["none.toml"]),
        (
            &["train", "--plan", "--config", "DiT-S/2"],
            WRONG_USAGE,
            &["configs/dit-s-2.toml", "--set model.name=DiT-S/2 without --config"],
        ),
        (&["train", "--plan", "--config", "empty.toml", "--set", "train.steps=0"], WRONG_USAGE, &["error: the recipe"]),
        (&["train", "--plan"], WRONG_USAGE, &["--data is missing"]),
        (
            &["train", "--print-config", "--set", "optim.warmup_steps=500", "--set", "train.steps=100"],
            WRONG_USAGE,
            &["optim.warmup_steps is 500", "help: set optim.warmup_steps", "such as 5"],
        ),
        (&["precompute-latents", "--data", ".", "--out", "z", "--limit", "0"], WRONG_USAGE, &["--limit 0"]),
        (&["evaluate", "a", "b", "--crop", "pad"], WRONG_USAGE, &["--image-size"]),
        (&["calibrate-cache", "--factors", "much"], WRONG_USAGE, &["much"]),
    ] {
        check(&run_in(at, args), code, expected);
    }
}

/// A folder with what is typed in it, and no engine.
fn alone() -> (tempfile::TempDir, PathBuf) {
    let command = dit_cli();
    let program = Path::new(command.get_program());
    let folder = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
    let alone = folder.path().join("dit-cli");
    // Not a copy: a process that another test's thread begins while it is written would have it open, and it could not be run.
    fs::hard_link(program, &alone).unwrap();
    (folder, alone)
}

fn run(program: &Path, args: &[&str]) -> Ran {
    let weights = root().join("weights");
    Command::new(program).args(args).env("DIT_WEIGHTS_DIR", weights).stdin(Stdio::null()).output().unwrap().into()
}

#[test]
fn what_needs_no_computing_needs_no_engine() {
    let (_folder, program) = alone();
    for (args, code, expected) in [
        (&["--help"][..], DONE, &["Usage: dit-cli", "precompute-latents"][..]),
        (&["sample", "--help"], DONE, &["--cfg-scale", "Examples:"]),
        (&["--version"], DONE, &["dit-cli 0."]),
        (&["completions", "bash"], DONE, &["complete -F", "dit-cli\n"]),
        (&["sample", "--sed", "1"], WRONG_USAGE, &["--seed"]),
        (&[], WRONG_USAGE, &["Usage: dit-cli"]),
        (
            &["inspect", "dit-fashion-demo"],
            FAILED,
            &["dit-cli-engine is missing", "help:", "`cargo build -p dit-cli` makes both"],
        ),
    ] {
        check(&run(&program, args), code, expected);
    }
}

#[test]
fn an_engine_of_another_build_is_told_from_the_right_one() {
    let engine = PathBuf::from(dit_cli().get_program()).with_file_name("dit-cli-engine");
    let inspect = |front: Option<&str>| {
        let mut command = Command::new(&engine);
        command.envs(front.map(|build| ("DIT_CLI_BUILD", build)));
        command.args(["inspect", "dit-fashion-demo"]).env("DIT_WEIGHTS_DIR", root().join("weights"));
        Ran::from(command.output().unwrap())
    };
    check(&inspect(None), DONE, &["DiT(hidden 192"]);
    check(
        &inspect(Some("0.0.1 (0123)")),
        FAILED,
        &["dit-cli is of build 0.0.1 (0123)", "`cargo build -p dit-cli` makes both"],
    );
    // That the right one is, all other tests see.
}

#[test]
fn the_engines_threads_are_told_how_to_wait_unless_the_user_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (front, engine) = (folder.path().join("dit-cli"), folder.path().join("dit-cli-engine"));
    fs::copy(dit_cli().get_program(), &front).unwrap();
    fs::write(&engine, "#!/bin/sh\necho \"$GOMP_SPINCOUNT,$OMP_WAIT_POLICY\"\n").unwrap();
    fs::set_permissions(&engine, fs::Permissions::from_mode(0o755)).unwrap();
    for (said, expected) in
        [(None, "3000,\n"), (Some(("GOMP_SPINCOUNT", "7")), "7,\n"), (Some(("OMP_WAIT_POLICY", "active")), ",active\n")]
    {
        let mut command = Command::new(&front);
        command.args(["inspect", "x"]).env_remove("GOMP_SPINCOUNT").env_remove("OMP_WAIT_POLICY").envs(said);
        let ran = Ran::from(command.output().unwrap());
        assert_eq!((ran.code, &*ran.stdout), (Some(DONE), expected), "{said:?}: {}", ran.stderr);
    }
}

/// What bash offers for `--cfg-s` after `dit-cli sample`.
const COMPLETE: &str = r#"
    source <("$0" completions bash)
    COMP_WORDS=(dit-cli sample --cfg-s) COMP_CWORD=2
    function_of() { sed 's/.*-F \([^ ]*\).*/\1/'; }
    "$(complete -p dit-cli | function_of)" dit-cli --cfg-s sample
    echo "${COMPREPLY[@]}"
"#;

#[test]
fn bash_completes_the_options_of_a_command() {
    let ran = Command::new("bash").args(["-c", COMPLETE]).arg(dit_cli().get_program()).output();
    let ran = Ran::from(ran.expect("bash"));
    assert_eq!(ran.stdout.trim(), "--cfg-scale --cfg-schedule", "{}", ran.stderr);
}

#[test]
fn only_the_engine_is_linked_with_libtorch() {
    let typed = PathBuf::from(dit_cli().get_program());
    for (program, expected) in [(typed.with_file_name("dit-cli-engine"), true), (typed, false)] {
        let bytes = fs::read(&program).unwrap();
        let name = b"libtorch_cpu";
        let linked = bytes.windows(name.len()).any(|window| window == name);
        assert_eq!(linked, expected, "{}", program.display());
    }
}

#[test]
fn the_engine_is_found_through_links() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("dit");
    symlink(dit_cli().get_program(), &link).unwrap();
    let ran = run(&link, &["inspect", "vae-fashion-demo", "--json"]);
    assert_eq!(ran.code, Some(DONE), "{}", ran.stderr);
}

#[test]
#[cfg(target_os = "linux")]
fn the_process_that_is_started_computes_under_the_name_that_was_typed() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["sample", "--class", "all", "--num-samples", "100", "--out-dir", "x"];
    let mut child = dit_cli().current_dir(folder.path()).args(args).stderr(Stdio::null()).spawn().unwrap();
    let of = |name: &str| PathBuf::from(format!("/proc/{}/{name}", child.id()));
    let computes = || fs::read_link(of("exe")).is_ok_and(|program| program.ends_with("dit-cli-engine"));
    let named = || fs::read_to_string(of("comm")).is_ok_and(|name| name.trim() == "dit-cli");
    let begun = Instant::now();
    let mut found = false;
    while !found && begun.elapsed() < Duration::from_secs(120) {
        thread::sleep(Duration::from_millis(20));
        found = computes() && named();
    }
    let command = fs::read_to_string(of("cmdline")).unwrap_or_default();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found, "the engine does not appear under the process's number as dit-cli");
    assert_eq!(Path::new(command.split('\0').next().unwrap()), Path::new(dit_cli().get_program()));
}
