//! A loop in the terminal: joints, latency, queue, routing, safety.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, List, Paragraph, Row, Table};
use skillweld_robot::{
    Description, Durations, Event, Joint, Observer, Reason, Routing, State, StopSwitch, Tick,
};

use super::aside::Aside;
use super::keys::Offered;
use super::recording::Progress;
use super::summary::{ms, percentiles};

/// Between two pictures.
const PICTURE: Duration = Duration::from_millis(100);
/// Width of a joint's bar, in columns.
const BAR: usize = 30;
/// Lines of events that are kept.
const EVENTS: usize = 200;

/// What is shown.
#[derive(Clone)]
struct Shown {
    title: String,
    task: String,
    joints: Vec<Joint>,
    positions: Vec<f64>,
    sent: Vec<f64>,
    time: Duration,
    steps: u64,
    state: String,
    holds: bool,
    asked: &'static str,
    recording: String,
    queued: Option<usize>,
    latency: Durations,
    routing: Option<Routing>,
    events: VecDeque<(bool, String)>,
}

/// A picture ten times a second, drawn beside the loop; the terminal is as before when this is dropped.
pub(crate) struct View {
    pictures: Aside<Shown>,
    shown: Shown,
    switch: StopSwitch,
    progress: Progress,
    drawn: Instant,
}

impl View {
    pub(crate) fn open(
        title: &str,
        task: &str,
        robot: &Description,
        offered: Offered,
        (switch, progress): (StopSwitch, Progress),
    ) -> Result<Self> {
        let mut terminal = ratatui::try_init().context("cannot draw in this terminal")?;
        let keys = format!(" {} ", offered.in_words());
        let draw = move |shown: Shown| {
            // A terminal that is gone must not stop an arm.
            let _ = terminal.draw(|frame| shown.draw(frame, &keys));
        };
        // One picture waits; while it does, newer ones are left out.
        let pictures = Aside::start("view", 1, draw).inspect_err(|_| ratatui::restore())?;
        Ok(Self::of(pictures, Shown::new(title, task, robot), switch, progress))
    }

    fn of(pictures: Aside<Shown>, shown: Shown, switch: StopSwitch, progress: Progress) -> Self {
        Self { pictures, shown, switch, progress, drawn: Instant::now() }
    }
}

/// What people have asked for and is still so.
fn asked(switch: &StopSwitch) -> &'static str {
    match (switch.is_held(), switch.is_intervening()) {
        (true, _) => "held",
        (false, true) => "by hand",
        (false, false) => "",
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.pictures.finish();
        ratatui::restore();
    }
}

impl Observer for View {
    fn tick(&mut self, tick: &Tick<'_>) {
        self.shown.take(tick);
        if self.drawn.elapsed() < PICTURE {
            return;
        }
        self.drawn = Instant::now();
        self.shown.recording = self.progress.line();
        self.shown.asked = asked(&self.switch);
        self.pictures.offer(self.shown.clone());
    }
}

/// Refuses a view without a terminal to draw on, and to stop the arm from.
pub(crate) fn check(wanted: bool) -> Result<()> {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    ensure!(terminal || !wanted, "--view needs a terminal, for its picture and for keys that stop the arm");
    Ok(())
}

impl Shown {
    fn new(title: &str, task: &str, robot: &Description) -> Self {
        Self {
            title: title.to_owned(),
            task: task.to_owned(),
            joints: robot.joints.clone(),
            positions: Vec::new(),
            sent: Vec::new(),
            time: Duration::ZERO,
            steps: 0,
            state: String::new(),
            holds: true,
            asked: "",
            recording: String::new(),
            queued: None,
            latency: Durations::default(),
            routing: None,
            events: VecDeque::new(),
        }
    }

    fn take(&mut self, tick: &Tick<'_>) {
        (self.time, self.steps, self.queued) = (tick.time, tick.step, tick.queued);
        if let Some(observation) = tick.observation {
            self.positions.clone_from(&observation.positions);
        }
        if let Some(sent) = tick.sent {
            self.sent = sent.to_vec();
        }
        self.holds = !matches!(tick.state, State::Running);
        self.state = match tick.state {
            State::Running => tick.origin.to_string(),
            State::Holding { reason, .. } => format!("holds: {reason}"),
            State::TorqueOff(reason) => format!("torque off: {reason}"),
        };
        for event in tick.events {
            if let Event::Chunk { latency, routing, .. } = event {
                self.latency.record(*latency);
                if routing.is_some() {
                    self.routing.clone_from(routing);
                }
                if routing.is_none() {
                    continue;
                }
            }
            let quiet = matches!(
                event,
                Event::Chunk { .. }
                    | Event::Recovered { .. }
                    | Event::TorqueOff(Reason::Over | Reason::Stopped)
            );
            self.events.push_front((!quiet, format!("{:8.2} s  {event}", tick.time.as_secs_f64())));
            self.events.truncate(EVENTS);
        }
    }

    fn draw(&self, frame: &mut Frame<'_>, keys: &str) {
        let joints = self.joints.len() as u16 + 3;
        let rows = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(joints),
            Constraint::Length(6),
            Constraint::Min(3),
            Constraint::Length(1),
        ]);
        let [head, table, figures, events, foot] = rows.areas(frame.area());
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let title = Line::from(vec![
            Span::styled(format!(" {} ", self.title), bold),
            Span::raw(format!("  “{}”", self.task)),
        ]);
        frame.render_widget(title, head);
        self.draw_joints(frame, table);
        self.draw_figures(frame, figures);
        let lines = self.events.iter().map(|(bad, text)| {
            let style = if *bad { Style::new().fg(Color::Yellow) } else { Style::new().fg(Color::Green) };
            Line::styled(text.as_str(), style)
        });
        frame.render_widget(
            List::new(lines.map(ratatui::widgets::ListItem::new)).block(Block::bordered().title(" events ")),
            events,
        );
        frame.render_widget(
            Line::styled(keys.to_owned(), Style::new().add_modifier(Modifier::REVERSED)),
            foot,
        );
    }

    fn draw_joints(&self, frame: &mut Frame<'_>, area: Rect) {
        let row = |(index, joint): (usize, &Joint)| {
            let at = self.positions.get(index).copied();
            let goal = self.sent.get(index).copied();
            let number =
                |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:8.2}"));
            Row::new([
                Cell::from(joint.name.clone()),
                Cell::from(number(at)),
                Cell::from(number(goal)),
                Cell::from(joint.unit.to_string()),
                Cell::from(bar(joint, at, goal)),
            ])
        };
        let widths = [15, 9, 9, 8, BAR as u16].map(Constraint::Length);
        let header = Row::new(["joint", "is at", "goal", "unit", "range"])
            .style(Style::new().add_modifier(Modifier::DIM));
        let table = Table::new(self.joints.iter().enumerate().map(row), widths).header(header);
        frame.render_widget(table.block(Block::bordered()), area);
    }

    fn draw_figures(&self, frame: &mut Frame<'_>, area: Rect) {
        let tone = if self.holds { Color::Yellow } else { Color::Green };
        let routing = self.routing.as_ref().map_or_else(String::new, |routing| {
            let margin = routing.margin.map(|margin| format!(", margin {margin:.3}")).unwrap_or_default();
            format!("{} ({}{margin})", routing.task, routing.reason)
        });
        let latency = if self.latency.count() > 0 {
            format!("{}; the longest {}", percentiles(&self.latency), ms(self.latency.max()))
        } else {
            String::new()
        };
        let queued = self.queued.map_or_else(String::new, |count| format!("{count} actions"));
        let lines = vec![
            Line::from(vec![
                Span::raw(format!("{:7.1} s  step {:6}   ", self.time.as_secs_f64(), self.steps)),
                Span::styled(self.state.clone(), Style::new().fg(tone)),
            ]),
            Line::from(format!("inference  {latency}")),
            Line::from(format!("queue      {queued}     routed to  {routing}     {}", self.asked)),
            Line::styled(self.recording.as_str(), Style::new().fg(Color::Red)),
        ];
        frame.render_widget(Paragraph::new(lines).block(Block::bordered()), area);
    }
}

/// Where a joint is in its range, and where it shall go.
fn bar(joint: &Joint, at: Option<f64>, goal: Option<f64>) -> String {
    let column = |value: f64| {
        let share = (value - joint.min) / (joint.max - joint.min).max(f64::MIN_POSITIVE);
        (share.clamp(0.0, 1.0) * (BAR - 1) as f64).round() as usize
    };
    let mut cells = vec!['·'; BAR];
    for (value, mark) in [(goal, '○'), (at, '●')] {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            cells[column(value)] = mark;
        }
    }
    cells.into_iter().collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc::channel;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use skillweld_robot::{Observation, Origin, Unit};

    use super::*;

    pub(in crate::drive) fn robot() -> Description {
        let joint = |name: &str| Joint {
            name: name.into(),
            unit: Unit::Degrees,
            min: -100.0,
            max: 100.0,
            max_velocity: 90.0,
        };
        Description { kind: "arm".into(), joints: vec![joint("pan"), joint("lift")], cameras: Vec::new() }
    }

    #[test]
    fn everything_that_counts_is_in_the_picture() {
        let mut shown = Shown::new("merged drives arm", "stack the cubes", &robot());
        let observation = Observation {
            captured: Instant::now(),
            positions: vec![12.25, -100.0],
            frames: Vec::new(),
            problems: Vec::new(),
        };
        let routing = Routing { task: "stack".into(), reason: "routed".into(), margin: Some(0.25) };
        let chunk = Event::Chunk {
            actions: 50,
            dropped: 4,
            latency: Duration::from_millis(130),
            speed: 1.0,
            routing: Some(routing),
        };
        let events = [chunk, Event::Starved];
        shown.take(&Tick {
            step: 42,
            time: Duration::from_millis(1400),
            observation: Some(&observation),
            raw: None,
            sent: Some(&[15.5, 0.0]),
            origin: Origin::Policy,
            queued: Some(46),
            state: &State::Running,
            events: &events,
        });
        let mut terminal = Terminal::new(TestBackend::new(100, 24)).unwrap();
        shown.recording = "● episode 1".into();
        terminal.draw(|frame| shown.draw(frame, " q stop ")).unwrap();
        let picture = terminal.backend().to_string();
        for part in [
            "merged drives arm",
            "stack the cubes",
            "12.25",
            "15.50",
            "step     42",
            "policy",
            "130.0 ms",
            "46 actions",
            "stack (routed, margin 0.250)",
            "no action is there",
            "● episode 1",
            "q stop",
        ] {
            assert!(picture.contains(part), "{part}:\n{picture}");
        }
    }

    #[test]
    fn a_terminal_that_stands_still_does_not_stop_the_loop() {
        let (go_on, stands_still) = channel::<()>();
        let (show, shown) = channel();
        let draw = move |picture: Shown| {
            let _ = stands_still.recv();
            let _ = show.send(picture.steps);
        };
        let pictures = Aside::start("view", 1, draw).unwrap();
        // Never drawn to, so nothing is to be given back.
        let mut view = std::mem::ManuallyDrop::new(View::of(
            pictures,
            Shown::new("merged drives arm", "stack", &robot()),
            StopSwitch::new(),
            Progress::default(),
        ));
        for step in 0..20 {
            view.drawn -= PICTURE;
            let (time, observation, raw, sent) = (Duration::from_millis(100 * step), None, None, None);
            let (origin, queued, state, events) = (Origin::Policy, None, &State::Running, &[][..]);
            view.tick(&Tick { step, time, observation, raw, sent, origin, queued, state, events });
        }
        drop(go_on);
        view.pictures.finish();
        // One was with the thread and one waited, or the thread had not come to its first.
        let drawn: Vec<u64> = shown.try_iter().collect();
        assert!((1..=2).contains(&drawn.len()) && drawn[0] == 0, "{drawn:?}");
        assert_eq!(view.shown.steps, 19, "and the loop has gone on");
    }

    #[test]
    fn a_bar_shows_where_a_joint_is() {
        let joint = &robot().joints[0];
        assert_eq!(bar(joint, Some(-100.0), Some(100.0)), format!("●{}○", "·".repeat(BAR - 2)));
        assert_eq!(bar(joint, Some(500.0), None), format!("{}●", "·".repeat(BAR - 1)));
        assert_eq!(bar(joint, Some(f64::NAN), None), "·".repeat(BAR));
    }
}
