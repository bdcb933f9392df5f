//! Strict comparison of a checkpoint's tensors with those that a configuration asks for.

use std::{collections::BTreeSet, fmt};

use dit_config::TensorSpec;

use crate::{Error, TensorSource};

/// Most lines shown of each kind of difference.
const SHOWN: usize = 6;

/// Everything in which a checkpoint differs from what was expected. Its `Display` lists each kind, capped, with counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// What the tensors were expected to be, such as `DiT-XL/2`.
    pub expected: String,
    /// Tensors that are not there, with the reason where the file has one.
    pub missing: Vec<(TensorSpec, Option<String>)>,
    /// Tensors that have no place in the model, with their shapes.
    pub unexpected: Vec<TensorSpec>,
    /// Tensors of another shape than expected: what was expected, and the shape found.
    pub misshaped: Vec<(TensorSpec, Vec<usize>)>,
    /// What to do.
    pub help: Option<String>,
}

impl Mismatch {
    fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshaped.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, missing, unexpected, misshaped, help } = self;
        write!(
            f,
            "the checkpoint's tensors are not those of {expected}: {} missing, {} unexpected, {} of another shape",
            missing.len(),
            unexpected.len(),
            misshaped.len()
        )?;
        let missing_lines = missing.iter().map(|(spec, why)| match why {
            Some(why) => format!("{} {:?}: {why}", spec.name, spec.shape),
            None => format!("{} {:?}", spec.name, spec.shape),
        });
        list(f, "missing", missing_lines)?;
        list(f, "unexpected", unexpected.iter().map(|spec| format!("{} {:?}", spec.name, spec.shape)))?;
        let shape_lines =
            misshaped.iter().map(|(spec, found)| format!("{} is {found:?}, expected {:?}", spec.name, spec.shape));
        list(f, "shape", shape_lines)?;
        match help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, kind: &str, lines: impl ExactSizeIterator<Item = String>) -> fmt::Result {
    let hidden = lines.len().saturating_sub(SHOWN);
    for line in lines.take(SHOWN) {
        write!(f, "\n  {kind}: {line}")?;
    }
    if hidden > 0 {
        write!(f, "\n  {kind}: … and {hidden} more")?;
    }
    Ok(())
}

/// Compares names and shapes of `source` with `specs`, both ways. `expected` names the model in the message; `help` is asked
/// for a line of advice where they differ.
///
/// # Errors
/// [`Error::Mismatch`] with every difference.
pub fn check_tensors(
    source: &dyn TensorSource,
    specs: &[TensorSpec],
    expected: &str,
    help: impl FnOnce(&Mismatch) -> Option<String>,
) -> Result<(), Error> {
    let infos = source.infos();
    let mut mismatch = Mismatch { expected: expected.to_owned(), ..Mismatch::default() };
    let mut wanted = BTreeSet::new();
    for spec in specs {
        wanted.insert(spec.name.as_str());
        match infos.get(&spec.name) {
            None => mismatch.missing.push((spec.clone(), source.why_missing(&spec.name))),
            Some(info) if info.shape != spec.shape => mismatch.misshaped.push((spec.clone(), info.shape.clone())),
            Some(_) => {}
        }
    }
    let unexpected = infos.iter().filter(|(name, _)| !wanted.contains(name.as_str()));
    mismatch.unexpected =
        unexpected.map(|(name, info)| TensorSpec { name: name.clone(), shape: info.shape.clone() }).collect();
    if mismatch.is_empty() {
        return Ok(());
    }
    mismatch.help = help(&mismatch);
    Err(Error::Mismatch(Box::new(mismatch)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemorySource, TensorView};

    #[test]
    fn every_difference_is_in_one_error() {
        let spec = |name: &str, shape: &[usize]| TensorSpec { name: name.to_owned(), shape: shape.to_vec() };
        let tensor =
            |shape: &[usize]| TensorView::from_f32(shape.to_vec(), &vec![0.0; shape.iter().product()]).unwrap();
        let mut specs = vec![spec("a", &[2, 3]), spec("b", &[4])];
        let mut source = MemorySource::from_iter([("a", tensor(&[2, 3])), ("b", tensor(&[4]))]);
        assert!(check_tensors(&source, &specs, "DiT", |_| None).is_ok());

        source.insert("extra", tensor(&[1]));
        source.insert("b", tensor(&[1, 4]));
        specs.extend((0..9).map(|i| spec(&format!("gone.{i}"), &[5])));
        let Err(Error::Mismatch(mismatch)) =
            check_tensors(&source, &specs, "DiT", |m| Some(format!("{} gone", m.missing.len())))
        else {
            panic!("the differences were not seen");
        };
        assert_eq!(mismatch.missing.len(), 9);
        assert_eq!(mismatch.unexpected, [spec("extra", &[1])]);
        assert_eq!(mismatch.misshaped, [(spec("b", &[4]), vec![1, 4])]);
        assert_eq!(
            mismatch.to_string(),
            "the checkpoint's tensors are not those of DiT: 9 missing, 1 unexpected, 1 of another shape\n\
             \x20 missing: gone.0 [5]\n  missing: gone.1 [5]\n  missing: gone.2 [5]\n  missing: gone.3 [5]\n\
             \x20 missing: gone.4 [5]\n  missing: gone.5 [5]\n  missing: … and 3 more\n\
             \x20 unexpected: extra [1]\n  shape: b is [1, 4], expected [4]\n  help: 9 gone"
        );
    }
}
