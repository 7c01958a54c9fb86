use super::Status;

/// The id that all servos hear, and none replies to except for a ping.
pub(super) const BROADCAST: u8 = 0xFE;
const HEADER: [u8; 2] = [0xFF, 0xFF];

/// What a packet asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Instruction {
    /// Answer.
    Ping = 0x01,
    /// Params: address, count.
    Read = 0x02,
    /// Params: address, bytes.
    Write = 0x03,
    /// Params: address, count, ids. Each of them replies, one after the other.
    SyncRead = 0x82,
    /// Params: address, count, then for each servo its id and its bytes. Nobody replies.
    SyncWrite = 0x83,
}

/// A request's bytes. At most 250 params: a packet's length is one byte, and servos keep little room for it.
pub(super) fn encode(id: u8, instruction: Instruction, params: &[u8]) -> Vec<u8> {
    debug_assert!(params.len() <= 250);
    let mut packet = vec![HEADER[0], HEADER[1], id, params.len() as u8 + 2, instruction as u8];
    packet.extend_from_slice(params);
    packet.push(checksum(&packet[2..]));
    packet
}

fn checksum(body: &[u8]) -> u8 {
    !body.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte))
}

/// A whole reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply<'a> {
    /// Who replies.
    pub(super) id: u8,
    /// What it complains about.
    pub(super) status: Status,
    /// What was asked for.
    pub(super) params: &'a [u8],
}

/// Why bytes that look like a reply are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The bytes do not add up.
    #[error("wrong checksum")]
    Checksum,
    /// Another number of bytes than was asked for.
    #[error("{got} bytes instead of {expected}")]
    Length {
        /// What was asked for.
        expected: usize,
        /// What its length says.
        got: usize,
    },
    /// A reply, but from another servo.
    #[error("it bears the id {got}")]
    WrongId {
        /// The id in it.
        got: u8,
    },
    /// Bytes, but no whole reply among them.
    #[error("{bytes} bytes without a whole reply")]
    Short {
        /// How many.
        bytes: usize,
    },
}

/// What [`scan`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan<'a> {
    /// The first whole reply, and where the bytes after it start.
    Reply(Reply<'a>, usize),
    /// None yet. What has been damaged, if that can be told.
    Nothing(Option<Damage>),
}

/// Looks for the first whole reply with so many params, wherever it starts: what stands before it is noise.
///
/// A header whose length is another one, or whose bytes do not add up, is noise too; the search goes on behind its first
/// byte. So no damaged byte can hide the replies after it, and nothing is waited for that may never come.
pub(super) fn scan(bytes: &[u8], params: usize) -> Scan<'_> {
    let mut damage = None;
    for at in 0..bytes.len() {
        let packet = &bytes[at..];
        if !packet.starts_with(&HEADER) || packet.len() < 4 || packet[2] >= BROADCAST {
            continue;
        }
        let got = usize::from(packet[3]);
        if got != params + 2 {
            damage = damage.or(Some(Damage::Length { expected: params, got: got.saturating_sub(2) }));
            continue;
        }
        let Some((body, rest)) = packet[2..].split_at_checked(got + 1) else { continue };
        match rest.first() {
            None => {}
            Some(&sum) if sum == checksum(body) => {
                let reply = Reply { id: body[0], status: Status(body[2]), params: &body[3..] };
                return Scan::Reply(reply, at + 4 + got);
            }
            // More telling than a length, which may be noise.
            Some(_) => damage = Some(Damage::Checksum),
        }
    }
    Scan::Nothing(damage)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply(id: u8, status: u8, params: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xFF, 0xFF, id, params.len() as u8 + 2, status];
        packet.extend_from_slice(params);
        packet.push(checksum(&packet[2..]));
        packet
    }

    /// Worked out from Feetech's protocol description.
    #[test]
    fn golden_bytes() {
        assert_eq!(encode(1, Instruction::Ping, &[]), [0xFF, 0xFF, 0x01, 0x02, 0x01, 0xFB]);
        assert_eq!(encode(1, Instruction::Read, &[0x38, 2]), [0xFF, 0xFF, 1, 4, 2, 0x38, 2, 0xBE]);
        assert_eq!(
            encode(BROADCAST, Instruction::SyncRead, &[0x38, 2, 1, 2, 3, 4, 5, 6]),
            [0xFF, 0xFF, 0xFE, 0x0A, 0x82, 0x38, 0x02, 1, 2, 3, 4, 5, 6, 0x26]
        );
        assert_eq!(encode(BROADCAST, Instruction::Write, &[5, 1]), [0xFF, 0xFF, 0xFE, 4, 3, 5, 1, 0xF4]);
        let position = [0xFF, 0xFF, 0x01, 0x04, 0x00, 0x18, 0x05, 0xDD];
        let found = Reply { id: 1, status: Status(0), params: &[0x18, 0x05] };
        assert_eq!(scan(&position, 2), Scan::Reply(found, 8));
    }

    #[test]
    fn damage_is_told_apart() {
        let mut bytes = reply(3, 0, &[1, 2]);
        bytes[7] ^= 1;
        assert_eq!(scan(&bytes, 2), Scan::Nothing(Some(Damage::Checksum)));
        assert_eq!(scan(&reply(3, 0, &[1]), 2), Scan::Nothing(Some(Damage::Length { expected: 2, got: 1 })));
        assert_eq!(scan(&reply(3, 0, &[1, 2])[..6], 2), Scan::Nothing(None));
        assert_eq!(scan(&[], 2), Scan::Nothing(None));
    }

    #[test]
    fn a_third_ff_belongs_to_the_noise() {
        let mut bytes = vec![0xFF];
        bytes.extend(reply(4, 0x20, &[]));
        assert_eq!(scan(&bytes, 0), Scan::Reply(Reply { id: 4, status: Status(0x20), params: &[] }, 7));
    }

    proptest! {
        #[test]
        fn nothing_panics(
            bytes in proptest::collection::vec(prop_oneof![Just(0xFF_u8), 0..8_u8, any::<u8>()], 0..200),
            params in 0..40_usize,
        ) {
            if let Scan::Reply(reply, end) = scan(&bytes, params) {
                prop_assert_eq!(reply.params.len(), params);
                prop_assert!(end <= bytes.len());
                // What is found is there, byte for byte.
                let again = super::tests::reply(reply.id, reply.status.0, reply.params);
                prop_assert_eq!(&bytes[end - again.len()..end], &again[..]);
            }
        }

        #[test]
        fn a_reply_is_found_behind_noise_and_before_anything(
            noise in proptest::collection::vec(0..0xFF_u8, 0..30),
            id in 0..0xFE_u8,
            status: u8,
            params in proptest::collection::vec(any::<u8>(), 0..30),
            after in proptest::collection::vec(any::<u8>(), 0..30),
        ) {
            let mut bytes = noise.clone();
            bytes.extend(reply(id, status, &params));
            let end = bytes.len();
            bytes.extend(after);
            let expected = Reply { id, status: Status(status), params: &params };
            prop_assert_eq!(scan(&bytes, params.len()), Scan::Reply(expected, end));
        }

        #[test]
        fn one_changed_byte_is_never_taken_for_the_reply(
            id in 0..0xFE_u8,
            params in proptest::collection::vec(any::<u8>(), 2),
            at in 0..8_usize,
            flip in 1..=255_u8,
        ) {
            let mut bytes = reply(id, 0, &params);
            bytes[at] ^= flip;
            prop_assert!(matches!(scan(&bytes, 2), Scan::Nothing(_)));
        }
    }
}
