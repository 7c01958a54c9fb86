use std::fmt;

/// How the system wakes the control loop.
///
/// A loop that sleeps until its deadline is late by as long as other programs keep the processor. On Linux it asks, while it
/// runs, for the priority of real-time threads, as `ros2_control` does; who may not have that gets short slices of time (Linux
/// 6.12), which are handed out sooner. Neither is inherited: a policy or an encoder on a thread of its own stays ordinary.
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
                Some(_) if linux::set(&linux::REAL_TIME) => Scheduling::RealTime,
                Some(_) if linux::set(&linux::SHORT_SLICES) => Scheduling::ShortSlices,
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
        if let Some(before) = &self.before {
            // What was allowed a moment ago; and if not, the thread is early for other things, too.
            linux::set(before);
        }
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "no crate wraps these two calls of the kernel")]
mod linux {
    use std::mem::size_of;

    /// `struct sched_attr` of `sched_setattr(2)`, as every kernel since 3.14 reads it.
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

    /// First come, first served among real-time threads; below the kernel's own, which have 50.
    pub(super) const REAL_TIME: Attributes = Attributes(libc::sched_attr {
        sched_policy: libc::SCHED_FIFO as u32,
        sched_flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
        sched_priority: 10,
        ..NONE
    });

    /// The shortest slice that the kernel takes, 0.1 ms.
    pub(super) const SHORT_SLICES: Attributes =
        Attributes(libc::sched_attr { sched_runtime: 100_000, ..NONE });

    impl Attributes {
        pub(super) fn is_real_time(&self) -> bool {
            ![libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE].contains(&(self.0.sched_policy as i32))
        }

        #[cfg(test)]
        pub(super) fn policy_and_slice_ns(&self) -> (i32, u64) {
            (self.0.sched_policy as i32, self.0.sched_runtime)
        }
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

    fn now() -> (i32, u64) {
        linux::get().expect("a thread may ask for its own").policy_and_slice_ns()
    }

    #[test]
    fn what_is_asked_for_is_had_ends_and_is_not_inherited() {
        let before = now();
        let punctual = Punctual::begin();
        match punctual.scheduling() {
            Scheduling::RealTime => assert_eq!(now().0, libc::SCHED_FIFO),
            Scheduling::ShortSlices => assert!(now().1 <= 100_000, "{:?}", now()),
            Scheduling::Ordinary => assert_eq!(now(), before),
        }
        let child = std::thread::spawn(now).join().expect("it only asks");
        assert_eq!(child.0, before.0, "a thread of the loop's is ordinary");
        drop(punctual);
        assert_eq!(now(), before);
    }
}
