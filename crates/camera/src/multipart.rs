//! `multipart/x-mixed-replace`: images one after the other in one endless response. Servers differ in how they spell
//! boundaries and in whether they say how long a part is; what is read is bounded in every respect.

use std::io::{self, BufRead, Read};

/// Longest line of a head.
const MAX_LINE: usize = 4096;

/// Most lines between two images.
const MAX_LINES: usize = 64;

/// The boundary in a response's content type, without the dashes that some servers put before it.
///
/// # Errors
/// What the response is instead.
pub(crate) fn boundary(content_type: &str) -> Result<String, String> {
    let mut fields = content_type.split(';').map(str::trim);
    let kind = fields.next().unwrap_or_default().to_ascii_lowercase();
    if kind != "multipart/x-mixed-replace" {
        return Err(format!(
            "the server sends {content_type:?}, not an MJPEG stream; give the stream's address"
        ));
    }
    let boundary = fields.find_map(|field| {
        let (name, value) = field.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    });
    match boundary.map(|text| text.trim_start_matches('-')) {
        Some(text) if !text.is_empty() && text.len() <= 200 => Ok(text.to_owned()),
        _ => Err(format!("the server sends {content_type:?} without a boundary")),
    }
}

/// An image.
pub(crate) struct Part {
    pub(crate) content: Vec<u8>,
    /// When it was made, in seconds by the server's clock, where the server says it.
    pub(crate) stamp_s: Option<f64>,
}

/// The parts of a response.
pub(crate) struct Parts<R> {
    reader: R,
    boundary: String,
    /// Most bytes of a part.
    limit: usize,
    /// The boundary before the next part has been read, up to the end of its line.
    at_boundary: bool,
}

impl<R: BufRead> Parts<R> {
    pub(crate) fn new(reader: R, boundary: String, limit: usize) -> Self {
        Self { reader, boundary, limit, at_boundary: false }
    }

    /// The next part; none at the end of the stream.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for what is no such stream or too long, and what the reader says.
    pub(crate) fn next(&mut self) -> io::Result<Option<Part>> {
        let mut lines = 0;
        loop {
            let Some(line) = self.line(&mut lines)? else { return Ok(None) };
            if self.at_boundary || is_boundary(&line, &self.boundary) {
                break;
            }
        }
        self.at_boundary = false;
        let (mut length, mut stamp_s) = (None, None);
        loop {
            let Some(line) = self.line(&mut lines)? else { return Ok(None) };
            if line.is_empty() {
                break;
            }
            let line = String::from_utf8_lossy(&line);
            let Some((name, value)) = line.split_once(':') else { continue };
            let (name, value) = (name.trim(), value.trim());
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.parse().map_err(|_| invalid(format!("an image of {value:?} bytes")))?);
            } else if name.eq_ignore_ascii_case("x-timestamp") {
                stamp_s = stamp(value);
            }
        }
        let content = match length {
            Some(length) => self.exactly(length),
            None => self.until_boundary(),
        }?;
        Ok(content.map(|content| Part { content, stamp_s }))
    }

    fn exactly(&mut self, length: usize) -> io::Result<Option<Vec<u8>>> {
        if length > self.limit {
            return Err(invalid(format!("an image of {length} bytes; {} are taken at most", self.limit)));
        }
        // Room is made for what comes, not for what is claimed.
        let mut part = Vec::new();
        self.reader.by_ref().take(length as u64).read_to_end(&mut part)?;
        Ok((part.len() == length).then_some(part))
    }

    /// A part that does not say how long it is: up to the line break before the next boundary.
    fn until_boundary(&mut self) -> io::Result<Option<Vec<u8>>> {
        // Some servers put more dashes before it than the content type says.
        let mark = format!("\r\n--{}", self.boundary);
        let mut part = Vec::new();
        loop {
            let room = (self.limit + mark.len()).saturating_sub(part.len());
            let last = mark.as_bytes()[mark.len() - 1];
            if self.reader.by_ref().take(room as u64).read_until(last, &mut part)? == 0 {
                let full = part.len() >= self.limit;
                return if full {
                    Err(invalid(format!("an image of more than {} bytes", self.limit)))
                } else {
                    Ok(None)
                };
            }
            if part.ends_with(mark.as_bytes()) {
                part.truncate(part.len() - mark.len());
                self.at_boundary = true;
                return Ok(Some(part));
            }
        }
    }

    /// A line without its break; none at the end.
    fn line(&mut self, lines: &mut usize) -> io::Result<Option<Vec<u8>>> {
        *lines += 1;
        if *lines > MAX_LINES {
            return Err(invalid(format!("no image within {MAX_LINES} lines")));
        }
        let mut line = Vec::new();
        self.reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            let full = line.len() + 1 == MAX_LINE;
            return if full {
                Err(invalid(format!("a line of more than {MAX_LINE} bytes")))
            } else {
                Ok(None)
            };
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }
}

/// `X-Timestamp` as mjpg-streamer and ESP32 cameras send it: seconds, a point, microseconds. Whole seconds say too little.
fn stamp(value: &str) -> Option<f64> {
    let seconds = value.parse::<f64>().ok().filter(|seconds| seconds.is_finite())?;
    value.contains('.').then_some(seconds)
}

fn is_boundary(line: &[u8], boundary: &str) -> bool {
    line.starts_with(b"--") && String::from_utf8_lossy(line).trim_end().trim_start_matches('-') == boundary
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};

    use proptest::prelude::*;

    use super::*;

    /// All parts, through a buffer so small that everything falls across its ends.
    fn all(stream: &[u8], boundary: &str) -> io::Result<Vec<Vec<u8>>> {
        let reader = BufReader::with_capacity(3, Cursor::new(stream));
        let mut parts = Parts::new(reader, boundary.into(), 1000);
        let mut all = Vec::new();
        while let Some(part) = parts.next()? {
            all.push(part.content);
        }
        Ok(all)
    }

    #[test]
    fn times_of_images() {
        let stream = b"--b\r\nX-Timestamp: 1712.000250\r\n\r\na\r\n--b\r\nx-timestamp:1712\r\n\r\nb\r\n\
            --b\r\nX-Timestamp: inf\r\n\r\nc\r\n--b\r\n\r\nd\r\n--b--\r\n";
        let mut parts = Parts::new(Cursor::new(stream), "b".into(), 1000);
        let mut stamps = Vec::new();
        while let Some(part) = parts.next().unwrap() {
            stamps.push(part.stamp_s);
        }
        assert_eq!(stamps, [Some(1712.00025), None, None, None]);
    }

    #[test]
    fn content_types() {
        assert_eq!(boundary("multipart/x-mixed-replace; boundary=frame").unwrap(), "frame");
        assert_eq!(boundary("Multipart/X-Mixed-Replace;boundary=\"--a b\"").unwrap(), "a b");
        assert!(boundary("image/jpeg").unwrap_err().contains("give the stream's address"));
        assert!(boundary("multipart/x-mixed-replace").is_err());
        assert!(boundary("multipart/x-mixed-replace; boundary=--").is_err());
    }

    #[test]
    fn parts_with_and_without_lengths() {
        let stream = b"\r\n--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 5\r\n\r\nab\r\nc\r\n\
            --frame\r\nX: y\r\n\r\nno length\r\n--fram is content\r\n--frame\r\ncontent-length:3\r\n\r\nxyz\r\n--frame--\r\n";
        let want: [&[u8]; 3] = [b"ab\r\nc", b"no length\r\n--fram is content", b"xyz"];
        assert_eq!(all(stream, "frame").unwrap(), want);
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let message = |stream: &[u8]| all(stream, "b").unwrap_err().to_string();
        let long = |content: usize| [b"--b\n\n".as_slice(), &vec![7; content], b"\r\n--b\n"].concat();
        assert_eq!(all(&long(1000), "b").unwrap(), [vec![7; 1000]]);
        assert_eq!(message(&long(1001)), "an image of more than 1000 bytes");
        assert!(message(b"--b\nContent-Length: 1001\n\n").contains("1001 bytes; 1000 are taken"));
        assert!(message(b"--b\nContent-Length: -1\n\n").contains("\"-1\""));
        assert!(message(&[b'a'; 5000]).contains("a line of more than 4096"));
        assert!(message(&[b'\n'; 100]).contains("no image within 64 lines"));
    }

    proptest! {
        #[test]
        fn parts_come_back(
            images in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..6), lengths in any::<bool>(),
        ) {
            let mut stream = b"--xyzzy\r\n".to_vec();
            for image in &images {
                if lengths {
                    stream.extend(format!("Content-Length: {}\r\n", image.len()).bytes());
                }
                stream.extend(b"\r\n");
                stream.extend(image);
                stream.extend(b"\r\n--xyzzy\r\n");
            }
            prop_assert_eq!(all(&stream, "xyzzy").unwrap(), images);
        }

        #[test]
        fn anything_ends(stream in prop::collection::vec(
            prop_oneof![Just(b'-'), Just(b'b'), Just(b'\n'), Just(b'\r'), Just(b':'), any::<u8>()], 0..400,
        )) {
            let _ = all(&stream, "b");
        }
    }
}
