//! Training of the small classifier: minutes on a CPU.

use std::path::Path;

use dit_data::{CropRecipe, Limits, Source};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde::Deserialize;
use tch::{
    Device, Kind, Tensor,
    nn::{self, ModuleT, OptimizerConfig},
};

use super::demo::{Convolution, DemoFeatures, DemoNotes, LAYERS, SIDE, WIDTH};
use crate::Error;

/// Of batch normalisation.
const NORM_EPSILON: f64 = 1e-5;

/// How the classifier is trained; as a TOML file, `configs/features.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureRecipe {
    /// Passes over the training set.
    pub epochs: u32,
    /// Pictures a step.
    pub batch_size: usize,
    /// The highest learning rate of AdamW: reached by a line over the first tenth of the steps, left by a cosine to 0.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Pictures are moved by up to so many pixels in each direction, and mirrored half the time.
    pub largest_shift: u32,
    /// Of weights, order and augmentation.
    pub seed: u64,
}

impl FeatureRecipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// [`Error::Recipe`] with the line, also for unknown keys and values out of range.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let recipe: Self = toml::from_str(text).map_err(|error| Error::Recipe { problem: error.to_string() })?;
        let in_range = recipe.epochs > 0
            && recipe.batch_size > 1
            && recipe.learning_rate > 0.0
            && recipe.learning_rate.is_finite()
            && recipe.weight_decay >= 0.0
            && (recipe.largest_shift as usize) < SIDE / 2;
        if !in_range {
            let problem = "epochs and learning_rate must be above 0, batch_size above 1, weight_decay at least 0, largest_shift below 16";
            return Err(Error::Recipe { problem: problem.to_owned() });
        }
        Ok(recipe)
    }
}

/// Grey 32 × 32 pictures with classes, in memory.
#[derive(Debug, Clone)]
pub struct GreyPictures {
    /// (N, 32, 32).
    levels: Vec<u8>,
    labels: Vec<i64>,
    class_names: Vec<String>,
}

impl GreyPictures {
    /// All pictures of `source`, smaller ones padded with black; colours are averaged.
    ///
    /// # Errors
    /// Whatever reading and decoding meet, and pictures larger than 32 × 32.
    pub fn load(source: &Source) -> Result<Self, Error> {
        let mut levels = Vec::with_capacity(source.len() * SIDE * SIDE);
        let mut labels = Vec::with_capacity(source.len());
        for index in 0..source.len() {
            let record = source.record(index);
            let decoded = source.read(index)?.decode(&Limits::default());
            let picture = decoded.map_err(|source| Error::Decode { key: record.key.to_owned(), source })?;
            let picture = CropRecipe::Pad.apply(picture, SIDE)?;
            let (pixels, _) = picture.pixels().as_chunks::<3>();
            levels.extend(pixels.iter().map(|&[r, g, b]| ((u16::from(r) + u16::from(g) + u16::from(b)) / 3) as u8));
            labels.push(i64::from(record.label));
        }
        Ok(Self { levels, labels, class_names: source.class_names().to_vec() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    fn picture(&self, index: usize) -> &[u8] {
        &self.levels[index * SIDE * SIDE..][..SIDE * SIDE]
    }

    /// Pictures in [−1, 1] (N, 1, 32, 32) from their levels, and their labels.
    fn batch(levels: &[u8], labels: &[i64]) -> (Tensor, Tensor) {
        let side = SIDE as i64;
        let pictures = Tensor::from_slice(levels).view([-1, 1, side, side]).to_kind(Kind::Float) / 127.5 - 1.0;
        (pictures, Tensor::from_slice(labels))
    }
}

/// How training goes, after each epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpochReport {
    /// Epochs done.
    pub epoch: u32,
    /// Mean cross entropy over the epoch, in nats.
    pub loss: f64,
    /// Fraction of the test set that is classified rightly.
    pub accuracy: f64,
}

/// The classifier while it is trained.
struct Trainee {
    convolutions: Vec<(nn::Conv2D, nn::BatchNorm)>,
    head: nn::Linear,
}

impl Trainee {
    fn new(path: &nn::Path, classes: usize) -> Self {
        let layer = |(index, &(inputs, outputs, stride)): (usize, &(i64, i64, i64))| {
            let path = path / index;
            let config = nn::ConvConfig { stride, padding: 1, bias: false, ..Default::default() };
            let norm = nn::BatchNormConfig { eps: NORM_EPSILON, ..Default::default() };
            (nn::conv2d(&path / "conv", inputs, outputs, 3, config), nn::batch_norm2d(&path / "norm", outputs, norm))
        };
        let convolutions = LAYERS.iter().enumerate().map(layer).collect();
        Self { convolutions, head: nn::linear(path / "head", WIDTH as i64, classes as i64, Default::default()) }
    }

    /// (N, 1, 32, 32) → (N, classes).
    fn forward(&self, pictures: &Tensor, train: bool) -> Tensor {
        let mut x = pictures.shallow_clone();
        for (convolution, norm) in &self.convolutions {
            x = norm.forward_t(&x.apply(convolution), train).relu();
        }
        x.mean_dim(&[2i64, 3][..], false, Kind::Float).apply(&self.head)
    }

    /// The convolutions with the normalisation of their outputs folded in.
    fn folded(&self) -> Result<Vec<Convolution>, Error> {
        let _guard = tch::no_grad_guard();
        let fold = |((convolution, norm), &(_, _, stride)): (&(nn::Conv2D, nn::BatchNorm), &(i64, i64, i64))| {
            let parts = (norm.ws.as_ref(), norm.bs.as_ref());
            let (Some(gain), Some(shift)) = parts else { return Err(Error::NotAffine) };
            let scale = gain / (&norm.running_var + NORM_EPSILON).sqrt();
            let bias = shift - &norm.running_mean * &scale;
            let weight = &convolution.ws * scale.view([-1, 1, 1, 1]);
            Ok(Convolution { weight, bias, stride })
        };
        self.convolutions.iter().zip(&LAYERS).map(fold).collect()
    }
}

/// Trains the classifier on `train`, writes it to `out` as fp16 and returns it as loaded from there, with its accuracy on
/// `test`. `report` is called after each epoch. `notes` go into the file.
///
/// libtorch's own generator is seeded here, for the weights.
///
/// # Errors
/// [`Error::TooFew`] without pictures, [`Error::Torch`], [`Error::Weights`] where the file cannot be written.
pub fn train_demo(
    train: &GreyPictures,
    test: &GreyPictures,
    recipe: &FeatureRecipe,
    out: &Path,
    mut notes: DemoNotes,
    report: &mut dyn FnMut(EpochReport),
) -> Result<DemoFeatures, Error> {
    for pictures in [train, test] {
        if pictures.len() < recipe.batch_size {
            let needed = recipe.batch_size;
            return Err(Error::TooFew { what: "pictures to train on", found: pictures.len(), needed });
        }
    }
    tch::manual_seed(recipe.seed as i64);
    let vs = nn::VarStore::new(Device::Cpu);
    let trainee = Trainee::new(&vs.root(), train.class_names.len());
    let steps_per_epoch = train.len() / recipe.batch_size;
    let total = recipe.epochs as usize * steps_per_epoch;
    let adamw = nn::AdamW { wd: recipe.weight_decay, ..Default::default() };
    let mut optimizer = adamw.build(&vs, recipe.learning_rate)?;
    let mut random = ChaCha8Rng::seed_from_u64(recipe.seed);
    let mut order: Vec<usize> = (0..train.len()).collect();
    let mut step = 0;
    for epoch in 1..=recipe.epochs {
        shuffle(&mut order, &mut random);
        let mut sum = 0.0;
        for chosen in order.chunks_exact(recipe.batch_size) {
            optimizer.set_lr(recipe.learning_rate * rate(step, total));
            step += 1;
            let levels: Vec<u8> = chosen
                .iter()
                .flat_map(|&index| augment(train.picture(index), recipe.largest_shift, &mut random))
                .collect();
            let labels: Vec<i64> = chosen.iter().map(|&index| train.labels[index]).collect();
            let (pictures, labels) = GreyPictures::batch(&levels, &labels);
            let loss = trainee.forward(&pictures, true).cross_entropy_for_logits(&labels);
            optimizer.backward_step(&loss);
            sum += loss.double_value(&[]);
        }
        let accuracy = accuracy(test, |pictures| Ok(trainee.forward(pictures, false)))?;
        report(EpochReport { epoch, loss: sum / steps_per_epoch as f64, accuracy });
    }
    let convolutions = trainee.folded()?;
    let head_bias = trainee.head.bs.as_ref().ok_or(Error::NotAffine)?;
    let head = [&trainee.head.ws, head_bias];
    notes.class_names = train.class_names.clone();
    // Twice: the accuracy that the file states is that of the rounded weights.
    DemoFeatures::save(out, &convolutions, head, &notes)?;
    let rounded = DemoFeatures::load(out, Device::Cpu)?;
    notes.test_accuracy = Some(demo_accuracy(&rounded, test)?);
    DemoFeatures::save(out, &convolutions, head, &notes)?;
    DemoFeatures::load(out, Device::Cpu)
}

/// Fraction of `pictures` that `network` classifies rightly.
///
/// # Errors
/// [`Error::Torch`].
pub fn demo_accuracy(network: &DemoFeatures, pictures: &GreyPictures) -> Result<f64, Error> {
    accuracy(pictures, |batch| network.logits(&network.features(batch)?))
}

fn accuracy(pictures: &GreyPictures, logits: impl Fn(&Tensor) -> Result<Tensor, Error>) -> Result<f64, Error> {
    const BATCH: usize = 500;
    let _guard = tch::no_grad_guard();
    let mut right = 0;
    for (levels, labels) in pictures.levels.chunks(BATCH * SIDE * SIDE).zip(pictures.labels.chunks(BATCH)) {
        let (batch, labels) = GreyPictures::batch(levels, labels);
        let found = logits(&batch)?.argmax(-1, false);
        right += found.f_eq_tensor(&labels)?.f_sum(Kind::Int64)?.int64_value(&[]);
    }
    Ok(right as f64 / pictures.len().max(1) as f64)
}

/// The learning rate as a fraction of the highest: linear up over the first tenth, then half a cosine down to 0.
fn rate(step: usize, total: usize) -> f64 {
    let warm = (total / 10).max(1);
    if step < warm {
        return (step + 1) as f64 / warm as f64;
    }
    let done = (step - warm) as f64 / (total - warm).max(1) as f64;
    0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

/// Fisher & Yates.
fn shuffle(order: &mut [usize], random: &mut ChaCha8Rng) {
    for last in (1..order.len()).rev() {
        order.swap(last, below(last as u64 + 1, random) as usize);
    }
}

/// 0 … bound − 1; the bias of at most bound / 2⁶⁴ does no harm here.
fn below(bound: u64, random: &mut ChaCha8Rng) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// `picture` moved at random, black where nothing was, and mirrored half the time.
fn augment(picture: &[u8], largest_shift: u32, random: &mut ChaCha8Rng) -> Vec<u8> {
    let largest = largest_shift as isize;
    let mut shift = || below(2 * largest as u64 + 1, random) as isize - largest;
    let (down, right) = (shift(), shift());
    let mirrored = below(2, random) == 1;
    let side = SIDE as isize;
    let mut moved = vec![0; SIDE * SIDE];
    for (index, level) in moved.iter_mut().enumerate() {
        let (row, column) = ((index / SIDE) as isize - down, (index % SIDE) as isize - right);
        let column = if mirrored { side - 1 - column } else { column };
        if (0..side).contains(&row) && (0..side).contains(&column) {
            *level = picture[(row * side + column) as usize];
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_checked() {
        let good = "epochs = 1\nbatch_size = 2\nlearning_rate = 0.1\nweight_decay = 0.0\nlargest_shift = 2\nseed = 1\n";
        assert!(FeatureRecipe::from_toml(good).is_ok());
        for (from, to) in [
            ("epochs = 1", "epochs = 0"),
            ("batch_size = 2", "batch_size = 1"),
            ("learning_rate = 0.1", "learning_rate = nan"),
            ("weight_decay = 0.0", "weight_decay = -1.0"),
            ("largest_shift = 2", "largest_shift = 16"),
            ("seed = 1", "seed = 1\nunknown = 2"),
        ] {
            assert!(matches!(FeatureRecipe::from_toml(&good.replace(from, to)), Err(Error::Recipe { .. })), "{to}");
        }
    }

    #[test]
    fn augmentation_moves_and_mirrors() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut picture = vec![0; SIDE * SIDE];
        picture[10 * SIDE + 12] = 200;
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            let moved = augment(&picture, 1, &mut random);
            let lit: Vec<usize> = (0..SIDE * SIDE).filter(|&index| moved[index] > 0).collect();
            let &[place] = &lit[..] else { panic!("{lit:?}") };
            places.insert((place / SIDE, place % SIDE));
        }
        let expected = (9..=11).flat_map(|row| [11, 12, 13, 18, 19, 20].map(|column| (row, column)));
        assert_eq!(places, expected.collect());
    }

    #[test]
    fn the_learning_rate_rises_and_falls() {
        let rates: Vec<f64> = (0..100).map(|step| rate(step, 100)).collect();
        assert!(rates[..10].is_sorted() && rates[10..].is_sorted_by(|a, b| a >= b));
        assert_eq!((rates[9], rates[10]), (1.0, 1.0));
        assert!(rates[99] < 0.001);
    }
}
