//! API keys: known by their SHA-256 alone.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::crypto::aws_lc_rs::default_provider;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::digest;
use crate::config::auth::KeyClient;
use crate::config::{Digest, Problem, environment};
use crate::types::Identity;

/// Begins every key that `penstock key` makes, for people and for scanners of leaked secrets.
const PREFIX: &str = "psk_";
/// A shorter key could be guessed.
const SHORTEST: usize = 20;
const LONGEST: usize = 512;
/// Beyond any list of keys or key set: somebody named the wrong file.
const LARGEST_FILE: u64 = 1 << 20;

/// Every key of every client.
#[derive(Debug)]
pub(super) struct Keys {
    /// Of everything that was read, to see changes.
    pub(super) seen: Digest,
    /// By the first bytes of the digest, which tell nothing of the key; the whole is compared in
    /// constant time.
    by_start: HashMap<[u8; 8], Vec<(Digest, Arc<Identity>)>>,
    /// What the file of each client held, in the order of the clients.
    of_files: Vec<Vec<Digest>>,
}

impl Keys {
    /// The client with this key.
    pub(super) fn find(&self, digest: &Digest) -> Option<&Arc<Identity>> {
        let candidates = self.by_start.get(&start(digest))?;
        let same = |known: &&(Digest, _)| bool::from(known.0.bytes().ct_eq(digest.bytes()));
        candidates.iter().find(same).map(|(_, identity)| identity)
    }

    /// `false` when another client has the same key.
    fn insert(&mut self, digest: Digest, identity: &Arc<Identity>) -> bool {
        if let Some(other) = self.find(&digest) {
            return other == identity;
        }
        self.by_start.entry(start(&digest)).or_default().push((digest, identity.clone()));
        true
    }
}

fn start(digest: &Digest) -> [u8; 8] {
    let (start, _) = digest.bytes().split_first_chunk().expect("32 bytes hold 8");
    *start
}

/// A new key: 256 random bits.
pub(super) fn random() -> Result<String, String> {
    let mut bytes = [0; 32];
    let random = default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| "the system gives no random numbers")?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Reads the keys of all clients.
///
/// # Errors
/// Every file and variable that cannot be used; no text of them.
pub(super) fn read(clients: &[KeyClient]) -> Result<Keys, Vec<Problem>> {
    let (keys, problems) = gather(clients, None);
    if problems.is_empty() { Ok(keys) } else { Err(problems) }
}

/// Reads them again. A file that cannot be used leaves its own client with the keys of `before`,
/// and no other; one without keys takes them all back. With the problems.
pub(super) fn read_again(clients: &[KeyClient], before: &Keys) -> (Keys, Vec<Problem>) {
    gather(clients, Some(before))
}

fn gather(clients: &[KeyClient], before: Option<&Keys>) -> (Keys, Vec<Problem>) {
    let (mut lists, mut of_files, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (index, client) in clients.iter().enumerate() {
        let mut fault =
            |key: &str, text| problems.push(Problem::new(format!("{}.{key}", client.path), text));
        let last = before.and_then(|before| before.of_files.get(index));
        let of_file = client.file.as_ref().map_or(Ok(Vec::new()), |path| {
            let digests = read_bounded(path).and_then(|text| digests(&text))?;
            if last.is_some() { Ok(digests) } else { some(digests) }
        });
        let of_file = of_file.unwrap_or_else(|text| {
            fault("file", text);
            last.cloned().unwrap_or_default()
        });
        let of_env = client.env.as_ref().map_or(Ok(Vec::new()), |name| {
            let missing = || format!("the environment has no variable {name}, or an empty one");
            let text = environment::secret(name).ok_or_else(missing)?;
            digests(&text).and_then(some)
        });
        let of_env = of_env.unwrap_or_else(|text| {
            fault("env", text);
            Vec::new()
        });
        let parts = [("hashes", client.hashes.clone()), ("file", of_file.clone()), ("env", of_env)];
        lists.extend(parts.map(|(key, digests)| (client, key, digests)));
        of_files.push(of_file);
    }
    let keys = Keys { seen: seen(&lists), by_start: HashMap::new(), of_files };
    assign(keys, &lists, (before, problems))
}

/// Gives every key to its client. One that two clients have stays with the one that had it.
fn assign(
    mut keys: Keys,
    lists: &[(&KeyClient, &str, Vec<Digest>)],
    (before, mut problems): (Option<&Keys>, Vec<Problem>),
) -> (Keys, Vec<Problem>) {
    let had = |client: &KeyClient, digest| {
        before.and_then(|before| before.find(digest)) == Some(&client.identity)
    };
    for earlier in [true, false] {
        for (client, key, digests) in lists {
            for digest in digests.iter().filter(|digest| had(client, digest) == earlier) {
                if !keys.insert(*digest, &client.identity) {
                    let text = "holds a key that another client has too".to_owned();
                    problems.push(Problem::new(format!("{}.{key}", client.path), text));
                }
            }
        }
    }
    (keys, problems)
}

/// A digest of all that was read.
fn seen(lists: &[(&KeyClient, &str, Vec<Digest>)]) -> Digest {
    let mut seen = Sha256::new();
    for (_, _, digests) in lists {
        digests.iter().for_each(|digest| seen.update(digest.bytes()));
        // Where one list ends and the next begins.
        seen.update([0]);
    }
    Digest::new(seen.finalize().into())
}

fn some(digests: Vec<Digest>) -> Result<Vec<Digest>, String> {
    if digests.is_empty() { Err("holds no key".to_owned()) } else { Ok(digests) }
}

/// The text of a small file.
pub(super) fn read_bounded(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_string(&mut text))
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if read as u64 > LARGEST_FILE {
        return Err(format!("{} is larger than {LARGEST_FILE} bytes", path.display()));
    }
    Ok(text)
}

/// Keys and hashes, one a line.
fn digests(text: &str) -> Result<Vec<Digest>, String> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let read = match line.starts_with("sha256:") {
            true => line.parse().map_err(ToOwned::to_owned),
            false => of_key(line),
        };
        found.push(read.map_err(|problem| format!("line {}: {problem}", index + 1))?);
    }
    Ok(found)
}

fn of_key(key: &str) -> Result<Digest, String> {
    if !(SHORTEST..=LONGEST).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "a key has {SHORTEST} to {LONGEST} visible characters of ASCII, see `penstock key`"
        ));
    }
    Ok(digest(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::types::Roles;

    fn client(name: &str, file: Option<std::path::PathBuf>, hashes: &[Digest]) -> KeyClient {
        let mut identity = Identity::anonymous(Roles::all());
        name.clone_into(&mut identity.name);
        let (path, hashes) = (format!("auth.key[{name}]"), hashes.to_vec());
        KeyClient { path, identity: Arc::new(identity), hashes, file, env: None }
    }

    #[test]
    fn new_keys_differ_and_are_taken() {
        let keys: Vec<String> = (0..3).map(|_| random().unwrap()).collect();
        assert!(keys[0] != keys[1] && keys[1] != keys[2]);
        for key in &keys {
            assert!(key.starts_with(PREFIX) && key.len() == 47, "{key}");
            assert_eq!(of_key(key), Ok(digest(key.as_bytes())));
        }
    }

    #[test]
    fn a_client_is_known_by_each_of_its_keys() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        let plain = random().unwrap();
        let third = digest(b"third");
        fs::write(&file, format!("# old\n{plain}\n\n  {third}\n")).unwrap();
        let first = digest(b"first");
        let other = client("b", None, &[digest(b"other")]);
        let keys = read(&[client("a", Some(file), &[first]), other]).unwrap();
        for known in [first, third, digest(plain.as_bytes())] {
            assert_eq!(keys.find(&known).unwrap().name, "a");
        }
        assert_eq!(keys.find(&digest(b"other")).unwrap().name, "b");
        assert_eq!(keys.find(&digest(b"unknown")), None);
    }

    #[test]
    fn digests_that_begin_alike_are_told_apart() {
        let (mut one, mut other) = ([7; 32], [7; 32]);
        (one[31], other[31]) = (1, 2);
        let (one, other) = (Digest::new(one), Digest::new(other));
        let keys = read(&[client("a", None, &[one]), client("b", None, &[other])]).unwrap();
        assert_eq!(keys.find(&one).unwrap().name, "a");
        assert_eq!(keys.find(&other).unwrap().name, "b");
        assert_eq!(keys.find(&Digest::new([7; 32])), None);
    }

    #[test]
    fn what_cannot_be_used_is_told_without_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            Some(path)
        };
        let same = digest(b"same");
        let clients = [
            client("gone", Some(folder.path().join("gone")), &[]),
            client("empty", path("empty", "# nothing\n"), &[]),
            client("short", path("short", "\nhunter2\n"), &[]),
            client("broken", path("broken", "sha256:hunter2"), &[]),
            client("one", None, &[same]),
            client("two", None, &[same]),
            KeyClient { env: Some("PENSTOCK_TEST_NOT_SET".into()), ..client("env", None, &[]) },
        ];
        let problems: Vec<String> =
            read(&clients).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 6, "{problems:?}");
        assert!(problems[0].starts_with("auth.key[gone].file: cannot read"), "{problems:?}");
        assert_eq!(problems[1], "auth.key[empty].file: holds no key");
        assert!(problems[2].starts_with("auth.key[short].file: line 2: a key has 20"));
        assert!(problems[5].contains("auth.key[two].hashes: holds a key that another client"));
        assert!(problems[4].contains("no variable PENSTOCK_TEST_NOT_SET"));
        assert!(!problems.concat().contains("hunter2"));
    }

    #[test]
    fn what_was_read_is_told_apart_by_its_digest() {
        let of = |hashes: &[Digest]| read(&[client("a", None, hashes)]).unwrap().seen;
        let (x, y) = (digest(b"x"), digest(b"y"));
        assert_eq!(of(&[x]), of(&[x]));
        assert!(of(&[x]) != of(&[y]) && of(&[x]) != of(&[x, y]));
    }

    #[test]
    fn a_file_that_cannot_be_used_leaves_its_own_client_alone_with_the_last_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(folder.path().join(name));
        let put = |name: &str, digests: &[Digest]| {
            let lines: Vec<_> = digests.iter().map(Digest::to_string).collect();
            fs::write(folder.path().join(name), lines.join("\n")).unwrap();
        };
        let [x, y, z] = [b"x", b"y", b"z"].map(|text| digest(text));
        put("a", &[x]);
        put("b", &[y]);
        let clients = [client("a", path("a"), &[]), client("b", path("b"), &[])];
        let first = read(&clients).unwrap();
        let who =
            |keys: &Keys, digest: &Digest| keys.find(digest).map(|identity| identity.name.clone());

        fs::remove_file(folder.path().join("a")).unwrap();
        put("b", &[z]);
        let (second, problems) = read_again(&clients, &first);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(
            [x, y, z].map(|key| who(&second, &key)),
            [Some("a".into()), None, Some("b".into())]
        );

        // A key of another client stays with that client.
        put("a", &[z]);
        let (third, problems) = read_again(&clients, &second);
        assert!(problems[0].to_string().starts_with("auth.key[a].file: holds a key that another"));
        assert_eq!([x, z].map(|key| who(&third, &key)), [None, Some("b".into())]);

        put("a", &[]);
        put("b", &[]);
        let (fourth, problems) = read_again(&clients, &third);
        assert!(problems.is_empty() && who(&fourth, &z).is_none(), "{problems:?}");
        assert!(fourth.seen != third.seen);
    }
}
