//! What the section says, and what is wrong with it.

use std::path::Path;

use super::*;
use crate::config::parse;

fn read(text: &str) -> Result<PredictionLog, Vec<String>> {
    let text = format!("version = 1\n[prediction_log]\n{text}");
    match parse(&text, Path::new("/etc")) {
        Ok(config) => Ok(config.prediction_log.unwrap()),
        Err(found) => Err(found.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn nothing_is_recorded_unless_the_file_says_so() {
    let config = parse("version = 1", Path::new("/etc")).unwrap();
    assert_eq!(config.prediction_log, None);
    let log = read("").unwrap();
    assert_eq!(log.path, Path::new("/etc/penstock-data/predictions"));
    assert_eq!((log.guarantee, log.fsync), (Guarantee::Lossy, Fsync::Interval));
    let route = "version = 1\n[[route]]\nname = 'a'\nlog = 'durable'\n[[route.arm]]\nname = 'x'";
    let found = parse(route, Path::new("")).unwrap_err();
    assert_eq!(found[0].to_string(), "route[0].log: has no effect without [prediction_log]");
    let route = format!("prediction_log.path = 'p'\n{route}");
    let config = parse(&route, Path::new("/a")).unwrap();
    assert_eq!(config.routes[0].log, Some(Guarantee::Durable));
    assert_eq!(config.prediction_log.unwrap().path, Path::new("/a/p"));
}

#[test]
fn rules_are_read_as_people_write_them() {
    let log = read(
        "hash_key = 'file:/k'\nslices = ['header:X-Region', 'parameter:tenant']\n\
         [[prediction_log.redact]]\nfield = 'in.name'\nhow = 'hash'\n\
         [[prediction_log.redact]]\nfield = 'header.X-Region'\nhow = 'truncate:2'\n\
         [[prediction_log.redact]]\nfield = 'out.scores'\nhow = 'bucket:0.25'",
    );
    let log = log.unwrap();
    let rule = |field, how| Redact { field, how, model: None };
    assert_eq!(
        log.redact,
        [
            rule(Field::Input("name".into()), How::Hash),
            rule(Field::Header("x-region".into()), How::Truncate(2)),
            rule(Field::Output("scores".into()), How::Bucket(0.25)),
        ]
    );
    assert_eq!(log.slices.iter().map(Slice::name).collect::<Vec<_>>(), ["x-region", "tenant"]);
}

#[test]
fn every_problem_is_named_with_its_path() {
    let rules = "[[prediction_log.redact]]\nfield = 'pixels'\nhow = 'drop'\n\
                 [[prediction_log.redact]]\nfield = 'in.x'\nhow = 'mask'\n\
                 [[prediction_log.redact]]\nfield = 'in.x'\nhow = 'bucket:0'\n\
                 [prediction_log.sampling]\nrate = '200%'\nconfidence_output = 'y'";
    let text = format!(
        "queue_rows = 0\nqueue_bytes = '1KiB'\nsegment_age = '0s'\nhash_key = 'hunter2'\n\
         slices = ['cookie:a']\nguarantee = 'sure'\n{rules}"
    );
    let found = read(&text).unwrap_err();
    let paths: Vec<_> = found.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "prediction_log.guarantee",
            "prediction_log.slices",
            "prediction_log.redact[0].field",
            "prediction_log.redact[1].how",
            "prediction_log.redact[2].how",
            "prediction_log.hash_key",
            "prediction_log.sampling.confidence_below",
            "prediction_log.sampling.rate",
            "prediction_log.segment_age",
            "prediction_log.queue_rows",
            "prediction_log.queue_bytes",
        ]
    );
    assert!(!found.join(" ").contains("hunter2"));
}

#[test]
fn rules_that_could_not_do_what_they_say_are_refused() {
    let rules = "[[prediction_log.redact]]\nfield = 'in.x'\nhow = 'hash'\n\
                 [[prediction_log.redact]]\nfield = 'slice.x'\nhow = 'drop'\n\
                 [[prediction_log.redact]]\nfield = 'header.x'\nhow = 'drop'\n";
    let found = read(rules).unwrap_err();
    assert_eq!(
        found[0],
        "prediction_log.redact[0].how: is \"hash\", which needs prediction_log.hash_key"
    );
    assert!(found[1].starts_with("prediction_log.redact[1].field: names nothing"), "{found:?}");
    assert!(found[2].starts_with("prediction_log.redact[2].field: names nothing"), "{found:?}");
    for name in ["authorization", "Authorization", "proxy-authorization", "Cookie", "X-API-Key"] {
        let refused = read(&format!("slices = ['header:{name}']")).unwrap_err();
        assert!(refused[0].contains("holds secrets"), "{name}");
    }
    assert!(read("slices = ['header:a', 'parameter:a']").is_err());
    assert!(
        read("slices = ['header:a', 'parameter:A']").is_err(),
        "DuckDB has no two such columns"
    );
}
