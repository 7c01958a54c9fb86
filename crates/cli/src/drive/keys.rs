//! Keys while a loop runs.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use skillweld_robot::StopSwitch;

use super::recording::{Next, Progress};

/// Between two looks at whether to end.
const PATIENCE: Duration = Duration::from_millis(50);

/// What a key asks for. Terminals repeat a key that is held down as if it were pressed again and again, so none of those that
/// steer the arm undoes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// q, Esc, Ctrl-C, Ctrl-Z, Ctrl-\, Ctrl-D: hold, then torque off.
    Stop,
    /// Space: hold.
    Hold,
    /// g: go on, without the leader arm.
    Go,
    /// i: go on with the leader arm.
    Intervene,
    /// → or n: the episode is done, and with the last one the run; between episodes: the next one begins.
    NextEpisode,
    /// ← or r: forget this episode and record it again.
    RecordAgain,
}

/// What keys can do in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offered {
    /// There is a leader arm to take over.
    pub(crate) leader: bool,
    /// There is an episode to end or to forget.
    pub(crate) record: bool,
}

impl Offered {
    fn has(self, key: Key) -> bool {
        match key {
            Key::Stop | Key::Hold | Key::Go => true,
            Key::Intervene => self.leader,
            Key::NextEpisode | Key::RecordAgain => self.record,
        }
    }

    /// For people.
    pub(crate) fn in_words(self) -> String {
        let all = [
            (Key::Stop, "q stops"),
            (Key::Hold, "space holds"),
            (Key::Intervene, "i gives the arm to the leader"),
            (Key::Go, "g goes on"),
            (Key::NextEpisode, "→ ends the episode (with the last one the run), or begins the next"),
            (Key::RecordAgain, "← forgets the episode and begins it again"),
        ];
        let offered = all.into_iter().filter(|(key, _)| self.has(*key)).map(|(_, words)| words);
        offered.collect::<Vec<_>>().join(", ")
    }
}

impl Key {
    fn of(code: KeyCode, modifiers: KeyModifiers) -> Option<Self> {
        Some(match code {
            // Under a view the terminal sends no signal. Ctrl-\ comes as Ctrl-4.
            KeyCode::Char('c' | 'z' | 'd' | '\\' | '4') if modifiers.contains(KeyModifiers::CONTROL) => {
                Self::Stop
            }
            KeyCode::Esc => Self::Stop,
            KeyCode::Right => Self::NextEpisode,
            KeyCode::Left => Self::RecordAgain,
            // With the shift or caps lock key too: whoever wants to stop does not look for that.
            KeyCode::Char(letter) => match letter.to_ascii_lowercase() {
                'q' => Self::Stop,
                ' ' => Self::Hold,
                'g' => Self::Go,
                'i' => Self::Intervene,
                'n' => Self::NextEpisode,
                'r' => Self::RecordAgain,
                _ => return None,
            },
            _ => return None,
        })
    }

    fn press(self, switch: &StopSwitch, progress: &Progress) {
        match self {
            Self::Stop => switch.stop(),
            Self::Hold => switch.hold(true),
            Self::Go => {
                switch.intervene(false);
                switch.hold(false);
            }
            Self::Intervene => {
                switch.intervene(true);
                switch.hold(false);
            }
            Self::NextEpisode => progress.ask(Next::Advance),
            Self::RecordAgain => progress.ask(Next::Again),
        }
    }
}

/// A thread that listens to the keyboard, if there is one. The terminal is as before when this is dropped.
pub(crate) struct Keys {
    end: Arc<AtomicBool>,
    listening: Option<(JoinHandle<()>, Termios)>,
}

impl Keys {
    pub(crate) fn listen(switch: StopSwitch, progress: Progress, offered: Offered) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let listening = single_keys().map(|before| {
            let thread = std::thread::spawn(move || {
                let listener = Listener { switch, progress, ended };
                if let Err(error) = listener.run(offered) {
                    listener.progress.problem(format!("the keyboard cannot be read: {error}"));
                }
            });
            (thread, before)
        });
        Self { end, listening }
    }
}

/// What listens. When it ends without having been asked to, by an error or a panic, the arm stops: nobody at the keyboard could
/// stop it any more.
struct Listener {
    switch: StopSwitch,
    progress: Progress,
    ended: Arc<AtomicBool>,
}

impl Listener {
    /// Does what keys ask for until it is asked to end.
    fn run(&self, offered: Offered) -> std::io::Result<()> {
        while !self.ended.load(Ordering::Relaxed) {
            if poll(PATIENCE)?
                && let Event::Key(key) = read()?
                && key.kind == KeyEventKind::Press
                && let Some(key) = Key::of(key.code, key.modifiers).filter(|key| offered.has(*key))
            {
                key.press(&self.switch, &self.progress);
            }
        }
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if !self.ended.load(Ordering::Relaxed) {
            self.switch.stop();
        }
    }
}

/// Lets keys come one by one and unseen, and gives how the terminal was. Lines and Ctrl-C go on as ever.
fn single_keys() -> Option<Termios> {
    let stdin = std::io::stdin();
    let before = stdin.is_terminal().then(|| tcgetattr(&stdin).ok())??;
    let mut modes = before.clone();
    modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Now, &modes).ok()?;
    Some(before)
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some((thread, before)) = self.listening.take() {
            let _ = thread.join();
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_what_the_help_says() {
        let (switch, progress) = (StopSwitch::new(), Progress::default());
        let press = |code, modifiers| {
            if let Some(key) = Key::of(code, modifiers) {
                key.press(&switch, &progress);
            }
        };
        // Held down, every key does what it does once.
        let hold_down = |code| (0..30).for_each(|_| press(code, KeyModifiers::NONE));
        let state = || (switch.is_held(), switch.is_intervening());
        hold_down(KeyCode::Char(' '));
        assert_eq!(state(), (true, false));
        hold_down(KeyCode::Char('g'));
        assert_eq!(state(), (false, false));
        hold_down(KeyCode::Char('i'));
        assert_eq!(state(), (false, true));
        hold_down(KeyCode::Char(' '));
        assert_eq!(state(), (true, true));
        hold_down(KeyCode::Char('i'));
        assert_eq!(state(), (false, true));
        hold_down(KeyCode::Char(' '));
        hold_down(KeyCode::Char('g'));
        assert_eq!(state(), (false, false));
        press(KeyCode::Right, KeyModifiers::NONE);
        assert_eq!(progress.take(), Some(Next::Advance));
        press(KeyCode::Left, KeyModifiers::NONE);
        assert_eq!(progress.take(), Some(Next::Again));
        press(KeyCode::Char('c'), KeyModifiers::NONE);
        assert!(!switch.is_stopped());
        for key in ['c', 'z', 'd', '\\'] {
            assert_eq!(Key::of(KeyCode::Char(key), KeyModifiers::CONTROL), Some(Key::Stop));
        }
        press(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(switch.is_stopped());
        for key in ['q', 'Q'] {
            assert_eq!(Key::of(KeyCode::Char(key), KeyModifiers::SHIFT), Some(Key::Stop));
        }
    }

    #[test]
    fn a_listener_that_ends_unasked_stops_the_arm() {
        for (asked, panics) in [(true, false), (false, false), (false, true)] {
            let (switch, ended) = (StopSwitch::new(), Arc::new(AtomicBool::new(asked)));
            let listener = Listener { switch: switch.clone(), progress: Progress::default(), ended };
            let thread = std::thread::spawn(move || {
                let _listener = listener;
                assert!(!panics, "as tests of panics do");
            });
            assert_eq!(thread.join().is_err(), panics);
            assert_eq!(switch.is_stopped(), !asked);
        }
    }

    #[test]
    fn keys_without_effect_are_not_offered() {
        let alone = Offered { leader: false, record: false };
        assert_eq!(alone.in_words(), "q stops, space holds, g goes on");
        assert!(Offered { leader: true, ..alone }.in_words().contains("i gives"));
        let recording = Offered { record: true, ..alone }.in_words();
        assert!(recording.contains('→') && recording.contains('←'), "{recording}");
    }
}
