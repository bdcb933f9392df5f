//! Noise of runs that lead from one picture to another.

use dit_diffusion::{Draw, LatentShape, Noise, SeededNoise};
use tch::{Kind, Tensor};

use crate::Interpolation;

/// The noise of image 0 for every image.
pub(crate) struct SharedNoise<'a>(pub &'a dyn Noise);

impl Noise for SharedNoise<'_> {
    fn draw(&self, images: &[u64], at: Draw, shape: LatentShape) -> dit_diffusion::Result<Tensor> {
        let one = self.0.draw(&[0], at, shape)?; // (1, C, H, W)
        let [channels, height, width] = [shape.channels, shape.height, shape.width].map(i64::from);
        Ok(one.expand([images.len() as i64, channels, height, width], false).contiguous())
    }

    fn check(&self, _images: &[u64], steps: usize, shape: LatentShape) -> dit_diffusion::Result<()> {
        self.0.check(&[0], steps, shape)
    }
}

/// From image 0 of one source to image 0 of a seed, on the great circle between them: what is in between is as long as Gaussian
/// noise is, which a line would shorten (Shoemake 1985).
pub(crate) struct SphericalNoise<'a> {
    pub from: &'a dyn Noise,
    pub to: SeededNoise,
    pub on_the_way: Interpolation,
}

impl Noise for SphericalNoise<'_> {
    fn draw(&self, images: &[u64], at: Draw, shape: LatentShape) -> dit_diffusion::Result<Tensor> {
        let from = self.from.draw(&[0], at, shape)?.to_kind(Kind::Double); // (1, C, H, W)
        let to = self.to.draw(&[0], at, shape)?.to_kind(Kind::Double);
        let between: Vec<Tensor> =
            images.iter().map(|&image| spherical(&from, &to, self.on_the_way.share(image))).collect();
        Ok(Tensor::cat(&between, 0).to_kind(Kind::Float))
    }

    fn check(&self, _images: &[u64], steps: usize, shape: LatentShape) -> dit_diffusion::Result<()> {
        self.from.check(&[0], steps, shape)
    }
}

/// sin((1 − u)θ)/sin θ · a + sin(uθ)/sin θ · b, θ the angle between them.
fn spherical(a: &Tensor, b: &Tensor, u: f64) -> Tensor {
    let number = |x: Tensor| x.double_value(&[]);
    let lengths = number(a.norm()) * number(b.norm());
    let cos = (number((a * b).sum(Kind::Double)) / lengths).clamp(-1.0, 1.0);
    let theta = cos.acos();
    if !theta.is_normal() || theta.sin() < 1e-6 {
        return a * (1.0 - u) + b * u; // one direction, or opposite ones: no great circle is nearer than others
    }
    a * (((1.0 - u) * theta).sin() / theta.sin()) + b * ((u * theta).sin() / theta.sin())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: LatentShape = LatentShape { channels: 4, height: 8, width: 8 };

    #[test]
    fn seeds_meet_their_ends_and_keep_their_length() {
        let (from, to) = (SeededNoise::new(3), SeededNoise::new(4));
        let on_the_way = Interpolation::Seeds { to: 4, frames: 5 };
        let noise = SphericalNoise { from: &from, to, on_the_way };
        let all = noise.draw(&[0, 1, 2, 3, 4], Draw::Initial, SHAPE).unwrap();
        let end = |noise: &SeededNoise| noise.draw(&[0], Draw::Initial, SHAPE).unwrap();
        let close = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]) < 1e-6;
        assert!(close(&all.narrow(0, 0, 1), &end(&from)) && close(&all.narrow(0, 4, 1), &end(&to)));
        for frame in 0..5 {
            let rms = all.get(frame).square().mean(Kind::Double).double_value(&[]).sqrt();
            assert!((rms - 1.0).abs() < 0.12, "frame {frame}: {rms}");
        }
        // In any batch the same.
        assert!(close(&noise.draw(&[2], Draw::Initial, SHAPE).unwrap(), &all.narrow(0, 2, 1)));
        let same = spherical(&end(&from), &end(&from), 0.3);
        assert!(close(&same, &end(&from)));
    }

    #[test]
    fn shared_noise_is_that_of_image_0() {
        let seeded = SeededNoise::new(3);
        let shared = SharedNoise(&seeded).draw(&[7, 9], Draw::Step(2), SHAPE).unwrap();
        let zero = seeded.draw(&[0, 0], Draw::Step(2), SHAPE).unwrap();
        assert_eq!(shared, zero);
    }
}
