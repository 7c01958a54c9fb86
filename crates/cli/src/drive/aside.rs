//! Work beside the loop: a terminal that stands still must not stop an arm from being stopped.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::Duration;

/// How long an end waits for what has not been taken yet. A terminal may stand still for good.
const PATIENCE: Duration = Duration::from_secs(1);

/// A thread that takes things one after the other. Who hands them over never waits; the end does, a little.
pub(super) struct Aside<T> {
    /// Absent once nothing more comes.
    things: Option<SyncSender<T>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl<T> Aside<T> {
    /// Room for so many things that wait for `take`.
    ///
    /// # Errors
    /// That the system has no thread to give.
    pub(super) fn start(
        name: &str,
        room: usize,
        take: impl FnMut(T) + Send + 'static,
    ) -> std::io::Result<Self>
    where
        T: Send + 'static,
    {
        let (things, handed_over) = sync_channel(room);
        let (end, ended) = channel();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            handed_over.into_iter().for_each(take);
            drop(end);
        })?;
        Ok(Self { things: Some(things), ended })
    }

    /// Hands something over, if there is room. Says whether there was.
    pub(super) fn offer(&self, thing: T) -> bool {
        self.things.as_ref().is_some_and(|things| things.try_send(thing).is_ok())
    }

    /// Lets the thread take what waits, and end.
    pub(super) fn finish(&mut self) {
        if self.things.take().is_some() {
            let _ = self.ended.recv_timeout(PATIENCE);
        }
    }
}

impl<T> Drop for Aside<T> {
    fn drop(&mut self) {
        self.finish();
    }
}
