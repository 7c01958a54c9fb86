//! A camera that runs on threads of its own: one reads, one decodes the newest of what was read, and whoever asks gets the
//! newest frame at once. Nothing queues up: what comes faster than it is decoded is left out, so that frames are never late.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use skillweld_robot::{CameraStream, Frame, RobotError};

use crate::decode::Rgb;
use crate::resize::resize;

/// Fewer frames a second are no camera for an arm: three periods are a second, and older images move nothing.
pub(crate) const SLOWEST_FPS: f64 = 3.0;

/// How old the latest frame of a running camera may be: at 30 frames a second fifteen are missing by then, at fewer three.
pub(crate) fn stale_after(fps: f64) -> Duration {
    Duration::from_secs_f64((3.0 / fps).max(0.5))
}

/// How long a camera may take until its first frame.
pub(crate) const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// What a camera says that is asked for a frame before it is opened.
pub(crate) fn not_open(stream: &CameraStream) -> RobotError {
    RobotError::Camera { camera: stream.name.clone(), problem: "it is not open; open it first".into() }
}

/// Turns what was read into pixels of any size.
pub(crate) type Decode = dyn Fn(&[u8]) -> Result<Rgb, String> + Send;

pub(crate) struct Live {
    feed: Arc<Feed>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads of a camera share.
pub(crate) struct Feed {
    stream: CameraStream,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Newest image as it came, until it is decoded.
    raw: Option<(Vec<u8>, Instant)>,
    frame: Option<Frame>,
    /// What went wrong last; nothing once a frame has come after it.
    problem: Option<String>,
    stop: bool,
}

impl Live {
    /// Starts the threads. `read` runs until [`Feed::stopped`].
    pub(crate) fn start(
        stream: &CameraStream,
        read: impl FnOnce(&Feed) + Send + 'static,
        decode: Box<Decode>,
    ) -> Result<Self, RobotError> {
        let feed = Arc::new(Feed {
            stream: stream.clone(),
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        });
        let (for_reader, for_decoder) = (Arc::clone(&feed), Arc::clone(&feed));
        let mut live = Self { feed, threads: Vec::new() };
        // Each is kept as soon as it runs: if the second cannot be started, dropping ends the first.
        live.spawn("reader", move || read(&for_reader))?;
        live.spawn("decoder", move || for_decoder.decode(&*decode))?;
        Ok(live)
    }

    fn spawn(&mut self, what: &str, run: impl FnOnce() + Send + 'static) -> Result<(), RobotError> {
        let name = format!("camera-{what}");
        let thread = thread::Builder::new()
            .name(name)
            .spawn(run)
            .map_err(|error| self.feed.error(format!("no thread to be had: {error}")))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Waits for the first frame.
    pub(crate) fn wait(&self, limit: Duration) -> Result<(), RobotError> {
        let deadline = Instant::now() + limit;
        let mut state = self.feed.state();
        while state.frame.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = state.problem.take().unwrap_or_else(|| "nothing came".into());
                return Err(self.feed.error(format!("no frame within {} s: {why}", limit.as_secs_f64())));
            }
            state = self.feed.wait(state, left);
        }
        Ok(())
    }

    /// The newest frame, unless it is older than `stale_after`.
    pub(crate) fn latest(&self, stale_after: Duration) -> Result<Frame, RobotError> {
        let state = self.feed.state();
        let Some(frame) = &state.frame else {
            return Err(self.feed.error("it has given no frame yet; open it first".into()));
        };
        let age = frame.captured.elapsed();
        if age > stale_after {
            let why = state.problem.as_deref().unwrap_or("nothing newer came");
            let (age_ms, limit_ms) = (age.as_millis(), stale_after.as_millis());
            return Err(self.feed.error(format!(
                "its latest frame is {age_ms} ms old, {limit_ms} ms are allowed ({why}); check its cable, its server, and \
                 whether something else uses it"
            )));
        }
        Ok(frame.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.feed.state().stop = true;
        self.feed.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Feed {
    /// A panic of a camera's thread leaves nothing half-written: each change is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
    }

    fn error(&self, problem: String) -> RobotError {
        RobotError::Camera { camera: self.stream.name.clone(), problem }
    }

    pub(crate) fn stopped(&self) -> bool {
        self.state().stop
    }

    /// Waits, but not after the camera is to stop.
    pub(crate) fn pause(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut state = self.state();
        while !state.stop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.wait(state, left);
        }
    }

    /// Something to be decoded has come; what was not yet decoded is forgotten.
    pub(crate) fn raw(&self, bytes: Vec<u8>, captured: Instant) {
        self.state().raw = Some((bytes, captured));
        self.changed.notify_all();
    }

    pub(crate) fn problem(&self, problem: String) {
        self.state().problem = Some(problem);
    }

    fn decode(&self, decode: &Decode) {
        let mut state = self.state();
        while !state.stop {
            let Some((bytes, captured)) = state.raw.take() else {
                state = self.wait(state, Duration::from_secs(1));
                continue;
            };
            drop(state);
            let decoded = decode(&bytes);
            state = self.state();
            match decoded {
                Ok(rgb) => {
                    drop(state);
                    let rgb = resize(rgb, self.stream.height, self.stream.width);
                    let (height, width) = (rgb.height, rgb.width);
                    state = self.state();
                    state.frame = Some(Frame { rgb: rgb.pixels.into(), height, width, captured });
                    state.problem = None;
                    self.changed.notify_all();
                }
                Err(problem) => state.problem = Some(problem),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> CameraStream {
        CameraStream { name: "front".into(), height: 1, width: 1 }
    }

    /// A "camera" whose images are one byte: a grey pixel.
    fn grey(bytes: &[u8]) -> Result<Rgb, String> {
        match bytes {
            [value] => Ok(Rgb { pixels: vec![*value; 3], height: 1, width: 1 }),
            _ => Err("not one byte".into()),
        }
    }

    #[test]
    fn frames_may_be_older_where_fewer_come_but_not_older_than_the_loop_takes() {
        assert_eq!(stale_after(1000.0), Duration::from_millis(500));
        assert_eq!(stale_after(30.0), Duration::from_millis(500));
        assert_eq!(stale_after(5.0), Duration::from_millis(600));
        // `STALE_FRAME` of the loop's watchdog.
        assert_eq!(stale_after(SLOWEST_FPS), Duration::from_secs(1));
    }

    #[test]
    fn a_stale_frame_is_refused_with_its_age_and_the_reason() {
        let read = |feed: &Feed| {
            feed.raw(vec![5], Instant::now());
            while feed.state().frame.is_none() {
                feed.pause(Duration::from_millis(1));
            }
            feed.problem("the cable is out".into());
            while !feed.stopped() {
                feed.pause(Duration::from_secs(9));
            }
        };
        let live = Live::start(&stream(), read, Box::new(grey)).unwrap();
        live.wait(OPEN_WITHIN).unwrap();
        let frame = live.latest(Duration::from_secs(60)).unwrap();
        assert_eq!(frame.rgb[..], [5, 5, 5]);
        thread::sleep(Duration::from_millis(30));
        assert!(frame.captured.elapsed() >= Duration::from_millis(30));
        let error = live.latest(Duration::from_millis(20)).unwrap_err().to_string();
        assert!(error.starts_with("camera front: its latest frame is "), "{error}");
        assert!(error.contains("20 ms are allowed (the cable is out)"), "{error}");
        let began = Instant::now();
        drop(live);
        assert!(began.elapsed() < Duration::from_secs(5), "stopping does not wait out the reader's pause");
    }

    #[test]
    fn what_cannot_be_decoded_is_said_when_no_frame_comes() {
        let read = |feed: &Feed| {
            while !feed.stopped() {
                feed.raw(vec![1, 2], Instant::now());
                feed.pause(Duration::from_millis(2));
            }
        };
        let live = Live::start(&stream(), read, Box::new(grey)).unwrap();
        let error = live.wait(Duration::from_millis(100)).unwrap_err().to_string();
        assert_eq!(error, "camera front: no frame within 0.1 s: not one byte");
        assert!(live.latest(stale_after(30.0)).is_err());
    }

    #[test]
    fn only_the_newest_is_decoded() {
        let read = |feed: &Feed| {
            for value in 0..=200 {
                feed.raw(vec![value], Instant::now());
            }
            while !feed.stopped() {
                feed.pause(Duration::from_secs(9));
            }
        };
        let slow = |bytes: &[u8]| {
            thread::sleep(Duration::from_millis(50));
            grey(bytes)
        };
        let live = Live::start(&stream(), read, Box::new(slow)).unwrap();
        live.wait(OPEN_WITHIN).unwrap();
        // The first decoded may be any, the next is the last: in a queue it would come after ten seconds.
        let deadline = Instant::now() + Duration::from_secs(5);
        while live.latest(OPEN_WITHIN * 2).unwrap().rgb[0] != 200 {
            assert!(Instant::now() < deadline, "old images are decoded one after the other");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
