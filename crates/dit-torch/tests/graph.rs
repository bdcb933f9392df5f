//! What libtorch's graph does with operators of ours.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use dit_torch::{backward, differentiable, forget_gradient, grad_is_enabled};
use tch::{Device, Kind, Tensor};

fn leaf(values: &[f32]) -> Tensor {
    Tensor::from_slice(values).set_requires_grad(true)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor).unwrap()
}

/// a·b, counting how often what it keeps is dropped.
fn multiply(a: &Tensor, b: &Tensor, dropped: &Arc<AtomicUsize>) -> Tensor {
    struct Kept(Tensor, Tensor, Arc<AtomicUsize>);
    impl Drop for Kept {
        fn drop(&mut self) {
            self.2.fetch_add(1, Ordering::SeqCst);
        }
    }
    let kept = Kept(a.detach(), b.detach(), Arc::clone(dropped));
    differentiable("multiply", &[a, b], a.detach() * b.detach(), move |gradient, wanted| {
        assert!(!grad_is_enabled());
        vec![wanted[0].then(|| &gradient * &kept.1), wanted[1].then(|| &gradient * &kept.0)]
    })
}

#[test]
fn gradients_flow_through_several_and_gather_at_leaves() {
    let dropped = Arc::default();
    let (a, b) = (leaf(&[2.0, 3.0]), leaf(&[5.0, 7.0]));
    let product = multiply(&multiply(&a, &b, &dropped), &a, &dropped); // a²·b
    assert_eq!(values(&product.detach()), [20.0, 63.0]);
    product.sum(Kind::Float).backward();
    assert_eq!(values(&a.grad()), [20.0, 42.0]);
    assert_eq!(values(&b.grad()), [4.0, 9.0]);
    assert_eq!(dropped.load(Ordering::SeqCst), 2);
    multiply(&a, &b, &dropped).sum(Kind::Float).backward();
    assert_eq!(values(&b.grad()), [6.0, 12.0]);
    forget_gradient(&b).unwrap();
    forget_gradient(&Tensor::new()).unwrap();
    assert!(!b.grad().defined());
    multiply(&a, &b, &dropped).sum(Kind::Float).backward();
    assert_eq!(values(&b.grad()), [2.0, 3.0]);
}

#[test]
fn only_what_is_wanted_is_computed() {
    let dropped = Arc::default();
    let (a, constant) = (leaf(&[2.0]), Tensor::from_slice(&[5.0_f32]));
    let seen = Arc::new(AtomicUsize::new(0));
    let seen_there = Arc::clone(&seen);
    let output = differentiable("one of two", &[&constant, &a], &a.detach() * 5.0, move |gradient, wanted| {
        assert_eq!(wanted, [false, true]);
        seen_there.fetch_add(1, Ordering::SeqCst);
        vec![None, Some(gradient * 5.0)]
    });
    output.backward();
    assert_eq!((values(&a.grad()), seen.load(Ordering::SeqCst)), (vec![5.0], 1));
    // Nothing is recorded where nothing is asked for.
    assert!(!multiply(&constant, &constant, &dropped).requires_grad());
    tch::no_grad(|| assert!(!multiply(&a, &a, &dropped).requires_grad()));
    assert_eq!(dropped.load(Ordering::SeqCst), 2);
}

#[test]
fn what_is_kept_lives_no_longer_than_the_graph() {
    let dropped = Arc::default();
    let a = leaf(&[2.0]);
    drop(multiply(&a, &a, &dropped));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

#[test]
fn what_fails_is_an_error_of_the_backward_pass() {
    let a = leaf(&[2.0]);
    let copy = || a.detach().copy();
    let error = |output: &Tensor| output.f_backward().unwrap_err().to_string();
    let panics = differentiable("panicking", &[&a], copy(), |_, _| panic!("no {}", "luck"));
    let found = error(&panics);
    assert!(found.contains("panicking: no luck"), "{found}");
    let found = error(&differentiable("counting", &[&a], copy(), |_, _| Vec::new()));
    assert!(found.contains("counting: 0 gradients for 1 inputs"), "{found}");
    let [two, three] = [leaf(&[1.0, 2.0]), leaf(&[1.0, 2.0, 3.0])];
    let found = error(&differentiable("shaped", &[&two], copy(), move |_, _| vec![Some(three.detach())]));
    assert!(found.contains("shape"), "{found}");
    let once = differentiable("once", &[&a], copy(), |gradient, _| vec![Some(gradient * 2.0)]);
    let found = Tensor::f_run_backward(&[&once], &[&a], true, true).unwrap_err().to_string();
    assert!(found.contains("once can be differentiated once"), "{found}");
    let twice = differentiable("twice", &[&a], copy(), |gradient, _| vec![Some(gradient)]);
    twice.backward();
    let found = error(&twice);
    assert!(found.contains("second"), "{found}");
}

#[test]
fn backward_from_several_tensors_with_gradients_of_their_own() {
    let (a, b) = (leaf(&[2.0, 3.0]), leaf(&[5.0, 7.0]));
    let weights = Tensor::from_slice(&[1.0_f32, 10.0]);
    backward(&[(&(&a * &b), &weights), (&(&a * 2.0), &weights)]).unwrap();
    assert_eq!((values(&a.grad()), values(&b.grad())), (vec![7.0, 90.0], vec![2.0, 30.0]));
    let constant = Tensor::ones([2], (Kind::Float, Device::Cpu));
    assert!(backward(&[(&constant, &weights)]).unwrap_err().to_string().contains("grad"));
}
