//! Keys that change while the process lives.

use std::fs;
use std::time::Duration;

use http::HeaderMap;
use jsonwebtoken::Algorithm;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::config::{Control, parse};
use crate::error::Kind;
use crate::identity::fetch::tests::Site;
use crate::identity::tests::issuer::{Issuer, claims, set};
use crate::identity::tests::{client, headers, identities};
use crate::types::{Origin, Peer};

const KEY: &str = "the-first-key-of-a-client";
const NEXT: &str = "the-second-key-of-a-client";

fn bearer(credential: &str) -> HeaderMap {
    headers(&[("authorization", &format!("Bearer {credential}"))])
}

fn kind(all: &Identities, credential: &str) -> Result<(), Kind> {
    let peer = Peer::plain(Origin::Unix);
    all.identify(&bearer(credential), &peer).map(|_| ()).map_err(|refused| refused.kind())
}

fn following(all: &Arc<Identities>) -> JoinHandle<()> {
    let all = all.clone();
    tasks::spawn("follow", async move { match all.follow().await {} })
}

/// Long enough for two looks at the files.
async fn looked() {
    sleep(Duration::from_secs(7)).await;
}

#[test]
fn a_file_counts_once_two_looks_have_seen_the_same() {
    let [old, new, other] = [1, 2, 3].map(|byte| Digest::new([byte; 32]));
    let mut looks = Looks::default();
    for (found, expected) in [
        (Ok(old), Step::Nothing),
        (Ok(new), Step::Nothing),
        (Ok(other), Step::Nothing),
        (Ok(new), Step::Nothing),
        (Ok(new), Step::Take),
    ] {
        assert_eq!(looks.step(found, Some(old)), expected);
    }
}

#[test]
fn a_file_that_cannot_be_used_is_told_of_once() {
    let current = Digest::new([1; 32]);
    let mut looks = Looks::default();
    let gone = || Err("gone".to_owned());
    for (found, expected) in [
        (gone(), Step::Nothing),
        (gone(), Step::Tell),
        (gone(), Step::Nothing),
        (gone(), Step::Nothing),
        (Err("other".to_owned()), Step::Nothing),
        (Err("other".to_owned()), Step::Tell),
        (Ok(current), Step::Nothing),
        (gone(), Step::Nothing),
        (gone(), Step::Tell),
    ] {
        assert_eq!(looks.step(found, Some(current)), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_in_files_are_exchanged_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (file, jwks) = (folder.path().join("keys"), folder.path().join("jwks"));
    let (old, new) = (Issuer::new(Algorithm::ES256, "old"), Issuer::new(Algorithm::ES256, "new"));
    let (of_old, of_new) = (old.token(&claims()), new.token(&claims()));
    fs::write(&file, KEY).unwrap();
    fs::write(&jwks, set(&[&old])).unwrap();
    let text = "[[auth.key]]\nname = 'a'\nfile = 'keys'\n\
                [auth.jwt]\njwks_file = 'jwks'\naudience = 'off'";
    let all = Arc::new(identities(text, folder.path(), Control::Local));
    let task = following(&all);
    assert!(kind(&all, KEY).is_ok() && kind(&all, &of_old).is_ok());

    fs::write(&file, format!("{KEY}\n{NEXT}\n")).unwrap();
    fs::write(&jwks, set(&[&old, &new])).unwrap();
    looked().await;
    for good in [KEY, NEXT, &of_old, &of_new] {
        assert_eq!(kind(&all, good), Ok(()), "{good}");
    }

    for broken in ["", "not a key set at all"] {
        fs::write(&file, "not a key at all").unwrap();
        fs::write(&jwks, broken).unwrap();
        looked().await;
        assert!(kind(&all, KEY).is_ok() && kind(&all, &of_old).is_ok(), "the last ones count");
    }

    fs::write(&file, NEXT).unwrap();
    fs::write(&jwks, set(&[&new])).unwrap();
    looked().await;
    assert!(kind(&all, NEXT).is_ok() && kind(&all, &of_new).is_ok());
    for gone in [KEY, &of_old] {
        assert_eq!(kind(&all, gone), Err(Kind::Unauthenticated));
    }

    fs::write(&file, "# none\n").unwrap();
    looked().await;
    assert_eq!(kind(&all, NEXT), Err(Kind::Unauthenticated), "an empty file takes keys back");
    task.abort();
}

/// Callers of an issuer whose keys are at a site.
fn of_site(url: &str, refresh: Duration, cooldown: Duration) -> Arc<Identities> {
    let text = format!("version = 1\n[auth.jwt]\njwks_url = '{url}'\naudience = 'off'");
    let mut auth = parse(&text, std::path::Path::new("")).unwrap().auth;
    let Some(jwt) = &mut auth.jwt else { unreachable!("it was given") };
    jwt.jwks = Jwks::Url { url: url.to_owned(), ca: None, refresh, cooldown };
    Arc::new(Identities::new(&auth, Control::Local).unwrap())
}

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(5);

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let (old, new) = (Issuer::new(Algorithm::ES256, "old"), Issuer::new(Algorithm::ES256, "new"));
    let (of_old, of_new) = (old.token(&claims()), new.token(&claims()));
    let mut site = Site::start(set(&[&old])).await;
    let all = of_site(&site.url, LONG, SHORT);
    assert_eq!(kind(&all, &of_old), Err(Kind::NotReady), "nothing was fetched yet");
    assert_eq!(kind(&all, "some-key"), Err(Kind::Unauthenticated));
    let task = following(&all);
    site.asked().await;
    until(|| kind(&all, &of_old).is_ok()).await;
    site.say(set(&[&new]));
    assert_eq!(kind(&all, &of_new), Err(Kind::Unauthenticated));
    site.asked().await;
    until(|| kind(&all, &of_new).is_ok()).await;
    assert_eq!(kind(&all, &of_old), Err(Kind::Unauthenticated), "its key was taken back");
    task.abort();
}

#[tokio::test]
async fn forged_names_of_keys_cause_no_more_fetches() {
    let issuer = Issuer::new(Algorithm::ES256, "a");
    let good = issuer.token(&claims());
    let mut site = Site::start(set(&[&issuer])).await;
    let all = of_site(&site.url, LONG, LONG);
    let task = following(&all);
    site.asked().await;
    until(|| kind(&all, &good).is_ok()).await;
    for i in 0..200 {
        let forged = jsonwebtoken::Header { kid: Some(format!("k{i}")), ..issuer.header() };
        let token = issuer.token_with(&forged, &claims());
        assert_eq!(kind(&all, &token), Err(Kind::Unauthenticated));
        tokio::task::yield_now().await;
    }
    assert!(timeout(Duration::from_millis(50), site.asked()).await.is_err());
    task.abort();
}

#[tokio::test]
async fn the_last_keys_count_while_fetching_fails() {
    let issuer = Issuer::new(Algorithm::ES256, "a");
    let good = issuer.token(&claims());
    let mut site = Site::start(set(&[&issuer])).await;
    let all = of_site(&site.url, SHORT, SHORT);
    let task = following(&all);
    site.asked().await;
    until(|| kind(&all, &good).is_ok()).await;
    for bad in ["", "{\"keys\": []}", "<html>"] {
        site.say(bad.to_owned());
        // The answer to the one before was settled when the next one asks.
        for _ in 0..3 {
            site.asked().await;
        }
        assert_eq!(kind(&all, &good), Ok(()), "{bad}");
    }
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_never_answers_holds_up_nothing() {
    // Connections are taken by the system and never answered.
    let hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", hole.local_addr().unwrap());
    let all = of_site(&url, LONG, LONG);
    let task = following(&all);
    let issuer = Issuer::new(Algorithm::ES256, "a");
    let good = issuer.token(&claims());
    assert_eq!(kind(&all, &good), Err(Kind::NotReady));
    let tokens = all.tokens.as_ref().unwrap();
    tokens.replace(Keyring::parse(set(&[&issuer]).as_bytes(), tokens.allowed()).unwrap());
    assert!(!fetch(tokens).await, "given up");
    assert_eq!(kind(&all, &good), Ok(()), "known keys go on working");
    task.abort();
}

#[tokio::test]
async fn clients_with_keys_alone_are_followed_without_harm() {
    let text = client("a", &[KEY]);
    let all = Arc::new(identities(&text, std::path::Path::new(""), Control::Local));
    let task = following(&all);
    tokio::task::yield_now().await;
    assert!(kind(&all, KEY).is_ok());
    task.abort();
}

async fn until(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(20), holds).await.expect("it did not happen");
}
