use std::io::Write;
use std::path::Path;

use dit_files::AtomicFile;
use png::{BitDepth, ColorType, Encoder};

use crate::error::{Error, Result};
use crate::picture::Picture;

/// Writes pictures of one size as the frames of an animated PNG that repeats for ever, each shown for `milliseconds`. Browsers
/// play it; what knows no animation shows the first frame.
///
/// # Errors
/// [`Error::NoPictures`], [`Error::MixedSizes`], or the file cannot be written; `path` is then as it was before.
pub fn write_animation(path: impl AsRef<Path>, frames: &[Picture], milliseconds: u16) -> Result<()> {
    let path = path.as_ref();
    let first = frames.first().ok_or(Error::NoPictures)?;
    for (index, frame) in (0..).zip(frames) {
        if frame.size() != first.size() {
            return Err(Error::MixedSizes { index, found: frame.size(), expected: first.size() });
        }
    }
    let bytes =
        encode(first, frames, milliseconds).map_err(|source| Error::Encode { path: path.to_path_buf(), source })?;
    let mut file = AtomicFile::create(path)?;
    file.write_all(&bytes).and_then(|()| file.commit()).map_err(|source| Error::writing(path, source))
}

fn encode(first: &Picture, frames: &[Picture], milliseconds: u16) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, first.width(), first.height());
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    // Named, not left to the crate's defaults: equal pictures must stay equal files.
    encoder.set_compression(png::Compression::Balanced);
    encoder.set_filter(png::Filter::Adaptive);
    if frames.len() > 1 {
        encoder.set_animated(u32::try_from(frames.len()).unwrap_or(u32::MAX), 0)?;
        encoder.set_frame_delay(milliseconds, 1000)?;
    }
    let mut writer = encoder.write_header()?;
    for frame in frames {
        writer.write_image_data(frame.rgb())?;
    }
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_png;

    #[test]
    fn every_frame_is_there_and_the_first_is_what_others_show() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let frame = |level: u8| Picture::from_rgb(vec![level; 5 * 4 * 3], 5, 4).unwrap();
        write_animation(&path, &[frame(1), frame(2), frame(3)], 100).unwrap();
        assert_eq!(read_png(&path).unwrap(), frame(1));
        let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let control = reader.info().animation_control.unwrap();
        assert_eq!((control.num_frames, control.num_plays), (3, 0));
        for level in 1..=3 {
            let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut bytes).unwrap();
            assert!(bytes.iter().all(|&byte| byte == level), "frame {level}");
        }
        assert!(write_animation(&path, &[], 1).is_err());
        let other = Picture::from_rgb(vec![0; 3], 1, 1).unwrap();
        assert!(write_animation(&path, &[frame(1), other], 1).is_err());
        assert_eq!(read_png(&path).unwrap(), frame(1), "a refusal leaves the file");
    }
}
