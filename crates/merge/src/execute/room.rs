//! How many elements of whole matrices may be in the works at once.

use std::sync::{Condvar, Mutex, PoisonError};

/// Room for so many elements. What wants more than there is waits until it has all of it.
#[derive(Debug)]
pub(crate) struct Room {
    all: usize,
    free: Mutex<usize>,
    freed: Condvar,
}

impl Room {
    pub(crate) fn new(all: usize) -> Self {
        Self { all, free: Mutex::new(all), freed: Condvar::new() }
    }

    /// Waits for room for `len` elements; the room is free again when the guard is dropped.
    pub(crate) fn take(&self, len: usize) -> Taken<'_> {
        let len = len.min(self.all);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free =
            self.freed.wait_while(free, |free| *free < len).unwrap_or_else(PoisonError::into_inner);
        *free -= len;
        Taken { room: self, len }
    }
}

/// Room in use.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    room: &'a Room,
    len: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.room.free.lock().unwrap_or_else(PoisonError::into_inner) += self.len;
        self.room.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn no_more_is_in_the_works_than_there_is_room_for() {
        let (room, used, most) = (Room::new(10), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (room, used, most) = (&room, &used, &most);
                scope.spawn(move || {
                    for len in (0..200).map(|i| (i * 7 + worker) % 13) {
                        let taken = room.take(len);
                        let now = used.fetch_add(taken.len, Ordering::SeqCst) + taken.len;
                        most.fetch_max(now, Ordering::SeqCst);
                        used.fetch_sub(taken.len, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 10);
        assert_eq!(*room.free.lock().unwrap_or_else(PoisonError::into_inner), 10);
    }
}
