//! Upstreams as files write them, and every way in which they do not fit.

use super::*;
use crate::config::parse;

fn upstreams(text: &str) -> Result<Vec<Upstream>, Vec<String>> {
    parse(&format!("version = 1\n{text}"), Path::new("/etc"))
        .map(|config| config.upstreams)
        .map_err(|found| found.iter().map(ToString::to_string).collect())
}

#[test]
fn a_short_upstream_has_the_documented_defaults() {
    let found = upstreams("[[upstream]]\nname = 'fleet'\nendpoints = ['a:1', '[::1]:2']").unwrap();
    let expected = Upstream {
        name: "fleet".into(),
        protocol: UpstreamProtocol::Grpc,
        endpoints: vec!["a:1".into(), "[::1]:2".into()],
        tls: None,
        connect_timeout: Duration::from_secs(1),
        timeout: Duration::from_secs(30),
        max_connections: 32,
        max_in_flight: 4096,
        retry: Retry {
            max: 2,
            budget: 0.2,
            min_per_second: 3,
            backoff: Duration::from_millis(25),
            max_backoff: Duration::from_millis(250),
        },
        health: HealthCheck {
            every: Some(Duration::from_secs(5)),
            timeout: Duration::from_secs(1),
            unhealthy_after: 3,
            healthy_after: 2,
        },
        ejection: Ejection {
            consecutive: 5,
            time: Duration::from_secs(10),
            max_time: Duration::from_secs(300),
            max_part: 0.5,
        },
    };
    assert_eq!(found, [expected]);
}

#[test]
fn tls_is_on_where_its_table_is_there_and_files_start_at_the_folder() {
    let text = "[[upstream]]\nname = 'a'\nendpoints = ['a:1']\n[upstream.tls]\n";
    let tls = |more: &str| upstreams(&format!("{text}{more}"));
    let plain = UpstreamTls { ca: None, certificate: None, key: None, server_name: None };
    assert_eq!(tls("").unwrap()[0].tls, Some(plain));
    let found = tls("ca = 'ca'\ncertificate = 'c'\nkey = '/k'\nserver_name = 'x.y'").unwrap();
    let found = found[0].tls.clone().unwrap();
    assert_eq!(found.ca.unwrap(), Path::new("/etc/ca"));
    assert_eq!(found.key.unwrap(), Path::new("/k"));
    let half = |more| tls(more).unwrap_err();
    assert_eq!(
        half("certificate = 'c'"),
        ["upstream[0].tls.key: is missing: certificate needs it"]
    );
    assert_eq!(half("key = 'c'"), ["upstream[0].tls.certificate: is missing: key needs it"]);
    assert_eq!(
        half("server_name = 'a b'"),
        ["upstream[0].tls.server_name: must be the name or address of a host"]
    );
}

#[test]
fn endpoints_are_host_and_port() {
    for (text, parts) in [
        ("a:1", ("a", 1)),
        ("10.0.0.1:8001", ("10.0.0.1", 8001)),
        ("[fe80::1]:65535", ("fe80::1", 65535)),
        ("triton-0.triton.ns_1.svc.:80", ("triton-0.triton.ns_1.svc.", 80)),
    ] {
        assert_eq!(split_endpoint(text), Some(parts), "{text}");
    }
    for text in [
        "",
        ":",
        "a",
        "a:",
        ":1",
        "a:+1",
        "a:65536",
        "http://a:1",
        "a:1/",
        "::1:80",
        "[a]:1",
        "256.1.1.1:1",
        "1.2.3:1",
        "a..b:1",
        "a b:1",
        "ü:1",
        "[::1:1",
        "user@a:1",
    ] {
        assert_eq!(split_endpoint(text), None, "{text}");
    }
}

#[test]
fn every_wrong_setting_is_named_with_its_place() {
    let text = "[[upstream]]\nname = 'a b'\nprotocol = 'rest'\nendpoints = ['http://x:1']\n\
                connect_timeout = '0s'\ntimeout = '2h'\nmax_connections = 0\nmax_in_flight = 0\n\
                [upstream.retry]\nmax = 11\nbudget = 0.2\nbackoff = '1s'\nmax_backoff = '1ms'\n\
                [upstream.health]\nevery = '0s'\nhealthy_after = 0\n\
                [upstream.ejection]\nconsecutive = 0\ntime = '1m'\nmax_time = '1s'\n\
                [[upstream]]\nname = 'x'\nendpoints = []\n\
                [[upstream]]\nname = 'x'\nendpoints = ['a:1', 'b:0']\n\
                [[upstream]]\nname = 'y'\nendpoints = ['a:1', 'a:1']\n";
    assert_eq!(
        upstreams(text).unwrap_err(),
        [
            "upstream[0].name: must be 1 to 64 letters, digits, '-', '_' or '.'",
            "upstream[0].protocol: is \"rest\", must be one of \"http\", \"grpc\"",
            "upstream[0].endpoints: item 0 is \"http://x:1\", must be host:port such as \
             \"10.0.0.1:8001\"",
            "upstream[0].connect_timeout: must be above zero and at most 1h",
            "upstream[0].timeout: must be above zero and at most 1h",
            "upstream[0].max_connections: must be 1 to 1024",
            "upstream[0].max_in_flight: must be 1 to 1000000",
            "upstream[0].retry.max: must be 0 to 10",
            "upstream[0].retry.budget: must be a percentage such as \"50%\", is float",
            "upstream[0].retry.max_backoff: is shorter than backoff",
            "upstream[0].health.every: must be above zero and at most 1h, or \"off\"",
            "upstream[0].health.healthy_after: must be 1 to 100",
            "upstream[0].ejection.consecutive: must be 1 to 1000",
            "upstream[0].ejection.max_time: is shorter than time",
            "upstream[1].endpoints: must be 1 to 64",
            "upstream[2].name: \"x\" is the name of another upstream",
            "upstream[2].endpoints: item 1 is \"b:0\", must be host:port such as \
             \"10.0.0.1:8001\"",
            "upstream[3].endpoints: has \"a:1\" twice",
        ]
    );
}
