use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use libloading::Library;
use skillweld_plugin_abi as abi;
use tempfile::TempDir;

use crate::{Method, PluginError, handshake};

/// A loaded shared library and its methods.
///
/// The library stays loaded until the process ends, on purpose: a [`Method`] may be in use on any thread, and code
/// that a plugin has registered with the system (thread-local destructors, for one) would run after it is gone.
#[derive(Debug, Clone)]
pub struct Plugin {
    path: PathBuf,
    methods: Vec<Method>,
}

/// Highest foreign major version that is looked for, to say it by name.
const HIGHEST_MAJOR_KNOWN: u32 = 16;

impl Plugin {
    /// Loads a library, checks the handshake and every method's description. A file that was loaded before is read
    /// anew, so a rebuilt plugin runs its new code.
    ///
    /// # Errors
    /// [`PluginError::Unreadable`], [`NotALibrary`](PluginError::NotALibrary),
    /// [`NotAPlugin`](PluginError::NotAPlugin), [`OtherAbi`](PluginError::OtherAbi),
    /// [`BadPlugin`](PluginError::BadPlugin) or [`BadMethod`](PluginError::BadMethod), each naming the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, PluginError> {
        let path = path.as_ref();
        let library = Box::leak(Box::new(open(path)?));
        // SAFETY: the symbol is only used as an address here; `read_methods` checks what stands there.
        let Ok(symbol) = (unsafe { library.get::<*const abi::Plugin>(abi::SYMBOL) }) else {
            return Err(without_symbol(library, path));
        };
        // SAFETY: the address is that of the symbol, and the library was leaked above.
        let methods = unsafe { handshake::read_methods(*symbol, path) }?;
        Ok(Self { path: path.to_owned(), methods })
    }

    /// The file it was loaded from, as given to [`load`](Self::load).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its methods, in its own order.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }
}

fn without_symbol(library: &Library, path: &Path) -> PluginError {
    let path = path.to_owned();
    let exports = |major: &u32| {
        // SAFETY: the symbol is not read, only looked for.
        unsafe { library.get::<*const ()>(format!("skillweld_plugin_v{major}")) }.is_ok()
    };
    match (0..=HIGHEST_MAJOR_KNOWN).find(exports) {
        Some(found) => PluginError::OtherAbi { path, found },
        None => PluginError::NotAPlugin { path },
    }
}

/// Opens the library, from a copy when the system would hand out the code it already has.
fn open(path: &Path) -> Result<Library, PluginError> {
    let unreadable = |source| PluginError::Unreadable { path: path.to_owned(), source };
    // Canonical also because the loader takes a name without `/` for one on its own search path.
    let real = path.canonicalize().map_err(unreadable)?;
    if real.is_dir() {
        return Err(unreadable(std::io::ErrorKind::IsADirectory.into()));
    }
    if first_time(&real).map_err(unreadable)? {
        return open_now(&real, path);
    }
    let (folder, copy) = copy_of(&real).map_err(unreadable)?;
    let library = open_now(&copy, path);
    // A mapped file needs no name any more; where the system insists on one (Windows) the copy stays behind.
    let _ = folder.close();
    library
}

/// A copy in a folder of its own, which nobody else may enter: in the shared folder for temporary files others could lay
/// a link in our way, or change the copy before it is loaded.
fn copy_of(real: &Path) -> std::io::Result<(TempDir, PathBuf)> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o700));
    }
    let folder = builder.prefix("skillweld-plugin-").tempdir()?;
    let copy = folder.path().join(real.file_name().unwrap_or_default());
    let mut from = File::open(real)?;
    std::io::copy(&mut from, &mut File::create_new(&copy)?)?;
    Ok((folder, copy))
}

fn open_now(file: &Path, path: &Path) -> Result<Library, PluginError> {
    // SAFETY: loading runs the library's initialisers. Whoever names a plugin wants its code to run; this is the one
    // act of trust that no check can replace.
    unsafe { Library::new(file) }
        .map_err(|e| PluginError::NotALibrary { path: path.to_owned(), reason: e.to_string() })
}

/// Loaders know libraries by path as well as by file (device and inode), so either of the two seen before counts.
fn first_time(real: &Path) -> std::io::Result<bool> {
    static LOADED: Mutex<Option<HashSet<Known>>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    let new_path = loaded.insert(Known::Path(real.to_owned()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(real)?;
        let new_file = loaded.insert(Known::File { device: file.dev(), inode: file.ino() });
        Ok(new_path && new_file)
    }
    #[cfg(not(unix))]
    Ok(new_path)
}

#[derive(PartialEq, Eq, Hash)]
enum Known {
    Path(PathBuf),
    #[cfg(unix)]
    File {
        device: u64,
        inode: u64,
    },
}
