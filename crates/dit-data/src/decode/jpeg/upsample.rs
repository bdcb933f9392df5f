//! Subsampled components at the picture's resolution, as libjpeg's "fancy" upsampling: a triangle filter (3/4 of the nearer
//! sample, 1/4 of the farther one) where a factor is two, repetition otherwise. The rounding constants alternate so that no
//! drift builds up.

use super::Fault;
use super::frame::{Component, Frame};
use crate::simd::vectorised;

/// How a component's rows are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Whole,
    TriangleWide,
    TriangleHigh,
    TriangleBoth,
    Repeat { wide: usize, high: usize },
}

/// Makes full-resolution rows of one component.
pub(super) struct Upsampler<'a> {
    component: &'a Component,
    method: Method,
    /// Vertically filtered samples, ×4 where both directions are filtered, one repeated at each end.
    column: Vec<u16>,
    /// A row at full resolution, possibly a little longer than the picture is wide.
    row: Vec<u8>,
}

impl<'a> Upsampler<'a> {
    pub(super) fn new(frame: &Frame, component: &'a Component) -> Result<Self, Fault> {
        let (wide, high) = (frame.h_max / component.h, frame.v_max / component.v);
        if !frame.h_max.is_multiple_of(component.h) || !frame.v_max.is_multiple_of(component.v) {
            return Err(Fault::Unsupported("a JPEG with fractional sampling"));
        }
        // Two samples are too few for the filter across.
        let broad = component.width > 2;
        let method = match (wide, high) {
            (1, 1) => Method::Whole,
            (2, 1) if broad => Method::TriangleWide,
            (1, 2) => Method::TriangleHigh,
            (2, 2) if broad => Method::TriangleBoth,
            _ => Method::Repeat { wide, high },
        };
        let (column, row) = (vec![0; component.width + 2], vec![0; component.width * wide]);
        Ok(Self { component, method, column, row })
    }

    /// Row `y` of the picture.
    pub(super) fn row(&mut self, y: usize) -> &[u8] {
        let component = self.component;
        // The sample row that `y` lies in and the nearest other one.
        let (near, last) = (y / 2, component.height - 1);
        let far = || if y.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(last) };
        match self.method {
            Method::Whole => return component.row(y),
            Method::TriangleWide => {
                for (column, &sample) in self.column[1..].iter_mut().zip(component.row(y)) {
                    *column = u16::from(sample);
                }
                pad(&mut self.column);
                across(&self.column, 2, [1, 2], &mut self.row);
            }
            Method::TriangleHigh => {
                let bias = if y.is_multiple_of(2) { 1 } else { 2 };
                down(component.row(near), component.row(far()), bias, &mut self.row);
            }
            Method::TriangleBoth => {
                mix(component.row(near), component.row(far()), &mut self.column);
                pad(&mut self.column);
                across(&self.column, 4, [8, 7], &mut self.row);
            }
            Method::Repeat { wide, high } => {
                for (repeated, &sample) in self.row.chunks_exact_mut(wide).zip(component.row(y / high)) {
                    repeated.fill(sample);
                }
            }
        }
        &self.row
    }
}

/// Repeats the first and the last sample into the spare places at the ends.
fn pad(samples: &mut [u16]) {
    let last = samples.len() - 1;
    samples[0] = samples[1];
    samples[last] = samples[last - 1];
}

vectorised! {
    /// The filter across, over padded `samples`: (3 · near + far + bias) >> `shift`, with the first bias towards the left.
    fn across(samples: &[u16], shift: u32, biases: [u16; 2], row: &mut [u8]) {
        let count = row.len() / 2;
        let (left, middle, right) = (&samples[..count], &samples[1..][..count], &samples[2..][..count]);
        for (i, pair) in row.chunks_exact_mut(2).enumerate() {
            pair[0] = ((3 * middle[i] + left[i] + biases[0]) >> shift) as u8;
            pair[1] = ((3 * middle[i] + right[i] + biases[1]) >> shift) as u8;
        }
    }
}

vectorised! {
    /// The filter down, rounded.
    fn down(near: &[u8], far: &[u8], bias: u16, row: &mut [u8]) {
        for ((out, &near), &far) in row.iter_mut().zip(near).zip(far) {
            *out = ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
        }
    }
}

vectorised! {
    /// The filter down, kept ×4, from the second place on.
    fn mix(near: &[u8], far: &[u8], column: &mut [u16]) {
        for ((out, &near), &far) in column[1..].iter_mut().zip(near).zip(far) {
            *out = 3 * u16::from(near) + u16::from(far);
        }
    }
}
