//! What stands in `[prediction_log]` about the disk and the store.

use std::path::Path;
use std::time::Duration;

use crate::config::{LogStore, Scheme, parse};

fn problems(text: &str) -> Vec<String> {
    let text = format!("version = 1\n[prediction_log]\n{text}");
    let found = parse(&text, Path::new("/etc")).unwrap_err();
    found.iter().map(ToString::to_string).collect()
}

fn store(text: &str) -> LogStore {
    let text = format!("version = 1\n[prediction_log.store]\n{text}");
    parse(&text, Path::new("/etc")).unwrap().prediction_log.unwrap().store.unwrap()
}

#[test]
fn a_store_is_named_by_its_url() {
    let read = |url: &str| {
        let store = store(&format!("url = '{url}'"));
        (store.scheme, store.prefix)
    };
    assert_eq!(read("s3://b"), (Scheme::S3, String::new()));
    assert_eq!(read("s3://b/"), (Scheme::S3, String::new()));
    assert_eq!(read("gs://b/x/y/"), (Scheme::Gcs, "x/y".into()));
    assert_eq!(read("az://c/x"), (Scheme::Azure, "x".into()));
    let account = "abfss://c@account.dfs.core.windows.net/x";
    assert_eq!(read(account), (Scheme::Azure, "x".into()));
    assert_eq!(read("file:///mnt/log"), (Scheme::File, "mnt/log".into()));
    let named = store("url = 's3://b'\ncredentials = 'store.env'\ntimeout = '1s'\nuploads = 2");
    assert_eq!(named.credentials.unwrap(), Path::new("/etc/store.env"));
    assert_eq!(
        (named.timeout, named.uploads, named.keep_local),
        (Duration::from_secs(1), 2, false)
    );
}

#[test]
fn what_is_no_url_of_a_store_is_refused_and_not_repeated() {
    let urls = [
        "bucket",
        "http://b/x",
        "s3://",
        "s3:///x",
        "file://x/y",
        "file:///",
        "s3://b//x",
        "s3://b/../x",
        "s3://KEY:SECRET@b/x",
        "az://c/x?sig=SECRET",
    ];
    for url in urls {
        let found = problems(&format!("[prediction_log.store]\nurl = '{url}'"));
        assert_eq!(found.len(), 1, "{url}: {found:?}");
        assert!(found[0].starts_with("prediction_log.store.url: must"), "{found:?}");
        assert!(!found[0].contains("SECRET"), "{found:?}");
    }
    assert_eq!(problems("[prediction_log.store]"), ["prediction_log.store.url: is missing"]);
}

#[test]
fn bounds_are_held_and_no_tls_has_to_be_said() {
    assert_eq!(
        problems(
            "keep = '0s'\nkeep_size = '0B'\n[prediction_log.store]\nurl = 's3://b'\n\
             endpoint = 'http://minio:9000'\ntimeout = '0s'\nuploads = 65\nregoin = 'x'"
        ),
        [
            "prediction_log.keep: must be longer than zero, or \"off\"",
            "prediction_log.keep_size: must be more than zero",
            "prediction_log.store.timeout: must be longer than zero",
            "prediction_log.store.uploads: must be 1 to 64",
            "prediction_log.store.endpoint: has no TLS: say allow_http = true if it is to be so",
            "prediction_log.store.regoin: is not a known key, did you mean 'region'?",
        ]
    );
    let found = problems("[prediction_log.store]\nurl = 's3://b'\nendpoint = 'https://k:SECRET@h'");
    assert!(found[0].starts_with("prediction_log.store.endpoint: must be"), "{found:?}");
    assert!(!found[0].contains("SECRET"), "{found:?}");
    let plain = "url = 's3://b'\nendpoint = 'http://minio:9000'\nallow_http = true";
    assert!(store(plain).allow_http);
}
