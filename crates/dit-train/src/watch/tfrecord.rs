//! TFRecord files and the protocol-buffer messages of TensorBoard's events, as far as scalars and pictures need them.
//!
//! A record is its length (u64), the masked CRC-32C of those eight bytes, the bytes, and their masked CRC-32C, all little-endian.

/// One record around `data`.
pub(crate) fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

/// The contents of the records in a file, as a reader finds them; none where a length or a checksum is wrong.
#[cfg(test)]
pub(crate) fn read_records(mut file: &[u8]) -> Option<Vec<&[u8]>> {
    let mut records = Vec::new();
    while !file.is_empty() {
        let (length, rest) = file.split_at_checked(8)?;
        let (sum, rest) = rest.split_at_checked(4)?;
        let (data, rest) = rest.split_at_checked(u64::from_le_bytes(length.try_into().ok()?) as usize)?;
        let (data_sum, rest) = rest.split_at_checked(4)?;
        let right = |data: &[u8], sum: &[u8]| masked_crc(data).to_le_bytes() == sum;
        (right(length, sum) && right(data, data_sum)).then_some(())?;
        records.push(data);
        file = rest;
    }
    Some(records)
}

/// The checksum, rotated and shifted so that a checksum of data with checksums in them is no special number.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 by Castagnoli's polynomial, reflected.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc: u32, byte| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)])
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// A protocol-buffer message under construction.
#[derive(Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub fn double(mut self, field: u32, value: f64) -> Self {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn float(mut self, field: u32, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn integer(mut self, field: u32, value: u64) -> Self {
        self.key(field, 0);
        self.varint(value);
        self
    }

    pub fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    pub fn message(self, field: u32, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn key(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_crc(data: &[u8], expected: u32) {
        assert_eq!(crc32c(data), expected);
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
        check_crc(&[0; 32], 0x8a91_36aa);
        check_crc(&[0xff; 32], 0x62a8_ab43);
        check_crc(&(0..32).collect::<Vec<u8>>(), 0x46dd_794e);
        check_crc(b"123456789", 0xe306_9283);
    }

    #[test]
    fn integers_are_written_seven_bits_at_a_time() {
        assert_eq!(Message::default().integer(1, 150).as_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().bytes(2, b"testing").as_bytes(), b"\x12\x07testing");
    }
}
