use super::Fault;
use super::bits::Bits;

/// Bits resolved by one look-up.
const LOOKUP: u32 = 11;

/// A Huffman table as a decoder wants it (ITU T.81, annex C and F.2.2.3).
pub(super) struct Huffman {
    /// By the next `LOOKUP` bits: length of the code << 8 | symbol; 0 where the code is longer.
    symbols: Box<[u16; 1 << LOOKUP]>,
    /// By the next `LOOKUP` bits: value << 16 | run << 8 | bits of code and value; 0 where they do not fit or there is no value.
    values: Box<[i32; 1 << LOOKUP]>,
    /// The largest code of each length 1 to 16, or −1.
    largest: [i32; 17],
    /// What to add to a code of that length to find its symbol.
    offset: [i32; 17],
    listed: Vec<u8>,
}

impl Huffman {
    /// From the counts of codes of length 1 to 16 and the symbols in order of their codes.
    pub(super) fn new(counts: &[u8; 16], listed: &[u8]) -> Result<Self, Fault> {
        let mut table = Self {
            symbols: Box::new([0; 1 << LOOKUP]),
            values: Box::new([0; 1 << LOOKUP]),
            largest: [-1; 17],
            offset: [0; 17],
            listed: listed.to_vec(),
        };
        let (mut code, mut index) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = usize::from(counts[length as usize - 1]);
            if count > 0 {
                table.offset[length as usize] = index as i32 - code as i32;
                for &symbol in listed.get(index..index + count).ok_or(Fault::Corrupt("Huffman table"))? {
                    if code >= 1 << length {
                        return Err(Fault::Corrupt("Huffman table"));
                    }
                    table.enter(length, code, symbol);
                    code += 1;
                }
                index += count;
                table.largest[length as usize] = code as i32 - 1;
            }
            code <<= 1;
        }
        Ok(table)
    }

    fn enter(&mut self, length: u32, code: u32, symbol: u8) {
        if length > LOOKUP {
            return;
        }
        let rest = LOOKUP - length;
        let first = (code << rest) as usize;
        let size = u32::from(symbol & 15);
        for tail in 0..1usize << rest {
            self.symbols[first + tail] = (length as u16) << 8 | u16::from(symbol);
            if size > 0 && size <= rest {
                let value = extend((tail >> (rest - size)) as u32, size);
                self.values[first + tail] = value << 16 | i32::from(symbol >> 4) << 8 | (length + size) as i32;
            }
        }
    }

    /// Whether every symbol is a size that a DC difference can have.
    pub(super) fn fits_dc(&self) -> bool {
        self.listed.iter().all(|&symbol| symbol <= 15)
    }

    /// The next symbol. At least 17 bits must be available.
    #[inline(always)]
    pub(super) fn symbol(&self, bits: &mut Bits) -> u8 {
        let entry = self.symbols[bits.peek(LOOKUP) as usize];
        if entry != 0 {
            bits.consume(u32::from(entry >> 8));
            return entry as u8;
        }
        let (symbol, length) = self.long_symbol(*bits);
        bits.consume(length);
        symbol
    }

    /// A symbol whose code is longer than `LOOKUP`, and the bits it takes.
    #[cold]
    #[inline(never)]
    fn long_symbol(&self, bits: Bits) -> (u8, u32) {
        for length in LOOKUP + 1..=16 {
            let code = bits.peek(length) as i32;
            if code <= self.largest[length as usize] {
                let index = (code + self.offset[length as usize]) as usize;
                return (self.listed.get(index).copied().unwrap_or(0), length);
            }
        }
        // No such code: libjpeg warns, has read 17 bits and goes on with symbol 0.
        (0, 17)
    }

    /// A value of at most `LOOKUP` bits with its code: (zeros before it, value). At least 32 bits must be available.
    #[inline(always)]
    pub(super) fn short_value(&self, bits: &mut Bits) -> Option<(usize, i16)> {
        let entry = self.values[bits.peek(LOOKUP) as usize];
        if entry == 0 {
            return None;
        }
        bits.consume(entry as u32 & 0xFF);
        Some(((entry >> 8 & 0xFF) as usize, (entry >> 16) as i16))
    }
}

/// The signed value that `size` bits stand for (ITU T.81, F.2.2.1, EXTEND).
#[inline(always)]
pub(super) fn extend(bits: u32, size: u32) -> i32 {
    let bits = bits as i32;
    if size == 0 || bits >= 1 << (size - 1) { bits } else { bits - (1 << size) + 1 }
}
