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

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// q, Esc, Ctrl-C, Ctrl-Z, Ctrl-\, Ctrl-D: hold, then torque off.
    Stop,
    /// Space: hold, and go on.
    Hold,
    /// i: the leader arm takes over, and gives back.
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
            Key::Stop | Key::Hold => true,
            Key::Intervene => self.leader,
            Key::NextEpisode | Key::RecordAgain => self.record,
        }
    }

    /// For people.
    pub(crate) fn in_words(self) -> String {
        let all = [
            (Key::Stop, "q stops"),
            (Key::Hold, "space holds and goes on"),
            (Key::Intervene, "i gives the arm to the leader and back"),
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
            KeyCode::Char('q') | KeyCode::Esc => Self::Stop,
            KeyCode::Char(' ') if modifiers.is_empty() => Self::Hold,
            KeyCode::Char('i') => Self::Intervene,
            KeyCode::Right | KeyCode::Char('n') => Self::NextEpisode,
            KeyCode::Left | KeyCode::Char('r') => Self::RecordAgain,
            _ => return None,
        })
    }

    fn press(self, switch: &StopSwitch, progress: &Progress) {
        match self {
            Self::Stop => switch.stop(),
            Self::Hold => switch.hold(!switch.is_held()),
            Self::Intervene => switch.intervene(!switch.is_intervening()),
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
                while !ended.load(Ordering::Relaxed) {
                    if !poll(PATIENCE).unwrap_or(false) {
                        continue;
                    }
                    if let Ok(Event::Key(key)) = read()
                        && key.kind == KeyEventKind::Press
                        && let Some(key) = Key::of(key.code, key.modifiers).filter(|key| offered.has(*key))
                    {
                        key.press(&switch, &progress);
                    }
                }
            });
            (thread, before)
        });
        Self { end, listening }
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
        press(KeyCode::Char(' '), KeyModifiers::NONE);
        assert!(switch.is_held());
        press(KeyCode::Char(' '), KeyModifiers::NONE);
        assert!(!switch.is_held());
        press(KeyCode::Char('i'), KeyModifiers::NONE);
        assert!(switch.is_intervening());
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
    }

    #[test]
    fn keys_without_effect_are_not_offered() {
        let alone = Offered { leader: false, record: false };
        assert_eq!(alone.in_words(), "q stops, space holds and goes on");
        assert!(Offered { leader: true, ..alone }.in_words().contains("i gives"));
        let recording = Offered { record: true, ..alone }.in_words();
        assert!(recording.contains('→') && recording.contains('←'), "{recording}");
    }
}
