use crate::{
    gemm::{Line, Words},
    parallel::{self, Destination},
};

use super::Products;

/// Columns of a panel: two registers of sums.
pub(super) const WIDTH: usize = 32;

/// Right factors of matrix products, in panels of [`WIDTH`] columns: word by word of the inner dimension (one fp32 number or a pair of
/// bf16), the panel's columns beside each other. Columns and elements that pad are 0.
#[derive(Debug)]
pub(super) struct Packed {
    lines: Vec<Line>,
    /// Words of the inner dimension.
    pub(super) depth: usize,
    pub(super) panels: usize,
}

impl Products {
    /// What a word of a factor holds.
    pub(super) fn words(self) -> Words {
        match self {
            Self::Fp32 => Words::F32,
            Self::Bf16 => Words::Bf16,
        }
    }

    /// Elements of the inner dimension in a word.
    pub(super) fn elements(self) -> usize {
        self.words().elements()
    }
}

impl Packed {
    /// `matrices` factors of `inner` × `columns`; `fill` gives, for a column and an inner index, the element of every factor.
    pub(super) fn new<const MATRICES: usize>(
        (inner, columns): (usize, usize),
        products: Products,
        element: &(dyn Fn(usize, usize) -> [f32; MATRICES] + Sync),
    ) -> Self {
        let (depth, panels) = (inner.div_ceil(products.elements()), columns.div_ceil(WIDTH));
        let mut lines = vec![Line([0; 16]); MATRICES * panels * depth * (WIDTH / 16)];
        let words = Destination::new(lines.as_mut_ptr().cast::<u32>());
        parallel::for_each(panels, &|panel| {
            for column in panel * WIDTH..columns.min((panel + 1) * WIDTH) {
                for index in 0..inner {
                    for (matrix, value) in element(column, index).into_iter().enumerate() {
                        let row = (matrix * panels + panel) * depth + index / products.elements();
                        // SAFETY: matrix, panel and row lie within `lines`, whose words nobody else touches: a panel is one task's.
                        let word = unsafe { &mut *words.at(row * WIDTH + column % WIDTH) };
                        match products {
                            Products::Fp32 => *word = value.to_bits(),
                            Products::Bf16 => *word |= u32::from(to_bf16(value)) << (16 * (index % 2)),
                        }
                    }
                }
            }
        });
        Self { lines, depth, panels }
    }

    /// `count` panels of one factor, from `first` on.
    pub(super) fn panels(&self, matrix: usize, first: usize, count: usize) -> &[Line] {
        let len = self.depth * (WIDTH / 16);
        &self.lines[(matrix * self.panels + first) * len..][..count * len]
    }
}

/// The nearest, ties to even.
fn to_bf16(value: f32) -> u16 {
    use crate::element::{Bf16, Element};
    Bf16::from_f32(value).0
}
