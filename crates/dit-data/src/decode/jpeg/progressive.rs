use super::Fault;
use super::frame::{Block, Frame};
use super::huffman::{Huffman, extend};
use super::markers::natural;
use super::scan::{Scan, for_each_block};

/// One scan of a progressive frame (ITU T.81, annex G) into the frame's coefficients.
pub(super) fn decode(scan: &mut Scan, frame: &mut Frame) -> Result<(), Fault> {
    let missing = Fault::Corrupt("missing Huffman table");
    match (scan.selection.start, scan.selection.high) {
        (0, 0) => {
            let tables: Vec<&Huffman> = scan.dc.iter().map(|table| table.ok_or(missing)).collect::<Result<_, _>>()?;
            for_each_block(scan, frame, |scan, slot, block| dc_first(scan, slot, tables[slot], block))
        }
        (0, _) => for_each_block(scan, frame, |scan, _, block| dc_refine(scan, block)),
        (_, high) => {
            let table = scan.ac.first().copied().flatten().ok_or(missing)?;
            if high == 0 {
                for_each_block(scan, frame, |scan, _, block| ac_first(scan, table, block))
            } else {
                for_each_block(scan, frame, |scan, _, block| ac_refine(scan, table, block))
            }
        }
    }
}

fn dc_first(scan: &mut Scan, slot: usize, table: &Huffman, block: &mut Block) {
    scan.bits.refill();
    let size = u32::from(table.symbol(&mut scan.bits));
    let difference = extend(scan.bits.take(size), size);
    scan.predicted[slot] = scan.predicted[slot].wrapping_add(difference);
    block[0] = (scan.predicted[slot] << scan.selection.low) as i16;
}

fn dc_refine(scan: &mut Scan, block: &mut Block) {
    if scan.bits.bit() {
        block[0] |= 1 << scan.selection.low;
    }
}

/// The length of a run of blocks that end here, this one included (ITU T.81, table G.1).
fn end_of_band_run(scan: &mut Scan, run: u32) -> u32 {
    scan.bits.refill();
    (1 << run) + scan.bits.take(run)
}

fn ac_first(scan: &mut Scan, table: &Huffman, block: &mut Block) {
    if scan.end_of_band_run > 0 {
        scan.end_of_band_run -= 1;
        return;
    }
    let (end, low) = (scan.selection.end, scan.selection.low);
    let mut k = scan.selection.start;
    while k <= end {
        scan.bits.refill();
        let symbol = table.symbol(&mut scan.bits);
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        if size > 0 {
            k += run as usize;
            block[natural(k)] = (extend(scan.bits.take(size), size) << low) as i16;
            k += 1;
        } else if run == 15 {
            k += 16;
        } else {
            scan.end_of_band_run = end_of_band_run(scan, run) - 1;
            break;
        }
    }
}

fn ac_refine(scan: &mut Scan, table: &Huffman, block: &mut Block) {
    let (end, low) = (scan.selection.end, scan.selection.low);
    let mut k = scan.selection.start;
    if scan.end_of_band_run == 0 {
        while k <= end {
            scan.bits.refill();
            let symbol = table.symbol(&mut scan.bits);
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            // A coefficient that becomes nonzero here can only be ±1 at this bit.
            let value = match size {
                0 => None,
                _ if scan.bits.bit() => Some(1i16 << low),
                _ => Some(-1i16 << low),
            };
            if value.is_none() && run < 15 {
                scan.end_of_band_run = end_of_band_run(scan, run);
                break;
            }
            k = refine(scan, block, k, end, low, run);
            if let Some(value) = value {
                block[natural(k)] = value;
            }
            k += 1;
        }
    }
    if scan.end_of_band_run > 0 {
        refine(scan, block, k, end, low, u32::MAX);
        scan.end_of_band_run -= 1;
    }
}

/// Gives each nonzero coefficient from `k` on one more bit, passing over `zeros` that are zero; stops at the next zero, or
/// after `end`, and returns where.
fn refine(scan: &mut Scan, block: &mut Block, mut k: usize, end: usize, low: u32, mut zeros: u32) -> usize {
    while k <= end {
        let coefficient = &mut block[natural(k)];
        if *coefficient == 0 {
            if zeros == 0 {
                break;
            }
            zeros -= 1;
        } else if scan.bits.bit() && *coefficient & (1 << low) == 0 {
            *coefficient = coefficient.wrapping_add(if *coefficient > 0 { 1 << low } else { -1 << low });
        }
        k += 1;
    }
    k
}
