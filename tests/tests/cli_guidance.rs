//! Guidance beyond the plain scale, editing, strips and caching, through the binary.

use std::{fs, path::Path};

use dit_tests::{fail_in, read_tensor, relative_error, root, succeed_in};
use tch::Tensor;

fn quick<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["sample", "--ckpt", "dit-fashion-demo", "--sampler", "ddim", "--steps", "6"], more].concat()
}

/// Latents of a run with these flags.
#[track_caller]
fn latents(folder: &Path, more: &[&str]) -> Tensor {
    succeed_in(folder, &quick(&[more, &["--latents", "l"]].concat()));
    read_tensor(&folder.join("l"), "latents")
}

fn classifier() -> String {
    root().join("weights/demo/classifier-fashion.safetensors").display().to_string()
}

#[test]
fn every_kind_of_guidance_changes_the_picture_and_is_in_its_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let demo = root().join("weights/demo/dit-fashion.safetensors").display().to_string();
    let plain = latents(folder.path(), &["--class", "3,8"]);
    let classifier = classifier();
    for (flags, recorded) in [
        (&["--cfg-interval", "0.3,5"][..], "\"interval\":[0.3,5.0]"),
        (&["--cfg-schedule", "linear"], "\"schedule\":\"linear\""),
        (&["--cfg-schedule", "cosine"], "\"schedule\":\"cosine\""),
        (&["--cfg-rescale", "0.7"], "\"rescale\":0.7"),
        (&["--negative-class", "Sneaker"], "\"negative_class\":7"),
        (&["--classifier", &classifier, "--classifier-scale", "2"], "\"classifier_scale\":2.0"),
        (&["--autoguidance", &demo], "\"autoguidance_scale\":2.0"),
        (&["--cache", "0.3"], "\"cache\":0.3"),
    ] {
        let run = [&["--class", "3,8", "--out", "a.png"], flags].concat();
        let moved = relative_error(&latents(folder.path(), &run), &plain);
        assert!(moved > 1e-3 && moved.is_finite(), "{flags:?}: {moved}");
        let bytes = fs::read(folder.path().join("a.png")).unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains(recorded), "{flags:?}: no {recorded}");
        succeed_in(folder.path(), &["sample", "--from-png", "a.png", "--out", "b.png"]);
        assert!(fs::read(folder.path().join("b.png")).unwrap() == bytes, "{flags:?}: the recipe repeats it");
    }
    // What changes nothing, to the bit: the whole range, no cache, no share of the way.
    for flags in [&["--cfg-interval", "0,1000"][..], &["--cache", "off"], &["--cache", "0"], &["--cfg-rescale", "0"]] {
        assert_eq!(latents(folder.path(), &[&["--class", "3,8"], flags].concat()), plain, "{flags:?}");
    }
    // A network guided away from itself goes nowhere.
    let own = latents(folder.path(), &["--class", "3,8", "--autoguidance", &demo, "--autoguidance-scale", "5"]);
    let none = latents(folder.path(), &["--class", "3,8", "--cfg-scale", "1"]);
    assert!(relative_error(&own, &none) < 1e-4);
}

#[test]
fn pictures_are_edited_inverted_and_kept_at_little_strength() {
    let folder = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| drop(succeed_in(folder.path(), &quick(more)));
    run(&["--class", "7", "--out", "shoe.png"]);
    let shoe = latents(folder.path(), &["--class", "7"]);
    let edited = |strength: &str| {
        let flags = ["--class", "7", "--init", "shoe.png", "--strength", strength, "--cfg-scale", "1", "--seed", "9"];
        relative_error(&latents(folder.path(), &flags), &shoe)
    };
    let (little, much) = (edited("0.2"), edited("1"));
    assert!(little < 0.5 && little < much, "{little} at 0.2, {much} at 1");
    // Forth and back over short steps, unguided: what the VAE made of the picture returns.
    let walk = |more: &[&str]| {
        let flags = ["sample", "--ckpt", "dit-fashion-demo", "--sampler", "ddim", "--steps", "100", "--class", "7"];
        let start = ["--init", "shoe.png", "--cfg-scale", "1", "--latents", "l", "--out", "back.png"];
        succeed_in(folder.path(), &[&flags[..], &start, more].concat());
        read_tensor(&folder.path().join("l"), "latents")
    };
    let encoded = walk(&["--strength", "0.01"]);
    let back = relative_error(&walk(&["--invert", "--init-class", "7"]), &encoded);
    assert!(back < 0.1, "{back}");
    succeed_in(folder.path(), &["sample", "--from-png", "back.png", "--out", "again.png"]);
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("back.png") == read("again.png"));
    fs::write(folder.path().join("shoe.png"), read("back.png")).unwrap();
    fail_in(folder.path(), &["sample", "--from-png", "back.png", "--out", "x.png"], &["--init", "is not the one"]);
    fs::remove_file(folder.path().join("shoe.png")).unwrap();
    let moved = ["the recipe of the PNG starts from that picture; pass --init", "shoe.png: No such file"];
    fail_in(folder.path(), &["sample", "--from-png", "back.png", "--out", "x.png"], &moved);
}

#[test]
fn strips_begin_and_end_where_they_should() {
    let folder = tempfile::tempdir().unwrap();
    let strip = latents(folder.path(), &["--interpolate", "classes", "1,Bag", "--frames", "4", "--animate", "a.png"]);
    assert_eq!(strip.size()[0], 4);
    let end = |class: &str| latents(folder.path(), &["--class", class]);
    for (frame, class) in [(0, "1"), (3, "8")] {
        let off = relative_error(&strip.narrow(0, frame, 1), &end(class));
        assert!(off < 1e-4, "frame {frame}: {off}");
    }
    let seeds = latents(
        folder.path(),
        &["--interpolate", "seeds", "5,6", "--class", "9", "--frames", "3", "--batch-size", "2"],
    );
    for (frame, seed) in [(0, "5"), (2, "6")] {
        let off =
            relative_error(&seeds.narrow(0, frame, 1), &latents(folder.path(), &["--class", "9", "--seed", seed]));
        assert!(off < 1e-4, "frame {frame}: {off}");
    }
    succeed_in(folder.path(), &quick(&["--class", "0,1", "--trajectory", "t.png", "--out", "o.png"]));
    let info = |name: &str| {
        let file = std::io::BufReader::new(fs::File::open(folder.path().join(name)).unwrap());
        let reader = png::Decoder::new(file).read_info().unwrap();
        (reader.info().width, reader.info().height, reader.info().animation_control.map(|a| a.num_frames))
    };
    assert_eq!(info("t.png"), (6 * 34 + 2, 2 * 34 + 2, None), "six steps, two pictures");
    assert_eq!(info("a.png"), (32, 32, Some(4)));
}

#[test]
fn every_picture_of_a_strip_repeats_itself_in_any_batch() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let read = |name: &str| fs::read(at.join(name)).unwrap();
    let classifier = classifier();
    let classes = ["--interpolate", "classes", "7,9", "--batch-size", "2", "--classifier", &classifier];
    let seeds = ["--interpolate", "seeds", "1,2", "--batch-size", "2", "--class", "3"];
    for (dir, flags) in [("classes", &classes[..]), ("seeds", &seeds[..])] {
        succeed_in(at, &quick(&[flags, &["--frames", "5", "--out-dir", dir, "--out", "strip.png"]].concat()));
        for frame in 0..5 {
            let original = format!("{dir}/{frame:06}.png");
            succeed_in(at, &["sample", "--from-png", &original, "--out", "again.png"]);
            assert!(read("again.png") == read(&original), "{original}");
        }
        succeed_in(at, &["sample", "--from-png", "strip.png", "--out", "again.png"]);
        assert!(read("again.png") == read("strip.png"), "{dir}");
        let last = format!("{dir}/000004.png");
        let again = format!("{dir}-again");
        succeed_in(at, &["sample", "--from-png", &last, "--out-dir", &again]);
        let names: Vec<_> = fs::read_dir(at.join(&again)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [last.rsplit('/').next().unwrap()], "the last batch has one picture");
        assert!(read(&last) == read(&format!("{again}/{}", names[0].display())), "{last}");
        // Another number of pictures: the whole strip anew.
        let shorter = latents(at, &[flags, &["--frames", "3"]].concat());
        succeed_in(at, &["sample", "--from-png", &last, "--frames", "3", "--batch-size", "2", "--latents", "l"]);
        assert_eq!(read_tensor(&at.join("l"), "latents"), shorter, "{dir}");
    }
    let again = ["sample", "--from-png", "classes/000003.png", "--frames", "3", "--class", "2"];
    fail_in(at, &again, &["from class to class", "leave --class out"]);
    fail_in(at, &["sample", "--from-png", "seeds/000001.png", "--noise", "n"], &["--noise has no place in a strip"]);
    // Pictures of another class are no strip; the class of a strip between seeds is that of the picture.
    let ran = succeed_in(at, &["sample", "--from-png", "seeds/000003.png", "--class", "6", "--latents", "l"]);
    assert!(ran.stderr.contains("not the strip"), "{}", ran.stderr);
    assert_eq!(read_tensor(&at.join("l"), "latents"), latents(at, &["--class", "6", "--seed", "1"]));
    succeed_in(at, &quick(&["--class", "0,4", "--out-dir", "two"]));
    let between = ["--interpolate", "seeds", "1,2", "--frames", "2"];
    succeed_in(at, &[&["sample", "--from-png", "two/000001.png", "--latents", "l"], &between[..]].concat());
    let found = read_tensor(&at.join("l"), "latents");
    assert_eq!(found, latents(at, &[&between[..], &["--class", "4"]].concat()));
}

#[test]
fn other_pictures_by_a_recipe_are_guided_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let demo = root().join("weights/demo/dit-fashion.safetensors").display().to_string();
    let classifier = classifier();
    succeed_in(at, &quick(&["--class", "7", "--out", "shoe.png"]));
    let guided = ["--cfg-interval", "0.3,5", "--cfg-schedule", "cosine", "--cfg-rescale", "0.7", "--cache", "0.3"];
    let one = &["--class", "5"][..];
    for (flags, images) in [
        (&guided[..], one),
        (&guided, &["--class", "5,8", "--num-samples", "2", "--labels", "random"]),
        (&["--negative-class", "Sneaker", "--init", "shoe.png", "--strength", "0.5"], one),
        (&["--classifier", &classifier, "--classifier-scale", "2"], one),
        (&["--autoguidance", &demo, "--autoguidance-scale", "3"], one),
        (&["--init", "shoe.png", "--invert", "--init-class", "7"], one),
    ] {
        succeed_in(at, &quick(&[flags, &["--class", "3", "--out", "a.png"]].concat()));
        succeed_in(at, &[&["sample", "--from-png", "a.png", "--out", "b.png"], images].concat());
        succeed_in(at, &quick(&[flags, images, &["--out", "c.png"]].concat()));
        let read = |name: &str| fs::read(at.join(name)).unwrap();
        assert!(read("b.png") == read("c.png"), "{flags:?} {images:?}");
    }
}

#[test]
fn flags_that_the_recipe_has_no_use_for_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let classifier = classifier();
    let z = Tensor::zeros([1, 4, 8, 8], (tch::Kind::Float, tch::Device::Cpu)) + 0.5;
    Tensor::write_safetensors(&[("z", z)], at.join("z.safetensors")).unwrap();
    succeed_in(at, &quick(&["--class", "3", "--out", "plain.png"]));
    succeed_in(at, &quick(&["--class", "3", "--noise", "z.safetensors", "--out", "replayed.png"]));
    succeed_in(at, &quick(&["--class", "3", "--classifier", &classifier, "--out", "classifier.png"]));
    succeed_in(at, &quick(&["--class", "3", "--init", "plain.png", "--out", "edited.png"]));
    succeed_in(at, &quick(&["--class", "3", "--init", "plain.png", "--invert", "--out", "inverted.png"]));
    let check = |recipe: &str, more: &[&str], expected: &[&str]| {
        let run = [&["sample", "--from-png", recipe, "--out", "x.png"], more].concat();
        match expected {
            [] => drop(succeed_in(at, &run)),
            _ => drop(fail_in(at, &run, expected)),
        }
    };
    let neither = "which the recipe of the PNG does not have either";
    for (flag, other) in [
        (&["--classifier-scale", "5"][..], "--classifier"),
        (&["--autoguidance-scale", "5"], "--autoguidance"),
        (&["--strength", "0.5"], "--init"),
        (&["--invert", "--init-class", "3"], "--init"),
        (&["--frames", "5"], "--interpolate"),
    ] {
        let without = format!("{} has no effect without {other}", flag[0]);
        check("plain.png", flag, &[&without, neither]);
        check("plain.png", &[flag, &["--class", "4"]].concat(), &[&without, neither]);
    }
    check("edited.png", &["--init-class", "3"], &["--init-class has no effect without --invert", neither]);
    check("edited.png", &["--classifier-scale", "5"], &["--classifier-scale has no effect", neither]);
    check("plain.png", &["--labels", "random"], &["--labels needs --class"]);
    check("plain.png", &["--num-samples", "2"], &["--num-samples needs --class"]);
    check("inverted.png", &["--seed", "3"], &["--seed has no effect with --invert"]);
    check("inverted.png", &["--class", "4", "--num-samples", "2"], &["--num-samples", "would be the same"]);
    check("edited.png", &["--interpolate", "classes", "1,2"], &["not from a picture"]);
    check("replayed.png", &["--interpolate", "classes", "1,2"], &["z.safetensors", "leave --from-png out"]);
    check("classifier.png", &["--classifier-scale", "5"], &[]);
    check("edited.png", &["--strength", "0.2"], &[]);
    check("edited.png", &["--invert"], &[]);
    check("inverted.png", &["--init-class", "4", "--class", "5"], &[]);
    check("plain.png", &["--interpolate", "classes", "1,2", "--frames", "2"], &[]);
}

#[test]
fn what_does_not_go_together_is_refused_with_what_does() {
    let folder = tempfile::tempdir().unwrap();
    let classifier = classifier();
    let demo = root().join("weights/demo/dit-fashion.safetensors").display().to_string();
    fs::write(folder.path().join("p.png"), fs::read(root().join("docs/images/demo.png")).unwrap()).unwrap();
    let fail = |more: &[&str], expected: &[&str]| drop(fail_in(folder.path(), &quick(more), expected));
    fail(&["--cfg-interval", "5,0.3"], &["covers no timestep", "low first"]);
    fail(&["--cfg-interval", "5"], &["0.3,5"]);
    fail(&["--cfg-interval", "1,inf"], &["two finite ends", "LO,1000"]);
    fail(
        &["--cfg-scale", "1", "--cfg-schedule", "linear"],
        &["has no effect", "--cfg-scale above 1 with --cfg-schedule"],
    );
    fail(
        &["--cfg-scale", "1", "--negative-class", "2"],
        &["a negative class has no effect", "leave --negative-class out"],
    );
    fail(&["--cfg-rescale", "2"], &["between 0"]);
    fail(&["--negative-class", "12"], &["12"]);
    fail(&["--autoguidance-scale", "2"], &["--autoguidance"]);
    fail(&["--autoguidance", &demo, "--cfg-scale", "3"], &["--cfg-scale 1"]);
    fail(&["--autoguidance", &demo, "--negative-class", "3"], &["not from a class"]);
    fail(&["--autoguidance", &classifier], &["--autoguidance"]);
    fail(&["--classifier", &demo], &["not a classifier", "train-classifier"]);
    fail(&["--classifier-scale", "2"], &["--classifier"]);
    fail(&["--classifier", &classifier, "--classifier-scale", "nan"], &["scale"]);
    fail(&["--strength", "0.5"], &["--init"]);
    fail(&["--init", "none.png"], &["none.png"]);
    fail(&["--init", "p.png", "--strength", "0"], &["a strength of 0", "above 0", "--strength"]);
    fail(&["--init", "p.png", "--invert", "--eta", "1"], &["--sampler ddim"]);
    fail(&["--init", "p.png", "--vae", "none", "--latents", "x"], &["--init needs the VAE"]);
    fail(&["--interpolate", "classes", "1"], &["expected two"]);
    fail(&["--interpolate", "classes", "1,2,3"], &["expected two"]);
    fail(&["--interpolate", "colours", "1,2"], &["classes A,B"]);
    fail(&["--interpolate", "classes", "1,2", "--frames", "1"], &["--frames with 2 or more"]);
    fail(&["--interpolate", "seeds", "1,2"], &["--class"]);
    fail(&["--interpolate", "seeds", "1,2", "--class", "3", "--eta", "1"], &["smoothly", "--sampler ddim"]);
    fail(&["--interpolate", "seeds", "1,2", "--class", "3", "--seed", "1"], &["--seed out"]);
    fail(&["--interpolate", "classes", "1,2", "--init", "p.png"], &["not from a picture"]);
    fail(&["--frames", "3"], &["--interpolate"]);
    fail(&["--interpolate", "classes", "1,2", "--frames", "4000000000"], &["--frames 4000000000", "at most 100000000"]);
    fail(&["--cache", "often"], &["`off` or a factor"]);
    fail(&["--cache", "-1"], &["cache factor of -1", "--cache off"]);
    fail(&["--animate", "a.gif"], &["a.gif", "animated PNG", "name it a.png"]);
    fail(&["--cfg-scale", "1", "--cfg-channels", "all"], &["--cfg-channels has no effect", "--cfg-scale above 1"]);
    let same = ["--autoguidance", &demo, "--autoguidance-scale", "1", "--cfg-rescale", "0.5"];
    fail(&same, &["autoguidance has no effect at a scale of 1", "--autoguidance-scale above 1"]);
    fail(&["--init", "p.png", "--invert", "--seed", "3"], &["--seed has no effect with --invert", "leave --seed out"]);
    fail(&["--init", "p.png", "--invert", "--noise", "n"], &["--noise has no effect with --invert"]);
    fail(&["--init", "p.png", "--invert", "--num-samples", "2"], &["--num-samples", "would be the same"]);
    let run = ["sample", "--sampler", "euler", "--eta", "0.5"];
    fail_in(folder.path(), &run, &["--eta is DDIM's", "--sampler ddim"]);
    fail_in(folder.path(), &["sample", "--steps", "lambda2000"], &["2000 of 1000 training steps", "1000 or fewer"]);
    fail_in(folder.path(), &["sample", "--steps", "karras"], &["not a step spacing", "karrasN", "exponentialN"]);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["p.png"], "nothing is left behind");
}

#[test]
fn one_solver_and_one_spacing_may_have_two_names() {
    let folder = tempfile::tempdir().unwrap();
    let sample = |more: &[&str]| {
        let run = ["sample", "--ckpt", "dit-fashion-demo", "--class", "2", "--latents", "l", "--out", "a.png"];
        succeed_in(folder.path(), &[&run[..], more].concat());
        read_tensor(&folder.path().join("l"), "latents")
    };
    let euler = sample(&["--sampler", "euler", "--steps", "exponential5"]);
    assert_eq!(euler, sample(&["--sampler", "ddim", "--steps", "lambda5"]));
    assert_ne!(euler, sample(&["--sampler", "heun", "--steps", "lambda5"]));
}

#[test]
fn pictures_made_with_another_cache_are_others() {
    let folder = tempfile::tempdir().unwrap();
    let sample = |more: &[&str]| {
        let run = ["sample", "--ckpt", "dit-fashion-demo", "--class", "0-1", "--steps", "4", "--out-dir", "each"];
        succeed_in(folder.path(), &[&run[..], more].concat()).stderr
    };
    let (others, there) =
        ("2 pictures were made otherwise, and will be replaced", "2 of 2 pictures were there already");
    let reused = "of the passes through the blocks were taken from an earlier step";
    sample(&[]);
    let said = sample(&["--cache", "0.5"]);
    assert!(said.contains(others) && said.contains(reused), "{said}");
    let said = sample(&["--cache", "0.5"]);
    assert!(said.contains(there) && !said.contains(reused), "nothing was computed\n{said}");
    let said = sample(&["--cache", "0.2"]);
    assert!(said.contains(others), "{said}");
}

#[test]
fn the_cache_s_table_tells_speed_and_drift() {
    let folder = tempfile::tempdir().unwrap();
    let ran = succeed_in(
        folder.path(),
        &[
            "calibrate-cache",
            "--ckpt",
            "dit-fashion-demo",
            "--steps",
            "20",
            "--class",
            "0-3",
            "--factors",
            "0,0.05,0.4",
            "--json",
        ],
    );
    let rows: Vec<serde_json::Value> = serde_json::from_str(&ran.stdout).unwrap();
    let number = |row: usize, key: &str| rows[row][key].as_f64().unwrap();
    assert_eq!((number(0, "drift"), number(0, "reused")), (0.0, 0.0), "{}", ran.stderr);
    assert!(number(2, "reused") > number(1, "reused") && number(2, "drift") >= number(1, "drift"), "{}", ran.stderr);
    assert!(number(2, "drift") > 0.0 && number(2, "drift") < 1.0, "{}", ran.stderr);
    fail_in(folder.path(), &["calibrate-cache", "--factors", "0.1,much"], &["much"]);
}
