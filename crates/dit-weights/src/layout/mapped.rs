//! A source whose tensors are made from another's: renamed, reshaped, stacked, cut.

use std::{collections::BTreeMap, ops::Range};

use dit_config::LatentSize;

use crate::{Dtype, Error, TensorInfo, TensorSource, TensorView, layout::position_table};

/// How one tensor is made.
#[derive(Debug, Clone, PartialEq)]
enum Recipe {
    /// All elements of one tensor, perhaps under another shape.
    Of(String),
    /// Several tensors one after another along the first extent.
    Stack(Vec<String>),
    /// Some rows of one tensor.
    Rows { of: String, bytes: Range<usize> },
    /// The frozen position table, computed.
    Positions { grid: LatentSize, hidden: usize },
}

/// Another source's tensors under the names and shapes of another layout, made as they are read.
///
/// Invariant: every recipe names tensors of `inner` whose element types and extents fit the tensor they make.
#[derive(Debug)]
pub(crate) struct MappedSource<S> {
    inner: S,
    infos: BTreeMap<String, TensorInfo>,
    recipes: BTreeMap<String, Recipe>,
    /// Tensors that could not be made, and why.
    absent: BTreeMap<String, String>,
    /// What precedes every name in `inner`.
    prefix: String,
}

impl<S: TensorSource> MappedSource<S> {
    /// No tensors yet, from `inner`, where names carry `prefix`.
    pub(crate) fn new(inner: S, prefix: &str) -> Self {
        let (infos, recipes, absent) = Default::default();
        Self { inner, infos, recipes, absent, prefix: prefix.to_owned() }
    }

    /// What of `inner` the tensor `name` is made from.
    fn sources_of(&self, name: &str) -> impl Iterator<Item = &str> {
        let sources = match self.recipes.get(name) {
            Some(Recipe::Of(of) | Recipe::Rows { of, .. }) => std::slice::from_ref(of),
            Some(Recipe::Stack(parts)) => parts,
            Some(Recipe::Positions { .. }) | None => &[],
        };
        sources.iter().map(String::as_str)
    }

    /// The source that tensors are made from.
    pub(crate) fn inner(&self) -> &S {
        &self.inner
    }

    fn source_info(&self, name: &str) -> Result<&TensorInfo, Error> {
        self.inner.infos().get(name).ok_or_else(|| Error::NoSuchTensor { name: name.to_owned() })
    }

    fn put(&mut self, name: String, info: TensorInfo, recipe: Recipe) -> Result<(), Error> {
        if self.recipes.insert(name.clone(), recipe).is_some() {
            return Err(Error::DuplicateTensor { name });
        }
        self.infos.insert(name, info);
        Ok(())
    }

    /// `name` is the tensor `of` of the inner source.
    pub(crate) fn add(&mut self, name: String, of: &str) -> Result<(), Error> {
        let info = self.source_info(of)?.clone();
        self.put(name, info, Recipe::Of(of.to_owned()))
    }

    /// `name` is the tensor `of` without its extents of 1 after the first two: a 1×1 convolution as a Linear.
    pub(crate) fn add_flattened(&mut self, name: String, of: &str) -> Result<(), Error> {
        let mut info = self.source_info(of)?.clone();
        if let [rows, columns, 1, 1] = info.shape[..] {
            info.shape = vec![rows, columns];
        }
        self.put(name, info, Recipe::Of(of.to_owned()))
    }

    /// `name` is `parts`, one after another along the first extent.
    ///
    /// # Errors
    /// [`Error::Parts`] where they differ in element type or in the extents after the first.
    pub(crate) fn add_stack(&mut self, name: String, parts: Vec<String>) -> Result<(), Error> {
        let [first, rest @ ..] = &parts[..] else { return Ok(()) };
        let mut info = self.source_info(first)?.clone();
        for part in rest {
            let other = self.source_info(part)?;
            let fits = other.dtype == info.dtype && other.shape.get(1..) == info.shape.get(1..);
            let rows = info.shape.first().zip(other.shape.first()).and_then(|(a, b)| a.checked_add(*b));
            let (true, Some(rows)) = (fits, rows) else {
                let describe = |info: &TensorInfo| format!("{} {:?}", info.dtype, info.shape);
                return Err(Error::Parts {
                    name,
                    first: first.clone(),
                    first_info: describe(self.source_info(first)?),
                    second: part.clone(),
                    second_info: describe(other),
                });
            };
            info.shape[0] = rows;
        }
        self.put(name, info, Recipe::Stack(parts))
    }

    /// `name` is the part `index` of `count` equal parts of the tensor `of`, along its first extent.
    ///
    /// # Errors
    /// [`Error::NotDit`] where it has no such parts.
    pub(crate) fn add_part(&mut self, name: String, of: &str, index: usize, count: usize) -> Result<(), Error> {
        let mut info = self.source_info(of)?.clone();
        let bytes = info.byte_len();
        let (Some(rows), Some(bytes)) = (info.shape.first_mut(), bytes) else {
            return Err(Error::NotDit { problem: format!("{of} is {:?}", info.shape) });
        };
        if !rows.is_multiple_of(count) || index >= count {
            return Err(Error::NotDit { problem: format!("{of} has {rows} rows, which {count} does not divide") });
        }
        *rows /= count;
        let part = bytes / count;
        self.put(name, info, Recipe::Rows { of: of.to_owned(), bytes: index * part..(index + 1) * part })
    }

    /// `name` is the position table of `grid`, (1, rows · columns, hidden), in f32.
    pub(crate) fn add_positions(&mut self, name: String, grid: LatentSize, hidden: usize) -> Result<(), Error> {
        let info = TensorInfo { dtype: Dtype::F32, shape: vec![1, grid.height * grid.width, hidden] };
        self.put(name, info, Recipe::Positions { grid, hidden })
    }

    /// Records why `name` is not there.
    pub(crate) fn add_absent(&mut self, name: String, why: String) {
        self.absent.insert(name, why);
    }
}

impl<S: TensorSource> TensorSource for MappedSource<S> {
    fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<TensorView<'_>, Error> {
        let missing = || Error::NoSuchTensor { name: name.to_owned() };
        let info = self.infos.get(name).ok_or_else(missing)?;
        let shape = info.shape.clone();
        match self.recipes.get(name).ok_or_else(missing)? {
            Recipe::Of(of) => TensorView::new(info.dtype, shape, self.inner.read(of)?.into_data()),
            Recipe::Stack(parts) => {
                let mut data = Vec::with_capacity(info.byte_len().unwrap_or(0));
                for part in parts {
                    data.extend_from_slice(self.inner.read(part)?.data());
                }
                TensorView::new(info.dtype, shape, data)
            }
            Recipe::Rows { of, bytes } => {
                let whole = self.inner.read(of)?.into_data();
                let data = match whole {
                    std::borrow::Cow::Borrowed(data) => data.get(bytes.clone()).map(std::borrow::Cow::Borrowed),
                    std::borrow::Cow::Owned(data) => data.get(bytes.clone()).map(|rows| rows.to_vec().into()),
                };
                TensorView::new(info.dtype, shape, data.ok_or_else(missing)?)
            }
            Recipe::Positions { grid, hidden } => TensorView::from_f32(shape, &position_table(*grid, *hidden)),
        }
    }

    fn why_missing(&self, name: &str) -> Option<String> {
        let absent = self.absent.get(name).cloned();
        absent.or_else(|| self.inner.why_missing(&format!("{}{name}", self.prefix)))
    }

    fn prefetch(&self, name: &str) {
        self.sources_of(name).for_each(|of| self.inner.prefetch(of));
    }

    fn release(&self, name: &str) {
        self.sources_of(name).for_each(|of| self.inner.release(of));
    }
}
