use super::Fault;

/// A block of coefficients in natural order.
pub(super) type Block = [i16; 64];

/// How three or four components become colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colors {
    Grey,
    Rgb,
    YCbCr,
    Cmyk,
    Ycck,
}

/// One component of a frame: its geometry, then its samples.
pub(super) struct Component {
    pub(super) id: u8,
    /// Sampling factors, 1 to 4.
    pub(super) h: usize,
    pub(super) v: usize,
    /// Which quantisation table it names.
    pub(super) table: usize,
    /// Samples that belong to the picture.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Blocks that hold them: what a scan of this component alone codes.
    pub(super) blocks_wide: usize,
    pub(super) blocks_high: usize,
    /// Blocks in whole MCUs: what is stored.
    pub(super) stored_wide: usize,
    pub(super) stored_high: usize,
    /// The quantisation table as it was when the component's first scan began, natural order.
    pub(super) quant: Option<[i16; 64]>,
    /// Samples (stored_high · 8, stored_wide · 8).
    pub(super) plane: Vec<u8>,
    /// Coefficients (stored_high, stored_wide), if the frame comes in several scans.
    pub(super) blocks: Vec<Block>,
}

impl Component {
    /// Bytes from one row of `plane` to the next.
    pub(super) fn stride(&self) -> usize {
        self.stored_wide * 8
    }

    /// Row `y` of the samples that belong to the picture.
    pub(super) fn row(&self, y: usize) -> &[u8] {
        &self.plane[y * self.stride()..][..self.width]
    }
}

/// What a frame header says, and the samples once they are decoded.
pub(super) struct Frame {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) progressive: bool,
    /// The largest sampling factors.
    pub(super) h_max: usize,
    pub(super) v_max: usize,
    pub(super) mcus_wide: usize,
    pub(super) mcus_high: usize,
    pub(super) components: Vec<Component>,
    pub(super) colors: Colors,
}

impl Frame {
    /// From the payload of a start-of-frame segment (ITU T.81, B.2.2).
    pub(super) fn parse(payload: &[u8], progressive: bool, max_pixels: u64) -> Result<Self, Fault> {
        const BAD: Fault = Fault::Corrupt("frame header");
        let (&[precision, h1, h0, w1, w0, count], list) = payload.split_first_chunk::<6>().ok_or(BAD)?;
        if precision != 8 {
            return Err(Fault::Unsupported("a JPEG of other than 8 bits"));
        }
        let (width, height) = (usize::from(u16::from_be_bytes([w1, w0])), usize::from(u16::from_be_bytes([h1, h0])));
        if width == 0 || height == 0 {
            return Err(Fault::Corrupt("picture without pixels"));
        }
        if (width * height) as u64 > max_pixels {
            return Err(Fault::TooLarge(width as u64, height as u64));
        }
        let (entries, rest) = list.as_chunks::<3>();
        if !matches!(count, 1 | 3 | 4) || entries.len() != usize::from(count) || !rest.is_empty() {
            return Err(if matches!(count, 1 | 3 | 4) {
                BAD
            } else {
                Fault::Unsupported("a JPEG of other than 1, 3 or 4 components")
            });
        }
        let factors = |entry: &[u8; 3]| (usize::from(entry[1] >> 4), usize::from(entry[1] & 15));
        if !entries.iter().map(factors).all(|(h, v)| (1..=4).contains(&h) && (1..=4).contains(&v)) {
            return Err(Fault::Corrupt("sampling factors"));
        }
        let h_max = entries.iter().map(|entry| factors(entry).0).max().ok_or(BAD)?;
        let v_max = entries.iter().map(|entry| factors(entry).1).max().ok_or(BAD)?;
        let (mcus_wide, mcus_high) = (width.div_ceil(8 * h_max), height.div_ceil(8 * v_max));
        let component = |entry: &[u8; 3]| {
            let (h, v) = factors(entry);
            Component {
                id: entry[0],
                h,
                v,
                table: usize::from(entry[2]),
                width: (width * h).div_ceil(h_max),
                height: (height * v).div_ceil(v_max),
                blocks_wide: (width * h).div_ceil(8 * h_max),
                blocks_high: (height * v).div_ceil(8 * v_max),
                stored_wide: mcus_wide * h,
                stored_high: mcus_high * v,
                quant: None,
                plane: Vec::new(),
                blocks: Vec::new(),
            }
        };
        let components = entries.iter().map(component).collect();
        Ok(Self { width, height, progressive, h_max, v_max, mcus_wide, mcus_high, components, colors: Colors::Grey })
    }

    /// Settles how components become colours, as libjpeg guesses it: from JFIF's and Adobe's markers, else from the ids.
    pub(super) fn guess_colors(&mut self, jfif: bool, adobe: Option<u8>) {
        let ids: Vec<u8> = self.components.iter().map(|component| component.id).collect();
        self.colors = match (ids.as_slice(), jfif, adobe) {
            ([_], _, _) => Colors::Grey,
            ([_, _, _], true, _) => Colors::YCbCr,
            ([_, _, _], false, Some(0)) => Colors::Rgb,
            ([_, _, _], false, Some(_)) => Colors::YCbCr,
            ([b'R', b'G', b'B'], false, None) => Colors::Rgb,
            ([_, _, _], false, None) => Colors::YCbCr,
            (_, _, Some(2)) => Colors::Ycck,
            _ => Colors::Cmyk,
        };
    }
}
