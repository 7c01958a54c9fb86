//! Images of an episode as an mp4 file, by the program ffmpeg.
//!
//! What is made is what every decoder reads: H.264 in 8 bits with colours at half resolution. Every second frame can be decoded
//! without another one, as in `lerobot`'s own videos, because training reads frames in any order.
//!
//! The program is given the images as its standard input and the new file as its standard output, and no name: one that outlives
//! a killed recording can neither make a file nor write into one of the next recording.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, setpriority_process};

use crate::atomic::Pending;
use crate::journal::Track;
use crate::mp4::Head;
use crate::spec::Spec;
use crate::{RecorderError, image};

/// Names the program, where it is not `ffmpeg` of the search path.
const VARIABLE: &str = "SKILLWELD_FFMPEG";

/// An arm may be moved while this works: it takes what others leave of the processor.
const NICENESS: i32 = 10;

/// One that takes longer hangs: to start and end, and for an image of any size on a busy machine.
const SLOWEST: Duration = Duration::from_secs(30);
const SLOWEST_IMAGE: Duration = Duration::from_secs(1);

/// How long its pipes may stay open once it has ended: something that it has started may hold them.
const PIPES: Duration = Duration::from_secs(1);

/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// How the system says that there is no room.
const NO_ROOM: [&str; 3] = ["No space left on device", "Disk quota exceeded", "File too large"];

/// Encodes an image of each camera's size, and keeps nothing.
pub(crate) fn check(spec: &Spec) -> Result<(), RecorderError> {
    let mut sizes: Vec<_> = spec.cameras.iter().map(|camera| (camera.height, camera.width)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for (height, width) in sizes {
        let png = image::encode(&vec![0; height * width * 3], height, width).map_err(RecorderError::Spec)?;
        let mut child = start(spec.fps, Stdio::piped(), Stdio::null(), &["-f", "null", "-"])?;
        let written = feed(&mut child, png);
        let ended = wait(child, SLOWEST)?;
        // Where the program does not take it all, it says why.
        if ended.is_ok() && written.recv_timeout(PIPES).is_ok_and(|written| written.is_ok()) {
            continue;
        }
        let said = ended.err().unwrap_or_else(|| "it did not read the image".into());
        return Err(failed(format!(
            "of {height} × {width} pixels: {said}; install ffmpeg with libx264, or name one in {VARIABLE}"
        )));
    }
    Ok(())
}

/// Encodes all images of a camera, height × width each, beside the file's place.
pub(crate) fn write(
    path: &Path,
    track: &Track,
    (height, width): (usize, usize),
    fps: u32,
) -> Result<Pending, RecorderError> {
    let (pending, mut file) = Pending::create(path)?;
    let output = file.try_clone().map_err(RecorderError::io("open", path))?;
    // By this name it can go back to the beginning of the file, as it has to; a pipe could not.
    let whole = ["-f", "mp4", "-y", "file:/dev/stdout"];
    let child = start(fps, Stdio::from(track.open()?), Stdio::from(output), &whole)?;
    let images = track.images();
    let limit = SLOWEST + SLOWEST_IMAGE * u32::try_from(images).unwrap_or(u32::MAX);
    if let Err(said) = wait(child, limit)? {
        if NO_ROOM.iter().any(|reason| said.contains(reason)) {
            return Err(RecorderError::DiskFull { path: path.to_owned() });
        }
        return Err(unsaved(path, &said));
    }
    check_file(&mut file, (height, width), images as u64).map_err(|problem| unsaved(path, &problem))?;
    file.sync_all().map_err(RecorderError::io("sync", path))?;
    Ok(pending)
}

/// It may have left images out, or have been another program.
fn check_file(file: &mut File, size: (usize, usize), images: u64) -> Result<(), String> {
    file.seek(SeekFrom::Start(0)).map_err(|error| error.to_string())?;
    let head = Head::read(file)?;
    let frames = head.length.map_or(0, |length| length.frames);
    if (head.height, head.width, frames) != (size.0, size.1, images) {
        return Err(format!(
            "it made {frames} frames of {} × {} pixels from {images} of {} × {}",
            head.height, head.width, size.0, size.1
        ));
    }
    Ok(())
}

fn program() -> OsString {
    std::env::var_os(VARIABLE).filter(|program| !program.is_empty()).unwrap_or_else(|| "ffmpeg".into())
}

/// Starts the program on PNG files one after the other.
fn start(fps: u32, input: Stdio, output: Stdio, to: &[&str]) -> Result<Child, RecorderError> {
    let mut command = Command::new(program());
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error"]);
    command.args(["-f", "png_pipe", "-framerate"]).arg(fps.to_string()).args(["-i", "pipe:0"]);
    // Decoders take colours for these where nothing is said; said, none can take them for others.
    command.args(["-vf", "scale=out_color_matrix=bt601:out_range=tv", "-pix_fmt", "yuv420p"]);
    command.args(["-colorspace", "smpte170m", "-color_range", "tv"]);
    command.args(["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-g", "2", "-bf", "0"]);
    command.args(to).stdin(input).stdout(output).stderr(Stdio::piped());
    // Ctrl-C on the terminal is for us: the episode that it ends is still to be saved.
    command.process_group(0);
    let child = command.spawn().map_err(|error| {
        failed(format!("it cannot be started ({error}); install ffmpeg, or name the program in {VARIABLE}"))
    })?;
    // Where it is not allowed, all the same.
    let _ = setpriority_process(Some(Pid::from_child(&child)), NICENESS);
    Ok(child)
}

/// Gives the program its input, beside whoever waits for it: one that does not read would keep them for ever. Says how it went.
fn feed(child: &mut Child, bytes: Vec<u8>) -> Receiver<io::Result<()>> {
    let (say, written) = channel();
    let input = child.stdin.take();
    thread::spawn(move || {
        let result = input.map_or(Ok(()), |mut input| input.write_all(&bytes));
        // Whoever started it may not wait any more.
        let _ = say.send(result);
    });
    written
}

/// Waits for the program's end: what it said last, if that was not a success. At the limit it is ended, and all that it has started.
fn wait(mut child: Child, limit: Duration) -> Result<Result<(), String>, RecorderError> {
    // Read meanwhile: a full pipe would stop it.
    let words = listen(child.stderr.take());
    let Some(status) = end(&mut child, limit).map_err(|error| failed(error.to_string()))? else {
        return Err(RecorderError::EncoderHung { program: name(), limit });
    };
    if status.success() {
        return Ok(Ok(()));
    }
    let said = heard(&words, PIPES);
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned);
    // The reason stands before a summary, if it is the disk.
    let room = said.lines().find(|line| NO_ROOM.iter().any(|reason| line.contains(reason)));
    let said = room.map(str::to_owned).or(last);
    Ok(Err(said.unwrap_or_else(|| format!("it ended with {status}"))))
}

/// What comes through a pipe, piece by piece.
fn listen(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (say, words) = channel();
    thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut piece) {
            if say.send(piece[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    words
}

/// All that came until the pipe was closed, or within the limit.
fn heard(words: &Receiver<Vec<u8>>, limit: Duration) -> Vec<u8> {
    let until = Instant::now() + limit;
    let mut all = Vec::new();
    while let Ok(piece) = words.recv_timeout(until.saturating_duration_since(Instant::now())) {
        all.extend(piece);
    }
    all
}

/// How it ended by itself; `None`, and its process group is killed, at the limit.
fn end(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(LOOK);
    }
    kill_process_group(Pid::from_child(child), Signal::KILL)?;
    child.wait()?;
    Ok(None)
}

fn name() -> String {
    program().to_string_lossy().into_owned()
}

fn failed(problem: String) -> RecorderError {
    RecorderError::Encoder { program: name(), problem }
}

fn unsaved(path: &Path, problem: &str) -> RecorderError {
    failed(format!(
        "{}: {problem}; saved episodes are intact: try again, or discard the open one",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell in a process group of its own, as the encoder is.
    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).spawn().unwrap()
    }

    #[test]
    fn what_it_says_last_is_heard() {
        assert_eq!(wait(shell("exit 0"), SLOWEST).unwrap(), Ok(()));
        // More than a pipe holds.
        let much = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789 >&2; i=$((i+1)); done; \
                    echo last >&2; exit 1";
        assert_eq!(wait(shell(much), SLOWEST).unwrap(), Err("last".to_owned()));
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_all_that_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        // The shell waits for what it has started, whose number it writes down.
        let script = format!("sleep 60 & echo $! > {}; wait", pid.display());
        let hangs = shell(&script);
        let begun = Instant::now();
        let written = || std::fs::read_to_string(&pid).ok().filter(|text| text.ends_with('\n'));
        while written().is_none() {
            assert!(begun.elapsed() < SLOWEST, "the shell has not begun");
            thread::sleep(LOOK);
        }
        let limit = Duration::from_millis(100);
        let error = wait(hangs, limit).unwrap_err();
        assert!(matches!(error, RecorderError::EncoderHung { limit: told, .. } if told == limit), "{error}");
        assert!(begun.elapsed() < SLOWEST);
        let stat = format!("/proc/{}/stat", written().unwrap().trim());
        // Gone, or a zombie that nobody has waited for.
        let is_over = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        while !is_over() {
            assert!(begun.elapsed() < SLOWEST, "its child goes on");
            thread::sleep(LOOK);
        }
    }

    #[test]
    fn pipes_that_outlive_it_are_not_waited_for() {
        let begun = Instant::now();
        // It does not read its input, and what it leaves behind holds its standard error.
        let mut child = shell("echo words >&2; sleep 20 & exit 1");
        let group = Pid::from_child(&child);
        let written = feed(&mut child, vec![0; 1 << 20]);
        assert_eq!(wait(child, SLOWEST).unwrap(), Err("words".to_owned()));
        let _ = written.recv_timeout(PIPES);
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        kill_process_group(group, Signal::KILL).unwrap();
    }
}
