//! The network's blocks, as the 2015 graph has them. Szegedy et al. 2016, figures 5 to 10.
//!
//! Each is generic over what stands for a convolution: nothing, when only names and shapes are asked for, or the weights.

use tch::Tensor;

use super::convolution::{Convolution, Window};
use crate::Error;

/// Makes what stands for the convolution of a name.
pub(crate) type Make<'a, C> = &'a mut dyn FnMut(&str, Window) -> Result<C, Error>;

/// Within a block: from a branch's name, channels and kernel.
struct In<'a, 'b, C> {
    block: &'b str,
    make: &'b mut (dyn FnMut(&str, Window) -> Result<C, Error> + 'a),
}

impl<C> In<'_, '_, C> {
    fn window(&mut self, branch: &str, window: Window) -> Result<C, Error> {
        (self.make)(&format!("{}.{branch}", self.block), window)
    }

    /// 1 × 1.
    fn point(&mut self, branch: &str, inputs: usize, outputs: usize) -> Result<C, Error> {
        self.window(branch, Window::new(inputs, outputs, [1, 1]))
    }

    /// The result is as large as the input.
    fn same(&mut self, branch: &str, inputs: usize, outputs: usize, kernel: [usize; 2]) -> Result<C, Error> {
        self.window(branch, Window::new(inputs, outputs, kernel).same())
    }

    /// 3 × 3, every second row and column.
    fn halving(&mut self, branch: &str, inputs: usize, outputs: usize) -> Result<C, Error> {
        self.window(branch, Window::new(inputs, outputs, [3, 3]).strided())
    }
}

/// 3 × 3 maxima of every second row and column.
pub(crate) fn halve(x: &Tensor) -> Result<Tensor, Error> {
    Ok(x.f_max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], false)?)
}

/// relu(projection(average)): 3 × 3 averages that leave out what lies outside the picture, as TensorFlow's do, then a 1 × 1
/// convolution. The two commute, and the projection has fewer channels to average.
fn averaged(x: &Tensor, projection: &Convolution) -> Result<Tensor, Error> {
    let projected = projection.linear(x)?;
    Ok(projected.f_avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None)?.f_relu_()?)
}

fn joined(branches: &[Tensor]) -> Result<Tensor, Error> {
    Ok(Tensor::f_cat(branches, 1)?)
}

/// `Mixed_5b`, `5c`, `5d`: 35 × 35.
#[derive(Debug)]
pub(crate) struct BlockA<C> {
    branch1x1: C,
    branch5x5: [C; 2],
    branch3x3dbl: [C; 3],
    pool: C,
}

impl<C> BlockA<C> {
    pub(crate) fn new(make: Make<C>, block: &str, inputs: usize, pooled: usize) -> Result<Self, Error> {
        let mut make = In { block, make };
        Ok(Self {
            branch1x1: make.point("branch1x1", inputs, 64)?,
            branch5x5: [make.point("branch5x5_1", inputs, 48)?, make.same("branch5x5_2", 48, 64, [5, 5])?],
            branch3x3dbl: [
                make.point("branch3x3dbl_1", inputs, 64)?,
                make.same("branch3x3dbl_2", 64, 96, [3, 3])?,
                make.same("branch3x3dbl_3", 96, 96, [3, 3])?,
            ],
            pool: make.point("branch_pool", inputs, pooled)?,
        })
    }
}

impl BlockA<Convolution> {
    /// (N, inputs, 35, 35) → (N, 224 + pooled, 35, 35).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        joined(&[
            self.branch1x1.forward(x)?,
            chain(&self.branch5x5, x)?,
            chain(&self.branch3x3dbl, x)?,
            averaged(x, &self.pool)?,
        ])
    }
}

/// `Mixed_6a`: 35 × 35 to 17 × 17.
#[derive(Debug)]
pub(crate) struct BlockB<C> {
    branch3x3: C,
    branch3x3dbl: [C; 3],
}

impl<C> BlockB<C> {
    pub(crate) fn new(make: Make<C>, block: &str) -> Result<Self, Error> {
        let mut make = In { block, make };
        Ok(Self {
            branch3x3: make.halving("branch3x3", 288, 384)?,
            branch3x3dbl: [
                make.point("branch3x3dbl_1", 288, 64)?,
                make.same("branch3x3dbl_2", 64, 96, [3, 3])?,
                make.halving("branch3x3dbl_3", 96, 96)?,
            ],
        })
    }
}

impl BlockB<Convolution> {
    /// (N, 288, 35, 35) → (N, 768, 17, 17).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        joined(&[self.branch3x3.forward(x)?, chain(&self.branch3x3dbl, x)?, halve(x)?])
    }
}

/// `Mixed_6b` to `6e`: 17 × 17.
#[derive(Debug)]
pub(crate) struct BlockC<C> {
    branch1x1: C,
    branch7x7: [C; 3],
    branch7x7dbl: [C; 5],
    pool: C,
}

impl<C> BlockC<C> {
    pub(crate) fn new(make: Make<C>, block: &str, inner: usize) -> Result<Self, Error> {
        let (row, column) = ([1, 7], [7, 1]);
        let mut make = In { block, make };
        Ok(Self {
            branch1x1: make.point("branch1x1", 768, 192)?,
            branch7x7: [
                make.point("branch7x7_1", 768, inner)?,
                make.same("branch7x7_2", inner, inner, row)?,
                make.same("branch7x7_3", inner, 192, column)?,
            ],
            branch7x7dbl: [
                make.point("branch7x7dbl_1", 768, inner)?,
                make.same("branch7x7dbl_2", inner, inner, column)?,
                make.same("branch7x7dbl_3", inner, inner, row)?,
                make.same("branch7x7dbl_4", inner, inner, column)?,
                make.same("branch7x7dbl_5", inner, 192, row)?,
            ],
            pool: make.point("branch_pool", 768, 192)?,
        })
    }
}

impl BlockC<Convolution> {
    /// (N, 768, 17, 17) → (N, 768, 17, 17); the first 192 channels are those of the 1 × 1 branch.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        joined(&[
            self.branch1x1.forward(x)?,
            chain(&self.branch7x7, x)?,
            chain(&self.branch7x7dbl, x)?,
            averaged(x, &self.pool)?,
        ])
    }
}

/// `Mixed_7a`: 17 × 17 to 8 × 8.
#[derive(Debug)]
pub(crate) struct BlockD<C> {
    branch3x3: [C; 2],
    branch7x7x3: [C; 4],
}

impl<C> BlockD<C> {
    pub(crate) fn new(make: Make<C>, block: &str) -> Result<Self, Error> {
        let mut make = In { block, make };
        Ok(Self {
            branch3x3: [make.point("branch3x3_1", 768, 192)?, make.halving("branch3x3_2", 192, 320)?],
            branch7x7x3: [
                make.point("branch7x7x3_1", 768, 192)?,
                make.same("branch7x7x3_2", 192, 192, [1, 7])?,
                make.same("branch7x7x3_3", 192, 192, [7, 1])?,
                make.halving("branch7x7x3_4", 192, 192)?,
            ],
        })
    }
}

impl BlockD<Convolution> {
    /// (N, 768, 17, 17) → (N, 1280, 8, 8).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        joined(&[chain(&self.branch3x3, x)?, chain(&self.branch7x7x3, x)?, halve(x)?])
    }
}

/// What a block's last branch takes of each 3 × 3 neighbourhood.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pool {
    Average,
    /// In `Mixed_7c` of the 2015 graph, and nowhere else.
    Maximum,
}

/// `Mixed_7b`, `7c`: 8 × 8.
#[derive(Debug)]
pub(crate) struct BlockE<C> {
    branch1x1: C,
    branch3x3_1: C,
    branch3x3_2: [C; 2],
    branch3x3dbl: [C; 2],
    branch3x3dbl_3: [C; 2],
    pool: C,
    pooled: Pool,
}

impl<C> BlockE<C> {
    pub(crate) fn new(make: Make<C>, block: &str, inputs: usize, pooled: Pool) -> Result<Self, Error> {
        let (row, column) = ([1, 3], [3, 1]);
        let mut make = In { block, make };
        Ok(Self {
            branch1x1: make.point("branch1x1", inputs, 320)?,
            branch3x3_1: make.point("branch3x3_1", inputs, 384)?,
            branch3x3_2: [make.same("branch3x3_2a", 384, 384, row)?, make.same("branch3x3_2b", 384, 384, column)?],
            branch3x3dbl: [make.point("branch3x3dbl_1", inputs, 448)?, make.same("branch3x3dbl_2", 448, 384, [3, 3])?],
            branch3x3dbl_3: [
                make.same("branch3x3dbl_3a", 384, 384, row)?,
                make.same("branch3x3dbl_3b", 384, 384, column)?,
            ],
            pool: make.point("branch_pool", inputs, 192)?,
            pooled,
        })
    }
}

impl BlockE<Convolution> {
    /// (N, inputs, 8, 8) → (N, 2048, 8, 8).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let single = self.branch3x3_1.forward(x)?;
        let double = chain(&self.branch3x3dbl, x)?;
        let [row, column] = &self.branch3x3_2;
        let [double_row, double_column] = &self.branch3x3dbl_3;
        joined(&[
            self.branch1x1.forward(x)?,
            row.forward(&single)?,
            column.forward(&single)?,
            double_row.forward(&double)?,
            double_column.forward(&double)?,
            match self.pooled {
                Pool::Average => averaged(x, &self.pool)?,
                Pool::Maximum => self.pool.forward(&x.f_max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false)?)?,
            },
        ])
    }
}

/// One convolution after the other.
fn chain<const N: usize>(convolutions: &[Convolution; N], x: &Tensor) -> Result<Tensor, Error> {
    convolutions.iter().try_fold(x.shallow_clone(), |x, convolution| convolution.forward(&x))
}
