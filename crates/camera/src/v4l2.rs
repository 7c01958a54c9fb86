use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use linuxvideo::format::{PixFormat, PixelFormat};
use linuxvideo::{BufType, Device, Fract, stream::ReadStream};
use skillweld_robot::{Camera, CameraStream, Frame, RobotError};

use crate::decode::{self, Rgb};
use crate::live::{Feed, Live, OPEN_WITHIN, not_open, stale_after};
use crate::yuyv;

/// How long the reader sleeps between two looks for a frame: what a frame's time may be late.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Pause before an unplugged device is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(500);

/// A camera of this machine, through Video4Linux. It is asked for MJPG, and where it does not speak that for YUYV.
pub(crate) struct V4l2 {
    stream: CameraStream,
    device: PathBuf,
    fps: f64,
    live: Option<Live>,
}

/// What the driver has chosen: the size nearest to the one asked for.
#[derive(Clone, Copy, PartialEq)]
struct Format {
    kind: PixelFormat,
    height: usize,
    width: usize,
    stride: usize,
}

impl V4l2 {
    /// `device` is for example `/dev/video0`. Frames are brought to the stream's size where the driver gives another.
    pub(crate) fn new(stream: CameraStream, device: &Path, fps: f64) -> Self {
        Self { stream, device: device.into(), fps, live: None }
    }

    fn error(&self, problem: String) -> RobotError {
        RobotError::Camera { camera: self.stream.name.clone(), problem }
    }
}

impl Camera for V4l2 {
    fn stream(&self) -> &CameraStream {
        &self.stream
    }

    fn open(&mut self) -> Result<(), RobotError> {
        if self.live.is_some() {
            return Ok(());
        }
        let (size, fps) = ((self.stream.height, self.stream.width), self.fps);
        let (format, first) = start(&self.device, size, fps).map_err(|problem| self.error(problem))?;
        let device = self.device.clone();
        let read = move |feed: &Feed| {
            let mut running = Some(first);
            while !feed.stopped() {
                let problem = match running.take() {
                    Some(stream) => frames(feed, stream).to_string(),
                    None => match start(&device, size, fps) {
                        Ok((again, stream)) if again == format => {
                            running = Some(stream);
                            continue;
                        }
                        Ok(_) => "came back with another format; close and open it".into(),
                        Err(problem) => problem,
                    },
                };
                feed.problem(problem);
                feed.pause(REOPEN_AFTER);
            }
        };
        let live = Live::start(&self.stream, read, Box::new(move |bytes| format.decode(bytes)))?;
        live.wait(OPEN_WITHIN)?;
        self.live = Some(live);
        Ok(())
    }

    fn latest(&mut self) -> Result<Frame, RobotError> {
        match &self.live {
            Some(live) => live.latest(stale_after(self.fps)),
            None => Err(not_open(&self.stream)),
        }
    }

    fn close(&mut self) {
        self.live = None;
    }
}

impl Format {
    fn decode(&self, bytes: &[u8]) -> Result<Rgb, String> {
        if self.kind == PixelFormat::YUYV {
            yuyv::to_rgb(bytes, self.height, self.width, self.stride)
        } else {
            decode::decode(bytes)
        }
    }
}

/// Opens the device and lets it run.
fn start(path: &Path, size: (usize, usize), fps: f64) -> Result<(Format, ReadStream), String> {
    let open = |error: io::Error| format!("cannot open {}: {error}; {}", path.display(), devices());
    let device = Device::open(path).map_err(open)?;
    let fail = |what: &str, error: io::Error| format!("{}: cannot {what}: {error}", path.display());
    let kinds: Vec<_> = device
        .formats(BufType::VIDEO_CAPTURE)
        .filter_map(|format| Some(format.ok()?.pixel_format()))
        .collect();
    let Some(kind) = [PixelFormat::MJPG, PixelFormat::YUYV].into_iter().find(|kind| kinds.contains(kind))
    else {
        return Err(format!("{} gives neither MJPG nor YUYV but {kinds:?}; {}", path.display(), devices()));
    };
    let wanted = PixFormat::new(size.1 as u32, size.0 as u32, kind);
    let capture = device.video_capture(wanted).map_err(|error| fail("set its format", error))?;
    let chosen = capture.format();
    let format = Format {
        kind: chosen.pixel_format(),
        height: chosen.height() as usize,
        width: chosen.width() as usize,
        stride: chosen.bytes_per_line() as usize,
    };
    if format.kind != kind {
        return Err(format!("{} insists on {:?}, which is not read", path.display(), format.kind));
    }
    // Drivers without this run at their own rate.
    let _ = capture.set_frame_interval(Fract::new(1000, (fps * 1000.0).round().max(1.0) as u32));
    let stream = capture.into_stream().map_err(|error| fail("start it", error))?;
    Ok((format, stream))
}

/// Hands on frames until the device fails, or the camera is to stop.
fn frames(feed: &Feed, mut stream: ReadStream) -> io::Error {
    while !feed.stopped() {
        match stream.will_block() {
            Ok(true) => feed.pause(LOOK_EVERY),
            Ok(false) => {
                let frame = stream.dequeue(|frame| Ok((!frame.is_error()).then(|| frame.to_vec())));
                match frame {
                    Ok(Some(bytes)) => feed.raw(bytes, Instant::now()),
                    Ok(None) => {}
                    Err(error) => return error,
                }
            }
            Err(error) => return error,
        }
    }
    io::ErrorKind::Interrupted.into()
}

/// What there is to choose from.
fn devices() -> String {
    let entries = fs::read_dir("/dev").into_iter().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path().to_str()?.to_owned()))
        .filter(|name| name.starts_with("/dev/video"))
        .collect();
    names.sort();
    if names.is_empty() {
        "this machine has no /dev/video*: plug a camera in".into()
    } else {
        format!("there are {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_none_is_named_with_those_that_there_are() {
        let stream = CameraStream { name: "front".into(), height: 480, width: 640 };
        for path in ["/dev/video-that-is-not-there", "/dev/null"] {
            let mut camera = V4l2::new(stream.clone(), Path::new(path), 30.0);
            let error = camera.open().unwrap_err().to_string();
            assert!(error.starts_with(&format!("camera front: cannot open {path}: ")), "{error}");
            assert!(error.contains("/dev/video*") || error.contains("there are /dev/video"), "{error}");
            assert!(camera.latest().unwrap_err().to_string().contains("not open"));
        }
    }
}
