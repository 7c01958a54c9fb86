#![allow(clippy::all, missing_docs, clippy::print_stdout, clippy::unwrap_used)]
use skillweld_recorder::*;
use skillweld_robot::{CameraStream, Frame};
use std::time::{Duration, Instant};
fn main() {
    let dir = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let cams = ["front", "wrist"].map(|n| CameraStream { name: n.into(), height: 480, width: 640 });
    let spec = Spec {
        robot: "x".into(),
        fps: 30,
        state: (0..6).map(|i| format!("{i}")).collect(),
        action: (0..6).map(|i| format!("{i}")).collect(),
        cameras: cams.to_vec(),
        extras: vec![Extra::intervention()],
        tasks: vec![],
    };
    let mut r = Recorder::create(&dir, spec).unwrap();
    let mut s = 1u32;
    let imgs: Vec<Vec<u8>> = (0..10)
        .map(|k| {
            (0..480 * 640 * 3)
                .map(|i: usize| {
                    s ^= s << 13;
                    s ^= s >> 17;
                    s ^= s << 5;
                    let (y, x) = (i / 1920, i % 1920 / 3);
                    (((x + k * 5) as f32 / 40.0).sin() * 60.0
                        + ((y as f32) / 60.0).cos() * 60.0
                        + 120.0
                        + (s % 5) as f32) as u8
                })
                .collect()
        })
        .collect();
    r.start_episode("t").unwrap();
    let t = Instant::now();
    let (mut worst, mut behind) = (Duration::ZERO, 0);
    for f in 0..300usize {
        let images: Vec<Frame> = (0..2)
            .map(|c| Frame {
                rgb: imgs[(f + c) % 10].clone().into(),
                height: 480,
                width: 640,
                captured: Instant::now(),
            })
            .collect();
        loop {
            let b = Instant::now();
            let res = r.add_frame(&NewFrame {
                state: &[0.1 * f as f64; 6],
                action: &[0.2; 6],
                images: &images,
                extras: &[ExtraValue::Bool(false)],
                timestamp: None,
            });
            worst = worst.max(b.elapsed());
            match res {
                Ok(()) => break,
                Err(RecorderError::Behind { .. }) => {
                    behind += 1;
                    std::thread::sleep(Duration::from_millis(5))
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
    while r.waiting() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let enc = t.elapsed();
    let t = Instant::now();
    r.save_episode().unwrap();
    println!(
        "600 images encoded in {:?} = {:.2} ms each; add_frame worst {worst:?}; behind {behind}; save {:?}",
        enc,
        enc.as_secs_f64() * 1e3 / 600.0,
        t.elapsed()
    );
    println!(
        "{}",
        std::fs::read_to_string("/proc/self/status")
            .unwrap()
            .lines()
            .filter(|l| l.starts_with("VmHWM"))
            .collect::<String>()
    );
    r.finish().unwrap();
}
