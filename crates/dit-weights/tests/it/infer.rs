//! Configurations from names and shapes alone.

use std::collections::BTreeMap;

use crate::common::{tiny, weights_of};
use dit_weights::{
    BlockDesign, DitConfig, Dtype, Error, Hints, LatentSize, Sigma, StandardModel, TensorInfo, TensorSource,
    TensorView, infer_config, looks_like, position_table,
};
use proptest::prelude::*;

/// Names and shapes without values, but for the position table.
struct Shapes {
    infos: BTreeMap<String, TensorInfo>,
    table: Option<(LatentSize, usize)>,
}

impl Shapes {
    fn of(config: &DitConfig) -> Self {
        let infos = config
            .tensors()
            .into_iter()
            .map(|spec| (spec.name, TensorInfo { dtype: Dtype::F32, shape: spec.shape }))
            .collect();
        Self { infos, table: Some((config.grid(), config.hidden)) }
    }

    fn set(&mut self, name: &str, shape: &[usize]) {
        self.infos.insert(name.to_owned(), TensorInfo { dtype: Dtype::F32, shape: shape.to_vec() });
    }
}

impl TensorSource for Shapes {
    fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<TensorView<'_>, Error> {
        match self.table {
            Some((grid, hidden)) if name == "pos_embed" => {
                let table = position_table(grid, hidden);
                TensorView::from_f32(vec![1, table.len() / hidden, hidden], &table)
            }
            _ => Err(Error::NoSuchTensor { name: name.to_owned() }),
        }
    }
}

#[track_caller]
fn check(config: &DitConfig, hints: &Hints) {
    let inferred = infer_config(&Shapes::of(config), hints).unwrap_or_else(|error| panic!("{config}: {error}"));
    assert_eq!(inferred, *config);
}

#[test]
fn the_twelve_standard_models_need_no_hint() {
    for model in StandardModel::ALL {
        for image_size in [256, 512] {
            let config = DitConfig::standard(model, image_size).unwrap();
            check(&config, &Hints::default());
            assert_eq!(looks_like(&Shapes::of(&config)), Some(model));
        }
    }
}

#[test]
fn every_design_and_geometry_is_in_the_shapes() {
    let hints = Hints { heads: Some(4), ..Hints::default() };
    for block in BlockDesign::ALL {
        let config = tiny(block);
        check(&config, &hints);
        for sigma in [Sigma::Fixed, Sigma::Learned] {
            check(&config.with(|spec| spec.sigma = sigma).unwrap(), &hints);
        }
        for (height, width) in [(4, 12), (12, 4), (2, 24), (8, 8), (4, 16), (16, 4), (2, 2), (26, 2)] {
            check(&config.with(|spec| spec.latent = LatentSize { height, width }).unwrap(), &hints);
        }
        for mlp_ratio in [2.0, 4.0, 8.0 / 3.0 * 3.0, 1.0 / 16.0, 43.0 / 16.0] {
            check(&config.with(|spec| spec.mlp_ratio = mlp_ratio).unwrap(), &hints);
        }
    }
}

#[test]
fn an_mlp_width_that_divides_into_no_exact_ratio_is_kept() {
    for (hidden, mlp_hidden) in [(12, 7), (28, 100), (1100, 3001), (36, 25)] {
        let config = tiny(BlockDesign::AdaLnZero).with(|spec| {
            spec.hidden = hidden;
            spec.mlp_ratio = 1.0;
        });
        let mut shapes = Shapes::of(&config.unwrap());
        shapes.set("blocks.0.mlp.fc1.weight", &[mlp_hidden, hidden]);
        let inferred = infer_config(&shapes, &Hints { heads: Some(4), ..Hints::default() }).unwrap();
        assert_eq!(inferred.mlp_hidden(), mlp_hidden, "{hidden}");
    }
}

#[test]
fn classes_are_one_less_than_rows_unless_told() {
    let heads = Hints { heads: Some(4), ..Hints::default() };
    let shapes = Shapes::of(&tiny(BlockDesign::AdaLnZero));
    for (told, expected) in [(None, (5, 0.1)), (Some(5), (5, 0.1)), (Some(6), (6, 0.0))] {
        let config = infer_config(&shapes, &Hints { num_classes: told, ..heads }).unwrap();
        assert_eq!((config.num_classes, config.label_dropout), expected, "{told:?}");
    }
    let error = infer_config(&shapes, &Hints { num_classes: Some(7), ..heads }).unwrap_err();
    assert!(matches!(error, Error::Conflict { what: "classes", .. }), "{error}");
    let mut single = shapes;
    single.set("y_embedder.embedding_table.weight", &[1, 16]);
    assert_eq!(infer_config(&single, &heads).unwrap().num_classes, 1);
}

#[test]
fn what_shapes_cannot_tell_is_asked_for() {
    let config = tiny(BlockDesign::AdaLnZero);
    let shapes = Shapes::of(&config);
    let error = infer_config(&shapes, &Hints::default()).unwrap_err();
    assert!(matches!(error, Error::HeadsUnknown { hidden: 16, depth: 2 }), "{error}");
    assert!(error.to_string().contains("how many attention heads it has, and width 16"), "{error}");

    let heads = Hints { heads: Some(4), ..Hints::default() };
    // Twelve tokens of an unknown table: 1×12, 2×6, 3×4, …
    let unknown = Shapes { table: None, ..Shapes::of(&config) };
    let error = infer_config(&unknown, &heads).unwrap_err();
    assert!(matches!(error, Error::LatentUnknown { .. }), "{error}");
    let latent = Some(config.latent);
    assert_eq!(infer_config(&unknown, &Hints { latent, ..heads }).unwrap(), config);
    let wrong = Some(LatentSize::square(8));
    let error = infer_config(&unknown, &Hints { latent: wrong, ..heads }).unwrap_err();
    assert!(matches!(error, Error::Conflict { what: "latent", .. }), "{error}");
    // A square number of tokens is taken for a square.
    let square = config.with(|spec| spec.latent = LatentSize::square(6)).unwrap();
    let unknown = Shapes { table: None, ..Shapes::of(&square) };
    assert_eq!(infer_config(&unknown, &heads).unwrap(), square);
}

#[test]
fn a_table_in_bf16_still_tells_the_grid() {
    for (height, width) in [(8, 32), (32, 8), (16, 16), (2, 128)] {
        let config = tiny(BlockDesign::AdaLnZero).with(|spec| spec.latent = LatentSize { height, width }).unwrap();
        let mut source = weights_of(&config);
        let table = source.remove("pos_embed").unwrap();
        source.insert("pos_embed", dit_weights::cast("pos_embed", table, Dtype::BF16).unwrap());
        let inferred = infer_config(&source, &Hints { heads: Some(4), ..Hints::default() }).unwrap();
        assert_eq!(inferred.latent, config.latent);
    }
}

#[track_caller]
fn check_refused(name: &str, shape: &[usize], says: &str) {
    let mut shapes = Shapes::of(&tiny(BlockDesign::AdaLnZero));
    shapes.set(name, shape);
    let error = infer_config(&shapes, &Hints { heads: Some(4), ..Hints::default() }).unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn shapes_that_are_no_dits_are_refused_by_name() {
    const HUGE: usize = usize::MAX;
    check_refused("x_embedder.proj.weight", &[16, 3, 2, 4], "x_embedder.proj.weight is [16, 3, 2, 4]");
    check_refused("x_embedder.proj.weight", &[16, 3, 2], "expected (width, channels, patch, patch)");
    check_refused("x_embedder.proj.weight", &[0, 3, 2, 2], "x_embedder.proj.weight");
    check_refused("x_embedder.proj.weight", &[16, 3, 0, 0], "x_embedder.proj.weight");
    check_refused("x_embedder.proj.weight", &[HUGE, HUGE, HUGE, HUGE], "adaLN_modulation");
    check_refused("x_embedder.proj.weight", &[16, 3, HUGE, HUGE], "final_layer.linear.weight");
    check_refused("y_embedder.embedding_table.weight", &[6], "(classes, width)");
    check_refused("y_embedder.embedding_table.weight", &[HUGE, 16], "num_classes");
    check_refused("y_embedder.embedding_table.weight", &[0, 16], "num_classes is 0");
    check_refused("blocks.0.mlp.fc1.weight", &[], "(MLP width, width)");
    check_refused("blocks.0.mlp.fc1.weight", &[0, 16], "mlp_ratio");
    check_refused("blocks.0.mlp.fc1.weight", &[HUGE, 16], "mlp_ratio");
    check_refused("blocks.0.adaLN_modulation.1.weight", &[80, 16], "6 (adaLN-Zero) or 4 (adaLN)");
    check_refused("blocks.0.adaLN_modulation.1.weight", &[], "6 (adaLN-Zero) or 4 (adaLN)");
    check_refused("blocks.18446744073709551615.x", &[1], "depth");
    check_refused("final_layer.linear.weight", &[13, 16], "has 13 rows");
    check_refused("pos_embed", &[12, 16], "(1, tokens, width)");
    check_refused("pos_embed", &[1, 0, 16], "(1, tokens, width)");
    check_refused("pos_embed", &[1, HUGE, 16], "(1, tokens, width)");
}

#[test]
fn every_tensor_that_tells_and_is_not_there_is_named() {
    let mut shapes = Shapes::of(&tiny(BlockDesign::InContext));
    let telling = ["x_embedder.proj.weight", "blocks.0.mlp.fc1.weight", "final_layer.linear.weight"];
    for name in telling {
        shapes.infos.remove(name).unwrap();
    }
    let error = infer_config(&shapes, &Hints::default()).unwrap_err().to_string();
    assert!(telling.iter().all(|name| error.contains(name)), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever the shapes, the answer comes at once, and is an error or a configuration whose tensors can be listed.
    #[test]
    fn hostile_shapes_are_answered(
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::collection::vec(
                prop_oneof![4 => 0usize..40, 1 => Just(usize::MAX), 1 => Just(1usize << 28), 1 => Just(1usize << 63), 1 => any::<usize>()],
                0..5,
            )),
            0..4,
        ),
        block in prop::sample::select(BlockDesign::ALL.to_vec()),
        heads in prop::option::of(0usize..20),
        latent in prop::option::of((0usize..9, 0usize..9)),
        num_classes in prop::option::of(any::<usize>()),
    ) {
        let mut shapes = Shapes::of(&tiny(block));
        let names: Vec<String> = shapes.infos.keys().cloned().collect();
        for (index, shape) in &changes {
            shapes.set(&names[index.index(names.len())], shape);
        }
        let latent = latent.map(|(height, width)| LatentSize { height, width });
        let hints = Hints { heads, latent, num_classes, ..Hints::default() };
        if let Ok(config) = infer_config(&shapes, &hints) {
            prop_assert!(!config.tensors().is_empty());
        }
    }
}
