use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use skillweld_robot::{Camera, CameraStream, Frame, RobotError};

use crate::decode;
use crate::live::{Feed, Live, OPEN_WITHIN, not_open, stale_after};

/// The images of a folder, by name, again and again: recorded pictures in a camera's place.
pub(crate) struct ImageDirectory {
    stream: CameraStream,
    files: Vec<PathBuf>,
    fps: f64,
    live: Option<Live>,
}

impl ImageDirectory {
    /// PNG and JPEG files of `folder`, `fps` a second, above 0. Frames have `size` (rows, columns), or the first image's.
    ///
    /// # Errors
    /// [`RobotError::Camera`] when the folder cannot be listed, has no image, or the first cannot be read.
    pub(crate) fn new(
        name: &str,
        folder: &Path,
        size: Option<(usize, usize)>,
        fps: f64,
    ) -> Result<Self, RobotError> {
        let fail = |problem: String| RobotError::Camera { camera: name.into(), problem };
        let entries = fs::read_dir(folder)
            .map_err(|error| fail(format!("cannot list {}: {error}", folder.display())))?;
        let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|path| {
            let kind = path.extension().map(|kind| kind.to_string_lossy().to_lowercase());
            matches!(kind.as_deref(), Some("png" | "jpg" | "jpeg"))
        });
        files.sort();
        let first = files.first().ok_or_else(|| {
            fail(format!("{} has no .png, .jpg or .jpeg file; put some there", folder.display()))
        })?;
        let (height, width) = match size {
            Some(size) => size,
            None => read(first)
                .and_then(|bytes| decode::size(&bytes))
                .map_err(|problem| fail(format!("{}: {problem}; replace it", first.display())))?,
        };
        Ok(Self { stream: CameraStream { name: name.into(), height, width }, files, fps, live: None })
    }
}

impl Camera for ImageDirectory {
    fn stream(&self) -> &CameraStream {
        &self.stream
    }

    fn open(&mut self) -> Result<(), RobotError> {
        if self.live.is_none() {
            let (files, fps) = (self.files.clone(), self.fps);
            let read = move |feed: &Feed| play(feed, &files, fps);
            let live = Live::start(&self.stream, read, Box::new(decode::decode))?;
            live.wait(OPEN_WITHIN)?;
            self.live = Some(live);
        }
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

fn read(path: &Path) -> Result<Vec<u8>, String> {
    // One byte more than is taken: decoding refuses that.
    let limit = decode::MAX_IMAGE_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Shows each file in its time; one that cannot be read is passed over.
fn play(feed: &Feed, files: &[PathBuf], fps: f64) {
    let began = Instant::now();
    for number in 0u64.. {
        let due = began + Duration::from_secs_f64(number as f64 / fps);
        feed.pause(due.saturating_duration_since(Instant::now()));
        if feed.stopped() {
            return;
        }
        let path = &files[(number % files.len() as u64) as usize];
        match read(path) {
            Ok(bytes) => feed.raw(bytes, due),
            Err(problem) => feed.problem(format!("{}: {problem}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(folder: &Path, name: &str, width: u32, grey: u8) {
        image::RgbImage::from_pixel(width, 4, image::Rgb([grey; 3])).save(folder.join(name)).unwrap();
    }

    #[test]
    fn files_are_shown_by_name_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        for (name, width, grey) in [("b.png", 8, 20), ("a.png", 6, 10), ("c.PNG", 6, 30)] {
            save(folder.path(), name, width, grey);
        }
        fs::write(folder.path().join("notes.txt"), "no image").unwrap();
        let mut camera = ImageDirectory::new("front", folder.path(), None, 50.0).unwrap();
        assert_eq!((camera.stream().height, camera.stream().width), (4, 6));
        assert!(camera.latest().is_err());
        camera.open().unwrap();
        let mut seen = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        while seen.len() < 7 && Instant::now() < deadline {
            let frame = camera.latest().unwrap();
            assert_eq!((frame.height, frame.width, frame.rgb.len()), (4, 6, 4 * 6 * 3));
            if seen.last().is_none_or(|&(_, captured)| captured != frame.captured) {
                seen.push((frame.rgb[0], frame.captured));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        camera.close();
        // A frame may be missed on a busy machine; each still stands at its time: 20 ms a file.
        let (first, start) = (usize::from(seen[0].0) / 10 - 1, seen[0].1);
        for (grey, captured) in seen {
            let number = ((captured - start).as_secs_f64() * 50.0).round() as usize;
            assert_eq!(grey, [10, 20, 30][(first + number) % 3]);
        }
    }

    #[test]
    fn folders_without_images_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            |folder: &Path| ImageDirectory::new("wrist", folder, None, 10.0).err().unwrap().to_string();
        assert!(error(folder.path()).contains("camera wrist: ") && error(folder.path()).contains("no .png"));
        assert!(error(&folder.path().join("nothing")).contains("cannot list"));
        fs::write(folder.path().join("a.png"), "hello").unwrap();
        assert!(error(folder.path()).contains("neither PNG nor JPEG; replace it"));
    }
}
