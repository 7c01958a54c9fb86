//! ZMTP 3.1, the part of it that a REP socket without security speaks: <https://rfc.zeromq.org/spec/23/> and 37.
//!
//! The crate `zeromq` would do the same, but reserves as much memory as the length of a frame announces, so that nine bytes
//! from anybody end the process; and its REP socket does not say which client a request is from, who each has an episode.
//! Here nothing is held but what has been received, and no message is larger than the limit.

use bytes::{Buf, Bytes, BytesMut};

/// Length of what either side says first.
pub(super) const GREETING_BYTES: usize = 64;

/// Version 3.1, no security, no server of any.
pub(super) const GREETING: [u8; GREETING_BYTES] = {
    let mut greeting = [0; GREETING_BYTES];
    (greeting[0], greeting[9], greeting[10], greeting[11]) = (0xff, 0x7f, 3, 1);
    (greeting[12], greeting[13], greeting[14], greeting[15]) = (b'N', b'U', b'L', b'L');
    greeting
};

/// Frames of one message: a REQ socket sends two, and every ROUTER on the way adds one.
const MAX_FRAMES: usize = 16;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// Why a client is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ZmtpError {
    #[error("it does not speak ZeroMQ's protocol 3")]
    Greeting,
    #[error("it wants security that is not spoken here: only NULL is")]
    Mechanism,
    #[error("it is a {0} socket; only REQ and DEALER sockets ask for actions")]
    Socket(String),
    #[error("the message is larger than {limit} bytes, which is this server's limit")]
    Oversized { limit: usize },
    #[error("malformed message: {0}")]
    Malformed(&'static str),
}

/// What a client sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    Message(Message),
    Command { name: Bytes, data: Bytes },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Everything up to the empty frame: the answer begins with the same.
    pub(super) envelope: Vec<Bytes>,
    pub(super) body: Bytes,
}

/// Reads a greeting; gives the minor version.
pub(super) fn greeting(bytes: &[u8; GREETING_BYTES]) -> Result<u8, ZmtpError> {
    if bytes[0] != 0xff || bytes[9] != 0x7f || bytes[10] < 3 {
        return Err(ZmtpError::Greeting);
    }
    if bytes[12..32] != GREETING[12..32] {
        return Err(ZmtpError::Mechanism);
    }
    Ok(if bytes[10] == 3 { bytes[11] } else { 1 })
}

/// The command that says which socket this is.
pub(super) fn ready() -> Vec<u8> {
    let properties: [(&[u8], &[u8]); 2] = [(b"Socket-Type", b"REP"), (b"Identity", b"")];
    let mut data = Vec::new();
    for (name, value) in properties {
        data.push(name.len() as u8);
        data.extend_from_slice(name);
        data.extend_from_slice(&(value.len() as u32).to_be_bytes());
        data.extend_from_slice(value);
    }
    command(b"READY", &data)
}

/// Refuses sockets that do not ask. `data` is that of their READY.
pub(super) fn check_ready(mut data: &[u8]) -> Result<(), ZmtpError> {
    let malformed = ZmtpError::Malformed("properties of READY end in the middle");
    while let [length, rest @ ..] = data {
        let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or(malformed.clone())?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(malformed.clone())?;
        let length = u32::from_be_bytes(*length) as usize;
        let (value, rest) = rest.split_at_checked(length).ok_or(malformed.clone())?;
        data = rest;
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            return match value {
                b"REQ" | b"DEALER" => Ok(()),
                other => Err(ZmtpError::Socket(String::from_utf8_lossy(other).chars().take(20).collect())),
            };
        }
    }
    Err(ZmtpError::Malformed("READY does not say which socket it is of"))
}

/// A command on the wire.
pub(super) fn command(name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(&mut bytes, COMMAND, &[&[name.len() as u8], name, data].concat());
    bytes
}

/// A message on the wire.
pub(super) fn message(envelope: &[Bytes], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 64);
    envelope.iter().for_each(|part| frame(&mut bytes, MORE, part));
    frame(&mut bytes, 0, body);
    bytes
}

fn frame(to: &mut Vec<u8>, flags: u8, data: &[u8]) {
    match u8::try_from(data.len()) {
        Ok(length) => to.extend([flags, length]),
        Err(_) => {
            to.push(flags | LONG);
            to.extend((data.len() as u64).to_be_bytes());
        }
    }
    to.extend_from_slice(data);
}

/// Makes messages and commands of what is received, however it is cut.
pub(super) struct Reader {
    /// Frames of the message that has begun.
    frames: Vec<Bytes>,
    /// Their bytes.
    held: usize,
    limit: usize,
}

impl Reader {
    pub(super) fn new(limit: usize) -> Self {
        Self { frames: Vec::new(), held: 0, limit }
    }

    /// The next item, taken from the beginning of `received`; none if it is not whole.
    pub(super) fn next(&mut self, received: &mut BytesMut) -> Result<Option<Item>, ZmtpError> {
        while let Some((flags, data)) = self.frame(received)? {
            if flags & COMMAND != 0 {
                return named(&data).map(Some);
            }
            self.held += data.len();
            self.frames.push(data);
            if flags & MORE == 0 {
                self.held = 0;
                return whole(std::mem::take(&mut self.frames)).map(Some);
            }
            if self.frames.len() >= MAX_FRAMES {
                return Err(ZmtpError::Malformed("more than 16 frames"));
            }
        }
        Ok(None)
    }

    fn frame(&self, received: &mut BytesMut) -> Result<Option<(u8, Bytes)>, ZmtpError> {
        let Some(&flags) = received.first() else { return Ok(None) };
        if flags & !(MORE | LONG | COMMAND) != 0 || flags & COMMAND != 0 && flags & MORE != 0 {
            return Err(ZmtpError::Malformed("a frame with unknown flags"));
        }
        let (head, length) = match flags & LONG {
            0 => (2, received.get(1).map(|length| u64::from(*length))),
            _ => (9, received[1..].first_chunk().map(|length| u64::from_be_bytes(*length))),
        };
        let Some(length) = length else { return Ok(None) };
        // Before anything is made room for.
        let limit = self.limit;
        let left = limit.saturating_sub(self.held);
        let length = usize::try_from(length).ok().filter(|length| *length <= left);
        let length = length.ok_or(ZmtpError::Oversized { limit })?;
        if received.len() < head + length {
            return Ok(None);
        }
        received.advance(head);
        Ok(Some((flags, received.split_to(length).freeze())))
    }
}

fn named(data: &Bytes) -> Result<Item, ZmtpError> {
    let malformed = ZmtpError::Malformed("a command without a name");
    let length = usize::from(*data.first().ok_or(malformed.clone())?);
    if data.len() <= length {
        return Err(malformed);
    }
    Ok(Item::Command { name: data.slice(1..=length), data: data.slice(length + 1..) })
}

fn whole(mut frames: Vec<Bytes>) -> Result<Item, ZmtpError> {
    let end = frames.iter().position(Bytes::is_empty);
    let end = end.ok_or(ZmtpError::Malformed("no empty frame before the request, which REQ sockets send"))?;
    match (frames.pop(), frames.len() == end + 1) {
        (Some(body), true) => Ok(Item::Message(Message { envelope: frames, body })),
        _ => Err(ZmtpError::Malformed("a request is one frame")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(limit: usize, pieces: &[&[u8]]) -> Result<Vec<Item>, ZmtpError> {
        let (mut reader, mut received, mut items) = (Reader::new(limit), BytesMut::new(), Vec::new());
        for piece in pieces {
            received.extend_from_slice(piece);
            while let Some(item) = reader.next(&mut received)? {
                items.push(item);
            }
        }
        Ok(items)
    }

    fn request(envelope: &[&'static [u8]], body: Vec<u8>) -> Message {
        let envelope = envelope.iter().map(|part| Bytes::from_static(part)).collect();
        Message { envelope, body: body.into() }
    }

    #[test]
    fn greetings_and_sockets_are_checked() {
        assert_eq!(greeting(&GREETING), Ok(1));
        let with = |index: usize, byte: u8| {
            let mut other = GREETING;
            other[index] = byte;
            greeting(&other)
        };
        assert_eq!(with(11, 0), Ok(0));
        assert_eq!(with(0, b'G'), Err(ZmtpError::Greeting));
        assert_eq!(with(10, 1), Err(ZmtpError::Greeting));
        assert_eq!(with(12, b'P'), Err(ZmtpError::Mechanism));
        // Our own READY is a REP's.
        let Ok([Item::Command { name, data }]) =
            items(100, &[&ready()]).map(|items| <[_; 1]>::try_from(items).unwrap())
        else {
            panic!()
        };
        assert_eq!(&*name, b"READY");
        assert_eq!(check_ready(&data), Err(ZmtpError::Socket("REP".into())));
        assert_eq!(check_ready(b"\x0bsocket-type\0\0\0\x03REQ"), Ok(()));
        assert_eq!(check_ready(b"\x01x\0\0\0\0\x0bSocket-Type\0\0\0\x06DEALER"), Ok(()));
        for cut in [&b""[..], b"\x0bSocket", b"\x0bSocket-Type\0\0", b"\x0bSocket-Type\xff\xff\xff\xffREQ"] {
            assert!(matches!(check_ready(cut), Err(ZmtpError::Malformed(_))), "{cut:?}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let refused = |bytes: &[u8]| items(1000, &[bytes]).unwrap_err().to_string();
        for (bytes, expected) in [
            (&[8, 0][..], "unknown flags"),
            (&[COMMAND | MORE, 0], "unknown flags"),
            (&[COMMAND, 0], "without a name"),
            (&[COMMAND, 2, 5, b'R'], "without a name"),
            (&[0, 1, 7], "no empty frame"),
            (&[MORE, 0, MORE, 1, 7, 0, 1, 7], "one frame"),
            (&[0, 0], "one frame"),
            (&[MORE, 1, 7].repeat(16), "more than 16"),
            // Announced lengths of 16 EiB, and of one byte too many.
            (&[LONG, 255, 255, 255, 255, 255, 255, 255, 255], "larger than 1000"),
            (&[LONG, 0, 0, 0, 0, 0, 0, 3, 233], "larger than 1000"),
        ] {
            let error = refused(bytes);
            assert!(error.contains(expected), "`{error}` does not say `{expected}`");
        }
        // The limit is the message's, not the frame's.
        let two = message(&[Bytes::from_static(&[1; 200]), Bytes::new()], &[2; 200]);
        assert_eq!(items(400, &[&two]).unwrap().len(), 1);
        assert_eq!(items(399, &[&two]), Err(ZmtpError::Oversized { limit: 399 }));
    }

    proptest! {
        #[test]
        fn messages_come_back_however_they_are_cut(
            lengths in proptest::collection::vec(0..700_usize, 1..5),
            routed: bool,
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let envelope: &[&'static [u8]] = if routed { &[b"route", b""] } else { &[b""] };
            let sent: Vec<_> = lengths.iter().map(|&length| request(envelope, vec![7; length])).collect();
            let mut wire = Vec::new();
            for one in &sent {
                wire.extend(message(&one.envelope, &one.body));
                wire.extend(command(b"PING", b"\0\0x"));
            }
            let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
            ends.sort_unstable();
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let pieces: Vec<_> =
                starts.zip(ends.iter().copied().chain([wire.len()])).map(|(start, end)| &wire[start..end]).collect();
            let got = items(1000, &pieces).unwrap();
            prop_assert_eq!(got.len(), 2 * sent.len());
            for (item, expected) in got.into_iter().step_by(2).zip(sent) {
                prop_assert_eq!(item, Item::Message(expected));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(prop_oneof![0..9_u8, any::<u8>()], 0..300),
            limit in 0..200_usize,
        ) {
            if let Ok(items) = items(limit, &[&bytes]) {
                for item in items {
                    let Item::Message(message) = item else { continue };
                    prop_assert!(message.body.len() <= limit && message.envelope.len() < MAX_FRAMES);
                }
            }
            drop(check_ready(&bytes));
        }
    }
}
