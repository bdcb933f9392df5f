use super::frame::{Component, Frame};
use super::huffman::Huffman;
use super::scan::{self, Scan, Selection};
use super::{Fault, progressive};

/// The coefficients' order in a scan (ITU T.81, figure A.6): natural index of each. Runs that lead beyond the block end on its
/// last coefficient.
const NATURAL: [u8; 128] = {
    let mut order = [63; 128];
    let (mut row, mut column, mut up) = (0i32, 0i32, true);
    let mut k = 0;
    while k < 64 {
        order[k] = (row * 8 + column) as u8;
        k += 1;
        let (next_row, next_column) = if up { (row - 1, column + 1) } else { (row + 1, column - 1) };
        if next_row >= 0 && next_row < 8 && next_column >= 0 && next_column < 8 {
            (row, column) = (next_row, next_column);
        } else {
            // At an edge: one step along it, then back the other way.
            if up {
                if column < 7 { column += 1 } else { row += 1 }
            } else if row < 7 {
                row += 1
            } else {
                column += 1
            }
            up = !up;
        }
    }
    order
};

/// The place in a block of the coefficient that comes `k`th in a scan.
#[inline(always)]
pub(super) fn natural(k: usize) -> usize {
    // Neither mask changes anything; they spare two checks.
    usize::from(NATURAL[k & 127] & 63)
}

/// More scans than any encoder writes; each costs a walk over all blocks.
const MOST_SCANS: usize = 500;

/// What the segments before a scan have set.
#[derive(Default)]
pub(super) struct Tables {
    /// Natural order.
    quant: [Option<[i16; 64]>; 4],
    pub(super) dc: [Option<Huffman>; 4],
    pub(super) ac: [Option<Huffman>; 4],
    /// MCUs between restart markers; 0 for none.
    pub(super) restart_interval: usize,
    jfif: bool,
    adobe: Option<u8>,
}

/// Where the next marker begins that is not `FF 00`, and its code. Bytes before it are skipped, as libjpeg does.
pub(super) fn next_marker(data: &[u8], mut position: usize) -> Result<(usize, u8), Fault> {
    loop {
        let rest = data.get(position..).ok_or(Fault::Truncated)?;
        position += rest.iter().position(|&byte| byte == 0xFF).ok_or(Fault::Truncated)?;
        let fill = data[position..].iter().position(|&byte| byte != 0xFF).ok_or(Fault::Truncated)?;
        let code = data[position + fill];
        if code != 0 {
            return Ok((position + fill - 1, code));
        }
        position += fill + 1;
    }
}

/// Reads segments and scans to the end of the image; the frame's samples are decoded.
pub(super) fn decode(data: &[u8], max_pixels: u64) -> Result<Frame, Fault> {
    let mut tables = Tables::default();
    let mut frame: Option<Frame> = None;
    let mut scans = 0;
    let mut complete = false;
    let mut position = 2;
    loop {
        let (marker_at, code) = next_marker(data, position)?;
        position = marker_at + 2;
        match code {
            0xD9 => break,
            0x01 | 0xD0..=0xD7 => continue,
            0xD8 => return Err(Fault::Corrupt("second start of image")),
            _ => {}
        }
        let length = data.get(position..).and_then(|rest| rest.first_chunk::<2>()).ok_or(Fault::Truncated)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length < 2 {
            return Err(Fault::Corrupt("segment length"));
        }
        let payload = data.get(position + 2..position + length).ok_or(Fault::Truncated)?;
        position += length;
        match code {
            0xC0..=0xC2 => {
                if frame.is_some() {
                    return Err(Fault::Corrupt("second frame header"));
                }
                frame = Some(Frame::parse(payload, code == 0xC2, max_pixels)?);
            }
            0xC4 => tables.define_huffman(payload)?,
            0xC3 | 0xC5..=0xC7 | 0xCB | 0xCD..=0xCF => {
                return Err(Fault::Unsupported("a lossless or hierarchical JPEG"));
            }
            0xC8..=0xCA => return Err(Fault::Unsupported("an arithmetic-coded JPEG")),
            0xDB => tables.define_quantisation(payload)?,
            0xDD => match payload {
                &[high, low] => tables.restart_interval = usize::from(u16::from_be_bytes([high, low])),
                _ => return Err(Fault::Corrupt("restart interval")),
            },
            0xDA => {
                let frame = frame.as_mut().ok_or(Fault::Corrupt("scan before the frame header"))?;
                scans += 1;
                if complete || scans > MOST_SCANS {
                    return Err(Fault::Corrupt("too many scans"));
                }
                let selection = Selection::parse(payload, frame)?;
                if scans == 1 {
                    frame.guess_colors(tables.jfif, tables.adobe);
                    complete = !frame.progressive && selection.components.len() == frame.components.len();
                    allocate(frame, complete);
                }
                for &index in &selection.components {
                    tables.latch(&mut frame.components[index])?;
                }
                let mut scan = Scan::new(data, position, &tables, selection)?;
                if frame.progressive {
                    progressive::decode(&mut scan, frame)?;
                } else if complete {
                    scan::decode_at_once(&mut scan, frame)?;
                } else {
                    scan::decode_blocks(&mut scan, frame)?;
                }
                position = scan.position();
            }
            0xE0 if payload.starts_with(b"JFIF\0") && payload.len() >= 14 => tables.jfif = true,
            0xEE if payload.starts_with(b"Adobe") && payload.len() >= 12 => tables.adobe = Some(payload[11]),
            0xE0..=0xEF | 0xFE | 0xDC => {}
            _ => return Err(Fault::Corrupt("unknown marker")),
        }
    }
    let mut frame = frame.ok_or(Fault::Corrupt("no frame header"))?;
    if scans == 0 {
        return Err(Fault::Corrupt("no scan"));
    }
    if !complete {
        frame.components.iter_mut().try_for_each(transform)?;
    }
    Ok(frame)
}

/// Memory for samples, and for coefficients where they come in several scans.
fn allocate(frame: &mut Frame, complete: bool) {
    for component in &mut frame.components {
        let blocks = component.stored_wide * component.stored_high;
        component.plane = vec![0; blocks * 64];
        if !complete {
            component.blocks = vec![[0; 64]; blocks];
        }
    }
}

/// From the coefficients of all scans to samples.
fn transform(component: &mut Component) -> Result<(), Fault> {
    // A component that no scan brought is grey whatever its table.
    let quant = component.quant.unwrap_or([1; 64]);
    scan::transform_blocks(&component.blocks, &quant, &mut component.plane, component.stored_wide);
    component.blocks = Vec::new();
    Ok(())
}

impl Tables {
    fn define_quantisation(&mut self, mut payload: &[u8]) -> Result<(), Fault> {
        const BAD: Fault = Fault::Corrupt("quantisation table");
        while let Some((&head, rest)) = payload.split_first() {
            let slot = self.quant.get_mut(usize::from(head & 15)).ok_or(BAD)?;
            let mut table = [0i16; 64];
            let width = if head >> 4 == 0 { 1 } else { 2 };
            let (values, rest) = rest.split_at_checked(64 * width).ok_or(BAD)?;
            for (value, &natural) in values.chunks_exact(width).zip(&NATURAL) {
                let value = value.iter().fold(0u16, |value, &byte| value << 8 | u16::from(byte));
                table[usize::from(natural)] = value as i16;
            }
            *slot = Some(table);
            payload = rest;
        }
        Ok(())
    }

    fn define_huffman(&mut self, mut payload: &[u8]) -> Result<(), Fault> {
        const BAD: Fault = Fault::Corrupt("Huffman table");
        while let Some((&head, rest)) = payload.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(BAD)?;
            let total = counts.iter().map(|&count| usize::from(count)).sum();
            let (listed, rest) = rest.split_at_checked(total).ok_or(BAD)?;
            let class = if head & 0x10 == 0 { &mut self.dc } else { &mut self.ac };
            let slot = class.get_mut(usize::from(head & !0x10)).ok_or(BAD)?;
            if total > 256 {
                return Err(BAD);
            }
            *slot = Some(Huffman::new(counts, listed)?);
            payload = rest;
        }
        Ok(())
    }

    /// A component keeps the table that it names when its first scan begins.
    fn latch(&self, component: &mut Component) -> Result<(), Fault> {
        if component.quant.is_none() {
            let table = self.quant.get(component.table).copied().flatten();
            component.quant = Some(table.ok_or(Fault::Corrupt("missing quantisation table"))?);
        }
        Ok(())
    }
}
