//! Tokens of samples, a few at a time on all threads, and sums over each sample's.

use tch::{Kind, Tensor};

use crate::{
    element::is_readable,
    factors::add_row,
    parallel::{self, Destination},
};

/// Tokens that a task takes at once.
const TOKENS_OF_A_TASK: usize = 32;

/// N, T and D.
#[derive(Clone, Copy)]
pub(super) struct Tokens {
    samples: usize,
    tokens: usize,
    pub width: usize,
}

impl Tokens {
    /// Of `x`, (N, T, D) and not empty, if the kernels can read it and `rows`, (N, 1, D) each.
    pub(super) fn of(x: &Tensor, rows: &[&Tensor]) -> Option<Self> {
        let &[samples, tokens, width] = x.size().as_slice() else { return None };
        let fits = samples > 0 && tokens > 0 && width > 0 && rows.iter().all(|row| row.size() == [samples, 1, width]);
        let fits = fits && is_readable(x) && rows.iter().all(|row| is_readable(row));
        fits.then_some(Self { samples: samples as usize, tokens: tokens as usize, width: width as usize })
    }

    pub(super) fn rows(self) -> usize {
        self.samples * self.tokens
    }

    /// Calls `of_token` with each row of all tokens and its sample.
    pub(super) fn for_each(self, of_token: &(dyn Fn(usize, usize) + Sync)) {
        parallel::for_each(self.rows().div_ceil(TOKENS_OF_A_TASK), &|task| {
            let first = task * TOKENS_OF_A_TASK;
            for row in first..self.rows().min(first + TOKENS_OF_A_TASK) {
                of_token(row, row / self.tokens);
            }
        });
    }

    /// The same, with `width` sums to which it adds; gives the sums over each sample's tokens, sample by sample. They are added in the same
    /// order whatever the number of threads.
    pub(super) fn sums(self, width: usize, of_token: &(dyn Fn(usize, usize, &mut [f32]) + Sync)) -> Vec<f32> {
        let parts = self.tokens.div_ceil(TOKENS_OF_A_TASK);
        let mut partial = vec![0.0_f32; self.samples * parts * width];
        let destination = Destination::new(partial.as_mut_ptr());
        parallel::for_each(self.samples * parts, &|task| {
            let (sample, part) = (task / parts, task % parts);
            // SAFETY: each task has sums of its own; `partial` outlives the tasks.
            let sums = unsafe { destination.slice(task * width, width) };
            for token in part * TOKENS_OF_A_TASK..self.tokens.min((part + 1) * TOKENS_OF_A_TASK) {
                of_token(sample * self.tokens + token, sample, sums);
            }
        });
        let mut totals = vec![0.0; self.samples * width];
        let destination = Destination::new(totals.as_mut_ptr());
        parallel::for_each(self.samples, &|sample| {
            // SAFETY: each task has totals of its own; `totals` outlives the tasks.
            let total = unsafe { destination.slice(sample * width, width) };
            for part in partial[sample * parts * width..][..parts * width].chunks_exact(width) {
                add_row(total, part);
            }
        });
        totals
    }

    /// As a tensor of `kind`, (N, 1, D).
    pub(super) fn per_sample(self, values: &[f32], kind: Kind) -> Tensor {
        Tensor::from_slice(values).view([self.samples as i64, 1, self.width as i64]).to_kind(kind)
    }
}

/// Calls a function of two element kinds with those of `carried` and `own`: the same, or fp32 and bf16.
macro_rules! with_kinds {
    ($carried:expr, $own:expr, $function:ident($($argument:expr),*)) => {
        match ($carried, $own) {
            (Kind::Float, Kind::Float) => Some($function::<f32, f32>($($argument),*)),
            (Kind::Float, Kind::BFloat16) => Some($function::<f32, Bf16>($($argument),*)),
            (Kind::BFloat16, Kind::BFloat16) => Some($function::<Bf16, Bf16>($($argument),*)),
            _ => None,
        }
    };
}

pub(super) use with_kinds;
