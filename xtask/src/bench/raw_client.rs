//! The least that a websocket client can do: ready-made bytes out, a reply's bytes in.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

const WARM_UP: usize = 100;

/// Milliseconds of every round trip with each server, asked in turns.
pub(crate) fn measure<'a>(
    servers: [(&'a str, u16); 3],
    frame: &[u8],
    requests: usize,
    block: usize,
) -> Result<Vec<(&'a str, Vec<f64>)>> {
    let mut connections = Vec::new();
    for (name, port) in servers {
        connections.push((name, Connection::open(port)?, Vec::new()));
    }
    for (_, connection, _) in &mut connections {
        (0..WARM_UP).try_for_each(|_| connection.ask(frame))?;
    }
    for _ in (0..requests).step_by(block) {
        for (_, connection, times) in &mut connections {
            for _ in 0..block {
                let start = Instant::now();
                connection.ask(frame)?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    Ok(connections.into_iter().map(|(name, _, times)| (name, times)).collect())
}

/// One binary frame as clients send it. The mask is zero: masking is the client's work, unmasking the server's.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u64;
    [&[0x82, 0x80 | 127][..], &length.to_be_bytes(), &[0; 4], payload].concat()
}

struct Connection {
    stream: TcpStream,
    reply: Vec<u8>,
}

impl Connection {
    /// Connects and takes the metadata.
    fn open(port: u16) -> Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        write!(
            stream,
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        ensure!(head.starts_with(b"HTTP/1.1 101"), "no websocket: {}", String::from_utf8_lossy(&head));
        let mut connection = Self { stream, reply: Vec::new() };
        connection.read_frame()?;
        Ok(connection)
    }

    /// Sends a request and waits for the reply.
    fn ask(&mut self, frame: &[u8]) -> Result<()> {
        self.stream.write_all(frame)?;
        self.read_frame()
    }

    /// Reads one unmasked binary frame; a ping is answered by reading on, which is enough for as long as a bench takes.
    fn read_frame(&mut self) -> Result<()> {
        self.reply.clear();
        loop {
            let mut part = [0; 4096];
            let count = self.stream.read(&mut part)?;
            ensure!(count > 0, "the server closed the connection");
            self.reply.extend_from_slice(&part[..count]);
            match self.reply[..] {
                [0x89, 0, ..] => drop(self.reply.drain(..2)),
                [0x82, 126, high, low, ..] => {
                    if self.reply.len() >= 4 + usize::from(u16::from_be_bytes([high, low])) {
                        return Ok(());
                    }
                }
                [0x82, length @ 0..126, ..] if self.reply.len() >= 2 + usize::from(length) => {
                    return Ok(());
                }
                [0x82, 0..=126, ..] | [0x82] => {}
                [first, ..] => bail!("a frame of kind {first:#x} instead of a reply"),
                [] => {}
            }
        }
    }
}
