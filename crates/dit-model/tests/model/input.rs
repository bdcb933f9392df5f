//! Arguments that do not fit are refused with a message that names them; libtorch never sees them.

use crate::common::{check_close, tiny, tiny_input, tiny_model};
use dit_model::{BlockDesign, Dit, Initialization, Kernels, ModelError, Sigma};
use tch::{Device, Kind, Tensor, nn::VarStore};

#[track_caller]
fn check(dit: &Dit, x: &Tensor, t: &Tensor, labels: &Tensor, expected: &[&str]) {
    match dit.try_forward(x, t, labels) {
        Err(ModelError::Input { problems, .. }) => assert_eq!(problems, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn misfits_are_named() {
    let (_store, dit) = tiny_model(BlockDesign::AdaLnZero);
    let (x, t, y) = tiny_input();
    let i64s = |values: &[i64]| Tensor::from_slice(values);

    check(&dit, &x.transpose(2, 3), &t, &y, &["x is [3, 4, 6, 4], expected [N, 4, 4, 6]"]);
    check(&dit, &x.narrow(1, 0, 3), &t, &y, &["x is [3, 3, 4, 6], expected [N, 4, 4, 6]"]);
    check(&dit, &x.to_kind(Kind::Int64), &t, &y, &["x is of kind Int64, expected a floating-point kind"]);
    check(&dit, &x.narrow(0, 0, 0), &t.narrow(0, 0, 0), &y.narrow(0, 0, 0), &["x holds no sample"]);
    check(&dit, &x, &i64s(&[1, 2]), &y, &["t is [2], expected [3], one for each sample of x"]);
    check(&dit, &x, &t.unsqueeze(1), &y, &["t is [3, 1], expected [3], one for each sample of x"]);
    check(&dit, &x, &Tensor::from_slice(&[0.0, f64::NAN, 1.0]), &y, &["t holds NaN or infinity"]);
    check(&dit, &x, &i64s(&[0, -5, 3]), &y, &["timestep -5 is out of range, expected 0 or more"]);
    check(&dit, &x, &(t.to_kind(Kind::Half) - 0.5), &y, &["timestep -0.5 is out of range, expected 0 or more"]);
    check(&dit, &x, &t.to_kind(Kind::Bool), &y, &["t is of kind Bool, expected integers or floats"]);
    check(&dit, &x, &t, &y.to_kind(Kind::Int), &["labels are of kind Int, expected Int64"]);
    check(&dit, &x, &t, &i64s(&[0, 11, 10]), &["label 11 is out of range, expected 0 to 10 (the null class)"]);
    check(
        &dit,
        &Tensor::from(1.0),
        &i64s(&[0]),
        &i64s(&[-1, 12]),
        &[
            "x is [], expected [N, 4, 4, 6]",
            "t is [1], expected [0], one for each sample of x",
            "labels is [2], expected [0], one for each sample of x",
            "label -1 is out of range, expected 0 to 10 (the null class)",
            "label 12 is out of range, expected 0 to 10 (the null class)",
        ],
    );
}

#[test]
fn layouts_that_no_layer_takes_are_named() {
    let (_store, dit) = tiny_model(BlockDesign::AdaLnZero);
    let (x, t, y) = tiny_input();
    let special = |name: &str| format!("{name} is sparse or of another special layout, expected a dense tensor");
    check(&dit, &Tensor::new(), &t, &Tensor::new(), &["x is an undefined tensor", "labels is an undefined tensor"]);
    check(&dit, &x.to_sparse_sparse_dim(4), &t, &y, &[&special("x")]);
    check(&dit, &x.view([3, 4 * 24]).to_sparse_csr(None), &t, &y, &[&special("x")]);
    check(&dit, &x, &t.to_sparse_sparse_dim(1), &y.to_sparse_sparse_dim(1), &[&special("t"), &special("labels")]);
    // What is merely not contiguous is none of them.
    let turned = x.transpose(2, 3).contiguous().transpose(2, 3);
    assert_eq!(dit.try_forward(&turned, &t, &y).unwrap(), dit.forward(&x, &t, &y));
    assert!(dit.try_forward(&x.narrow(0, 0, 1).expand_as(&x), &t, &y).is_ok());
}

#[test]
fn the_model_follows_the_kind_of_its_store() {
    for block in BlockDesign::ALL {
        let (mut store, dit) = tiny_model(block);
        let (x, t, y) = tiny_input();
        let before = dit.forward(&x, &t, &y);
        store.double();
        let after = dit.try_forward(&x, &t, &y).unwrap();
        assert_eq!((dit.kind(), after.kind()), (Kind::Double, Kind::Double), "{block}");
        check_close(block.name(), &after, &before, 1e-5);
        store.bfloat16();
        assert_eq!(dit.try_forward(&x, &t, &y).unwrap().kind(), Kind::BFloat16, "{block}");
    }
}

#[test]
fn packed_weights_do_not_follow_and_say_so() {
    let (mut store, mut dit) = tiny_model(BlockDesign::AdaLnZero);
    let (x, t, y) = tiny_input();
    store.freeze();
    dit.optimize(Kernels::Fused);
    store.double();
    match dit.try_forward(&x, &t, &y) {
        Ok(output) => assert_eq!(output.kind(), Kind::Double), // no kernel here packs
        Err(error) => {
            let says = "the variable store is of kind Double by now, and weights were packed in Float";
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}

#[test]
fn without_label_dropout_there_is_no_null_class() {
    let config = tiny(BlockDesign::CrossAttention).with(|spec| {
        spec.label_dropout = 0.0;
        spec.sigma = Sigma::Fixed;
    });
    let store = VarStore::new(Device::Cpu);
    let dit = Dit::new(&store.root(), &config.unwrap(), Initialization::Reference { seed: 0 });
    let (x, t, labels) = tiny_input();
    check(&dit, &x, &t, &labels, &["label 10 is out of range, expected 0 to 9"]);
    assert_eq!(dit.try_forward(&x, &t, &(labels - 1)).unwrap().size(), [3, 4, 4, 6]);
}

#[test]
fn the_message_names_the_model() {
    let (_store, dit) = tiny_model(BlockDesign::InContext);
    let (x, t, labels) = tiny_input();
    let error = dit.check_input(&x, &t, &(labels + 5)).unwrap_err();
    let text = "input does not fit DiT(hidden 24, depth 2, heads 3)/2 in-context: label 15 is out of range, expected 0 to 10 (the null class)";
    assert_eq!(error.to_string(), text);
}
