//! Where a log goes: a file, or a viewer.

use std::any::Any;
use std::fs::{self, File};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use re_sdk::external::re_log_encoding::{Encoder, EncodingOptions};
use re_sdk::log::LogMsg;
use re_sdk::sink::{LogSink, SinkFlushError};
use re_sdk::{RecordingStream, RecordingStreamBuilder};

/// How long a viewer may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where a log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A file that is not there yet.
    File(PathBuf),
    /// `rerun+http://HOST:PORT/proxy`.
    Viewer(String),
}

impl Target {
    /// Reads the text, and tries whether anything can be written there.
    pub(super) fn check(text: &str) -> Result<Self> {
        if text.contains("://") {
            look_for_viewer(text)?;
            return Ok(Self::Viewer(text.to_owned()));
        }
        let path = Path::new(text);
        ensure!(
            path.extension().is_some_and(|ending| ending == "rrd"),
            "{text} must be named OUT.rrd, or be the address of a viewer: rerun+http://127.0.0.1:9876/proxy"
        );
        create(path)?;
        fs::remove_file(path).with_context(|| format!("cannot remove {text} again"))?;
        Ok(Self::File(path.to_owned()))
    }

    /// Makes the file, or connects.
    pub(super) fn open(&self, title: &str) -> Result<RecordingStream> {
        // Someone has asked for this log, whatever $RERUN says.
        let builder = RecordingStreamBuilder::new("skillweld").recording_name(title).enabled(true);
        match self {
            Self::File(path) => {
                let sink = FileLog::begin(path)?;
                let stream = builder.buffered()?;
                stream.set_sink(Box::new(sink));
                Ok(stream)
            }
            Self::Viewer(address) => builder
                .connect_grpc_opts(address.as_str())
                .with_context(|| format!("cannot log to {address}")),
        }
    }

    /// As people wrote it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Viewer(address) => address.clone(),
        }
    }

    /// Removes what a run has begun that did not come about.
    pub(super) fn forget(&self) {
        if let Self::File(path) = self {
            let _ = fs::remove_file(path);
        }
    }
}

/// Makes a new file.
fn create(path: &Path) -> Result<File> {
    ensure!(!path.exists(), "{} already exists; choose another name", path.display());
    File::create_new(path).with_context(|| {
        format!(
            "{} cannot be written; name a file in a folder that is there and can be written",
            path.display()
        )
    })
}

/// Whether someone listens there: the SDK would wait for a viewer to appear, and lose everything if none does.
fn look_for_viewer(address: &str) -> Result<()> {
    let plain = address.strip_prefix("rerun+http://").and_then(|rest| rest.strip_suffix("/proxy"));
    let plain = plain.filter(|place| place.contains(':')).with_context(|| {
        format!("{address} is no viewer's address; it is written rerun+http://HOST:PORT/proxy")
    })?;
    let places = plain.to_socket_addrs().with_context(|| format!("{plain} has no address"))?;
    let connected = places.into_iter().map(|place| TcpStream::connect_timeout(&place, PATIENCE));
    ensure!(
        connected.into_iter().any(|connected| connected.is_ok()),
        "no viewer listens at {address}; start one there (`rerun`), or name a file OUT.rrd"
    );
    Ok(())
}

/// A file that says why it cannot be written. The SDK's own tells it only a logger, which this program has not, and lets what
/// is to be written pile up in memory where a disk is slow.
struct FileLog(Mutex<Writing>);

struct Writing {
    encoder: Encoder<File>,
    /// After this nothing more is written.
    failure: Option<String>,
}

impl FileLog {
    fn begin(path: &Path) -> Result<Self> {
        let version = re_sdk::build_info().version;
        let encoder = Encoder::new_eager(version, EncodingOptions::PROTOBUF_COMPRESSED, create(path)?)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self(Mutex::new(Writing { encoder, failure: None })))
    }

    fn with(&self, work: impl FnOnce(&mut Encoder<File>) -> Result<(), String>) -> Result<(), String> {
        let mut writing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Writing { encoder, failure } = &mut *writing;
        if failure.is_none() {
            *failure = work(encoder).err();
        }
        failure.clone().map_or(Ok(()), Err)
    }
}

impl LogSink for FileLog {
    fn send(&self, message: LogMsg) {
        // The next flush tells.
        let _ = self.with(|encoder| match encoder.append(&message) {
            Ok(_) => Ok(()),
            Err(error) => Err(in_full(&error)),
        });
    }

    fn flush_blocking(&self, _timeout: Duration) -> Result<(), SinkFlushError> {
        self.with(|encoder| encoder.flush_blocking().map_err(|error| in_full(&error)))
            .map_err(SinkFlushError::failed)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An error with what it was caused by.
fn in_full(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some already say it.
        if !text.contains(&error.to_string()) {
            text = format!("{text}: {error}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_refused_and_looking_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let refused = |text: &str, words: &str| {
            let error = format!("{:#}", Target::check(text).unwrap_err());
            assert!(error.contains(words), "{words:?} is not in: {error}");
        };
        assert_eq!(Target::check(&at("run.rrd")).unwrap(), Target::File(at("run.rrd").into()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        refused(&at("run.mcap"), "OUT.rrd");
        refused(&at("nowhere/run.rrd"), "name a file in a folder that is there");
        fs::write(at("there.rrd"), "kept").unwrap();
        refused(&at("there.rrd"), "choose another name");
        assert_eq!(fs::read_to_string(at("there.rrd")).unwrap(), "kept");

        refused("http://127.0.0.1:9876", "rerun+http://HOST:PORT/proxy");
        refused("rerun+http://127.0.0.1/proxy", "rerun+http://HOST:PORT/proxy");
        // A port that was free a moment ago.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("rerun+http://{}/proxy", listener.local_addr().unwrap());
        assert_eq!(Target::check(&address).unwrap(), Target::Viewer(address.clone()));
        drop(listener);
        refused(&address, "no viewer listens");
    }
}
