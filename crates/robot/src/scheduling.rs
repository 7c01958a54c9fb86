use std::fmt;

/// How the system wakes the control loop.
///
/// A loop that sleeps until its deadline is late by as long as other programs keep the processor. On Linux it asks, while it
/// runs, for the priority of real-time threads, as `ros2_control` does; who may not have that gets short slices of time (Linux
/// 6.12), which are handed out sooner. Neither is inherited: a policy or an encoder on a thread of its own stays ordinary. What
/// the loop's thread was before, it is again afterwards.
///
/// An ordinary user has real-time priority on a machine whose `/etc/security/limits.d` says `USER - rtprio 10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheduling {
    /// Before all ordinary programs.
    RealTime,
    /// Among ordinary programs, with the shortest slices.
    ShortSlices,
    /// As the system does with any program.
    Ordinary,
}

impl Scheduling {
    /// As documents have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RealTime => "real_time",
            Self::ShortSlices => "short_slices",
            Self::Ordinary => "ordinary",
        }
    }
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RealTime => "real-time priority",
            Self::ShortSlices => "short slices",
            Self::Ordinary => "ordinary",
        })
    }
}

/// The calling thread is woken as early as the system allows, until this is dropped.
pub(crate) struct Punctual {
    scheduling: Scheduling,
    #[cfg(target_os = "linux")]
    before: Option<linux::Attributes>,
}

impl Punctual {
    pub(crate) fn begin() -> Self {
        #[cfg(target_os = "linux")]
        {
            let before = linux::get();
            let scheduling = match &before {
                // Whoever started the program has chosen.
                Some(before) if before.is_real_time() => Scheduling::RealTime,
                Some(before) if linux::set(&before.real_time()) => Scheduling::RealTime,
                Some(before) if linux::shorten_slices(before) => Scheduling::ShortSlices,
                _ => Scheduling::Ordinary,
            };
            Self { scheduling, before }
        }
        #[cfg(not(target_os = "linux"))]
        Self::ordinary()
    }

    /// Asks for nothing.
    pub(crate) fn ordinary() -> Self {
        Self {
            scheduling: Scheduling::Ordinary,
            #[cfg(target_os = "linux")]
            before: None,
        }
    }

    pub(crate) fn scheduling(&self) -> Scheduling {
        self.scheduling
    }
}

impl Drop for Punctual {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        if let Some(before) = &self.before
            && !linux::set(before)
        {
            // Without privilege everything may be given back but the flag that threads started here are ordinary ones.
            linux::set(&before.not_inherited());
        }
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "no crate wraps these two calls of the kernel")]
mod linux {
    use std::mem::size_of;

    /// `struct sched_attr` of `sched_setattr(2)`, as every kernel since 3.14 reads it.
    #[derive(Clone, Copy)]
    pub(super) struct Attributes(libc::sched_attr);

    const NONE: libc::sched_attr = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };

    /// Below the kernel's own real-time threads, which have 50.
    const PRIORITY: u32 = 10;

    /// The shortest slice that the kernel takes.
    pub(super) const SHORTEST_NS: u64 = 100_000;

    impl Attributes {
        pub(super) fn is_real_time(&self) -> bool {
            ![libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE].contains(&(self.0.sched_policy as i32))
        }

        /// First come, first served, before all ordinary threads.
        pub(super) fn real_time(&self) -> Self {
            let policy = libc::SCHED_FIFO as u32;
            let fifo = libc::sched_attr {
                sched_policy: policy,
                sched_priority: PRIORITY,
                sched_runtime: 0,
                ..self.0
            };
            Self(fifo).not_inherited()
        }

        pub(super) fn not_inherited(&self) -> Self {
            let flags = self.0.sched_flags | libc::SCHED_FLAG_RESET_ON_FORK as u64;
            Self(libc::sched_attr { sched_flags: flags, ..self.0 })
        }

        pub(super) fn slice_ns(&self) -> u64 {
            self.0.sched_runtime
        }

        #[cfg(test)]
        pub(super) fn policy(&self) -> i32 {
            self.0.sched_policy as i32
        }
    }

    /// Whether the thread has the shortest slices now; kernels before 6.12 take the wish and do nothing.
    pub(super) fn shorten_slices(before: &Attributes) -> bool {
        let short = Attributes(libc::sched_attr { sched_runtime: SHORTEST_NS, ..before.0 });
        set(&short.not_inherited()) && get().is_some_and(|now| now.slice_ns() == SHORTEST_NS)
    }

    /// Those of the calling thread.
    pub(super) fn get() -> Option<Attributes> {
        let mut attributes = NONE;
        // SAFETY: the kernel writes at most the size that it is told into attributes, which are plain integers and ours alone.
        let told = unsafe {
            libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size_of::<libc::sched_attr>(), 0)
        };
        (told == 0).then_some(Attributes(attributes))
    }

    /// Whether the kernel allows it.
    pub(super) fn set(attributes: &Attributes) -> bool {
        // SAFETY: the kernel reads as many bytes as `size` in them says, which is their size, and writes nothing but that field.
        let told = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes.0, 0) };
        told == 0
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Policy and slice of the calling thread.
    fn now() -> (i32, u64) {
        let now = linux::get().expect("a thread may ask for its own");
        (now.policy(), now.slice_ns())
    }

    #[test]
    fn what_is_asked_for_is_had_ends_and_is_not_inherited() {
        let before = now();
        let punctual = Punctual::begin();
        match punctual.scheduling() {
            Scheduling::RealTime => assert_eq!(now().0, libc::SCHED_FIFO),
            Scheduling::ShortSlices => assert_eq!(now(), (before.0, linux::SHORTEST_NS)),
            Scheduling::Ordinary => assert_eq!(now(), before),
        }
        let child = std::thread::spawn(now).join().expect("it only asks");
        assert_eq!(child, before, "a thread of the loop's is ordinary");
        drop(punctual);
        assert_eq!(now(), before);
    }

    /// What those have who may not have real-time priority.
    #[test]
    fn short_slices_are_had_end_and_are_not_inherited() {
        let before = linux::get().expect("a thread may ask for its own");
        if !linux::shorten_slices(&before) {
            println!("skipped: this kernel has no slices of a thread's own (Linux 6.12 has)");
            return;
        }
        assert_eq!(now(), (before.policy(), linux::SHORTEST_NS));
        let child = std::thread::spawn(now).join().expect("it only asks");
        assert_eq!(child, (before.policy(), before.slice_ns()));
        assert!(linux::set(&before.not_inherited()), "anyone may give it back");
        assert_eq!(now(), (before.policy(), before.slice_ns()));
    }
}
