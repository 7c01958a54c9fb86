//! What an mp4 file says of itself. Its boxes are read, and no picture.

use std::io::{Read, Seek, SeekFrom};

/// The box that describes the others is some bytes a frame: more than this is not read into memory.
const LARGEST_MOOV: u64 = 256 << 20;

/// The first video of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Head {
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Of files in one piece; fragments would have to be added up.
    pub(crate) length: Option<Length>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Length {
    pub(crate) frames: u64,
    pub(crate) duration_s: f64,
}

impl Head {
    /// # Errors
    /// What is wrong with the file.
    pub(crate) fn read(file: &mut (impl Read + Seek)) -> Result<Self, String> {
        let moov = find_moov(file)?;
        let tracks = boxes(&moov).filter(|(kind, _)| kind == b"trak").map(|(_, track)| track);
        let fragmented = child(&moov, b"mvex").is_some();
        let head = tracks.filter_map(child_of(b"mdia")).find_map(|media| Self::of(media, fragmented));
        head.ok_or_else(|| "an mp4 file without a video that can be read".into())
    }

    /// Of a track's `mdia` box, if it is a video's.
    fn of(media: &[u8], fragmented: bool) -> Option<Self> {
        if child(media, b"hdlr")?.get(8..12)? != b"vide" {
            return None;
        }
        let table = child(child(media, b"minf")?, b"stbl")?;
        let (_, entry) = boxes(child(table, b"stsd")?.get(8..)?).next()?;
        let (width, height) = (integer(entry, 24, 2)?, integer(entry, 26, 2)?);
        let header = child(media, b"mdhd")?;
        let (timescale, duration) = match header.first()? {
            0 => (integer(header, 12, 4)?, integer(header, 16, 4)?),
            _ => (integer(header, 20, 4)?, integer(header, 24, 8)?),
        };
        if timescale == 0 {
            return None;
        }
        let runs = child(table, b"stts")?.get(8..)?.chunks_exact(8);
        let frames = runs.filter_map(|run| integer(run, 0, 4)).sum();
        let length = Length { frames, duration_s: duration as f64 / timescale as f64 };
        Some(Self { height: height as usize, width: width as usize, length: (!fragmented).then_some(length) })
    }
}

/// The content of the `moov` box. All boxes beside it have to be there whole.
fn find_moov(file: &mut (impl Read + Seek)) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let end = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
    let mut found = None;
    let mut at = 0;
    while at < end {
        let mut head = [0; 16];
        let there = (end - at).min(16) as usize;
        file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
        file.read_exact(&mut head[..there]).map_err(unreadable)?;
        let size = size(&head[..there], end - at).ok_or("is cut off, or no mp4 file: restore it")?;
        if head[4..8] == *b"moov" {
            if size.whole > LARGEST_MOOV {
                return Err(format!("describes itself in {} bytes, which are not read", size.whole));
            }
            let mut content = vec![0; (size.whole - size.head) as usize];
            file.seek(SeekFrom::Start(at + size.head)).map_err(unreadable)?;
            file.read_exact(&mut content).map_err(unreadable)?;
            found = Some(content);
        }
        at += size.whole;
    }
    found.ok_or_else(|| "has no index, as a file that was not written to its end: restore it".into())
}

/// Bytes of a box.
struct Size {
    head: u64,
    /// Head and content.
    whole: u64,
}

/// Of the box that begins with `bytes`, of which `left` follow in all.
fn size(bytes: &[u8], left: u64) -> Option<Size> {
    integer(bytes, 4, 4)?; // The kind.
    let size = match integer(bytes, 0, 4)? {
        0 => Size { head: 8, whole: left },
        1 => Size { head: 16, whole: integer(bytes, 8, 8)? },
        whole => Size { head: 8, whole },
    };
    (size.head <= size.whole && size.whole <= left).then_some(size)
}

/// Kinds and contents of the boxes that lie in `bytes` one after the other, up to the first that is none.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let size = size(bytes, bytes.len() as u64)?;
        let (this, rest) = bytes.split_at(size.whole as usize);
        bytes = rest;
        Some((this[4..8].try_into().ok()?, &this[size.head as usize..]))
    })
}

fn child<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(bytes).find(|(name, _)| name == kind).map(|(_, content)| content)
}

fn child_of<'a>(kind: &[u8; 4]) -> impl Fn(&'a [u8]) -> Option<&'a [u8]> {
    move |bytes| child(bytes, kind)
}

/// `length` bytes from `at`, the highest first.
fn integer(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    Some(bytes.get(at..at + length)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32 + 8).to_be_bytes(), &kind[..], content].concat()
    }

    /// Seven frames of 24 rows and 32 columns at 30 Hz, in a time scale of 15360, behind a track of sound.
    fn file() -> Vec<u8> {
        let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_be_bytes()).collect() };
        let handler = |kind: &[u8; 4]| boxed(b"hdlr", &[&[0; 8][..], kind, &[0; 12]].concat());
        let entry = boxed(b"avc1", &[&[0; 24][..], &[0, 32, 0, 24], &[0; 50]].concat());
        let table = [
            boxed(b"stsd", &[&words(&[0, 1])[..], &entry].concat()),
            boxed(b"stts", &words(&[0, 2, 6, 512, 1, 512])),
        ];
        let media = [
            boxed(b"mdhd", &words(&[0, 0, 0, 15360, 7 * 512, 0])),
            handler(b"vide"),
            boxed(b"minf", &boxed(b"stbl", &table.concat())),
        ];
        let sound = boxed(b"trak", &boxed(b"mdia", &handler(b"soun")));
        let video = boxed(b"trak", &[boxed(b"tkhd", &[0; 84]), boxed(b"mdia", &media.concat())].concat());
        [boxed(b"ftyp", b"isom"), boxed(b"mdat", &[7; 99]), boxed(b"moov", &[sound, video].concat())].concat()
    }

    fn head(bytes: &[u8]) -> Result<Head, String> {
        Head::read(&mut Cursor::new(bytes))
    }

    #[test]
    fn size_frames_and_duration_are_found() {
        let length = Length { frames: 7, duration_s: 7.0 / 30.0 };
        assert_eq!(head(&file()), Ok(Head { height: 24, width: 32, length: Some(length) }));
    }

    #[test]
    fn what_is_no_whole_file_is_said() {
        let whole = file();
        assert!(head(&whole[..whole.len() - 1]).unwrap_err().contains("cut off"));
        // Up to the index: what an encoder leaves that is killed.
        assert!(head(&whole[..12 + 107]).unwrap_err().contains("has no index"));
        assert!(head(b"").unwrap_err().contains("has no index"));
        assert!(head(b"\x89PNG\r\n\x1a\n and more").unwrap_err().contains("no mp4 file"));
        let mute = [boxed(b"ftyp", b"isom"), boxed(b"moov", &boxed(b"mvhd", &[0; 100]))].concat();
        assert!(head(&mute).unwrap_err().contains("without a video"));
    }

    proptest! {
        #[test]
        fn damaged_files_end_and_do_not_panic(at in 0usize..600, value in any::<u8>(), cut in 0usize..600) {
            let mut bytes = file();
            let length = bytes.len();
            bytes[at % length] = value;
            bytes.truncate(length - cut % length);
            let _ = head(&bytes);
        }
    }
}
