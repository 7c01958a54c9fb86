use std::collections::VecDeque;
use std::time::Duration;

/// Something that goes wrong once, with one servo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request does not reach it: nothing is done, nothing replied.
    Deaf,
    /// The request is carried out, the reply is lost.
    NoReply,
    /// The reply's last byte is wrong.
    BadChecksum,
    /// These bytes come before the reply.
    GarbageBefore(Vec<u8>),
    /// These bytes come in the middle of the reply.
    GarbageWithin(Vec<u8>),
    /// Only so many bytes of the reply come.
    Truncated(usize),
    /// The reply bears another servo's id, with a checksum that fits.
    WrongId(u8),
    /// The reply comes so much later.
    Delayed(Duration),
    /// The reply bears these error bits.
    Status(u8),
    /// The cable is pulled: nothing passes until `replug`.
    Unplug,
}

impl Fault {
    /// Whether it happens to a request that no reply is expected to.
    fn needs_no_reply(&self) -> bool {
        matches!(self, Self::Deaf | Self::Unplug)
    }

    /// Does to a reply what the fault is.
    pub(crate) fn apply(&self, reply: &mut Vec<u8>, delay: &mut Duration) {
        match self {
            Self::Deaf | Self::NoReply | Self::Unplug => reply.clear(),
            Self::BadChecksum => {
                if let Some(sum) = reply.last_mut() {
                    *sum ^= 0x55;
                }
            }
            Self::GarbageBefore(bytes) => drop(reply.splice(..0, bytes.iter().copied())),
            Self::GarbageWithin(bytes) => {
                let middle = reply.len() / 2;
                drop(reply.splice(middle..middle, bytes.iter().copied()));
            }
            Self::Truncated(length) => reply.truncate(*length),
            Self::WrongId(id) => {
                reply[2] = *id;
                resum(reply);
            }
            Self::Delayed(by) => *delay += *by,
            Self::Status(bits) => {
                reply[4] |= bits;
                resum(reply);
            }
        }
    }
}

fn resum(reply: &mut [u8]) {
    if let Some((sum, packet)) = reply.split_last_mut() {
        *sum = crate::wire::checksum(&packet[2..]);
    }
}

/// Faults at random, the same ones for the same seed and the same requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Which sequence.
    pub seed: u64,
    /// How likely a request meets a fault, 0 … 1, servo by servo.
    pub chance: f64,
    /// Which ones, equally likely. None at all: no faults.
    pub faults: Vec<Fault>,
}

/// The faults that are still to come.
#[derive(Default)]
pub(crate) struct Faults {
    queued: VecDeque<(u8, Fault)>,
    schedule: Option<Schedule>,
    state: u64,
}

impl Faults {
    pub(crate) fn push(&mut self, id: u8, fault: Fault) {
        self.queued.push_back((id, fault));
    }

    pub(crate) fn set_schedule(&mut self, schedule: Option<Schedule>) {
        self.state = schedule.as_ref().map_or(0, |schedule| schedule.seed);
        self.schedule = schedule;
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The fault that the next request to a servo meets. One that alters replies waits for a request that has one.
    pub(crate) fn take(&mut self, id: u8, replies: bool) -> Option<Fault> {
        let fits = |fault: &Fault| replies || fault.needs_no_reply();
        if let Some(at) = self.queued.iter().position(|(of, fault)| *of == id && fits(fault)) {
            return self.queued.remove(at).map(|(_, fault)| fault);
        }
        let (a, b) = (self.random(), self.random());
        let schedule = self.schedule.as_ref()?;
        if schedule.faults.is_empty() || (a >> 11) as f64 / (1_u64 << 53) as f64 >= schedule.chance {
            return None;
        }
        let fault = &schedule.faults[(b % schedule.faults.len() as u64) as usize];
        fits(fault).then(|| fault.clone())
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_repeats_itself_and_keeps_its_chance() {
        let schedule = Schedule { seed: 5, chance: 0.25, faults: vec![Fault::NoReply, Fault::Deaf] };
        let draw = || {
            let mut faults = Faults::default();
            faults.set_schedule(Some(schedule.clone()));
            (0..4000).map(|_| faults.take(1, true)).collect::<Vec<_>>()
        };
        let first = draw();
        assert_eq!(first, draw());
        let met = first.iter().flatten().count();
        // Five standard deviations of a binomial distribution: √(4000 · ¼ · ¾) = 27.4.
        assert!((863..=1137).contains(&met), "{met}");
    }

    #[test]
    fn faults_of_replies_wait_for_a_reply() {
        let mut faults = Faults::default();
        faults.push(2, Fault::BadChecksum);
        assert_eq!(faults.take(2, false), None);
        assert_eq!(faults.take(1, true), None);
        assert_eq!(faults.take(2, true), Some(Fault::BadChecksum));
        assert_eq!(faults.take(2, true), None);
    }
}
