//! The header of a NumPy array file. <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

/// More than any header of a plain array.
const MOST_HEADER: usize = 1 << 16;

/// Element types that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    U8,
    F32,
    F64,
    I32,
    I64,
}

impl Element {
    pub(crate) fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }
}

/// What an array is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    /// Where the values begin.
    pub(crate) values: usize,
}

impl Header {
    /// Bytes of the values; none if that is beyond any memory.
    pub(crate) fn byte_len(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.element.size(), |bytes, &extent| bytes.checked_mul(extent))
    }

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (length, start) = match bytes {
            [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => (usize::from(u16::from_le_bytes([*a, *b])), 10),
            [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, ..] => {
                (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12)
            }
            _ => return Err("it does not begin as a NumPy array".to_owned()),
        };
        let text = bytes.get(start..start + length.min(MOST_HEADER)).and_then(|text| std::str::from_utf8(text).ok());
        let text = text.ok_or("its header is cut short")?;
        let element = match quoted(text, "descr").ok_or("its header has no descr")? {
            "|u1" | "<u1" => Element::U8,
            "<f4" => Element::F32,
            "<f8" => Element::F64,
            "<i4" => Element::I32,
            "<i8" => Element::I64,
            other => {
                return Err(format!("its elements are {other}; uint8, int32, int64, float32 and float64 are read"));
            }
        };
        if !after(text, "fortran_order").is_some_and(|rest| rest.starts_with("False")) {
            return Err("it is in Fortran order; save numpy.ascontiguousarray of it".to_owned());
        }
        let shape = after(text, "shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
        let (shape, _) = shape.ok_or("its header has no shape")?;
        let extents = shape.split(',').map(str::trim).filter(|extent| !extent.is_empty());
        let shape = extents.map(str::parse).collect::<Result<Vec<usize>, _>>();
        let shape = shape.map_err(|_| "its shape is not understood")?;
        let header = Self { element, shape, values: start + length };
        header.byte_len().ok_or("its shape is too large")?;
        Ok(header)
    }
}

/// What stands behind `'key':`.
fn after<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("'{key}'"))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

fn quoted<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    after(text, key)?.strip_prefix('\'')?.split_once('\'').map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, text: &str) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY".to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((text.len() as u16).to_le_bytes()),
            _ => bytes.extend((text.len() as u32).to_le_bytes()),
        }
        bytes.extend(text.bytes());
        bytes
    }

    #[track_caller]
    fn check(version: u8, text: &str, element: Element, shape: &[usize]) {
        let bytes = file(version, text);
        let found = Header::parse(&bytes).unwrap();
        assert_eq!(found, Header { element, shape: shape.to_vec(), values: bytes.len() });
    }

    #[test]
    fn headers_are_read() {
        let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 8, 8, 3), }   \n";
        check(1, text, Element::U8, &[2, 8, 8, 3]);
        check(2, text, Element::U8, &[2, 8, 8, 3]);
        check(1, "{'shape':(5,),'fortran_order':False,'descr':'<f8'}", Element::F64, &[5]);
        check(1, "{'descr': '<i8', 'fortran_order': False, 'shape': (), }", Element::I64, &[]);
    }

    #[test]
    fn what_is_not_read_is_told() {
        for (text, expected) in [
            ("{'descr': '>f8', 'fortran_order': False, 'shape': (5,)}", ">f8"),
            ("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (5,)}", "no descr"),
            ("{'descr': '<f8', 'fortran_order': True, 'shape': (5, 2)}", "Fortran"),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (-5,)}", "not understood"),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", "too large"),
            ("{'descr': '<f8', 'fortran_order': False}", "no shape"),
        ] {
            let error = Header::parse(&file(1, text)).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(Header::parse(b"PK\x03\x04").is_err());
        assert!(Header::parse(&file(1, "{'descr'")[..12]).is_err());
    }
}
