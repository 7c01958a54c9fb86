use std::io::{self, BufReader, Read};
use std::time::{Duration, Instant};

use skillweld_robot::{Camera, CameraStream, Frame, RobotError};
use ureq::Agent;

use crate::decode;
use crate::delay::Delay;
use crate::live::{Feed, Live, OPEN_WITHIN, SLOWEST_FPS, not_open, stale_after};
use crate::multipart::{Parts, boundary};

/// How long the server may take to answer, and then from one piece of the stream to the next.
const SERVER_WITHIN: Duration = Duration::from_secs(2);

/// The first and the longest pause before connecting again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// A network camera: MJPEG (`multipart/x-mixed-replace`) over plain HTTP, as ESP32 cameras, `mjpg-streamer` and telephones
/// send it. A lost connection is made again, after longer and longer pauses.
pub(crate) struct MjpegHttp {
    stream: CameraStream,
    url: String,
    live: Option<Live>,
}

impl MjpegHttp {
    /// `url` begins with `http://`. Frames are brought to the stream's size.
    pub(crate) fn new(stream: CameraStream, url: &str) -> Self {
        Self { stream, url: url.into(), live: None }
    }
}

impl Camera for MjpegHttp {
    fn stream(&self) -> &CameraStream {
        &self.stream
    }

    fn open(&mut self) -> Result<(), RobotError> {
        if self.live.is_none() {
            let url = self.url.clone();
            let live = Live::start(&self.stream, move |feed| read(feed, &url), Box::new(decode::decode))?;
            live.wait(OPEN_WITHIN)?;
            self.live = Some(live);
        }
        Ok(())
    }

    fn latest(&mut self) -> Result<Frame, RobotError> {
        match &self.live {
            // How many frames a second the server sends, it does not say.
            Some(live) => live.latest(stale_after(SLOWEST_FPS)),
            None => Err(not_open(&self.stream)),
        }
    }

    /// Waits for the thread that reads: two seconds at most.
    fn close(&mut self) {
        self.live = None;
    }
}

fn read(feed: &Feed, url: &str) {
    let agent = Agent::new_with_config(
        Agent::config_builder()
            .timeout_resolve(Some(SERVER_WITHIN))
            .timeout_connect(Some(SERVER_WITHIN))
            .timeout_recv_response(Some(SERVER_WITHIN))
            // For each piece, not for the whole: a stream has no end.
            .timeout_per_read(Some(SERVER_WITHIN))
            .build(),
    );
    let mut pause = PAUSES.0;
    while !feed.stopped() {
        let mut frames = 0usize;
        let problem = connection(feed, &agent, url, &mut frames);
        feed.problem(format!("{url}: {problem}"));
        pause = if frames > 0 { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
        feed.pause(pause);
    }
}

/// Reads from one connection until it ends, and says why it did.
fn connection(feed: &Feed, agent: &Agent, url: &str, frames: &mut usize) -> String {
    let response = match agent.get(url).call() {
        Ok(response) => response,
        Err(error) => return error.to_string(),
    };
    let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok());
    let boundary = match boundary(kind.unwrap_or("nothing")) {
        Ok(boundary) => boundary,
        Err(problem) => return problem,
    };
    let reader = UntilStopped { reader: response.into_body().into_reader(), feed };
    let reader = BufReader::with_capacity(1 << 16, reader);
    let mut parts = Parts::new(reader, boundary, decode::MAX_IMAGE_BYTES);
    let mut delay = Delay::default();
    while !feed.stopped() {
        match parts.next() {
            // The light fell in earlier, by exposure and network, which no server says. How much later than others an image comes,
            // some say.
            Ok(Some(part)) => {
                let arrived = Instant::now();
                let captured = part.stamp_s.map_or(arrived, |stamp_s| delay.captured(arrived, stamp_s));
                feed.raw(part.content, captured);
            }
            Ok(None) => return "the server has ended the stream".into(),
            Err(error) => return error.to_string(),
        }
        *frames += 1;
    }
    "closed".into()
}

/// Ends a part that comes in drops as well: each drop is in time, and there may be millions.
struct UntilStopped<'a, R> {
    reader: R,
    feed: &'a Feed,
}

impl<R: Read> Read for UntilStopped<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.feed.stopped() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed"));
        }
        self.reader.read(buffer)
    }
}
