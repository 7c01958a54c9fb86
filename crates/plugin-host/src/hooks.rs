use core::cell::{Cell, RefCell};
use core::ffi::c_void;
use core::fmt;

use skillweld_plugin_abi as abi;

/// Importance of a line that a plugin logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something looks wrong.
    Warning,
    /// Something worth knowing.
    Info,
    /// Something for the plugin's author.
    Debug,
}

/// What a running plugin may tell and ask its host. Each is called on the thread that runs the plugin.
///
/// The hooks must not panic: they are called from foreign code, so a panic ends the process.
#[derive(Clone, Copy)]
pub struct HostHooks<'a> {
    /// Takes a line for the log.
    pub log: &'a (dyn Fn(Level, &str) + Sync),
    /// Takes the fraction done (0..=1) of one long call.
    pub progress: &'a (dyn Fn(f64) + Sync),
    /// Says whether the user wants to stop.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl HostHooks<'static> {
    /// Listens to nothing and never cancels.
    pub const SILENT: Self = Self { log: &|_, _| {}, progress: &|_| {}, cancelled: &|| false };
}

impl fmt::Debug for HostHooks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostHooks")
    }
}

/// Longest message taken over the boundary, in bytes; the rest of a longer one is dropped.
const MAX_MESSAGE_LEN: usize = 64 * 1024;

/// Longest name of a way to compute that is taken, in bytes; longer ones, and names of other characters than `[a-z0-9_]`, are
/// not heard.
const MAX_PATH_NAME_LEN: usize = 32;

/// Stands for the message of a method that failed without a word.
pub const NO_REASON: &str = "the plugin gave no reason";

/// What the callbacks of one call find behind `Host::context`.
pub(crate) struct Context<'a> {
    hooks: &'a HostHooks<'a>,
    error: RefCell<String>,
    settled: Cell<bool>,
    path: RefCell<Option<String>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(hooks: &'a HostHooks<'a>) -> Self {
        Self {
            hooks,
            error: RefCell::new(String::new()),
            settled: Cell::new(false),
            path: RefCell::default(),
        }
    }

    /// The callbacks to hand over; they are good for as long as `self` stays where it is.
    pub(crate) fn host(&self) -> abi::Host {
        abi::Host {
            size: size_of::<abi::Host>() as u64,
            context: core::ptr::from_ref(self).cast_mut().cast(),
            error: Some(error),
            log: Some(log),
            progress: Some(progress),
            cancelled: Some(cancelled),
            settled: Some(settled),
            path: Some(path),
        }
    }

    /// Whether the call said that its pass has nothing to add.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.get()
    }

    /// The way by which the method said that it computes.
    pub(crate) fn take_path(&self) -> Option<String> {
        self.path.take()
    }

    /// The last message pushed through [`abi::Host::error`].
    pub(crate) fn into_message(self) -> String {
        let message = self.error.into_inner();
        if message.is_empty() { NO_REASON.into() } else { message }
    }
}

unsafe extern "C" fn error(context: *mut c_void, message: abi::Str) {
    // SAFETY: the plugin hands back the `context` and a readable text, as the boundary's rules ask.
    let (context, message) = unsafe { (context_of(context), text(message)) };
    if let Some(context) = context {
        *context.error.borrow_mut() = message;
    }
}

unsafe extern "C" fn log(context: *mut c_void, level: u32, message: abi::Str) {
    // SAFETY: as in `error`.
    let (context, message) = unsafe { (context_of(context), text(message)) };
    let level = match level {
        1 => Level::Error,
        2 => Level::Warning,
        3 => Level::Info,
        _ => Level::Debug,
    };
    if let Some(context) = context {
        (context.hooks.log)(level, &message);
    }
}

unsafe extern "C" fn progress(context: *mut c_void, fraction: f64) {
    // SAFETY: as in `error`.
    if let Some(context) = unsafe { context_of(context) } {
        (context.hooks.progress)(if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) });
    }
}

unsafe extern "C" fn cancelled(context: *mut c_void) -> i32 {
    // SAFETY: as in `error`.
    unsafe { context_of(context) }.is_some_and(|context| (context.hooks.cancelled)()).into()
}

unsafe extern "C" fn settled(context: *mut c_void) {
    // SAFETY: as in `error`.
    if let Some(context) = unsafe { context_of(context) } {
        context.settled.set(true);
    }
}

unsafe extern "C" fn path(context: *mut c_void, name: abi::Str) {
    // SAFETY: as in `error`.
    let (context, name) = unsafe { (context_of(context), text(name)) };
    if let Some(context) = context {
        let named = !name.is_empty() && name.len() <= MAX_PATH_NAME_LEN && name.bytes().all(is_name_byte);
        context.path.replace(named.then_some(name));
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

/// # Safety
/// `context` is null or came from [`Context::host`] of a context that is still where it was then.
unsafe fn context_of<'a>(context: *mut c_void) -> Option<&'a Context<'a>> {
    // SAFETY: by the caller's word the pointer is null or points to a live `Context`; only shared access happens
    // (`Context::host` comes from `&self`), and only on the thread that owns it.
    unsafe { context.cast::<Context<'a>>().as_ref() }
}

/// # Safety
/// `message` is empty, null or points to `message.len` readable bytes.
unsafe fn text(message: abi::Str) -> String {
    if message.ptr.is_null() {
        return String::new();
    }
    // SAFETY: not null, and readable for `len` bytes by the caller's word.
    let bytes = unsafe { core::slice::from_raw_parts(message.ptr, message.len.min(MAX_MESSAGE_LEN)) };
    String::from_utf8_lossy(bytes).into_owned()
}
