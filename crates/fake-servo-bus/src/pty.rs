use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, ioctl_tiocnxcl, tcgetattr, tcsetattr};

use crate::Servos;

/// No pseudo terminal can be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot open a pseudo terminal for the fake servos: {0}")]
pub struct ServoBusError(#[from] io::Error);

/// Servos behind a path that can be opened as a serial port, until it is dropped.
pub struct ServoBus {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
    /// Holds the path; removed with it.
    _folder: tempfile::TempDir,
}

impl ServoBus {
    /// Serves the servos from a thread.
    ///
    /// # Errors
    /// [`ServoBusError`] if there are no pseudo terminals, or no room for a link to one.
    pub fn start(servos: &Servos) -> Result<Self, ServoBusError> {
        let folder = tempfile::Builder::new().prefix("servo-bus-").tempdir()?;
        let path = folder.path().join("port");
        let ends = Ends::open(&path)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut worker =
            Worker { servos: servos.clone(), path: path.clone(), ends: Some(ends), stop: stop.clone() };
        let worker = thread::Builder::new().name("servo bus".into()).spawn(move || worker.run())?;
        Ok(Self { path, stop, worker: Some(worker), _folder: folder })
    }

    /// Where to open the port. It stays the same when the cable is pulled and put back.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ServoBus {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            // It panics only if the servos did, which the test sees.
            let _ = worker.join();
        }
    }
}

/// Both ends of a pseudo terminal. The one that programs open is held too: so its settings last from one program to the
/// next, and the master sees no end of file in between.
struct Ends {
    master: OwnedFd,
    port: OwnedFd,
}

impl Ends {
    /// Opens a pseudo terminal and puts a link to it at the path.
    fn open(link: &Path) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let port = rustix::fs::open(
            name.as_c_str(),
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut settings = tcgetattr(&port)?;
        settings.make_raw();
        settings.set_speed(1_000_000)?;
        tcsetattr(&port, OptionalActions::Now, &settings)?;
        // A real port loses bytes that nobody reads; it does not wait for the reader.
        rustix::io::ioctl_fionbio(&master, true)?;
        let target = name.to_str().map_err(io::Error::other)?;
        let new = link.with_extension("new");
        std::os::unix::fs::symlink(target, &new)?;
        fs::rename(&new, link)?;
        Ok(Self { master, port })
    }
}

/// A sleep wakes late by about this much; from here on the worker looks without sleeping.
const LATE: Duration = Duration::from_micros(150);
/// How soon the worker sees that it should stop, or that the cable was pulled.
const IDLE: Duration = Duration::from_millis(5);

struct Worker {
    servos: Servos,
    path: PathBuf,
    ends: Option<Ends>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(&mut self) {
        let (start, begin) = (Instant::now(), self.servos.now());
        while !self.stop.load(Ordering::Relaxed) {
            match (self.servos.is_plugged(), &self.ends) {
                (false, Some(_)) => {
                    let _ = fs::remove_file(&self.path);
                    self.ends = None;
                }
                (true, None) => self.ends = Ends::open(&self.path).ok(),
                _ => {}
            }
            match &self.ends {
                Some(ends) => serve(&self.servos, ends, || begin + start.elapsed()),
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

/// Writes what is due, or waits a little for bytes and takes them.
fn serve(servos: &Servos, ends: &Ends, now: impl Fn() -> Duration) {
    let wait = {
        let mut line = servos.lock();
        line.advance_to(now());
        while let Some(bytes) = line.take_due() {
            let _ = rustix::io::write(&ends.master, &bytes);
        }
        line.next_due().map_or(IDLE, |due| due.saturating_sub(now()).saturating_sub(LATE).min(IDLE))
    };
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
    let mut fds = [PollFd::new(&ends.master, PollFlags::IN)];
    if !poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0) {
        return;
    }
    let mut buffer = [0; 1024];
    let Ok(length) = rustix::io::read(&ends.master, &mut buffer) else { return };
    // A real port forgets who claimed it once the last program that held it is gone, killed or not. This end is never gone.
    let _ = ioctl_tiocnxcl(&ends.port);
    let baud = tcgetattr(&ends.port).map(|settings| settings.output_speed());
    let mut line = servos.lock();
    line.baud = baud.unwrap_or(line.baud);
    line.advance_to(now());
    line.receive(&buffer[..length]);
}
