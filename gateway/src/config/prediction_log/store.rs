//! `[prediction_log.store]`: where files of the prediction log are delivered to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::config::reader::Section;

/// Schemes of URLs, and whether the bucket or container follows.
const SCHEMES: &[(&str, Scheme)] = &[
    ("s3", Scheme::S3),
    ("gs", Scheme::Gcs),
    ("az", Scheme::Azure),
    ("abfs", Scheme::Azure),
    ("abfss", Scheme::Azure),
    ("file", Scheme::File),
];
const MOST_UPLOADS: usize = 64;

/// What kind of store a URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    S3,
    Gcs,
    Azure,
    File,
}

/// An object store or a folder, such as one of a network file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogStore {
    /// `s3://bucket/prefix`; holds no secret.
    pub url: String,
    #[serde(skip)]
    pub scheme: Scheme,
    /// What follows the bucket, or the folder of a `file` URL; without slashes at its ends.
    #[serde(skip)]
    pub prefix: String,
    /// Another server than the provider's.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// Whether the endpoint may be asked without TLS.
    pub allow_http: bool,
    /// A file of lines `NAME=value`, named as the environment's variables.
    pub credentials: Option<PathBuf>,
    /// Whether files stay on this machine too, for `keep` and `keep_size`.
    pub keep_local: bool,
    /// Longest time of one request.
    pub timeout: Duration,
    /// Files under way at a time.
    pub uploads: usize,
}

impl LogStore {
    /// `None` where there is no such section.
    pub(super) fn read(parent: &mut Section<'_>, base: &Path) -> Option<Self> {
        if !parent.has("store") {
            // Asked for, so that the key is known.
            parent.section("store");
            return None;
        }
        let mut section = parent.section("store");
        let url = section.required::<String>("url");
        let endpoint = section.take::<String>("endpoint");
        let region = section.take::<String>("region");
        let allow_http = section.or("allow_http", false);
        let credentials = section.take::<String>("credentials").map(|path| base.join(path));
        let keep_local = section.or("keep_local", false);
        let timeout = section.or("timeout", Duration::from_secs(30));
        let uploads = section.or("uploads", 4);
        if timeout.is_zero() {
            section.problem("timeout", "must be longer than zero");
        }
        if !(1..=MOST_UPLOADS).contains(&uploads) {
            section.problem("uploads", format!("must be 1 to {MOST_UPLOADS}"));
        }
        check_endpoint(&section, endpoint.as_deref(), allow_http);
        let parsed = url
            .as_deref()
            .and_then(|url| parse(url).map_err(|message| section.problem("url", message)).ok());
        section.finish();
        let ((scheme, prefix), url) = parsed.zip(url)?;
        Some(Self {
            url,
            scheme,
            prefix,
            endpoint,
            region,
            allow_http,
            credentials,
            keep_local,
            timeout,
            uploads,
        })
    }
}

fn check_endpoint(section: &Section<'_>, endpoint: Option<&str>, allow_http: bool) {
    let Some(endpoint) = endpoint else { return };
    if endpoint.contains(['@', '?', '#']) {
        section.problem("endpoint", "must be a plain address: credentials belong elsewhere");
    } else if endpoint.starts_with("http://") {
        if !allow_http {
            section.problem("endpoint", "has no TLS: say allow_http = true if it is to be so");
        }
    } else if !endpoint.starts_with("https://") {
        section.problem("endpoint", "must start with https:// or http://");
    }
}

/// The kind of store, and the path behind the bucket. Errors do not repeat the text, which may
/// hold a secret that does not belong there.
fn parse(url: &str) -> Result<(Scheme, String), &'static str> {
    const WRONG: &str =
        "must be s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER";
    let (name, rest) = url.split_once("://").ok_or(WRONG)?;
    let scheme = SCHEMES.iter().find(|(known, _)| *known == name).ok_or(WRONG)?.1;
    if rest.contains(['?', '#']) || (scheme != Scheme::Azure && rest.contains('@')) {
        return Err("must hold no credentials and no query");
    }
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_folder = scheme == Scheme::File;
    if bucket.is_empty() != is_folder || (is_folder && path.trim_end_matches('/').is_empty()) {
        return Err(WRONG);
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    if path
        .split('/')
        .any(|part| matches!(part, "." | "..") || (part.is_empty() && !path.is_empty()))
    {
        return Err("must have no empty part, . or .. in its path");
    }
    Ok((scheme, path.to_owned()))
}

#[cfg(test)]
mod tests;
