use super::*;

/// Numbers of about unit size that look random.
fn wave(shape: &[i64], seed: i64) -> Tensor {
    let n: i64 = shape.iter().product();
    let x = Tensor::arange_start(seed * 100_003, seed * 100_003 + n, (Kind::Double, Device::Cpu));
    let uniform = (x * 12.9898).sin() * 43758.5453;
    ((&uniform - uniform.floor() - 0.5) * 3.4).to_kind(Kind::Float).reshape(shape)
}

#[derive(Clone, Copy)]
enum Before {
    Nothing,
    Norm,
    NormSilu,
    Doubling,
}

struct Case {
    images: i64,
    inputs: i64,
    outputs: i64,
    side: (i64, i64),
    kernel: i64,
    geometry: Geometry,
    before: Before,
    skip: bool,
}

const SAME: Geometry = Geometry { stride: 1, before: 1, after: 1 };
const POINT: Geometry = Geometry { stride: 1, before: 0, after: 0 };
const HALVE: Geometry = Geometry { stride: 2, before: 0, after: 1 };

/// As libtorch's operators in fp64, one after the other, compute it.
fn plain(case: &Case, x: &Tensor, weight: &Tensor, bias: &Tensor, norm: (&Tensor, &Tensor), skip: &Tensor) -> Tensor {
    let wide = |x: &Tensor| x.to_kind(Kind::Double);
    let x = wide(x);
    let normalized = || x.group_norm(4, Some(wide(norm.0)), Some(wide(norm.1)), 1e-6, false);
    let x = match case.before {
        Before::Nothing => x.shallow_clone(),
        Before::Norm => normalized(),
        Before::NormSilu => normalized().silu(),
        Before::Doubling => x.upsample_nearest2d([2 * case.side.0, 2 * case.side.1], None, None),
    };
    let (before, after) = (case.geometry.before as i64, case.geometry.after as i64);
    let x = x.constant_pad_nd([before, after, before, after]);
    let y = x.conv2d(&wide(weight), Some(&wide(bias)), [case.geometry.stride as i64; 2], [0, 0], [1, 1], 1);
    if case.skip { y + wide(skip) } else { y }
}

#[track_caller]
fn check(products: Products, case: Case) {
    if !Convolution::is_supported(products) {
        eprintln!("skipped: this CPU has no kernels for {products:?}");
        return;
    }
    let (height, width) = case.side;
    let x = wave(&[case.images, case.inputs, height, width], 1) + 0.5;
    let weight = wave(&[case.outputs, case.inputs, case.kernel, case.kernel], 2);
    let bias = wave(&[case.outputs], 3);
    let norm = (wave(&[case.inputs], 4) * 0.2 + 1.0, wave(&[case.inputs], 5) * 0.2);
    let times = if matches!(case.before, Before::Doubling) { 2 } else { 1 };
    let out = |side: i64| {
        (times * side + (case.geometry.before + case.geometry.after) as i64 - case.kernel) / case.geometry.stride as i64
            + 1
    };
    let skip = wave(&[case.images, case.outputs, out(height), out(width)], 6);
    let affine = norm;
    let expected = plain(&case, &x, &weight, &bias, (&affine.0, &affine.1), &skip);

    let convolution = Convolution::new(&weight, &bias, case.geometry, products).unwrap();
    let norm = (case.inputs % 4 == 0).then(|| GroupNorm::new(4, &affine.0, &affine.1, 1e-6).unwrap().of(&x).unwrap());
    let norm = match case.before {
        Before::NormSilu => norm.map(Normalization::then_silu),
        _ => norm,
    };
    let input = match case.before {
        Before::Nothing => Input::Plain,
        Before::Norm | Before::NormSilu => Input::Normalized(norm.as_ref().unwrap()),
        Before::Doubling => Input::Doubled,
    };
    let result = convolution.forward(&x, input, if case.skip { Skip::Kept(&skip) } else { Skip::Nothing }).unwrap();
    assert_eq!(result.size(), expected.size());
    let error = relative(&result, &expected);
    let tolerance = match products {
        Products::Fp32 => 1e-6,
        Products::Bf16 => 8e-3,
    };
    assert!(error < tolerance, "{error:.1e}");

    // The same, written over the skip connection, and measured on the way.
    let replaced = channels_innermost(&skip, Kind::Float).permute([0, 3, 1, 2]);
    let place = replaced.data_ptr();
    let over = if case.skip { Skip::Replaced(replaced) } else { Skip::Nothing };
    let measured = convolution.forward_measured(&x, input, over, Products::Fp32).unwrap();
    assert_eq!(measured.result, result);
    assert_eq!(measured.result.data_ptr() == place, case.skip);
    let apart = Statistics::of(&result).unwrap();
    for image in 0..case.images as usize {
        for (ours, expected) in measured.statistics.totals(image).into_iter().zip(apart.totals(image)) {
            assert_eq!(ours.count, expected.count);
            let size = expected.mean.abs() + (expected.squares / expected.count).sqrt();
            assert!((ours.mean - expected.mean).abs() <= 1e-5 * size, "{ours:?} {expected:?}");
            assert!(
                (ours.squares - expected.squares).abs() <= 3e-5 * expected.squares + 1e-12 * size,
                "{ours:?} {expected:?}"
            );
        }
    }

    // Between two convolutions in bf16.
    let (x, skip) = (x.to_kind(Kind::BFloat16), skip.to_kind(Kind::BFloat16));
    let onto = if case.skip { Skip::Kept(&skip) } else { Skip::Nothing };
    let rounded = convolution.forward_measured(&x, input, onto, Products::Bf16);
    match products {
        Products::Fp32 => assert!(matches!(rounded, Err(OpsError::Unsupported { .. }))),
        Products::Bf16 => {
            let rounded = rounded.unwrap().result;
            assert_eq!(rounded.kind(), Kind::BFloat16);
            let expected = plain(&case, &x, &weight, &bias, (&affine.0, &affine.1), &skip);
            let error = relative(&rounded, &expected);
            assert!(error < tolerance, "{error:.1e}");
        }
    }
}

fn relative(result: &Tensor, expected: &Tensor) -> f64 {
    ((result - expected).norm() / expected.norm()).double_value(&[])
}

#[track_caller]
fn check_both(case: impl Fn() -> Case) {
    check(Products::Fp32, case());
    check(Products::Bf16, case());
}

#[test]
fn three_by_three_of_any_size() {
    for (images, inputs, outputs, side) in [
        (1, 16, 32, (8, 8)),
        (1, 1, 1, (1, 1)),
        (2, 3, 128, (5, 7)),
        (1, 40, 24, (33, 2)),
        (3, 64, 3, (31, 65)),
        (1, 136, 200, (14, 40)),
        (1, 17, 65, (1, 50)),
        // More channels than are multiplied at a time, of inputs as of outputs.
        (1, 300, 300, (6, 5)),
        (1, 530, 40, (4, 4)),
    ] {
        for skip in [false, true] {
            check_both(|| Case {
                images,
                inputs,
                outputs,
                side,
                kernel: 3,
                geometry: SAME,
                before: Before::Nothing,
                skip,
            });
        }
    }
}

#[test]
fn normalised_on_the_way_in() {
    for (before, inputs, side) in
        [(Before::Norm, 32, (6, 6)), (Before::NormSilu, 64, (17, 9)), (Before::NormSilu, 20, (40, 41))]
    {
        for (kernel, geometry) in [(3, SAME), (1, POINT), (3, HALVE)] {
            check_both(|| Case { images: 2, inputs, outputs: 36, side, kernel, geometry, before, skip: true });
        }
    }
}

#[test]
fn doubled_on_the_way_in() {
    for (inputs, side) in [(32, (6, 6)), (16, (1, 1)), (70, (19, 5)), (64, (16, 33))] {
        check_both(|| Case {
            images: 2,
            inputs,
            outputs: 48,
            side,
            kernel: 3,
            geometry: SAME,
            before: Before::Doubling,
            skip: false,
        });
    }
}

#[test]
fn other_windows() {
    for (kernel, geometry, side) in [
        (1, POINT, (9, 12)),
        (3, HALVE, (16, 16)),
        (3, HALVE, (7, 9)),
        (5, Geometry { stride: 1, before: 2, after: 2 }, (6, 11)),
        (2, Geometry { stride: 2, before: 0, after: 0 }, (8, 8)),
    ] {
        for (inputs, outputs) in [(3, 40), (16, 72), (33, 129), (16, 300)] {
            check_both(|| Case {
                images: 2,
                inputs,
                outputs,
                side,
                kernel,
                geometry,
                before: Before::Nothing,
                skip: true,
            });
        }
    }
}

#[test]
fn results_do_not_depend_on_the_neighbours_in_a_batch() {
    if !Convolution::is_supported(Products::Fp32) {
        return;
    }
    let (weight, bias) = (wave(&[40, 32, 3, 3], 1), wave(&[40], 2));
    let convolution = Convolution::new(&weight, &bias, SAME, Products::Fp32).unwrap();
    let x = wave(&[3, 32, 20, 70], 3);
    let together = convolution.forward(&x, Input::Plain, Skip::Nothing).unwrap();
    for image in 0..3 {
        let alone = convolution.forward(&x.narrow(0, image, 1), Input::Plain, Skip::Nothing).unwrap();
        assert_eq!(alone, together.narrow(0, image, 1));
    }
}

#[test]
fn a_large_mean_costs_no_digits() {
    let x = wave(&[1, 8, 40, 40], 1) + 1000.0;
    let (weight, bias) =
        (Tensor::ones([8], (Kind::Float, Device::Cpu)), Tensor::zeros([8], (Kind::Float, Device::Cpu)));
    let map = GroupNorm::new(2, &weight, &bias, 1e-6).unwrap().of(&x).unwrap();
    let expected = x.to_kind(Kind::Double).reshape([2, -1]);
    let deviation = expected.std_dim([1].as_slice(), false, false);
    for channel in 0..8 {
        let scale = deviation.double_value(&[channel / 4]).recip();
        assert!((f64::from(map.scale[channel as usize]) / scale - 1.0).abs() < 1e-6);
    }
}

#[test]
fn statistics_depend_neither_on_neighbours_nor_on_threads() {
    if !Convolution::is_supported(Products::Fp32) {
        return;
    }
    let (weight, bias) = (wave(&[40, 32, 3, 3], 1), wave(&[40], 2));
    let halving = Convolution::new(&weight, &bias, HALVE, Products::Fp32).unwrap();
    let same = Convolution::new(&weight, &bias, SAME, Products::Fp32).unwrap();
    let x = wave(&[3, 32, 20, 70], 3);
    for convolution in [halving, same] {
        let measured = |x: &Tensor| {
            let measured = convolution.forward_measured(x, Input::Plain, Skip::Nothing, Products::Fp32).unwrap();
            (0..x.size()[0] as usize).map(|image| measured.statistics.totals(image)).collect::<Vec<_>>()
        };
        let threads = tch::get_num_threads();
        let together = measured(&x);
        for count in [1, 7] {
            tch::set_num_threads(count);
            for (image, expected) in together.iter().enumerate() {
                assert_eq!(&measured(&x.narrow(0, image as i64, 1))[0], expected);
            }
        }
        tch::set_num_threads(threads);
    }
}

#[test]
fn what_is_read_is_not_written_over() {
    if !Convolution::is_supported(Products::Fp32) {
        return;
    }
    let convolution = Convolution::new(&wave(&[16, 16, 3, 3], 1), &wave(&[16], 2), SAME, Products::Fp32).unwrap();
    let x = channels_innermost(&wave(&[1, 16, 20, 20], 3), Kind::Float).permute([0, 3, 1, 2]);
    let expected = convolution.forward(&x, Input::Plain, Skip::Kept(&x)).unwrap();
    let result = convolution.forward(&x, Input::Plain, Skip::Replaced(x.shallow_clone())).unwrap();
    assert_eq!(result, expected);
}

#[test]
fn what_does_not_fit_is_refused() {
    if !Convolution::is_supported(Products::Fp32) {
        return;
    }
    let (weight, bias) = (wave(&[4, 3, 3, 3], 1), wave(&[4], 2));
    let convolution = Convolution::new(&weight, &bias, SAME, Products::Fp32).unwrap();
    for shape in [vec![1, 4, 8, 8], vec![0, 3, 8, 8], vec![3, 8, 8], vec![1, 3, 0, 8]] {
        let x = Tensor::zeros(&shape, (Kind::Float, Device::Cpu));
        assert!(convolution.forward(&x, Input::Plain, Skip::Nothing).is_err(), "{shape:?}");
    }
    let x = wave(&[1, 3, 8, 8], 1);
    assert!(convolution.forward(&x, Input::Plain, Skip::Kept(&wave(&[1, 4, 8, 9], 1))).is_err());
    assert!(Convolution::new(&weight, &wave(&[3], 1), SAME, Products::Fp32).is_err());
    let point = Convolution::new(&wave(&[4, 3, 1, 1], 1), &bias, POINT, Products::Fp32).unwrap();
    assert!(point.forward(&x, Input::Doubled, Skip::Nothing).is_err());
    assert!(GroupNorm::new(3, &bias, &bias, 1e-6).is_err());
}
