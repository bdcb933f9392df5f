//! `dit-cli sample` as its users run it, on the demo model.

use std::{fs, path::Path, process::Stdio, thread, time::Duration};

use dit_sample::Precision;
use dit_tests::{dit_cli, fail_in, read_tensor, relative_error, succeed_in};
use serde_json::Value;
use tch::Device;

const QUICK: [&str; 7] = ["sample", "--ckpt", "dit-fashion-demo", "--steps", "4", "--seed", "7"];

fn quick<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&QUICK[..], more].concat()
}

/// Width, height and RGB bytes.
fn read_png(path: &Path) -> (u32, u32, Vec<u8>) {
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    (info.width, info.height, pixels)
}

#[test]
fn every_output_at_once_and_they_agree() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--class", "Trouser,0-1,Trouser", "--num-samples", "2", "--batch-size", "3", "--out", "grid.png"];
    let files = ["--out-dir", "each", "--npz", "all.npz", "--latents", "z.safetensors", "--json"];
    let ran = succeed_in(folder.path(), &quick(&[&more[..], &files[..]].concat()));
    let summary: Value = serde_json::from_str(&ran.stdout).expect("stdout is JSON and nothing else");
    for key in [
        "checkpoint",
        "config",
        "device",
        "precision",
        "steps",
        "images",
        "seconds_load",
        "seconds_per_step",
        "seconds_decode",
        "seconds_total",
        "peak_rss_bytes",
        "outputs",
    ] {
        assert!(!summary[key].is_null(), "no {key} in {summary}");
    }
    assert_eq!((summary["images"].as_u64(), summary["steps"].as_u64()), (Some(8), Some(4)));

    let latents = read_tensor(&folder.path().join("z.safetensors"), "latents");
    assert_eq!(latents.size(), [8, 4, 8, 8]);
    let npz = fs::read(folder.path().join("all.npz")).unwrap();
    let mut pictures = Vec::new();
    for image in 0..8 {
        let (width, height, pixels) = read_png(&folder.path().join(format!("each/{image:06}.png")));
        assert_eq!((width, height), (32, 32));
        pictures.extend(pixels);
    }
    assert!(npz.windows(pictures.len()).any(|window| window == pictures), "arr_0 holds the PNGs' pixels, in order");
    let labels: Vec<u8> = [1_i64, 1, 0, 0, 1, 1, 1, 1].iter().flat_map(|class| class.to_le_bytes()).collect();
    assert!(npz.windows(labels.len()).any(|window| window == labels), "arr_1 holds the classes");
    // Four columns and two rows of 32 pixels, two pixels between and around them.
    let (width, height, grid) = read_png(&folder.path().join("grid.png"));
    assert_eq!((width, height), (4 * 34 + 2, 2 * 34 + 2));
    let row_of_first = |row: usize| &grid[((2 + row) * width as usize + 2) * 3..][..32 * 3];
    assert!((0..32).all(|row| row_of_first(row) == &pictures[row * 32 * 3..][..32 * 3]));
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let latents = |batch: &str, file: &str| {
        let more = ["--class", "0-6", "--batch-size", batch, "--vae", "none", "--latents", file];
        succeed_in(folder.path(), &quick(&more));
        read_tensor(&folder.path().join(file), "latents")
    };
    let (ones, sevens) = (latents("1", "a"), latents("7", "b"));
    assert!(relative_error(&ones, &sevens) < 2e-5);
    // And images of one class differ: the noise is each image's own.
    let more = ["--class", "3", "--num-samples", "2", "--vae", "none", "--latents", "c"];
    succeed_in(folder.path(), &quick(&more));
    let two = read_tensor(&folder.path().join("c"), "latents");
    assert!(relative_error(&two.get(0), &two.get(1)) > 0.1);
}

#[test]
fn a_png_repeats_itself_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--class", "5,8,9,1,2", "--batch-size", "2", "--cfg-scale", "2.5", "--sampler", "ddim", "--eta", "0.5"];
    succeed_in(folder.path(), &quick(&[&more[..], &["--out", "grid.png", "--out-dir", "each"]].concat()));
    for original in ["grid.png", "each/000000.png", "each/000003.png", "each/000004.png"] {
        succeed_in(folder.path(), &["sample", "--from-png", original, "--out", "again.png"]);
        let (first, again) = (fs::read(folder.path().join(original)), fs::read(folder.path().join("again.png")));
        assert!(first.unwrap() == again.unwrap(), "{original} came out differently");
    }
    // A picture is not replaced by its own repetition.
    fail_in(
        folder.path(),
        &["sample", "--from-png", "each/000003.png", "--out-dir", "each"],
        &["000003.png: it is the picture that is repeated"],
    );
    fail_in(
        folder.path(),
        &["sample", "--from-png", "grid.png", "--out", "grid.png"],
        &["grid.png: it is the picture that is repeated"],
    );
    // Other flags override the recipe.
    succeed_in(folder.path(), &["sample", "--from-png", "each/000003.png", "--seed", "8", "--out", "other.png"]);
    assert_ne!(read_png(&folder.path().join("other.png")), read_png(&folder.path().join("each/000003.png")));
}

#[test]
fn the_readmes_picture_repeats_itself() {
    let folder = tempfile::tempdir().unwrap();
    let picture = dit_tests::root().join("docs/images/demo.png");
    succeed_in(folder.path(), &["sample", "--from-png", picture.to_str().unwrap(), "--out", "again.png"]);
    // To the byte on the machine that made it; elsewhere kernels may round another way.
    let (_, _, expected) = read_png(&picture);
    let (_, _, again) = read_png(&folder.path().join("again.png"));
    let apart = expected.iter().zip(&again).map(|(&a, &b)| a.abs_diff(b)).max();
    assert!(apart.is_some_and(|levels| levels <= 2), "{apart:?} levels");
}

#[test]
fn a_long_run_in_the_default_arithmetic_is_told_of_a_faster_one() {
    let folder = tempfile::tempdir().unwrap();
    // Said before anything is computed, and before an output is refused.
    let said = |more: &[&str]| {
        let run = ["sample", "--ckpt", "dit-fashion-demo", "--out", "absent/x.png", "--class", "1"];
        fail_in(folder.path(), &[&run[..], more].concat(), &["absent"])
            .stderr
            .contains("--precision auto would take bf16")
    };
    let (long, short) = (["--num-samples", "9000", "--steps", "250"], ["--num-samples", "9", "--steps", "50"]);
    let faster = Precision::auto(Device::Cpu) == Precision::Bf16;
    assert_eq!(said(&[&long[..], &["--device", "cpu"]].concat()), faster);
    assert!(!said(&[&short[..], &["--device", "cpu"]].concat()));
    assert!(
        !said(&[&long[..], &["--device", "cpu", "--precision", "fp32"]].concat()),
        "whoever names one is left alone"
    );
}

#[test]
fn a_recipe_is_found_from_another_folder() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let demo = dit_tests::root().join("weights/demo/dit-fashion.safetensors");
    fs::copy(demo, folder.path().join("m.safetensors")).unwrap();
    let flags = ["--vae", "vae-fashion-demo", "--steps", "2", "--class", "1", "--out", "r.png"];
    succeed_in(folder.path(), &[&["sample", "--ckpt", "m.safetensors"], &flags[..]].concat());
    let bytes = fs::read(folder.path().join("r.png")).unwrap();
    succeed_in(&elsewhere, &["sample", "--from-png", "../r.png", "--out", "again.png"]);
    assert!(fs::read(elsewhere.join("again.png")).unwrap() == bytes);
    // The file has moved: the message says which flag helps, and with it the picture is still the same to the byte.
    fs::rename(folder.path().join("m.safetensors"), folder.path().join("n.safetensors")).unwrap();
    fail_in(&elsewhere, &["sample", "--from-png", "../r.png", "--out", "x.png"], &["m.safetensors", "--ckpt"]);
    succeed_in(&elsewhere, &["sample", "--from-png", "../r.png", "--ckpt", "../n.safetensors", "--out", "x.png"]);
    assert!(fs::read(elsewhere.join("x.png")).unwrap() == bytes);
    // Another file under the old name is refused.
    let other = dit_tests::fixture("dit-learned-sigma/model.safetensors");
    fs::copy(other, folder.path().join("m.safetensors")).unwrap();
    fail_in(&elsewhere, &["sample", "--from-png", "../r.png", "--num-heads", "4"], &["is not the one"]);
}

#[test]
fn a_copy_of_a_known_checkpoint_has_its_codec() {
    let folder = tempfile::tempdir().unwrap();
    let demo = dit_tests::root().join("weights/demo/dit-fashion.safetensors");
    fs::copy(&demo, folder.path().join("copy.safetensors")).unwrap();
    // By its name, and by the path of where it is installed.
    let path = demo.to_str().unwrap();
    for (input, output, flags) in
        [("dit-fashion-demo", "bf16.safetensors", &["--dtype", "bf16"][..]), (path, "hub", &["--layout", "diffusers"])]
    {
        succeed_in(folder.path(), &[&["convert", input, output], flags].concat());
    }
    for checkpoint in ["copy.safetensors", "bf16.safetensors", "hub"] {
        succeed_in(folder.path(), &["sample", "--ckpt", checkpoint, "--steps", "2", "--class", "1", "--out", "x.png"]);
    }
    // Of others nobody knows it.
    fs::copy(dit_tests::fixture("dit-learned-sigma/model.safetensors"), folder.path().join("other.safetensors"))
        .unwrap();
    let flags = ["--num-heads", "4", "--steps", "2", "--class", "1", "--out", "x.png"];
    let run = [&["sample", "--ckpt", "other.safetensors"], &flags[..]].concat();
    fail_in(folder.path(), &run, &["which VAE decodes", "other.safetensors", "--vae"]);
}

#[test]
fn a_recipe_does_not_tell_whose_folder_its_files_are_in() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("elsewhere");
    let (zoe, bob) = (folder.path().join("zoe"), folder.path().join("bob"));
    [&elsewhere, &zoe].iter().for_each(|folder| fs::create_dir(folder).unwrap());
    fs::copy(dit_tests::root().join("weights/demo/dit-fashion.safetensors"), zoe.join("m.safetensors")).unwrap();
    let run = |home: &Path, args: &[&str]| {
        let ran = dit_cli().env("HOME", home).current_dir(&elsewhere).args(args).output().expect("dit-cli starts");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    };
    let flags = ["--vae", "vae-fashion-demo", "--steps", "2", "--class", "1", "--out", "r.png"];
    run(&zoe, &[&["sample", "--ckpt", "../zoe/m.safetensors"], &flags[..]].concat());
    let recipe = dit_image::read_recipe(elsewhere.join("r.png")).unwrap();
    assert!(recipe.contains(r#""~/m.safetensors""#) && !recipe.contains("zoe"), "{recipe}");
    // Nor does it matter.
    fs::rename(&zoe, &bob).unwrap();
    run(&bob, &["sample", "--from-png", "r.png", "--out", "again.png"]);
    let read = |name: &str| fs::read(elsewhere.join(name)).unwrap();
    assert!(read("r.png") == read("again.png"), "it came out differently");
}

#[test]
fn noise_that_does_not_cover_the_run_is_refused_before_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let z = tch::Tensor::zeros([2, 4, 8, 8], (tch::Kind::Float, tch::Device::Cpu)) + 0.5;
    tch::Tensor::write_safetensors(&[("z", z)], folder.path().join("z.safetensors")).unwrap();
    let sample =
        ["sample", "--ckpt", "dit-fashion-demo", "--noise", "z.safetensors", "--steps", "2", "--out-dir", "each"];
    let with = |more: &[&'static str]| [&sample[..], more].concat();
    fail_in(folder.path(), &with(&["--class", "0-3", "--batch-size", "2", "--sampler", "ddim"]), &["holds 2 images"]);
    fail_in(folder.path(), &with(&["--class", "0,1"]), &["no `steps`"]);
    fail_in(folder.path(), &with(&["--class", "0,1", "--sampler", "ddim", "--seed", "3"]), &["--seed"]);
    assert!(!folder.path().join("each").exists());
    succeed_in(folder.path(), &with(&["--class", "0,1", "--sampler", "ddim"]));
}

#[test]
fn defaults_are_the_demo_and_a_grid_of_its_classes() {
    let folder = tempfile::tempdir().unwrap();
    let ran = succeed_in(folder.path(), &["sample", "--steps", "2"]);
    assert!(ran.stderr.contains("dit-fashion-demo"), "says which checkpoint it took:\n{}", ran.stderr);
    let again = succeed_in(folder.path(), &["sample", "--steps", "2", "-vv"]).stderr;
    for part in ["sample.png exists and will be replaced", "weights are loaded", "pictures are decoded"] {
        assert!(again.contains(part), "no '{part}' in\n{again}");
    }
    assert!(ran.stdout.is_empty());
    let (width, height, _) = read_png(&folder.path().join("sample.png"));
    assert_eq!((width, height), (4 * 34 + 2, 3 * 34 + 2));
}

#[test]
fn guidance_scale_one_takes_no_null_class_and_changes_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let latents = |scale: &str, file: &str| {
        let more = ["--class", "4", "--cfg-scale", scale, "--vae", "none", "--latents", file];
        succeed_in(folder.path(), &quick(&more));
        read_tensor(&folder.path().join(file), "latents")
    };
    let (none, guided) = (latents("1", "a"), latents("4", "b"));
    assert!(relative_error(&guided, &none) > 0.05);
    let all = ["--class", "4", "--cfg-channels", "all", "--vae", "none", "--latents", "c"];
    succeed_in(folder.path(), &quick(&all));
    assert!(relative_error(&read_tensor(&folder.path().join("c"), "latents"), &guided) > 1e-3);
}

#[test]
fn bf16_pictures_are_close_to_fp32() {
    let folder = tempfile::tempdir().unwrap();
    let picture = |precision: &str| {
        let more = ["--class", "0-9", "--precision", precision, "--out", "x.png", "--sampler", "ddim"];
        succeed_in(folder.path(), &quick(&more));
        read_png(&folder.path().join("x.png")).2
    };
    let (full, half) = (picture("fp32"), picture("bf16"));
    let squares: f64 = full.iter().zip(&half).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    let psnr = 10.0 * (255.0 * 255.0 / (squares / full.len() as f64)).log10();
    assert!(psnr > 30.0, "{psnr} dB");
    assert_ne!(full, half);
}

/// Interrupts a long run once three pictures are there.
#[cfg(unix)]
#[test]
fn an_interrupted_run_keeps_what_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--class", "0-9", "--num-samples", "500", "--batch-size", "2", "--out-dir", "each"];
    let outputs = ["--npz", "all.npz", "--latents", "z.safetensors", "--out", "grid.png"];
    let mut child = dit_cli()
        .current_dir(folder.path())
        .args(quick(&[&args[..], &outputs[..]].concat()))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !folder.path().join("each/000002.png").exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended before it was interrupted");
        thread::sleep(Duration::from_millis(5));
    }
    // SAFETY: a signal to a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("finished images are kept") && stderr.contains("of 5000 pictures"), "{stderr}");
    let each: Vec<_> = fs::read_dir(folder.path().join("each")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(each.len() >= 3 && each.iter().all(|path| path.extension().is_some_and(|e| e == "png")), "{each:?}");
    each.iter().for_each(|path| drop(read_png(path)));
    // Arrays that lack pictures do not bear the names of those that have all.
    assert!(stderr.contains("all.npz.interrupted: a part"), "{stderr}");
    assert!(!folder.path().join("all.npz").exists() && !folder.path().join("z.safetensors").exists());
    let part = fs::read(folder.path().join("all.npz.interrupted")).unwrap();
    let header = String::from_utf8_lossy(&part[..256]).into_owned();
    assert!(header.contains(&format!("({}, 32, 32, 3)", each.len())), "{header}");
    let tail = String::from_utf8_lossy(&part[part.len() - 8 * each.len() - 400..]).into_owned();
    assert!(tail.contains(&format!("'<i8', 'fortran_order': False, 'shape': ({},)", each.len())), "{tail}");
    let latents = read_tensor(&folder.path().join("z.safetensors.interrupted"), "latents");
    assert!(latents.size()[0] >= each.len() as i64);
    // The whole of a later run does not take them away: they may be of other pictures.
    let less = ["--class", "0", "--npz", "all.npz"];
    let later = succeed_in(folder.path(), &quick(&less));
    assert!(
        later.stderr.contains("all.npz.interrupted is what an interrupted run left, and stays"),
        "{}",
        later.stderr
    );
    assert!(folder.path().join("all.npz").exists());
    assert!(fs::read(folder.path().join("all.npz.interrupted")).unwrap() == part);
    // The grid of what was finished repeats itself too, though it may have been stopped within a batch.
    succeed_in(folder.path(), &["sample", "--from-png", "grid.png", "--out", "again.png"]);
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("grid.png") == read("again.png"));
}

/// Interrupts while the last files are being completed: they are there, whole, or the run says what it kept.
#[cfg(unix)]
#[test]
fn an_interruption_at_the_very_end_loses_nothing() {
    for delay in [0, 2, 5, 10, 20] {
        let folder = tempfile::tempdir().unwrap();
        let args =
            ["--class", "0-9", "--batch-size", "10", "--out-dir", "each", "--out", "grid.png", "--npz", "all.npz"];
        let mut child = dit_cli()
            .current_dir(folder.path())
            .args(quick(&[&args[..], &["--latents", "z.safetensors"]].concat()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !folder.path().join("each/000009.png").exists() && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_micros(200));
        }
        thread::sleep(Duration::from_millis(delay));
        // SAFETY: a signal to a child that has not been waited for; it may have ended, and is then only a zombie.
        unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
        let code = child.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 130)), "{code:?}");
        read_png(&folder.path().join("grid.png"));
        assert!(folder.path().join("all.npz").exists());
        assert_eq!(read_tensor(&folder.path().join("z.safetensors"), "latents").size(), [10, 4, 8, 8]);
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<String> = names.filter(|name| name.contains(".interrupted") || name.ends_with(".part")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn flags_that_cannot_be_honoured_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let fail = |more: &[&str], expected: &[&str]| drop(fail_in(folder.path(), &quick(more), expected));
    fail(&["--class", "10"], &["10", "0 to 9"]);
    let listed = "\n  help: the classes of dit-fashion-demo are T-shirt";
    fail(&["--class", "Trousr"], &["error: no class is called `Trousr`; did you mean `Trouser` (1)?", listed]);
    fail(&["--class", "macaw"], &["error: no class is called `macaw`", listed, "\n  help: ImageNet's classes need"]);
    fail(&["--class", "207"], &["error: class `207` is out of range", listed, "\n  help: ImageNet's classes need"]);
    fail(&["--num-samples", "0"], &["--num-samples 0"]);
    fail(&["--batch-size", "0"], &["--batch-size 0"]);
    fail(&["--eta", "0.5"], &["--sampler ddim"]);
    fail(&["--sampler", "ddim", "--eta", "2"], &["eta is 2"]);
    fail(&["--cfg-scale", "nan"], &["finite"]);
    fail(&["--device", "cuda:7"], &["CUDA"]);
    fail(&["--device", "cpu", "--precision", "tf32"], &["--precision tf32: needs a CUDA device", "auto"]);
    fail(&["--device", "tpu"], &["auto, cpu, cuda"]);
    fail(&["--threads", "0"], &["--threads 0"]);
    fail(&["--vae", "none"], &["--latents"]);
    fail(&["--vae", "none", "--latents", "z", "--out", "x.png"], &["without a VAE"]);
    fail(&["--image-size", "256"], &["--image-size 256", "32 x 32"]);
    fail(&["--out", "no/such/folder/x.png"], &["no/such/folder", "create it"]);
    fail(&["--npz", "/proc/x.npz"], &["/proc/x.npz"]);
    fail(&["--noise", "none.safetensors"], &["none.safetensors"]);
    fail(&["--num-samples", "20000000000"], &["at most 100000000"]);
    fail(&["--npz", "same", "--latents", "same"], &["same", "a path of its own"]);
    fail(&["--num-samples", "100000"], &["too large", "--out-dir"]);
    fail(&["--out", "x.jpg"], &["x.jpg", ".png"]);
    fail(&["--seed", "-1"], &["--seed"]);
    fail(&["--model", "DiT-XL/2"], &["DiT-XL/2"]);
    fail(&["--vae", "dit-fashion-demo"], &["is a dit"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    let steps = |spec: &str, expected: &[&str]| {
        let args = ["sample", "--ckpt", "dit-fashion-demo", "--steps", spec];
        drop(fail_in(folder.path(), &args, expected));
    };
    steps("0", &["zero steps"]);
    steps("ddim64", &["ddim63", "ddim67"]);
    steps("1001", &["1000"]);
    steps("many", &["not a step spacing"]);
}
