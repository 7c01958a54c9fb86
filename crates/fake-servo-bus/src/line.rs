use std::collections::VecDeque;
use std::time::Duration;

use crate::fault::{Fault, Faults};
use crate::memory::address;
use crate::plant::{Plant, Shaft};
use crate::servo::Servo;
use crate::wire::{self, BROADCAST, Request};

/// A packet that passed, as far as it was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Whether the host sent it.
    pub from_host: bool,
    /// All of its bytes; for a reply with a fault, what came of it.
    pub bytes: Vec<u8>,
}

/// A goal position that reached a servo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoalWrite {
    /// Which servo.
    pub id: u8,
    /// In ticks, as it was written: before the servo cuts it to its limits.
    pub goal: i32,
    /// Whether torque was on then.
    pub torque: bool,
}

/// The packets that are remembered; older ones are forgotten.
const REMEMBERED: usize = 100_000;
/// The most bytes of memory in a reply: its length, one byte, counts the status and the sum too.
const LONGEST: u8 = 253;
/// The longest step of the plant.
const STEP: Duration = Duration::from_millis(1);

/// One half-duplex line with servos on it.
pub(crate) struct Line {
    pub(crate) servos: Vec<Servo>,
    pub(crate) plant: Box<dyn Plant>,
    pub(crate) faults: Faults,
    pub(crate) packets: VecDeque<Packet>,
    pub(crate) goals: Vec<GoalWrite>,
    pub(crate) now: Duration,
    pub(crate) baud: u32,
    pub(crate) plugged: bool,
    busy_until: Duration,
    heard: Vec<u8>,
    pending: VecDeque<(Duration, Vec<u8>)>,
}

impl Line {
    pub(crate) fn new(servos: Vec<Servo>, plant: Box<dyn Plant>) -> Self {
        Self {
            servos,
            plant,
            faults: Faults::default(),
            packets: VecDeque::new(),
            goals: Vec::new(),
            now: Duration::ZERO,
            baud: 1_000_000,
            plugged: true,
            busy_until: Duration::ZERO,
            heard: Vec::new(),
            pending: VecDeque::new(),
        }
    }

    /// Lets time pass, up to this moment: the plant moves.
    pub(crate) fn advance_to(&mut self, moment: Duration) {
        while self.now < moment {
            let dt = (moment - self.now).min(STEP);
            let drives: Vec<_> = self.servos.iter().map(Servo::drive).collect();
            let mut shafts: Vec<Shaft> = self.servos.iter().map(|servo| servo.shaft).collect();
            self.plant.step(dt.as_secs_f64(), &drives, &mut shafts);
            for (servo, shaft) in self.servos.iter_mut().zip(shafts) {
                servo.shaft = shaft;
                servo.sense();
            }
            self.now += dt;
        }
    }

    /// Pulls the cable: what is under way is lost.
    pub(crate) fn unplug(&mut self) {
        self.plugged = false;
        self.discard();
        self.heard.clear();
    }

    /// What was said to a host that is gone is not for the next one.
    pub(crate) fn discard(&mut self) {
        self.pending.clear();
    }

    /// Takes the bytes that a host sends now. Replies wait in line until their time.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.heard.extend_from_slice(bytes);
        while let Some(request) = wire::take_request(&mut self.heard) {
            let start = self.now.max(self.busy_until);
            self.busy_until = start + self.wire_time(request.length);
            self.remember(true, wire_bytes(&request));
            self.carry_out(&request);
        }
    }

    /// When the next reply is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.pending.front().map(|(at, _)| *at)
    }

    /// A reply whose time has come.
    pub(crate) fn take_due(&mut self) -> Option<Vec<u8>> {
        if self.next_due()? > self.now {
            return None;
        }
        self.pending.pop_front().map(|(_, bytes)| bytes)
    }

    /// Ten bits a byte.
    fn wire_time(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 * 10.0 / f64::from(self.baud.max(1)))
    }

    fn remember(&mut self, from_host: bool, bytes: Vec<u8>) {
        if self.packets.len() == REMEMBERED {
            self.packets.pop_front();
        }
        self.packets.push_back(Packet { from_host, bytes });
    }

    fn carry_out(&mut self, request: &Request) {
        let params = &request.params[..];
        match (request.instruction, params) {
            (0x01, []) => self.each(request.id, true, |_| Some(Vec::new())),
            (0x02, &[at, length @ ..=LONGEST]) => {
                self.each(request.id, true, |servo| Some(servo.read(at, length)));
            }
            (0x03, [at, data @ ..]) => {
                let mut goals = Vec::new();
                self.each(request.id, request.id != BROADCAST, |servo| {
                    goals.extend(write(servo, *at, data));
                    (servo.byte(address::RESPONSE_LEVEL) != 0).then(Vec::new)
                });
                self.goals.append(&mut goals);
            }
            (0x04, [at, data @ ..]) => self.each(request.id, request.id != BROADCAST, |servo| {
                servo.staged = Some((*at, data.to_vec()));
                (servo.byte(address::RESPONSE_LEVEL) != 0).then(Vec::new)
            }),
            (0x05, []) => {
                let mut goals = Vec::new();
                self.each(request.id, request.id != BROADCAST, |servo| {
                    if let Some((at, data)) = servo.staged.take() {
                        goals.extend(write(servo, at, &data));
                    }
                    (servo.byte(address::RESPONSE_LEVEL) != 0).then(Vec::new)
                });
                self.goals.append(&mut goals);
            }
            // A servo that is missing leaves a gap; those after it answer all the same.
            (0x82, &[at, length @ ..=LONGEST, ref ids @ ..]) => {
                for &id in ids {
                    self.each(id, true, |servo| Some(servo.read(at, length)));
                }
            }
            (0x83, &[at, length, ref rest @ ..]) => {
                for chunk in rest.chunks_exact(usize::from(length) + 1) {
                    let mut goals = Vec::new();
                    self.each(chunk[0], false, |servo| {
                        goals.extend(write(servo, at, &chunk[1..]));
                        None
                    });
                    self.goals.append(&mut goals);
                }
            }
            // What is no instruction is not answered.
            _ => {}
        }
    }

    /// Lets the servos that are meant do something, in the order of their ids, and queues what they reply.
    fn each(&mut self, id: u8, replies: bool, mut act: impl FnMut(&mut Servo) -> Option<Vec<u8>>) {
        let mut meant: Vec<usize> = (0..self.servos.len())
            .filter(|&i| {
                let servo = &self.servos[i];
                let addressed = id == BROADCAST || servo.byte(address::ID) == id;
                servo.connected && addressed && servo.baud() == Some(self.baud)
            })
            .collect();
        meant.sort_by_key(|&i| self.servos[i].byte(address::ID));
        for i in meant {
            if !self.plugged {
                return;
            }
            let id = self.servos[i].byte(address::ID);
            let fault = self.faults.take(id, replies);
            match fault {
                Some(Fault::Unplug) => return self.unplug(),
                Some(Fault::Deaf) => continue,
                _ => {}
            }
            // The reply to a new id bears the new id, as on the real servo, where the register is changed first.
            let params = act(&mut self.servos[i]);
            if let Some(params) = params.filter(|_| replies) {
                self.reply(i, fault.as_ref(), &params);
            }
        }
    }

    fn reply(&mut self, servo: usize, fault: Option<&Fault>, params: &[u8]) {
        let servo = &self.servos[servo];
        let mut bytes = wire::reply(servo.byte(address::ID), servo.byte(address::STATUS), params);
        let mut delay = Duration::from_micros(2 * u64::from(servo.byte(address::RETURN_DELAY)));
        if let Some(fault) = fault {
            fault.apply(&mut bytes, &mut delay);
        }
        if bytes.is_empty() {
            return;
        }
        self.busy_until += delay + self.wire_time(bytes.len());
        self.remember(false, bytes.clone());
        self.pending.push_back((self.busy_until, bytes));
    }
}

/// Writes, and says which goal came of it.
fn write(servo: &mut Servo, at: u8, data: &[u8]) -> Option<GoalWrite> {
    servo.write(at, data);
    let written = usize::from(at)..usize::from(at) + data.len();
    let torque = servo.byte(address::TORQUE_ENABLE) == 1;
    let goal = GoalWrite { id: servo.byte(address::ID), goal: servo.goal(), torque };
    written.contains(&usize::from(address::GOAL_POSITION)).then_some(goal)
}

fn wire_bytes(request: &Request) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0xFF, request.id, request.params.len() as u8 + 2, request.instruction];
    bytes.extend_from_slice(&request.params);
    bytes.push(wire::checksum(&bytes[2..]));
    bytes
}
