//! Icons of integrations (R014, D28): PNG, JPEG or WebP, told by what is in them and not by what they are said to be.

use std::fmt;

/// Largest icon, in bytes.
pub const BYTES_MAX: usize = 64 * 1024;
/// Widest and highest icon, in pixels: a small file may unpack to a huge picture.
pub const SIDE_MAX: u32 = 4_096;

/// Formats of icons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    WebP,
}

impl Format {
    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }
}

/// Why bytes are no icon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// More than [`BYTES_MAX`].
    TooLarge(usize),
    /// None of the formats, or nothing but its first bytes.
    NoPicture,
    /// No pixels, or more than [`SIDE_MAX`] on a side.
    Size(u32, u32),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(bytes) => write!(f, "has {bytes} bytes; the limit is {BYTES_MAX}"),
            Self::NoPicture => f.write_str("is no PNG, JPEG or WebP picture, or not a whole one"),
            Self::Size(width, height) => {
                write!(f, "is {width} × {height} pixels; each side must have 1 to {SIDE_MAX}")
            }
        }
    }
}

/// The format of an icon.
///
/// # Errors
/// It is none.
pub fn check(bytes: &[u8]) -> Result<Format, Problem> {
    if bytes.len() > BYTES_MAX {
        return Err(Problem::TooLarge(bytes.len()));
    }
    let readers = [(Format::Png, png as fn(&[u8]) -> Option<(u32, u32)>), (Format::Jpeg, jpeg), (Format::WebP, webp)];
    let found = readers.into_iter().find_map(|(format, size)| Some((format, size(bytes)?)));
    let (format, (width, height)) = found.ok_or(Problem::NoPicture)?;
    let fits = |side| (1..=SIDE_MAX).contains(&side);
    if fits(width) && fits(height) { Ok(format) } else { Err(Problem::Size(width, height)) }
}

/// Width and height of a PNG: its signature, a header with them, and an end.
fn png(bytes: &[u8]) -> Option<(u32, u32)> {
    let rest = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR")?;
    bytes.strip_suffix(b"\0\0\0\0IEND\xae\x42\x60\x82")?;
    Some((big(rest.get(..4)?), big(rest.get(4..8)?)))
}

/// Width and height of a JPEG: its segments up to the frame header that has them, and an end.
fn jpeg(bytes: &[u8]) -> Option<(u32, u32)> {
    bytes.strip_suffix(b"\xff\xd9")?;
    let mut rest = bytes.strip_prefix(b"\xff\xd8")?;
    loop {
        let marker = rest.strip_prefix(b"\xff")?;
        let (kind, segment) = marker.split_first()?;
        if *kind == 0xff {
            // Filled up.
            rest = marker;
            continue;
        }
        let length = usize::try_from(big(segment.get(..2)?)).ok()?;
        let is_frame = (0xc0..=0xcf).contains(kind) && ![0xc4, 0xc8, 0xcc].contains(kind);
        if is_frame {
            return Some((big(segment.get(5..7)?), big(segment.get(3..5)?)));
        }
        rest = segment.get(length.max(2)..)?;
    }
}

/// Width and height of a WebP: a RIFF of its length, and the first chunk.
fn webp(bytes: &[u8]) -> Option<(u32, u32)> {
    let rest = bytes.strip_prefix(b"RIFF")?;
    let length = usize::try_from(little(rest.get(..4)?)).ok()?;
    let chunk = rest.get(4..)?.strip_prefix(b"WEBP")?;
    if length.checked_add(8)? != bytes.len() {
        return None;
    }
    let data = chunk.get(8..)?;
    match chunk.get(..4)? {
        b"VP8 " => {
            let size = data.get(3..)?.strip_prefix(b"\x9d\x01\x2a")?;
            Some((little(size.get(..2)?) & 0x3fff, little(size.get(2..4)?) & 0x3fff))
        }
        b"VP8L" => {
            let size = little(data.strip_prefix(b"\x2f")?.get(..4)?);
            Some(((size & 0x3fff) + 1, ((size >> 14) & 0x3fff) + 1))
        }
        b"VP8X" => Some((little(data.get(4..7)?) + 1, little(data.get(7..10)?) + 1)),
        _ => None,
    }
}

fn big(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn little(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_png(width: u32, height: u32) -> Vec<u8> {
        let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
        [b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", &size[..], b"\x08\x02\0\0\0crc!", b"\0\0\0\0IEND\xae\x42\x60\x82"].concat()
    }

    fn a_jpeg(width: u16, height: u16) -> Vec<u8> {
        let size = [height.to_be_bytes(), width.to_be_bytes()].concat();
        let frame = [b"\xff\xc0\x00\x0b\x08", &size[..], b"\x01\x01\x11\x00"].concat();
        [b"\xff\xd8\xff\xe0\x00\x04JF\xff", &frame[..], b"\xff\xd9"].concat()
    }

    fn a_webp(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(4 + 8 + data.len()).unwrap().to_le_bytes();
        let size = u32::try_from(data.len()).unwrap().to_le_bytes();
        [b"RIFF", &length[..], b"WEBP", kind, &size[..], data].concat()
    }

    #[test]
    fn pictures_are_told_by_their_content() {
        assert_eq!(check(&a_png(1, 4096)), Ok(Format::Png));
        assert_eq!(check(&a_jpeg(4096, 1)), Ok(Format::Jpeg));
        assert_eq!(check(&a_webp(b"VP8 ", b"\x30\x01\x00\x9d\x01\x2a\x40\x00\x20\x00")), Ok(Format::WebP));
        assert_eq!(check(&a_webp(b"VP8L", b"\x2f\x3f\xc0\x0f\x00\x00")), Ok(Format::WebP));
        assert_eq!(check(&a_webp(b"VP8X", b"\x10\0\0\0\x3f\0\0\x3f\0\0")), Ok(Format::WebP));
    }

    #[test]
    fn anything_else_is_no_icon() {
        assert_eq!(check(&a_png(0, 5)), Err(Problem::Size(0, 5)));
        assert_eq!(check(&a_png(4097, 5)), Err(Problem::Size(4097, 5)));
        assert_eq!(check(&a_jpeg(5000, 5)), Err(Problem::Size(5000, 5)));
        assert_eq!(check(&a_webp(b"VP8X", b"\x10\0\0\0\xff\xff\xff\0\0\0")), Err(Problem::Size(0x0100_0000, 1)));
        let whole = [a_png(9, 9), a_jpeg(9, 9), a_webp(b"VP8L", b"\x2f\x3f\xc0\x0f\x00\x00")];
        for picture in &whole {
            assert!(check(picture).is_ok());
            for length in 0..picture.len() {
                assert_eq!(check(&picture[..length]), Err(Problem::NoPicture), "{length} of {picture:?}");
            }
        }
        for text in
            [&b""[..], b"GIF89a\x01\0\x01\0", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n"]
        {
            assert_eq!(check(text), Err(Problem::NoPicture));
        }
        let mut large = a_png(9, 9);
        let end = large.split_off(large.len() - 12);
        large.resize(BYTES_MAX - 12, 0);
        large.extend(end);
        assert_eq!((large.len(), check(&large)), (BYTES_MAX, Ok(Format::Png)));
        large.push(0);
        assert_eq!(check(&large), Err(Problem::TooLarge(BYTES_MAX + 1)));
    }
}
