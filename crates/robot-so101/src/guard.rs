//! Torque off when the program that drives the arm is killed, or hangs.
//!
//! The servos have no time-out. So a second process is started when the arm is connected: it touches nothing and reads from
//! a pipe. When the program stops the arm it says so through the pipe, and the guardian ends. When the pipe breaks without
//! that word, the program is dead; the system has closed its port by then, and the guardian opens it and turns torque off.
//! While the arm is driven the guardian expects a sign of life with every observation; a program that gives none holds an arm
//! that nobody watches, and is ended first, for its port is not free otherwise.
//!
//! It does not help against a computer that loses its power or its cable: only the switch of the arm's supply does.

use std::ffi::OsString;
use std::io::{BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getppid, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use skillweld_robot::RobotError;

use crate::joints::IDS;
use crate::protocol::{BAUD, Bus, BusError};
use crate::torque_off;

/// The guardian's only word, ASCII's acknowledgement: it watches.
const WATCHING: u8 = 0x06;
/// The program drives the arm, and will say so again.
const BEAT: u8 = b'.';
/// The program says nothing for a while: it stops the arm.
const QUIET: u8 = b'q';
/// Torque is off already.
const RELEASED: u8 = b'r';

/// How long a guardian may take to start; a busy machine is slow.
const START: Duration = Duration::from_secs(10);
/// How long it may take to end when there is nothing left to do.
const END: Duration = Duration::from_secs(2);
/// A loop that gives no sign of life for so long hangs: as long as a watchdog lets an arm hold.
const SILENCE: Duration = Duration::from_secs(5);
/// Time for the system to close what the dead program had open.
const GRACE: Duration = Duration::from_millis(100);
/// How long the guardian tries.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a guardian is started: a program that calls [`guard`] and does nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardianCommand {
    /// The program, most likely this one.
    pub program: PathBuf,
    /// What makes it a guardian, and of which port.
    pub arguments: Vec<OsString>,
}

/// A guardian at work.
pub(crate) struct GuardianHandle {
    child: Child,
}

impl GuardianHandle {
    /// Starts the guardian, out of reach of the terminal's Ctrl-C, and waits until it watches.
    ///
    /// # Errors
    /// [`RobotError::Connect`] if the program cannot be started, or does not watch within ten seconds.
    pub(crate) fn start(command: &GuardianCommand) -> Result<Self, RobotError> {
        let failed = |problem: &str| {
            let program = command.program.display();
            RobotError::Connect(format!("the guardian {program}, which watches over torque, {problem}"))
        };
        let mut process = Command::new(&command.program);
        process.args(&command.arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut process, 0);
        let child = process.spawn().map_err(|error| failed(&format!("cannot be started: {error}")))?;
        let mut guardian = Self { child };
        // A guardian that does not read must not hold up the loop.
        let open =
            guardian.child.stdin.as_ref().is_some_and(|pipe| rustix::io::ioctl_fionbio(pipe, true).is_ok());
        let said = guardian.child.stdout.take().is_some_and(|said| watches(said, START));
        if open && said {
            return Ok(guardian);
        }
        guardian.end();
        Err(failed("does not begin to watch: run it by hand to see why"))
    }

    /// Gives a sign of life, and makes sure that somebody hears it.
    ///
    /// # Errors
    /// [`RobotError::Fault`] if the guardian has died, or has not read for a long time.
    pub(crate) fn beat(&mut self) -> Result<(), RobotError> {
        let dead = matches!(self.child.try_wait(), Ok(Some(_)));
        if !dead && self.say(BEAT).is_ok() {
            return Ok(());
        }
        let fault = "nobody watches over torque any more, which would stay on if this program were killed: start again";
        Err(RobotError::Fault { joint: "guardian".into(), fault: fault.into() })
    }

    /// No more signs of life for now; that the pipe breaks means death as before.
    pub(crate) fn expect_silence(&mut self) {
        // Whoever does not hear it is dead.
        let _ = self.say(QUIET);
    }

    fn say(&mut self, word: u8) -> std::io::Result<()> {
        self.child.stdin.as_mut().map_or(Ok(()), |pipe| pipe.write_all(&[word]))
    }

    /// Tells the guardian that torque is off, and waits until it has ended, for two seconds at most. One that has died has
    /// nothing left to do.
    pub(crate) fn release(mut self) {
        let _ = self.say(RELEASED);
        drop(self.child.stdin.take());
        let end = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        self.end();
    }

    /// Ends it, if it has not ended, and forgets it.
    fn end(&mut self) {
        // Neither fails but for a process that is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the guardian says in time that it watches. What the program says before that is its own affair.
fn watches(said: ChildStdout, limit: Duration) -> bool {
    let (tell, told) = channel();
    // It listens until the guardian ends, whose words must not meet a broken pipe.
    thread::spawn(move || {
        for byte in BufReader::new(said).bytes().map_while(Result::ok) {
            if byte == WATCHING {
                let _ = tell.send(());
            }
        }
    });
    told.recv_timeout(limit).is_ok()
}

/// What a guardian did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarded {
    /// The program turned torque off itself.
    Released,
    /// The program died; torque was turned off, and read back to be off.
    Died,
    /// The program gave no sign of life. It was ended, torque turned off, and read back to be off.
    Hung,
}

/// A guardian's whole life: watches over the program that started this process, through standard input, and turns the arm at
/// `port` off if that program dies or hangs. SIGTERM, SIGINT and SIGHUP do not end the process, and it has a name of its own,
/// `arm-guardian`: what is meant for the program that drives must not meet its guardian too.
///
/// # Errors
/// [`BusError`] if torque may still be on: the port does not open, or servos do not answer, for ten seconds.
pub fn guard(port: &str) -> Result<Guarded, BusError> {
    let driver = getppid();
    // A signal that cannot be caught, or a name that cannot be had, makes a guardian no worse than none.
    let _ = rustix::thread::set_name(c"arm-guardian");
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        let _ = signal_hook::flag::register(signal, Arc::default());
    }
    let heard = listen(std::io::stdin());
    let mut said = std::io::stdout();
    // Nobody who reads it: the pipe is broken too.
    let _ = said.write_all(&[WATCHING]).and_then(|()| said.flush());
    let guarded = watch(&heard, SILENCE);
    match (guarded, driver) {
        (Guarded::Released, _) => return Ok(guarded),
        (Guarded::Hung, Some(driver)) => {
            // It is this process's parent, or else the pipe would have broken.
            let _ = kill_process(driver, Signal::KILL);
        }
        _ => {}
    }
    thread::sleep(GRACE);
    let end = Instant::now() + PATIENCE;
    loop {
        match Bus::open(port, BAUD).and_then(|mut bus| torque_off(&mut bus, &IDS)) {
            Ok(()) => return Ok(guarded),
            Err(error) if Instant::now() >= end => return Err(error),
            Err(_) => thread::sleep(GRACE),
        }
    }
}

/// Words from a pipe, until it ends. A pipe that fails is a pipe that is broken.
fn listen(pipe: impl Read + Send + 'static) -> Receiver<u8> {
    let (tell, told) = channel();
    thread::spawn(move || {
        let mut words = BufReader::new(pipe).bytes().map_while(Result::ok);
        words.all(|word| tell.send(word).is_ok())
    });
    told
}

/// Waits for the word that torque is off, for the end of the words, or for so long a silence after a sign of life.
fn watch(heard: &Receiver<u8>, silence: Duration) -> Guarded {
    let mut alive = false;
    loop {
        let word = if alive {
            heard.recv_timeout(silence)
        } else {
            heard.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match word {
            Ok(RELEASED) => return Guarded::Released,
            Ok(word) => alive = word == BEAT,
            Err(RecvTimeoutError::Disconnected) => return Guarded::Died,
            Err(RecvTimeoutError::Timeout) => return Guarded::Hung,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of these words, after which the pipe breaks or stays silent.
    fn comes_of(words: &'static [u8], breaks: bool) -> Guarded {
        let (tell, told) = channel();
        words.iter().for_each(|&word| tell.send(word).unwrap());
        let open = (!breaks).then_some(tell);
        let guarded = watch(&told, Duration::from_millis(20));
        drop(open);
        guarded
    }

    #[test]
    fn the_pipe_says_what_became_of_the_program() {
        assert_eq!(comes_of(b"...qr", false), Guarded::Released);
        assert_eq!(comes_of(b"", true), Guarded::Died);
        assert_eq!(comes_of(b"...", true), Guarded::Died);
        assert_eq!(comes_of(b"...q", true), Guarded::Died);
        assert_eq!(comes_of(b"...", false), Guarded::Hung);
        assert_eq!(watch(&listen(&b"..r"[..]), Duration::from_secs(60)), Guarded::Released);
    }

    /// Before the first sign of life and after the last, silence is no death: an arm that is connected need not be driven yet.
    #[test]
    fn a_silence_that_was_announced_is_waited_for() {
        for words in [&b""[..], b"..q"] {
            let (tell, told) = channel();
            words.iter().for_each(|&word| tell.send(word).unwrap());
            let program = thread::spawn(move || {
                thread::sleep(Duration::from_millis(200));
                tell.send(RELEASED).unwrap();
            });
            assert_eq!(watch(&told, Duration::from_millis(20)), Guarded::Released);
            program.join().unwrap();
        }
    }

    fn sh(script: &str) -> GuardianCommand {
        GuardianCommand { program: "sh".into(), arguments: vec!["-c".into(), script.into()] }
    }

    #[test]
    fn a_guardian_that_does_not_watch_is_named() {
        let nowhere = GuardianCommand { program: "/nowhere/guardian".into(), arguments: Vec::new() };
        let error = GuardianHandle::start(&nowhere).err().unwrap().to_string();
        assert!(error.contains("/nowhere/guardian") && error.contains("cannot be started"), "{error}");
        let error = GuardianHandle::start(&sh("echo I am somebody else")).err().unwrap().to_string();
        assert!(error.contains("guardian sh") && error.contains("does not begin to watch"), "{error}");
    }

    #[test]
    fn a_guardian_that_never_says_that_it_watches_is_not_waited_for() {
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::piped()).spawn().unwrap();
        let asked = Instant::now();
        assert!(!watches(child.stdout.take().unwrap(), Duration::from_millis(50)));
        assert!(asked.elapsed() < Duration::from_secs(20));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_guardian_that_has_died_is_a_fault() {
        let mut guardian = GuardianHandle::start(&sh("printf 'hello \\006'; read word")).unwrap();
        assert_eq!(guardian.beat(), Ok(()));
        guardian.child.kill().unwrap();
        guardian.child.wait().unwrap();
        let fault = guardian.beat().unwrap_err().to_string();
        assert!(fault.starts_with("guardian: nobody watches over torque"), "{fault}");
        guardian.release();
    }

    #[test]
    fn a_guardian_that_does_not_end_or_read_holds_up_nobody() {
        let mut guardian = GuardianHandle::start(&sh("printf '\\006'; exec sleep 60")).unwrap();
        let begun = Instant::now();
        // A pipe takes 64 KiB, on some systems more.
        let beats = (0..1 << 21).take_while(|_| guardian.beat().is_ok()).count();
        assert!((4_096..1 << 21).contains(&beats), "{beats}");
        guardian.release();
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
