use super::Fault;
use super::bits::Bits;
use super::frame::{Block, Component, Frame};
use super::huffman::{Huffman, extend};
use super::idct;
use super::markers::{Tables, natural, next_marker};
use crate::simd::vectorised;

/// What a scan header selects (ITU T.81, B.2.3).
pub(super) struct Selection {
    /// Indices into the frame's components.
    pub(super) components: Vec<usize>,
    dc: Vec<usize>,
    ac: Vec<usize>,
    /// Whether the scan codes DC differences.
    differences: bool,
    /// First and last coefficient of the band, in scan order.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Successive approximation: the bit position before this scan (0 in a first scan) and after it.
    pub(super) high: u32,
    pub(super) low: u32,
}

impl Selection {
    pub(super) fn parse(payload: &[u8], frame: &Frame) -> Result<Self, Fault> {
        const BAD: Fault = Fault::Corrupt("scan header");
        let (&count, rest) = payload.split_first().ok_or(BAD)?;
        let (list, &[start, end, approximation]) = rest.split_last_chunk::<3>().ok_or(BAD)?;
        let (list, odd) = list.as_chunks::<2>();
        if list.len() != usize::from(count) || !odd.is_empty() || !(1..=4).contains(&count) {
            return Err(BAD);
        }
        let mut selection = Self {
            components: Vec::new(),
            dc: Vec::new(),
            ac: Vec::new(),
            differences: !frame.progressive || (start == 0 && approximation >> 4 == 0),
            start: usize::from(start),
            end: usize::from(end),
            high: u32::from(approximation >> 4),
            low: u32::from(approximation & 15),
        };
        for &[id, tables] in list {
            let unused = |&index: &usize| frame.components[index].id == id && !selection.components.contains(&index);
            let index = (0..frame.components.len()).find(unused).ok_or(BAD)?;
            selection.components.push(index);
            selection.dc.push(usize::from(tables >> 4));
            selection.ac.push(usize::from(tables & 15));
        }
        let blocks: usize = selection.components.iter().map(|&c| frame.components[c].h * frame.components[c].v).sum();
        if selection.components.len() > 1 && blocks > 10 {
            return Err(Fault::Corrupt("more than ten blocks in an MCU"));
        }
        if frame.progressive {
            selection.check_progressive()?;
        }
        Ok(selection)
    }

    fn check_progressive(&self) -> Result<(), Fault> {
        let band = if self.start == 0 {
            self.end == 0
        } else {
            self.start <= self.end && self.end < 64 && self.components.len() == 1
        };
        let refines = self.high == 0 || self.low + 1 == self.high;
        if band && refines && self.low <= 13 { Ok(()) } else { Err(Fault::Corrupt("progressive scan header")) }
    }
}

/// A scan being decoded: its bits, tables, predictions and restarts.
pub(super) struct Scan<'a> {
    data: &'a [u8],
    pub(super) bits: Bits<'a>,
    pub(super) selection: Selection,
    /// By position in the selection; empty tables where the scan needs none.
    pub(super) dc: Vec<Option<&'a Huffman>>,
    pub(super) ac: Vec<Option<&'a Huffman>>,
    /// The last DC value of each component of the selection.
    pub(super) predicted: [i32; 4],
    /// Blocks of this band still to come that are all zero (progressive).
    pub(super) end_of_band_run: u32,
    interval: usize,
    until_restart: usize,
    next_restart: u8,
    /// The segment ended too early: nothing is decoded before the next restart.
    pub(super) spent: bool,
}

impl<'a> Scan<'a> {
    pub(super) fn new(
        data: &'a [u8],
        position: usize,
        tables: &'a Tables,
        selection: Selection,
    ) -> Result<Self, Fault> {
        let find = |tables: &'a [Option<Huffman>; 4], names: &[usize]| -> Vec<Option<&'a Huffman>> {
            names.iter().map(|&name| tables.get(name).and_then(Option::as_ref)).collect()
        };
        let (dc, ac) = (find(&tables.dc, &selection.dc), find(&tables.ac, &selection.ac));
        if selection.differences && dc.iter().flatten().any(|table| !table.fits_dc()) {
            return Err(Fault::Corrupt("Huffman table of DC differences"));
        }
        Ok(Self {
            data,
            bits: Bits::new(data, position),
            selection,
            dc,
            ac,
            predicted: [0; 4],
            end_of_band_run: 0,
            interval: tables.restart_interval,
            until_restart: tables.restart_interval,
            next_restart: 0,
            spent: false,
        })
    }

    /// Where segments go on after the scan.
    pub(super) fn position(&self) -> usize {
        self.bits.position()
    }

    /// To be called before each MCU.
    #[inline(always)]
    pub(super) fn begin_mcu(&mut self) -> Result<(), Fault> {
        if self.interval > 0 {
            if self.until_restart == 0 {
                self.restart()?;
            }
            self.until_restart -= 1;
        }
        Ok(())
    }

    /// Finds the restart marker. A wrong one is judged as libjpeg does: the next two mean that this one was lost, the last two
    /// that it is still to come, anything else is taken for it.
    #[cold]
    fn restart(&mut self) -> Result<(), Fault> {
        let expected = self.next_restart;
        let (mut at, mut code) = next_marker(self.data, self.bits.position())?;
        let lost = loop {
            let ahead = code.wrapping_sub(0xD0).wrapping_sub(expected) & 7;
            match code {
                0xD0..=0xD7 if matches!(ahead, 1 | 2) => break true,
                0xD0..=0xD7 if matches!(ahead, 6 | 7) => {}
                0xD0..=0xD7 => break false,
                0xC0..=0xFF => break true,
                _ => {}
            }
            (at, code) = next_marker(self.data, at + 2)?;
        };
        self.bits.restart(if lost { at } else { at + 2 });
        self.next_restart = (expected + 1) & 7;
        self.until_restart = self.interval;
        self.predicted = [0; 4];
        self.end_of_band_run = 0;
        // Before a marker that is not for here, one more MCU is decoded, from zero bits.
        self.spent &= lost;
        Ok(())
    }

    /// To be called after each MCU.
    #[inline(always)]
    pub(super) fn end_mcu(&mut self) -> Result<(), Fault> {
        if self.bits.overrun()? {
            self.spent = true;
        }
        Ok(())
    }

    /// The tables of every component of a sequential scan.
    fn sequential_tables(&self) -> Result<Vec<(&'a Huffman, &'a Huffman)>, Fault> {
        let missing = Fault::Corrupt("missing Huffman table");
        self.dc.iter().zip(&self.ac).map(|(dc, ac)| Ok((dc.ok_or(missing)?, ac.ok_or(missing)?))).collect()
    }

    /// The next block of a sequential scan (ITU T.81, F.2.2); `false` if only its first coefficient may differ from zero.
    #[inline(always)]
    fn block(&mut self, slot: usize, (dc, ac): (&Huffman, &Huffman), block: &mut Block) -> bool {
        let mut bits = self.bits;
        bits.refill();
        let size = u32::from(dc.symbol(&mut bits));
        let difference = extend(bits.take(size), size);
        self.predicted[slot] = self.predicted[slot].wrapping_add(difference);
        block[0] = self.predicted[slot] as i16;
        let mut k = 1;
        while k < 64 {
            bits.refill();
            if let Some((run, value)) = ac.short_value(&mut bits) {
                k += run;
                block[natural(k)] = value;
                k += 1;
                continue;
            }
            let symbol = ac.symbol(&mut bits);
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size > 0 {
                k += run;
                block[natural(k)] = extend(bits.take(size), size) as i16;
                k += 1;
            } else if run == 15 {
                k += 16;
            } else {
                break;
            }
        }
        self.bits = bits;
        k > 1
    }
}

vectorised! {
    /// A sequential scan of all components: each block goes straight to samples.
    pub(super) fn decode_at_once(scan: &mut Scan, frame: &mut Frame) -> Result<(), Fault> {
        let tables = scan.sequential_tables()?;
        let order = scan.selection.components.clone();
        let alone = order.len() == 1;
        let quants: Vec<[i16; 64]> = order.iter().map(|&index| frame.components[index].quant.unwrap_or([1; 64])).collect();
        let (mcus_wide, mcus_high) = mcus(frame, &order);
        let mut block = [0; 64];
        for mcu_y in 0..mcus_high {
            for mcu_x in 0..mcus_wide {
                scan.begin_mcu()?;
                for (slot, &index) in order.iter().enumerate() {
                    let component = &mut frame.components[index];
                    let stride = component.stride();
                    let (wide, high) = if alone { (1, 1) } else { (component.h, component.v) };
                    for y in 0..high {
                        for x in 0..wide {
                            // What a damaged segment lacks stays zero.
                            let rough = !scan.spent && scan.block(slot, tables[slot], &mut block);
                            let at = (mcu_y * high + y) * 8 * stride + (mcu_x * wide + x) * 8;
                            idct::block(&block, &quants[slot], !rough, &mut component.plane, at, stride);
                            if rough {
                                block = [0; 64];
                            } else {
                                block[0] = 0;
                            }
                        }
                    }
                }
                scan.end_mcu()?;
            }
        }
        Ok(())
    }
}

/// MCUs across and down: a scan of one component has one block in each, and none beyond the picture.
pub(super) fn mcus(frame: &Frame, order: &[usize]) -> (usize, usize) {
    match order {
        &[index] => (frame.components[index].blocks_wide, frame.components[index].blocks_high),
        _ => (frame.mcus_wide, frame.mcus_high),
    }
}

/// Calls `visit` for every block of the scan, in coding order, with its place in the selection and its coefficients.
#[inline(always)]
pub(super) fn for_each_block(
    scan: &mut Scan,
    frame: &mut Frame,
    mut visit: impl FnMut(&mut Scan, usize, &mut Block),
) -> Result<(), Fault> {
    let order = scan.selection.components.clone();
    let (mcus_wide, mcus_high) = mcus(frame, &order);
    for mcu_y in 0..mcus_high {
        for mcu_x in 0..mcus_wide {
            scan.begin_mcu()?;
            if !scan.spent {
                for (slot, &index) in order.iter().enumerate() {
                    let Component { h, v, stored_wide, blocks, .. } = &mut frame.components[index];
                    let (wide, high) = if order.len() == 1 { (1, 1) } else { (*h, *v) };
                    for y in 0..high {
                        for x in 0..wide {
                            let at = (mcu_y * high + y) * *stored_wide + mcu_x * wide + x;
                            visit(scan, slot, &mut blocks[at]);
                        }
                    }
                }
            }
            scan.end_mcu()?;
        }
    }
    Ok(())
}

/// A sequential scan of some of the components: coefficients are kept until all scans are read.
pub(super) fn decode_blocks(scan: &mut Scan, frame: &mut Frame) -> Result<(), Fault> {
    let tables = scan.sequential_tables()?;
    for_each_block(scan, frame, |scan, slot, block| {
        *block = [0; 64];
        scan.block(slot, tables[slot], block);
    })
}

vectorised! {
    /// Samples of all `blocks`, `wide` to a row.
    pub(super) fn transform_blocks(blocks: &[Block], quant: &[i16; 64], plane: &mut [u8], wide: usize) {
        for (row, line) in blocks.chunks_exact(wide).enumerate() {
            for (column, block) in line.iter().enumerate() {
                let flat = block[1..].iter().all(|&coefficient| coefficient == 0);
                idct::block(block, quant, flat, plane, row * 8 * wide * 8 + column * 8, wide * 8);
            }
        }
    }
}
