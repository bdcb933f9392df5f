use super::Fault;

/// Reads the bits of entropy-coded segments (ITU T.81, F.2.2.5), unstuffing `FF 00`.
///
/// At a marker the segment has ended: what a damaged file asks for beyond is zero bits, as libjpeg gives. At the end of the
/// data there is nothing to be read at all, and asking is an error.
///
/// It is copied into a local variable where it is used a lot, so that its fields stay in registers: for that, what is seldom called
/// takes and returns it by value.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// The first byte of which not all bits count as read ahead; at a marker, its `FF`.
    position: usize,
    /// The highest `count` bits are those read ahead. Below them are zeros, or bits of the byte at `position`.
    buffer: u64,
    count: u32,
    /// How many of those read ahead, at the end, are made up.
    padding: u32,
    at_end: bool,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8], position: usize) -> Self {
        Self { data, position, buffer: 0, count: 0, padding: 0, at_end: false }
    }

    /// Forgets what was read ahead, as at a restart, and continues at `position`.
    pub(super) fn restart(&mut self, position: usize) {
        *self = Self::new(self.data, position);
    }

    /// Where the next marker is to be looked for.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Makes at least 32 bits available.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(&next) = self.data.get(self.position..).and_then(|rest| rest.first_chunk::<8>()) {
            const LOW: u64 = 0x0101_0101_0101_0101;
            let word = u64::from_be_bytes(next);
            // A byte of `word` is FF exactly where its complement is zero.
            let holes = !word;
            if holes.wrapping_sub(LOW) & !holes & (LOW << 7) == 0 {
                self.buffer |= word >> self.count;
                let bytes = (63 - self.count) / 8;
                self.position += bytes as usize;
                self.count += 8 * bytes;
                return;
            }
        }
        *self = self.refilled_bytewise();
    }

    #[cold]
    #[inline(never)]
    fn refilled_bytewise(mut self) -> Self {
        while self.count <= 48 {
            match self.next_byte() {
                Some(byte) => self.buffer |= u64::from(byte) << (56 - self.count),
                None => self.padding += 8,
            }
            self.count += 8;
        }
        self
    }

    /// The next byte of the segment, or nothing at a marker or the end of the data.
    fn next_byte(&mut self) -> Option<u8> {
        let Some(&byte) = self.data.get(self.position) else {
            self.at_end = true;
            return None;
        };
        if byte != 0xFF {
            self.position += 1;
            return Some(byte);
        }
        // Any number of FF fill bytes may come before the byte that tells data from a marker.
        let after = self.data[self.position..].iter().position(|&byte| byte != 0xFF);
        let Some(after) = after else {
            self.at_end = true;
            return None;
        };
        if self.data[self.position + after] != 0 {
            return None;
        }
        self.position += after + 1;
        Some(0xFF)
    }

    /// The next `bits` bits (0 to 32), not consumed. [`Self::refill`] must have been called for them.
    #[inline(always)]
    pub(super) fn peek(&self, bits: u32) -> u32 {
        ((self.buffer >> 1) >> (63 - bits)) as u32
    }

    #[inline(always)]
    pub(super) fn consume(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits;
    }

    /// The next `bits` bits (0 to 16).
    #[inline(always)]
    pub(super) fn take(&mut self, bits: u32) -> u32 {
        let value = self.peek(bits);
        self.consume(bits);
        value
    }

    /// One bit, refilling as needed.
    #[inline(always)]
    pub(super) fn bit(&mut self) -> bool {
        self.refill();
        self.take(1) == 1
    }

    /// Whether bits were consumed that the segment does not have.
    ///
    /// # Errors
    /// [`Fault::Truncated`] if the data ended there.
    #[inline(always)]
    pub(super) fn overrun(&self) -> Result<bool, Fault> {
        if self.count >= self.padding {
            Ok(false)
        } else if self.at_end {
            Err(Fault::Truncated)
        } else {
            Ok(true)
        }
    }
}
