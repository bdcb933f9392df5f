//! Writing state dicts, and reading them back.

use dit_weights::{Dtype, Error, Kind, TensorSource, TensorView, TorchFile, torch_save};

use crate::{open, read_all};

#[test]
fn what_is_written_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.pt");
    for name in ["protocol-2.pt", "views.pt"] {
        let source = open(name).state_dict("").unwrap();
        torch_save::write_state_dict(&path, source.infos().keys().map(|n| Ok((n.clone(), source.read(n)?)))).unwrap();
        let copy = TorchFile::open(&path).unwrap();
        assert_eq!(read_all(&copy.state_dict("").unwrap()), read_all(&source));
    }
    // Extents that need more than 32 bits.
    let wide = TensorView::new(Dtype::F32, vec![0, 1 << 40], vec![]).unwrap();
    torch_save::write_state_dict(&path, [Ok(("wide".to_owned(), wide.clone()))]).unwrap();
    assert_eq!(TorchFile::open(&path).unwrap().state_dict("").unwrap().read("wide").unwrap(), wide);
    torch_save::write_state_dict(&path, []).unwrap();
    assert_eq!(TorchFile::open(&path).unwrap().root().kind(), Kind::Dict);
}

#[test]
fn a_write_that_fails_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.pt");
    std::fs::write(&path, b"before").unwrap();
    let source = open("module.pt").state_dict("").unwrap();
    let first = || Ok(("w".to_owned(), source.read("0.weight")?));
    let twice = torch_save::write_state_dict(&path, [first(), first()]);
    assert!(matches!(twice, Err(Error::DuplicateTensor { .. })));
    let failing = torch_save::write_state_dict(&path, [first(), Err(Error::NoSuchTensor { name: "x".into() })]);
    assert!(matches!(failing, Err(Error::NoSuchTensor { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"before");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files are left");
    let nowhere = torch_save::write_state_dict(folder.path().join("no/such/folder.pt"), [first()]);
    assert!(matches!(nowhere, Err(Error::Write(_))));
}
