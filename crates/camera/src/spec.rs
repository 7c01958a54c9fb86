use std::path::PathBuf;

use skillweld_robot::{Camera, CameraStream, MAX_SIDE, RobotError};

use crate::directory::ImageDirectory;
use crate::live::SLOWEST_FPS;
use crate::mjpeg::MjpegHttp;
use crate::pattern::Pattern;

/// What is said where a text is none of a camera.
const GRAMMAR: &str = "\
write NAME=SOURCE, where SOURCE is pattern, dir:FOLDER, http://HOST/PATH or v4l2:DEVICE, then :WIDTHxHEIGHT and @FPS (not after http://) as needed: \
front=pattern:640x480@30, wrist=dir:pictures@10, front=http://pi:8080/stream, front=v4l2:/dev/video0:640x480@30";

/// Rows and columns where a text says none.
const SIZE: (usize, usize) = (480, 640);

/// Frames a second where a text says none.
const FPS: f64 = 30.0;

/// A camera as it is written on a command line: `NAME=SOURCE[:WIDTHxHEIGHT][@FPS]`.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraSpec {
    /// For example `front`.
    pub name: String,
    /// Where images come from.
    pub source: Source,
    /// Rows and columns of frames. Without it 480 × 640; of a folder, as its first image.
    pub size: Option<(usize, usize)>,
    /// Frames a second, 3 to 1000: 30 without it. A server's rate is its own.
    pub fps: Option<f64>,
}

/// Where images come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `pattern`: a moving picture that follows from the frame's number.
    Pattern,
    /// `dir:FOLDER`: its PNG and JPEG files by name, again and again.
    Directory(PathBuf),
    /// `http://…`: MJPEG from this address.
    Http(String),
    /// `v4l2:DEVICE`: a camera of this machine.
    V4l2(PathBuf),
}

impl CameraSpec {
    /// Reads a text such as `front=pattern:640x480@30`.
    ///
    /// # Errors
    /// [`RobotError::Camera`] that says what is wrong and how cameras are written.
    pub fn parse(text: &str) -> Result<Self, RobotError> {
        let (name, rest) = text.split_once('=').unwrap_or(("", text));
        let refuse = |problem: String| {
            let camera = if name.is_empty() { text } else { name };
            RobotError::Camera { camera: camera.into(), problem: format!("{problem}; {GRAMMAR}") }
        };
        if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c)) {
            return Err(refuse("it has no name of letters, digits, '_', '-' and '.'".into()));
        }
        let (rest, fps) = match rest.rsplit_once('@') {
            Some((before, fps)) if !rest.starts_with("http") => {
                let fps = fps.parse().map_err(|_| refuse(format!("{fps:?} is no frame rate")))?;
                (before, Some(fps))
            }
            _ => (rest, None),
        };
        let (rest, size) =
            match rest.rsplit_once(':').and_then(|(rest, size)| Some((rest, parse_size(size)?))) {
                Some((rest, size)) => (rest, Some(size)),
                None => (rest, None),
            };
        let source = match rest.split_once(':') {
            None if rest == "pattern" => Source::Pattern,
            Some(("dir", path)) if !path.is_empty() => Source::Directory(path.into()),
            Some(("v4l2", path)) if path.starts_with('/') => Source::V4l2(path.into()),
            Some(("http", address)) if address.len() > 2 && address.starts_with("//") => {
                Source::Http(rest.into())
            }
            Some(("https", _)) => return Err(refuse("only plain http:// is spoken".into())),
            _ => return Err(refuse(format!("{rest:?} is no source"))),
        };
        let spec = Self { name: name.into(), source, size, fps };
        spec.check().map_err(refuse)?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), String> {
        match (self.fps, self.size) {
            (Some(fps), _) if !(SLOWEST_FPS..=1000.0).contains(&fps) => Err(format!(
                "{fps} frames a second are none of {SLOWEST_FPS} to 1000: an arm holds where its images are older than a second"
            )),
            (_, Some((height, width))) if height == 0 || width == 0 || height.max(width) > MAX_SIDE => {
                Err(format!("{width}x{height} pixels: each side may have 1 to {MAX_SIDE}"))
            }
            _ => Ok(()),
        }
    }

    /// The camera, not yet open.
    ///
    /// # Errors
    /// [`RobotError::Camera`] for a size or rate out of range, when a folder has no images, or this program was built without
    /// the source.
    pub fn camera(&self) -> Result<Box<dyn Camera>, RobotError> {
        let refuse = |problem: String| RobotError::Camera { camera: self.name.clone(), problem };
        self.check().map_err(refuse)?;
        let (height, width) = self.size.unwrap_or(SIZE);
        let stream = CameraStream { name: self.name.clone(), height, width };
        let fps = self.fps.unwrap_or(FPS);
        Ok(match &self.source {
            Source::Pattern => Box::new(Pattern::new(stream, fps)),
            Source::Directory(folder) => Box::new(ImageDirectory::new(&self.name, folder, self.size, fps)?),
            Source::Http(url) => Box::new(MjpegHttp::new(stream, url)),
            #[cfg(all(target_os = "linux", feature = "v4l2"))]
            Source::V4l2(device) => Box::new(crate::v4l2::V4l2::new(stream, device, fps)),
            #[cfg(not(all(target_os = "linux", feature = "v4l2")))]
            Source::V4l2(_) => {
                let problem = "this program was built without V4L2; build it on Linux with --features v4l2";
                return Err(refuse(problem.into()));
            }
        })
    }
}

/// Rows and columns of an image whose size is written `WIDTHxHEIGHT`, such as `640x480`, and may be any.
pub fn parse_size(text: &str) -> Option<(usize, usize)> {
    let (width, height) = text.split_once('x')?;
    Some((height.parse().ok()?, width.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, Source, Option<(usize, usize)>, Option<f64>) {
        let spec = CameraSpec::parse(text).unwrap();
        (spec.name, spec.source, spec.size, spec.fps)
    }

    #[test]
    fn all_sources_with_and_without_size_and_rate() {
        let front = || "front".to_owned();
        assert_eq!(parse("front=pattern"), (front(), Source::Pattern, None, None));
        assert_eq!(
            parse("front=pattern:640x480@30"),
            (front(), Source::Pattern, Some((480, 640)), Some(30.0))
        );
        assert_eq!(
            parse("front=dir:/a:b@x@7.5"),
            (front(), Source::Directory("/a:b@x".into()), None, Some(7.5))
        );
        let stream = "http://host:8080/stream".to_owned();
        assert_eq!(
            parse("front=http://host:8080/stream"),
            (front(), Source::Http(stream.clone()), None, None)
        );
        assert_eq!(
            parse("front=http://host:8080/stream:32x24"),
            (front(), Source::Http(stream), Some((24, 32)), None)
        );
        assert_eq!(parse("front=http://a@b/"), (front(), Source::Http("http://a@b/".into()), None, None));
        assert_eq!(
            parse("front=v4l2:/dev/video0:640x480@30"),
            (front(), Source::V4l2("/dev/video0".into()), Some((480, 640)), Some(30.0))
        );
    }

    #[test]
    fn errors_show_how_cameras_are_written() {
        for (text, problem) in [
            ("pattern", "camera pattern: it has no name"),
            ("=pattern", "it has no name"),
            ("a/b=pattern", "camera a/b: it has no name of letters"),
            ("front=patern", "camera front: \"patern\" is no source"),
            ("front=dir:", "is no source"),
            ("front=http://", "is no source"),
            ("front=https://host/", "only plain http:// is spoken"),
            ("front=pattern@fast", "\"fast\" is no frame rate"),
            ("front=pattern@0", "0 frames a second"),
            ("front=v4l2:/dev/video0@1", "1 frames a second are none of 3 to 1000"),
            ("front=dir:pictures@2.9", "2.9 frames a second"),
            ("front=pattern@NaN", "NaN frames a second"),
            ("front=pattern:0x480", "0x480 pixels"),
            ("front=pattern:640x9000", "each side may have 1 to 8192"),
        ] {
            let error = CameraSpec::parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(error.contains("front=v4l2:/dev/video0:640x480@30"), "{text}: {error}");
        }
    }

    #[test]
    fn a_parsed_camera_gives_frames() {
        let mut camera = CameraSpec::parse("front=pattern:32x24@1000").unwrap().camera().unwrap();
        camera.open().unwrap();
        let frame = camera.latest().unwrap();
        assert_eq!((frame.height, frame.width, camera.stream().name.as_str()), (24, 32, "front"));
    }

    #[test]
    fn sizes_and_rates_are_looked_at_however_they_come() {
        let good = CameraSpec::parse("front=pattern").unwrap();
        assert!(good.camera().is_ok());
        for (size, fps, problem) in [
            (Some((0, 4)), None, "camera front: 4x0 pixels"),
            (Some((4, 8193)), None, "each side may have 1 to 8192"),
            (None, Some(0.0), "0 frames a second"),
            (None, Some(f64::INFINITY), "inf frames a second"),
        ] {
            let error = CameraSpec { size, fps, ..good.clone() }.camera().err().unwrap().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[cfg(not(feature = "v4l2"))]
    #[test]
    fn a_source_that_was_left_out_is_said() {
        let error = CameraSpec::parse("front=v4l2:/dev/video0").unwrap().camera().err().unwrap();
        assert!(error.to_string().contains("--features v4l2"), "{error}");
    }
}
