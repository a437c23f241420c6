//! The configuration file: its text, and what it says under this command line.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::config::{self, Config, Problem};

/// No configuration is longer, in bytes; what is, is another file.
const LONGEST: u64 = 16 << 20;

type Adjust = dyn Fn(&mut Config) + Send + Sync;
type ReadFile = dyn Fn(&Path) -> io::Result<Vec<u8>> + Send + Sync;

/// Where the configuration stands, and what the command line says instead of it.
pub struct Source {
    path: PathBuf,
    adjust: Box<Adjust>,
    read: Box<ReadFile>,
}

/// What a look at the file has found: its bytes, or why there are none. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Result<Found, String>);

#[derive(Debug, Clone)]
struct Found {
    bytes: Arc<[u8]>,
    hash: [u8; 32],
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Found {}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Source {
    /// The file at `path`; `adjust` changes what it says, each time that it is read.
    pub fn new(
        path: impl Into<PathBuf>,
        adjust: impl Fn(&mut Config) + Send + Sync + 'static,
    ) -> Self {
        Self { path: path.into(), adjust: Box::new(adjust), read: Box::new(read_file) }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file; blocks.
    #[must_use]
    pub fn read(&self) -> Text {
        Text::new((self.read)(&self.path))
    }

    /// What a text that was read says.
    ///
    /// # Errors
    /// Every problem found, each with the path of its key.
    pub fn config(&self, text: &Text) -> Result<Config, Vec<Problem>> {
        let whole = |message: String| vec![Problem::new("", message)];
        let found = text.0.as_ref();
        let found = found
            .map_err(|error| whole(format!("cannot read {}: {error}", self.path.display())))?;
        let text = std::str::from_utf8(&found.bytes)
            .map_err(|error| whole(format!("is not text: {error}")))?;
        self.parse(text)
    }

    /// What a text would say, were it the file's.
    ///
    /// # Errors
    /// Every problem found, each with the path of its key.
    pub fn parse(&self, text: &str) -> Result<Config, Vec<Problem>> {
        let base = self.path.parent().unwrap_or(Path::new(""));
        let mut config = config::parse(text, base)?;
        (self.adjust)(&mut config);
        config.check()?;
        Ok(config)
    }
}

impl Text {
    fn new(read: io::Result<Vec<u8>>) -> Self {
        Self(read.map_err(|error| error.to_string()).map(|bytes| {
            let hash = Sha256::digest(&bytes).into();
            Found { bytes: bytes.into(), hash }
        }))
    }

    /// SHA-256 of the bytes, lower-case hex, as `sha256sum` prints it; `None` where there are none.
    #[must_use]
    pub fn hash(&self) -> Option<String> {
        let found = self.0.as_ref().ok()?;
        Some(found.hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Reads a file that is one: a pipe would hold the reader up, a device would never end.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 16 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
impl Source {
    /// A file that only exists in a test.
    pub(super) fn of(read: impl Fn() -> io::Result<Vec<u8>> + Send + Sync + 'static) -> Self {
        let read = move |_: &Path| read();
        Self { read: Box::new(read), ..Self::new("/etc/penstock/penstock.toml", |_| {}) }
    }
}
