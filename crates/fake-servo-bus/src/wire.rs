//! Packets as they pass on the wire.

/// The id that all servos hear.
pub(crate) const BROADCAST: u8 = 0xFE;

/// What a host asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) id: u8,
    pub(crate) instruction: u8,
    pub(crate) params: Vec<u8>,
    /// Bytes of the whole packet.
    pub(crate) length: usize,
}

pub(crate) fn checksum(body: &[u8]) -> u8 {
    !body.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte))
}

pub(crate) fn reply(id: u8, status: u8, params: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xFF, 0xFF, id, params.len() as u8 + 2, status];
    packet.extend_from_slice(params);
    packet.push(checksum(&packet[2..]));
    packet
}

/// Takes the first whole request off the front, with whatever stands before it. Packets whose checksum is wrong are no
/// requests: servos stay silent.
pub(crate) fn take_request(bytes: &mut Vec<u8>) -> Option<Request> {
    let mut at = 0;
    while let Some(header) = bytes[at..].windows(2).position(|pair| pair == [0xFF, 0xFF]) {
        at += header;
        let packet = &bytes[at..];
        if packet.len() < 4 {
            break;
        }
        let (id, length) = (packet[2], usize::from(packet[3]));
        if id == 0xFF || length < 2 {
            at += 1;
            continue;
        }
        if packet.len() < 4 + length {
            break;
        }
        let (body, sum) = (&packet[2..3 + length], packet[3 + length]);
        if checksum(body) != sum {
            at += 2;
            continue;
        }
        let request = Request { id, instruction: body[2], params: body[3..].to_vec(), length: 4 + length };
        bytes.drain(..at + 4 + length);
        return Some(request);
    }
    // What is left may be the start of a packet.
    let kept = bytes.len().saturating_sub(at).min(255);
    bytes.drain(..bytes.len() - kept);
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Packets that Feetech's protocol description gives.
    #[test]
    fn published_packets_are_understood() {
        let mut ping = vec![0xFF, 0xFF, 0x01, 0x02, 0x01, 0xFB];
        assert_eq!(
            take_request(&mut ping),
            Some(Request { id: 1, instruction: 1, params: vec![], length: 6 })
        );
        assert!(ping.is_empty());
        assert_eq!(reply(1, 0, &[]), [0xFF, 0xFF, 0x01, 0x02, 0x00, 0xFC]);
        assert_eq!(reply(1, 0, &[0x18, 0x05]), [0xFF, 0xFF, 0x01, 0x04, 0x00, 0x18, 0x05, 0xDD]);
        let mut wrong = vec![0xFF, 0xFF, 0x01, 0x02, 0x01, 0xFA];
        assert_eq!(take_request(&mut wrong), None);
    }

    proptest! {
        #[test]
        fn anything_may_come_in_any_pieces(
            bytes in proptest::collection::vec(prop_oneof![Just(0xFF_u8), any::<u8>()], 0..400),
            piece in 1_usize..50,
        ) {
            let mut kept = Vec::new();
            for piece in bytes.chunks(piece) {
                kept.extend_from_slice(piece);
                while take_request(&mut kept).is_some() {}
            }
            prop_assert!(kept.len() <= 255);
            // Whatever came before, the line is in order again after a silence.
            kept.clear();
            kept.extend([0xFF, 0xFF, 0x01, 0x02, 0x01, 0xFB]);
            prop_assert!(take_request(&mut kept).is_some());
        }
    }
}
