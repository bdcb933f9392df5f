//! Tensors that are already in memory.

use std::collections::BTreeMap;

use crate::{Error, TensorInfo, TensorSource, TensorView};

/// A source over tensors in memory: what a program computed and wants to write, or a test's checkpoint.
///
/// Collected from an iterator, it keeps the last of several tensors of one name, as maps do; [`insert`](Self::insert) tells of
/// the one before.
#[derive(Debug, Clone, Default)]
pub struct MemorySource {
    infos: BTreeMap<String, TensorInfo>,
    tensors: BTreeMap<String, TensorView<'static>>,
}

impl MemorySource {
    /// Puts `tensor` under `name`; the one that was there, if any, is returned.
    pub fn insert(&mut self, name: impl Into<String>, tensor: TensorView<'static>) -> Option<TensorView<'static>> {
        let name = name.into();
        self.infos.insert(name.clone(), tensor.info());
        self.tensors.insert(name, tensor)
    }

    /// Takes `name` out.
    pub fn remove(&mut self, name: &str) -> Option<TensorView<'static>> {
        self.infos.remove(name);
        self.tensors.remove(name)
    }

    /// A copy in memory of every tensor of `source`.
    ///
    /// # Errors
    /// Whatever reading `source` meets.
    pub fn copy_of(source: &dyn TensorSource) -> Result<Self, Error> {
        let mut copy = Self::default();
        for (name, info) in source.infos() {
            let data = source.read(name)?.into_data().into_owned();
            copy.insert(name.clone(), TensorView::new(info.dtype, info.shape.clone(), data)?);
        }
        Ok(copy)
    }
}

impl<N: Into<String>> FromIterator<(N, TensorView<'static>)> for MemorySource {
    fn from_iter<I: IntoIterator<Item = (N, TensorView<'static>)>>(tensors: I) -> Self {
        let mut source = Self::default();
        for (name, tensor) in tensors {
            source.insert(name, tensor);
        }
        source
    }
}

impl TensorSource for MemorySource {
    fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<TensorView<'_>, Error> {
        let tensor = self.tensors.get(name).ok_or_else(|| Error::NoSuchTensor { name: name.to_owned() })?;
        TensorView::new(tensor.dtype(), tensor.shape().to_vec(), tensor.data())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_name_the_last_tensor_is_kept_and_insert_tells_of_the_one_before() {
        let tensor = |length: usize| TensorView::from_f32(vec![length], &vec![1.0; length]).unwrap();
        let mut source = MemorySource::from_iter([("a", tensor(1)), ("b", tensor(2)), ("a", tensor(3))]);
        assert_eq!(source.infos().len(), 2);
        assert_eq!(source.read("a").unwrap(), tensor(3));
        assert_eq!(source.insert("a", tensor(4)), Some(tensor(3)));
        assert_eq!(source.insert("c", tensor(5)), None);
        assert_eq!(source.infos()["a"], tensor(4).info());
    }
}
