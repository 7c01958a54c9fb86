//! The open episode's images: encoded by a thread of their own, kept on the disk until the episode is saved.
//!
//! Each camera has two files in the recording folder: PNG files one after the other, and for each image how often each
//! channel has each value, so that statistics need no second look at pixels. A crash leaves them behind, and nothing else.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use skillweld_robot::Frame;

use crate::statistics::pixels::{self, COUNTS_BYTES, ChannelCounts};
use crate::{RecorderError, image};

/// Takes the frames of one episode.
pub(crate) struct Journal {
    /// Absent once the worker has been told that there are no more frames.
    sender: Option<SyncSender<Vec<Frame>>>,
    worker: Option<JoinHandle<Result<Vec<Track>, RecorderError>>>,
    waiting: Arc<AtomicUsize>,
    /// What waits is not wanted any more.
    forgotten: Arc<AtomicBool>,
}

/// One camera's images of an episode.
#[derive(Debug)]
pub(crate) struct Track {
    images: PathBuf,
    counts: PathBuf,
    /// Where each image ends in the file.
    ends: Vec<u64>,
}

/// Why a frame was not taken.
pub(crate) enum Refused {
    /// So many wait already.
    Full(usize),
    /// The worker has ended, with this error.
    Failed(RecorderError),
}

impl Journal {
    /// Begins files for `cameras` cameras in `folder`; at most `capacity` frames wait for the worker.
    pub(crate) fn start(folder: &Path, cameras: usize, capacity: usize) -> Result<Self, RecorderError> {
        let writers =
            (0..cameras).map(|camera| TrackWriter::create(folder, camera)).collect::<Result<_, _>>()?;
        let (sender, receiver) = sync_channel(capacity);
        let waiting = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&waiting);
        let forgotten = Arc::new(AtomicBool::new(false));
        let forget = Arc::clone(&forgotten);
        let worker = thread::Builder::new()
            .name("recorder".into())
            .spawn(move || work(&receiver, writers, &counter, &forget))
            .map_err(RecorderError::io("start the encoder of", folder))?;
        Ok(Self { sender: Some(sender), worker: Some(worker), waiting, forgotten })
    }

    /// Frames that wait to be encoded.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Hands over one frame's images; never waits.
    pub(crate) fn add(&mut self, images: Vec<Frame>) -> Result<(), Refused> {
        // Counted before the worker can see it, so that the count never falls below 0.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let sent = match &self.sender {
            Some(sender) => sender.try_send(images),
            None => Err(TrySendError::Disconnected(images)),
        };
        if sent.is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        match sent {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Refused::Full(self.waiting())),
            Err(TrySendError::Disconnected(_)) => Err(Refused::Failed(match self.finish() {
                Err(error) => error,
                Ok(_) => lost(),
            })),
        }
    }

    /// Waits until all frames are encoded.
    pub(crate) fn finish(&mut self) -> Result<Vec<Track>, RecorderError> {
        self.sender = None;
        self.worker.take().ok_or_else(lost)?.join().map_err(|_| lost())?
    }
}

/// The worker is gone without a word.
fn lost() -> RecorderError {
    RecorderError::EpisodeLost("their encoder has ended".into())
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.forgotten.store(true, Ordering::Relaxed);
        let _ = self.finish();
    }
}

fn work(
    frames: &Receiver<Vec<Frame>>,
    mut writers: Vec<TrackWriter>,
    waiting: &AtomicUsize,
    forgotten: &AtomicBool,
) -> Result<Vec<Track>, RecorderError> {
    for images in frames {
        if forgotten.load(Ordering::Relaxed) {
            break;
        }
        // Side by side: encoding one takes milliseconds, a thread some ten microseconds.
        thread::scope(|scope| {
            let adding: Vec<_> = writers
                .iter_mut()
                .zip(&images)
                .map(|(writer, image)| scope.spawn(move || writer.add(image)))
                .collect();
            adding.into_iter().try_for_each(|one| one.join().map_err(|_| lost())?)
        })?;
        waiting.fetch_sub(1, Ordering::Relaxed);
    }
    writers.into_iter().map(TrackWriter::finish).collect()
}

struct TrackWriter {
    images: BufWriter<File>,
    counts: BufWriter<File>,
    track: Track,
}

impl TrackWriter {
    fn create(folder: &Path, camera: usize) -> Result<Self, RecorderError> {
        let path = |kind: &str| folder.join(format!("{camera}.{kind}"));
        let track = Track { images: path("images"), counts: path("counts"), ends: Vec::new() };
        let create =
            |path: &Path| File::create(path).map(BufWriter::new).map_err(RecorderError::io("create", path));
        Ok(Self { images: create(&track.images)?, counts: create(&track.counts)?, track })
    }

    fn add(&mut self, frame: &Frame) -> Result<(), RecorderError> {
        let png = image::encode(&frame.rgb, frame.height, frame.width).map_err(RecorderError::EpisodeLost)?;
        self.images.write_all(&png).map_err(RecorderError::io("write", &self.track.images))?;
        let counts = pixels::to_bytes(&pixels::count(&frame.rgb, frame.height, frame.width));
        self.counts.write_all(&counts).map_err(RecorderError::io("write", &self.track.counts))?;
        let begin = self.track.ends.last().copied().unwrap_or(0);
        self.track.ends.push(begin + png.len() as u64);
        Ok(())
    }

    fn finish(mut self) -> Result<Track, RecorderError> {
        self.images.flush().map_err(RecorderError::io("write", &self.track.images))?;
        self.counts.flush().map_err(RecorderError::io("write", &self.track.counts))?;
        Ok(self.track)
    }
}

impl Track {
    /// All images in order.
    pub(crate) fn read(&self) -> Result<TrackReader<'_>, RecorderError> {
        Ok(TrackReader { track: self, file: BufReader::new(self.open()?), next: 0 })
    }

    /// PNG files one after the other.
    pub(crate) fn open(&self) -> Result<File, RecorderError> {
        File::open(&self.images).map_err(RecorderError::io("open", &self.images))
    }

    /// How many there are.
    #[cfg(feature = "mp4")]
    pub(crate) fn images(&self) -> usize {
        self.ends.len()
    }

    /// Counts of the sampled images, summed.
    pub(crate) fn counts(&self, sampled: &[usize]) -> Result<ChannelCounts, RecorderError> {
        let fail = || RecorderError::io("read", &self.counts);
        let mut file = File::open(&self.counts).map_err(fail())?;
        let mut total = [[0; 256]; 3];
        let mut bytes = [0; COUNTS_BYTES];
        for &index in sampled {
            file.seek(SeekFrom::Start((index * COUNTS_BYTES) as u64)).map_err(fail())?;
            file.read_exact(&mut bytes).map_err(fail())?;
            pixels::add_bytes(&mut total, &bytes);
        }
        Ok(total)
    }
}

pub(crate) struct TrackReader<'a> {
    track: &'a Track,
    file: BufReader<File>,
    next: usize,
}

impl TrackReader<'_> {
    /// The next image, a PNG file.
    pub(crate) fn next(&mut self) -> Result<Vec<u8>, RecorderError> {
        let ends = &self.track.ends;
        let begin = if self.next == 0 { 0 } else { ends[self.next - 1] };
        let mut png = vec![0; (ends[self.next] - begin) as usize];
        self.file.read_exact(&mut png).map_err(RecorderError::io("read", &self.track.images))?;
        self.next += 1;
        Ok(png)
    }
}

/// Removes what an open episode has left in the recording folder, and says what it was.
pub(crate) fn remove_tracks(folder: &Path) -> Result<Vec<PathBuf>, RecorderError> {
    let mut removed = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return Ok(removed) };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.extension().is_some_and(|kind| kind == "images" || kind == "counts") {
            fs::remove_file(&path).map_err(RecorderError::io("remove", &path))?;
            removed.push(path);
        }
    }
    removed.sort();
    Ok(removed)
}
