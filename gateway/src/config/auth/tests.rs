//! `[auth]` as people write it, and what is refused.

use std::path::Path;

use super::*;
use crate::config::{Config, parse};

fn config(text: &str) -> Config {
    parse(&format!("version = 1\n{text}"), Path::new("/etc")).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    let found = parse(&format!("version = 1\n{text}"), Path::new("")).unwrap_err();
    found.iter().map(ToString::to_string).collect()
}

fn roles(roles: &[Role]) -> Roles {
    roles.iter().copied().collect()
}

const HASH: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

#[test]
fn a_client_has_safe_defaults() {
    let auth = config(&format!("[[auth.key]]\nname = 'jobs'\nhashes = ['{HASH}']")).auth;
    let identity = &auth.keys[0].identity;
    assert_eq!(identity.tenant, "jobs");
    assert_eq!(identity.roles, roles(&[Role::Predict]));
    assert_eq!(identity.models, None);
    assert!(auth.is_configured());
}

#[test]
fn every_problem_of_a_client_is_told_and_no_secret() {
    let text = "[[auth.key]]\nroles = ['root']\nmodels = ['a*b']\nhashes = ['hunter2']\ntypo = 1\n\
                [[auth.key]]\nname = 'x'\n\
                [[auth.certificate]]\nname = 'y'\n\
                [[auth.key]]\nname = 'x'\nfile = 'keys'";
    assert_eq!(
        problems(text),
        [
            "auth.key[0].name: is missing",
            "auth.key[0].roles: item 0 is \"root\", must be one of \"predict\", \"operate\", \"admin\"",
            "auth.key[0].models: holds \"a*b\": a name, with * at its end at most",
            "auth.key[0].hashes: item 0 must be \"sha256:\" and 64 hexadecimal digits, see `penstock key`",
            "auth.key[0].typo: is not a known key",
            "auth.key[1].hashes: is missing, and so are file and env: no key would fit",
            "auth.certificate[0].subject: or san must be given, and not both",
            "auth.key[2].name: is also the name of auth.key[1]; give one client several hashes",
        ]
    );
}

#[test]
fn tokens_need_keys_and_an_audience() {
    assert_eq!(
        problems("[auth.jwt]\nissuer = ['a']"),
        [
            "auth.jwt.jwks_file: or jwks_url must be given",
            "auth.jwt.audience: is missing: whom tokens must be for, or \"off\" for anybody",
        ]
    );
    let jwt = config("[auth.jwt]\njwks_file = 'keys.json'\naudience = 'off'").auth.jwt.unwrap();
    assert_eq!(jwt.jwks, Jwks::File("/etc/keys.json".into()));
    assert_eq!(jwt.audiences, None);
}

#[test]
fn algorithms_that_let_whoever_checks_sign_are_refused() {
    for name in ["HS256", "none", "ES512", "rs256"] {
        let text =
            format!("[auth.jwt]\njwks_file = 'k'\naudience = ['a']\nalgorithms = ['{name}']");
        assert!(problems(&text)[0].starts_with("auth.jwt.algorithms: must name some of"), "{name}");
    }
}

#[test]
fn keys_come_over_nothing_that_others_can_change() {
    for (url, is_good) in [
        ("https://login.example/keys", true),
        ("http://127.0.0.1:8080/keys", true),
        ("http://localhost/keys", true),
        ("http://[::1]:80/keys", true),
        ("http://login.example/keys", false),
        ("http://127.0.0.1.example/keys", false),
        ("https://user:word@login.example/keys", false),
        ("ftp://127.0.0.1/keys", false),
        ("/keys", false),
        ("", false),
    ] {
        let text = format!("version = 1\n[auth.jwt]\njwks_url = '{url}'\naudience = ['a']");
        assert_eq!(parse(&text, Path::new("")).is_ok(), is_good, "{url}");
    }
}

#[test]
fn without_credentials_roles_are_what_control_and_anonymous_both_allow() {
    let all = [Role::Predict, Role::Operate, Role::Admin];
    let key = format!("[[auth.key]]\nname = 'x'\nhashes = ['{HASH}']");
    let cases: [(&str, Control, &[Role], &[Role]); 6] = [
        ("", Control::Local, &all, &[Role::Predict]),
        ("", Control::All, &all, &all),
        ("", Control::Off, &[Role::Predict], &[Role::Predict]),
        (&key, Control::All, &[], &[]),
        ("[auth]\nanonymous = ['predict', 'operate']", Control::Local, &all[..2], &[Role::Predict]),
        ("[auth]\nanonymous = []", Control::All, &[], &[]),
    ];
    for (text, control, local, remote) in cases {
        let auth = config(text).auth;
        assert_eq!(auth.anonymous_roles(control, true), roles(local), "{text} {control:?}");
        assert_eq!(auth.anonymous_roles(control, false), roles(remote), "{text} {control:?}");
    }
}

#[test]
fn the_admin_port_faces_a_network_only_where_operators_are_known() {
    let admin = "[listen]\nadmin = '10.0.0.1:8003'\n";
    let key = format!("{admin}[[auth.key]]\nname = 'x'\nhashes = ['{HASH}']\n");
    let open = "[auth]\nanonymous = ['operate']\n";
    for (text, is_good) in [
        (admin.to_owned(), false),
        (key.clone(), true),
        (format!("{admin}[auth]\nanonymous = ['predict']"), false),
        (format!("{key}{open}"), true),
        (format!("{key}{open}[repository]\ncontrol = 'all'"), false),
    ] {
        let parsed = parse(&format!("version = 1\n{text}"), Path::new(""));
        assert_eq!(parsed.is_ok(), is_good, "{text}");
        if let Err(problems) = parsed {
            assert_eq!(problems[0].path, "listen.admin");
        }
    }
}

#[test]
fn settings_can_be_printed_without_a_secret() {
    let shown = format!("{:?}", config(&format!("[[auth.key]]\nname = 'x'\nhashes = ['{HASH}']")));
    assert!(shown.contains("KeyClient") && !shown.contains("9f86d0"), "{shown}");
    assert!(!shown.contains("159, 134, 208"), "{shown}");
}
