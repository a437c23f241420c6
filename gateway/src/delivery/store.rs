//! The object store that a configuration names, and what its errors tell people: never a secret.

use std::error::Error as StdError;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::{BackoffConfig, ClientConfigKey, Error, ObjectStore, RetryConfig};

use crate::config::{LogStore, Scheme};

const CONNECT_TIMEOUT: &str = "5s";

/// Longest text of an error, in characters.
const LONGEST_TEXT: usize = 200;

/// Opens the store of a configuration; asks it nothing yet.
///
/// # Errors
/// What a person has to change, with the path of the key.
pub(super) fn open(store: &LogStore) -> Result<Arc<dyn ObjectStore>, String> {
    let lines = match &store.credentials {
        None => vec![],
        Some(path) => credentials(path)
            .map_err(|error| format!("prediction_log.store.credentials: {error}"))?,
    };
    /// The three builders differ in their types alone.
    macro_rules! build {
        ($builder:ty, $key:ty) => {{
            let mut builder =
                <$builder>::from_env().with_url(&store.url).with_retry(retries(store.timeout));
            for (key, value) in client_settings(store) {
                builder = builder.with_config(<$key>::Client(key), value);
            }
            for (number, name, value) in lines {
                // The name may be the secret, where somebody wrote a key of base64 alone.
                let key = name.to_ascii_lowercase().parse::<$key>().map_err(|_| {
                    format!(
                        "prediction_log.store.credentials: line {number} names nothing this store \
                         knows"
                    )
                })?;
                builder = builder.with_config(key, value);
            }
            builder
        }};
    }
    let endpoint = store.endpoint.as_deref();
    let opened: Result<Arc<dyn ObjectStore>, Error> = match store.scheme {
        Scheme::S3 => {
            let mut builder = build!(AmazonS3Builder, AmazonS3ConfigKey);
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            if let Some(region) = &store.region {
                builder = builder.with_region(region);
            }
            builder.build().map(|store| Arc::new(store) as _)
        }
        Scheme::Gcs => {
            let mut builder = build!(GoogleCloudStorageBuilder, GoogleConfigKey);
            if let Some(endpoint) = endpoint {
                builder = builder.with_base_url(endpoint);
            }
            builder.build().map(|store| Arc::new(store) as _)
        }
        Scheme::Azure => {
            let mut builder = build!(MicrosoftAzureBuilder, AzureConfigKey);
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint.to_owned());
            }
            builder.build().map(|store| Arc::new(store) as _)
        }
        Scheme::File => folder(&FilePath::new("/").join(&store.prefix)),
    };
    opened.map_err(|error| format!("prediction_log.store: {}", describe(&error)))
}

/// Whether a store that is a folder has nothing to do with the folder of the log: a file that is
/// delivered to where it is would be deleted there.
///
/// # Errors
/// What a person has to change, with the path of the key.
pub(super) fn apart(store: &LogStore, log: &FilePath) -> Result<(), String> {
    if store.scheme != Scheme::File {
        return Ok(());
    }
    let target = FilePath::new("/").join(&store.prefix);
    match is_within(&target, log) || is_within(log, &target) {
        true => Err("prediction_log.store.url: must be neither within prediction_log.path nor \
                     around it"
            .to_owned()),
        false => Ok(()),
    }
}

/// Whether a folder, or the nearest one above that is there, is `other` or within it, by whichever
/// links and mounts they are called.
fn is_within(folder: &FilePath, other: &FilePath) -> bool {
    let Ok(other) = fs::metadata(other) else { return false };
    let Some(real) = folder.ancestors().find_map(|folder| folder.canonicalize().ok()) else {
        return false;
    };
    real.ancestors().any(|folder| {
        fs::metadata(folder)
            .is_ok_and(|folder| (folder.dev(), folder.ino()) == (other.dev(), other.ino()))
    })
}

/// Whether two paths name the same file.
pub(super) fn is_same(one: &FilePath, other: &FilePath) -> io::Result<bool> {
    let (one, other) = (fs::metadata(one)?, fs::metadata(other)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// A folder, whose files are on the disk before they count as delivered.
fn folder(path: &FilePath) -> Result<Arc<dyn ObjectStore>, Error> {
    let made = fs::create_dir_all(path)
        .map_err(|error| Error::Generic { store: "folder", source: Box::new(error) });
    let folder = made.and_then(|()| LocalFileSystem::new_with_prefix(path))?;
    Ok(Arc::new(folder.with_fsync(true)))
}

/// What lasts longer is tried again from the beginning, with pauses of its own.
fn retries(timeout: Duration) -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 3, retry_timeout: timeout }
}

fn client_settings(store: &LogStore) -> Vec<(ClientConfigKey, String)> {
    let mut settings = vec![
        (ClientConfigKey::Timeout, format!("{}ms", store.timeout.as_millis())),
        (ClientConfigKey::ConnectTimeout, CONNECT_TIMEOUT.to_owned()),
    ];
    if store.allow_http {
        settings.push((ClientConfigKey::AllowHttp, "true".to_owned()));
    }
    settings
}

/// Lines `NAME=value`, as files for the environment have them, with their numbers.
fn credentials(path: &FilePath) -> Result<Vec<(usize, String, String)>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| {
            let line = line.strip_prefix("export ").unwrap_or(line);
            // The line itself may be the secret.
            let (name, value) = line.split_once('=').ok_or_else(|| {
                format!("{}: line {} is not NAME=value", path.display(), index + 1)
            })?;
            let value = value.trim();
            let bare = ['"', '\''].iter().find_map(|quote| {
                value.strip_prefix(*quote).and_then(|rest| rest.strip_suffix(*quote))
            });
            Ok((index + 1, name.trim().to_owned(), bare.unwrap_or(value).to_owned()))
        })
        .collect()
}

/// What went wrong, for the log: kind, status and the store's own code of the error. The text of
/// an answer may repeat what was sent, so it is left out.
pub(super) fn describe(error: &Error) -> String {
    let text = error.to_string();
    let kind = match error {
        Error::PermissionDenied { .. } => Some("the store refuses these credentials (403)".into()),
        Error::Unauthenticated { .. } => {
            Some("the store does not know these credentials (401)".into())
        }
        Error::NotFound { .. } => Some("the bucket, container or folder is not there (404)".into()),
        _ => status(&text).map(|status| format!("the store answered {status}")),
    };
    let code = between(&text, "<Code>", "</Code>").or_else(|| between(&text, "\"code\":\"", "\""));
    match (kind, code) {
        (Some(kind), Some(code)) => format!("{kind}: {code}"),
        (Some(kind), None) => kind,
        (None, _) => connection(error).unwrap_or_else(|| shortened(&text)),
    }
}

/// Whether others should be used: a file with credentials may hold new ones.
pub(super) fn is_about_credentials(error: &Error) -> bool {
    matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
}

fn status(text: &str) -> Option<&str> {
    let rest = text.split_once("status code: ")?.1;
    rest.get(..3).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let code = text.split_once(start)?.1.split_once(end)?.0;
    let is_word = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_word && !code.is_empty()).then_some(code)
}

/// Why a request got no answer, with its deepest cause.
fn connection(error: &Error) -> Option<String> {
    let (mut what, mut cause) = (None, None);
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            what = Some(match http.kind() {
                HttpErrorKind::Timeout => "no answer in time",
                HttpErrorKind::Connect => "no connection",
                _ => "the request failed",
            });
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            cause = Some(io.to_string());
        }
        next = error.source();
    }
    let what = what?;
    Some(cause.map_or_else(|| what.to_owned(), |cause| format!("{what}: {}", shortened(&cause))))
}

/// One line without what follows a question mark: queries of addresses may be signed.
fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let plain = line.split('?').next().unwrap_or_default();
    plain.chars().take(LONGEST_TEXT).collect()
}
