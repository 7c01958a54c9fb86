//! MJPEG over HTTP against small servers: well-behaved, broken, and gone.
#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is a failed test")]

use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use skillweld_camera::{CameraSpec, Source};
use skillweld_robot::{Camera, Frame};

/// Serves each connection in turn with one of the functions, the last again and again; gives the address.
fn serve(answers: Vec<fn(&mut TcpStream) -> std::io::Result<()>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, connection) in listener.incoming().enumerate() {
            let mut connection = connection.unwrap();
            let mut reader = BufReader::new(connection.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                line.clear();
            }
            let _ = answers[number.min(answers.len() - 1)](&mut connection);
        }
    });
    format!("http://{address}/stream")
}

fn camera(url: &str) -> Box<dyn Camera> {
    let (name, source) = ("front".into(), Source::Http(url.into()));
    CameraSpec { name, source, size: Some((12, 16)), fps: None }.camera().unwrap()
}

/// Its latest frame, asked for again where a busy machine has kept the stream for more than a second.
fn latest(camera: &mut dyn Camera) -> Frame {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match camera.latest() {
            Ok(frame) => return frame,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A grey JPEG of 32 × 24 pixels.
fn jpeg(grey: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = image::RgbImage::from_pixel(32, 24, image::Rgb([grey; 3]));
    image.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Jpeg).unwrap();
    bytes
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=cut\r\n\r\n";

fn part(connection: &mut TcpStream, grey: u8) -> std::io::Result<()> {
    let jpeg = jpeg(grey);
    write!(connection, "--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len())?;
    connection.write_all(&jpeg)?;
    connection.write_all(b"\r\n")
}

fn endless(connection: &mut TcpStream) -> std::io::Result<()> {
    connection.write_all(HEAD)?;
    for grey in (0..=250).cycle().step_by(10) {
        part(connection, grey)?;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[test]
fn frames_come_resized_and_fresh() {
    let mut camera = camera(&serve(vec![endless]));
    assert!(camera.latest().unwrap_err().to_string().contains("not open"));
    camera.open().unwrap();
    let mut changes = 0;
    let mut last = None;
    let deadline = Instant::now() + Duration::from_secs(10);
    while changes < 5 && Instant::now() < deadline {
        let frame = latest(&mut *camera);
        assert_eq!((frame.height, frame.width, frame.rgb.len()), (12, 16, 12 * 16 * 3));
        // JPEG keeps a grey area to a level or two.
        assert!(frame.rgb.iter().all(|&value| value.abs_diff(frame.rgb[0]) <= 2));
        changes += usize::from(last.is_some_and(|last| last != frame.captured));
        last = Some(frame.captured);
        thread::sleep(Duration::from_millis(3));
    }
    assert_eq!(changes, 5);
    camera.close();
    assert!(camera.latest().is_err());
    camera.open().unwrap();
}

#[test]
fn parts_in_chunks_and_without_lengths_are_read() {
    let chunked = |connection: &mut TcpStream| {
        connection.write_all(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
            Content-Type: multipart/x-mixed-replace;boundary=\"--cut\"\r\n\r\n",
        )?;
        loop {
            let part = [b"--cut\r\n\r\n".as_slice(), &jpeg(90), b"\r\n"].concat();
            // Cut at an odd place, as small servers do.
            for piece in part.chunks(part.len() / 2 + 1) {
                write!(connection, "{:x}\r\n", piece.len())?;
                connection.write_all(piece)?;
                connection.write_all(b"\r\n")?;
            }
            thread::sleep(Duration::from_millis(5));
        }
    };
    let mut camera = camera(&serve(vec![chunked]));
    camera.open().unwrap();
    assert!(latest(&mut *camera).rgb[0].abs_diff(90) <= 2);
}

#[test]
fn a_lost_connection_is_made_again() {
    let once = |connection: &mut TcpStream| {
        connection.write_all(HEAD)?;
        part(connection, 10)
    };
    let broken =
        |connection: &mut TcpStream| connection.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    let mut camera = camera(&serve(vec![once, broken, endless]));
    camera.open().unwrap();
    let opened = Instant::now();
    // The first connection gave one frame, the second none, the third gives many.
    while latest(&mut *camera).captured < opened {
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_silent_server_makes_frames_stale() {
    let silent = |connection: &mut TcpStream| {
        connection.write_all(HEAD)?;
        part(connection, 10)?;
        thread::sleep(Duration::from_secs(60));
        Ok(())
    };
    let mut camera = camera(&serve(vec![silent]));
    camera.open().unwrap();
    thread::sleep(Duration::from_millis(1100));
    let before = Instant::now();
    let error = camera.latest().unwrap_err().to_string();
    assert!(before.elapsed() < Duration::from_secs(1), "it waits for the server");
    assert!(error.starts_with("camera front: its latest frame is "), "{error}");
    assert!(error.contains("1000 ms are allowed"), "{error}");
    let before = Instant::now();
    camera.close();
    assert!(before.elapsed() < Duration::from_secs(4));
}

/// It sends in time, but what it sends has waited longer and longer.
#[test]
fn images_that_are_late_by_their_own_stamps_are_stale() {
    let late = |connection: &mut TcpStream| {
        connection.write_all(HEAD)?;
        for image in 0.. {
            let jpeg = jpeg(90);
            // A tenth of the time that passes.
            write!(connection, "--cut\r\nX-Timestamp: 50.{:06}\r\n", image * 1000)?;
            write!(connection, "Content-Length: {}\r\n\r\n", jpeg.len())?;
            connection.write_all(&jpeg)?;
            connection.write_all(b"\r\n")?;
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    };
    let mut camera = camera(&serve(vec![late]));
    camera.open().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let error = loop {
        match camera.latest() {
            Ok(frame) => assert!(frame.captured.elapsed() < Duration::from_secs(2)),
            Err(error) => break error.to_string(),
        }
        assert!(Instant::now() < deadline, "late images count as new");
        thread::sleep(Duration::from_millis(5));
    };
    assert!(error.contains("1000 ms are allowed (nothing newer came)"), "{error}");
}

#[test]
fn a_server_that_sends_drops_is_closed_in_time() {
    let drops = |connection: &mut TcpStream| {
        connection.write_all(HEAD)?;
        part(connection, 10)?;
        connection.write_all(b"--cut\r\nContent-Length: 1000000\r\n\r\n")?;
        loop {
            connection.write_all(b"x")?;
            thread::sleep(Duration::from_millis(20));
        }
    };
    let mut camera = camera(&serve(vec![drops]));
    camera.open().unwrap();
    thread::sleep(Duration::from_millis(100));
    let before = Instant::now();
    camera.close();
    assert!(before.elapsed() < Duration::from_secs(4));
}

#[test]
fn what_is_no_stream_is_said() {
    let not_found = |connection: &mut TcpStream| {
        connection.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };
    let picture = |connection: &mut TcpStream| {
        connection.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
        )
    };
    let huge = |connection: &mut TcpStream| {
        connection.write_all(HEAD)?;
        connection.write_all(b"--cut\r\nContent-Length: 99999999999\r\n\r\n")
    };
    let noise = |connection: &mut TcpStream| {
        connection.write_all(HEAD)?;
        loop {
            connection.write_all(b"--cut\r\nContent-Length: 4\r\n\r\nnope\r\n")?;
            thread::sleep(Duration::from_millis(5));
        }
    };
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let cases: [(String, &str); 5] = [
        (serve(vec![not_found]), "404"),
        (serve(vec![picture]), "not an MJPEG stream"),
        (serve(vec![huge]), "99999999999 bytes"),
        (serve(vec![noise]), "neither PNG nor JPEG"),
        (nobody, "refused"),
    ];
    // Each waits its whole time for a first frame: side by side.
    let waits = cases.map(|(url, problem)| {
        thread::spawn(move || {
            let spec = CameraSpec::parse(&format!("front={url}")).unwrap();
            let error = spec.camera().unwrap().open().unwrap_err().to_string();
            assert!(error.starts_with("camera front: no frame within 5 s"), "{error}");
            assert!(error.contains(problem), "{error} does not say {problem}");
        })
    });
    for wait in waits {
        wait.join().unwrap();
    }
}
