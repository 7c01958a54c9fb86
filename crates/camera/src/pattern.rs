use std::time::{Duration, Instant};

use skillweld_robot::{Camera, CameraStream, Frame, RobotError};

use crate::live::not_open;

/// A moving picture that follows from the frame's number: coloured ramps that drift, and a bright square that crosses them.
/// For tests and for trying things without a camera.
#[derive(Debug)]
pub(crate) struct Pattern {
    stream: CameraStream,
    fps: f64,
    opened: Option<Instant>,
    /// The frame of this number is made already.
    made: Option<(u64, Frame)>,
}

/// The square's side, as a part of the image's shorter side.
const SQUARE: usize = 6;

impl Pattern {
    /// `fps` frames a second, above 0.
    pub(crate) fn new(stream: CameraStream, fps: f64) -> Self {
        Self { stream, fps, opened: None, made: None }
    }

    /// Frame `number`: height × width × 3 bytes.
    pub(crate) fn image(stream: &CameraStream, number: u64) -> Vec<u8> {
        let (height, width) = (stream.height, stream.width);
        let side = (height.min(width) / SQUARE).max(1);
        let shift = number as usize;
        // Crosses a row in about two seconds, and then goes on further down.
        let step = shift.wrapping_mul((width / 60).max(1));
        let left = step % width.max(1);
        let top = (step / width.max(1)).wrapping_mul(side) % height.max(1);
        let mut pixels = Vec::with_capacity(height * width * 3);
        for row in 0..height {
            for column in 0..width {
                let inside = (top..top + side).contains(&row) && (left..left + side).contains(&column);
                pixels.extend_from_slice(&if inside {
                    [255, 255, 255]
                } else {
                    [
                        (column.wrapping_add(shift)) as u8,
                        (row.wrapping_add(shift)) as u8,
                        (row ^ column) as u8 / 2,
                    ]
                });
            }
        }
        pixels
    }
}

impl Camera for Pattern {
    fn stream(&self) -> &CameraStream {
        &self.stream
    }

    fn open(&mut self) -> Result<(), RobotError> {
        self.opened.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn latest(&mut self) -> Result<Frame, RobotError> {
        let Some(opened) = self.opened else {
            return Err(not_open(&self.stream));
        };
        let number = (opened.elapsed().as_secs_f64() * self.fps) as u64;
        if let Some((made, frame)) = &self.made
            && *made == number
        {
            return Ok(frame.clone());
        }
        let frame = Frame {
            rgb: Self::image(&self.stream, number).into(),
            height: self.stream.height,
            width: self.stream.width,
            // When a camera of this rate would have taken it.
            captured: opened + Duration::from_secs_f64(number as f64 / self.fps),
        };
        self.made = Some((number, frame.clone()));
        Ok(frame)
    }

    fn close(&mut self) {
        self.opened = None;
        self.made = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> CameraStream {
        CameraStream { name: "front".into(), height: 12, width: 60 }
    }

    #[test]
    fn the_square_moves_and_all_else_drifts() {
        let (first, second) = (Pattern::image(&stream(), 0), Pattern::image(&stream(), 1));
        assert_eq!(first.len(), 12 * 60 * 3);
        // Side 2, one column a frame.
        assert_eq!((first[..6].to_vec(), &first[6..9]), (vec![255; 6], &[2, 0, 1][..]));
        assert_eq!((&second[..3], &second[3..9]), (&[1, 1, 0][..], &[255; 6][..]));
        assert_eq!(Pattern::image(&stream(), 1), second);
        // A whole row later: back on the left, one square further down.
        let later = Pattern::image(&stream(), 60);
        assert_eq!(later[2 * 60 * 3..2 * 60 * 3 + 3], [255; 3]);
    }

    #[test]
    fn frames_come_at_the_rate() {
        let mut camera = Pattern::new(stream(), 100.0);
        assert!(camera.latest().is_err());
        camera.open().unwrap();
        let opened = camera.opened.unwrap();
        std::thread::sleep(Duration::from_millis(25));
        let frame = camera.latest().unwrap();
        let number = (frame.captured - opened).as_secs_f64() * 100.0;
        assert!(number >= 1.9 && (number - number.round()).abs() < 1e-4, "{number}");
        assert_eq!(frame.rgb[..], Pattern::image(&stream(), number.round() as u64)[..]);
        assert!(frame.captured <= Instant::now());
        camera.close();
        assert!(camera.latest().is_err());
    }
}
