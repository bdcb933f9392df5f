//! Any bytes, decoded as a picture: an error, or a picture that has all its pixels and no more than the limit.

#![no_main]

use dit_data::{Limits, decode};
use libfuzzer_sys::fuzz_target;

/// A megapixel: larger ones take longer and find nothing else.
const MAX_PIXELS: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    match decode(bytes, &Limits { max_pixels: MAX_PIXELS }) {
        Ok(picture) => {
            let area = picture.width() * picture.height();
            assert!(area > 0 && area as u64 <= MAX_PIXELS);
            assert_eq!(picture.pixels().len(), 3 * area);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
