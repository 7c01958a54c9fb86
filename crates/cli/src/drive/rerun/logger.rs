//! The thread's end of the log: entities, timelines, pictures.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use re_sdk::{EntityPath, RecordingStream, entity_path};
use re_types::archetypes::{EncodedImage, Scalars, SeriesLines, TextLog};
use re_types::components::{MediaType, TextLogLevel};
use skillweld_robot::{Description, Event, Frame, Joint, Reason};

use super::steps::Step;

/// Of JPEG, 1 … 100: a 640 × 480 image takes some 50 kB instead of 900 kB.
const QUALITY: u8 = 85;
/// So often the SDK is waited for: it keeps in memory what a disk or a network has not taken yet, however much that is. A killed
/// process loses no more than this, and a viewer that is gone is noticed.
const PACE: Duration = Duration::from_secs(1);
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a joint's numbers are logged.
struct JointPaths {
    measured: EntityPath,
    sent: EntityPath,
}

/// Writes steps.
pub(super) struct Logger {
    stream: RecordingStream,
    joints: Vec<Joint>,
    paths: Vec<JointPaths>,
    cameras: Vec<EntityPath>,
    /// Bytes of images that wait to be logged.
    waiting: Arc<AtomicUsize>,
}

impl Logger {
    pub(super) fn new(stream: RecordingStream, robot: &Description, waiting: Arc<AtomicUsize>) -> Self {
        let joint = |Joint { name, .. }: &Joint| JointPaths {
            measured: entity_path!["robot", "joint", name.as_str(), "measured"],
            sent: entity_path!["robot", "joint", name.as_str(), "sent"],
        };
        let paths = robot.joints.iter().map(joint).collect();
        let cameras =
            robot.cameras.iter().map(|camera| entity_path!["robot", "camera", camera.name.as_str()]);
        Self { stream, joints: robot.joints.clone(), paths, cameras: cameras.collect(), waiting }
    }

    /// Logs what is handed over until there is no more; gives the number of steps.
    pub(super) fn log(self, steps: &Receiver<Step>) -> Result<u64> {
        let mut logged = 0;
        let mut flushed = Instant::now();
        for step in steps {
            if logged == 0 {
                self.names()?;
            }
            self.step(&step)?;
            logged += 1;
            if flushed.elapsed() >= PACE {
                self.stream.flush_with_timeout(PATIENCE)?;
                flushed = Instant::now();
            }
        }
        self.stream.flush_with_timeout(PATIENCE)?;
        // The file gets its end mark, or the connection ends.
        self.stream.disconnect();
        Ok(logged)
    }

    /// What the lines are called, with their units.
    fn names(&self) -> Result<()> {
        for (Joint { name, unit, .. }, paths) in self.joints.iter().zip(&self.paths) {
            for (path, what) in [(&paths.measured, "measured"), (&paths.sent, "sent")] {
                let line = SeriesLines::new().with_names([format!("{name} {what}, {unit}")]);
                self.stream.log_static(path.clone(), &line)?;
            }
        }
        Ok(())
    }

    fn step(&self, step: &Step) -> Result<()> {
        let stream = &self.stream;
        stream.set_time_sequence("step", i64::try_from(step.number)?);
        stream.set_duration_secs("time", step.time.as_secs_f64());
        for (index, paths) in self.paths.iter().enumerate() {
            for (path, numbers) in [(&paths.measured, &step.measured), (&paths.sent, &step.sent)] {
                if let Some(number) = numbers.as_ref().and_then(|numbers| numbers.get(index)) {
                    stream.log(path.clone(), &Scalars::single(*number))?;
                }
            }
        }
        if let Some(queued) = step.queued {
            stream.log("loop/queue", &Scalars::single(queued as f64))?;
        }
        if let Some(lateness) = step.lateness {
            stream.log("loop/lateness_ms", &Scalars::single(lateness * 1e3))?;
        }
        step.events.iter().try_for_each(|event| self.event(event))?;
        for (camera, image) in &step.images {
            // Whatever comes of it, it waits no longer.
            self.waiting.fetch_sub(image.rgb.len(), Ordering::Relaxed);
            let picture = EncodedImage::from_file_contents(jpeg(image)?).with_media_type(MediaType::jpeg());
            stream.log(self.cameras[*camera].clone(), &picture)?;
        }
        Ok(())
    }

    fn event(&self, event: &Event) -> Result<()> {
        let stream = &self.stream;
        let line = TextLog::new(event.to_string()).with_level(level(event));
        match event {
            Event::Chunk { latency, routing, .. } => {
                stream.log("policy/latency_ms", &Scalars::single(latency.as_secs_f64() * 1e3))?;
                if routing.is_some() {
                    stream.log("policy/routing", &line)?;
                }
            }
            _ => stream.log("loop/events", &line)?,
        }
        Ok(())
    }
}

/// How much an event is to be looked at.
fn level(event: &Event) -> TextLogLevel {
    let level = match event {
        Event::Chunk { .. }
        | Event::Clamped(_)
        | Event::InterventionBegins
        | Event::InterventionEnds
        | Event::Recovered { .. }
        | Event::TorqueOff(Reason::Over | Reason::Stopped) => TextLogLevel::INFO,
        Event::RobotFailed(_) | Event::TorqueOff(_) | Event::TorqueMayBeOn(_) => TextLogLevel::ERROR,
        _ => TextLogLevel::WARN,
    };
    level.into()
}

fn jpeg(image: &Frame) -> Result<Vec<u8>> {
    let (found, wanted) = (image.rgb.len(), image.height * image.width * 3);
    ensure!(found == wanted, "an image of {} × {} has {found} bytes", image.height, image.width);
    let mut bytes = Vec::new();
    let (width, height) = (u32::try_from(image.width)?, u32::try_from(image.height)?);
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    encoder.encode(&image.rgb, width, height, ExtendedColorType::Rgb8)?;
    Ok(bytes)
}
