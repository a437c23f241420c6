//! The command line as a process: what it prints, and with which status it ends.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};

use tempfile::TempDir;

const IDENTITY: &str = "platform = 'identity'\n\
    [[input]]\nname = 'x'\ndtype = 'BYTES'\nshape = [-1]\n\
    [[output]]\nname = 'y'\ndtype = 'BYTES'\nshape = [-1]\n";

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    command.args(arguments);
    command
}

fn penstock(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn repository(manifest: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::create_dir_all(folder.path().join("echo/1")).unwrap();
    fs::write(folder.path().join("echo/model.toml"), manifest).unwrap();
    folder
}

fn config(folder: &Path, content: &str) -> String {
    let path = folder.join("penstock.toml");
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

#[test]
fn check_prints_every_problem_with_its_path_and_ends_with_64() {
    let folder = repository(IDENTITY);
    let path =
        config(folder.path(), "version = 1\n[listen]\nhttp = 'here'\n[engine]\nthreads = 2\n");
    let output = penstock(&["check", &path]);
    assert_eq!(output.status.code(), Some(64));
    let errors = text(&output.stderr);
    assert!(errors.contains("listen.http: is \"here\""), "{errors}");
    assert!(errors.contains("engine.threads: is not a known key"), "{errors}");
}

#[test]
fn check_reads_the_models_too() {
    let folder = repository("platform = 'identity'\n[[input]]\nname = 'x'\n");
    let output = penstock(&["check", "--json", &folder.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(64));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let problem = &report["problems"][0];
    assert_eq!(problem["path"], "repository/echo");
    assert!(
        problem["message"].as_str().unwrap().contains("input[0].dtype: is missing"),
        "{problem}"
    );
}

/// A repository with `echo` 1 and 3 and two models that callers cannot take for it.
fn routed() -> TempDir {
    let labels = "[labels]\nstable = 1\n[versions]\npolicy = 'all'\n";
    let folder = repository(&format!("{IDENTITY}{labels}"));
    let model = |name: &str, manifest: &str| {
        fs::create_dir_all(folder.path().join(name).join("1")).unwrap();
        fs::write(folder.path().join(name).join("model.toml"), manifest).unwrap();
    };
    fs::create_dir_all(folder.path().join("echo/3")).unwrap();
    model("same", IDENTITY);
    model("other", &IDENTITY.replace("'x'", "'z'"));
    model("wide", &IDENTITY.replace("shape = [-1]", "shape = [-1, 2]"));
    folder
}

const ROUTE: &str = "version = 1\nrepository.path = '.'\n[[upstream]]\nname = 'fleet'\n\
    endpoints = ['10.0.0.1:8001']\n[[route]]\nname = 'echo'\n";

fn arm(name: &str, rest: &str) -> String {
    format!("[[route.arm]]\nname = '{name}'\n{rest}\n")
}

#[test]
fn check_shows_who_would_be_answered_by_what() {
    let folder = routed();
    let arms = [
        arm("stable", "version = 'stable'"),
        arm("new", "version = '3'\nshare = '4.5%'"),
        arm("next", "model = 'same'\nshare = '0%'"),
        arm("far", "upstream = 'fleet'\nmodel = 'any'\nshare = '1%'"),
    ];
    let shadow = "[[route.shadow]]\nname = 'dark'\nmodel = 'same'\nsample = '10%'\n";
    let path = config(folder.path(), &format!("{ROUTE}{}{shadow}", arms.concat()));
    let output = penstock(&["check", &path]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    let lines: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
        .collect();
    for row in [
        ["ROUTE", "ARM", "TARGET", "SHARE", "BUCKETS"],
        ["echo", "stable", "echo/stable", "94.5%", "[0, 9450)"],
        ["echo", "new", "echo/3", "4.5%", "[9450, 9900)"],
        ["echo", "next", "same/latest", "0%", "-"],
        ["echo", "far", "fleet:any/latest", "1%", "[9900, 10000)"],
        ["echo", "dark (shadow)", "same/latest", "10%", "-"],
    ] {
        assert!(lines.contains(&row.to_vec()), "{row:?}\n{shown}");
    }
    let output = penstock(&["check", "--json", &path]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["routes"][1][4], "[9450, 9900)");
}

#[test]
fn arms_that_the_repository_cannot_answer_for_are_named() {
    let folder = routed();
    let arms = [
        arm("stable", ""),
        arm("gone", "model = 'nothing'\nshare = '1%'"),
        arm("past", "version = '2'\nshare = '1%'"),
        arm("word", "version = 'canary'\nshare = '1%'"),
        arm("other", "model = 'other'\nshare = '1%'"),
        arm("wide", "model = 'wide'\nshare = '1%'"),
    ];
    let shadow = "[[route.shadow]]\nname = 'dark'\nmodel = 'wide'\nversion = '1'\n";
    let path = config(folder.path(), &format!("{ROUTE}{}{shadow}", arms.concat()));
    let output = penstock(&["check", &path]);
    assert_eq!(output.status.code(), Some(64));
    let errors = text(&output.stderr);
    let found: Vec<_> =
        errors.lines().filter_map(|line| line.strip_prefix(&format!("{path}: "))).collect();
    assert_eq!(
        found,
        [
            "route[0].arm[1].model: is \"nothing\", the repository has no such model",
            "route[0].arm[2].version: is \"2\", 'echo' has 1, 3",
            "route[0].arm[3].version: is \"canary\", the labels of 'echo' are stable",
            "route[0].arm[4]: does not fit 'stable': input 'z' is unknown to the other",
            "route[0].arm[5]: does not fit 'stable': input 'x' has shape [-1, 2] instead of [-1]",
            "route[0].shadow[0]: does not fit 'stable': input 'x' has shape [-1, 2] instead of [-1]",
        ]
    );
}

#[test]
fn a_label_of_a_version_that_is_not_there_is_a_problem() {
    let folder = repository(&format!("{IDENTITY}[labels]\nstable = 1\ncanary = 7\n"));
    let output = penstock(&["check", &folder.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(64));
    let errors = text(&output.stderr);
    assert!(
        errors.ends_with("repository/echo: labels.canary: is 7, the folder has 1\n"),
        "{errors}"
    );
}

#[test]
fn a_good_repository_has_no_problems() {
    let folder = repository(IDENTITY);
    let output = penstock(&["check", &folder.path().display().to_string()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("no problems"));
}

#[test]
fn a_key_is_printed_once_with_its_hash_and_check_shows_neither() {
    let output = penstock(&["key", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let (key, hash) = (made["key"].as_str().unwrap(), made["hash"].as_str().unwrap());
    let folder = repository(IDENTITY);
    fs::write(folder.path().join("keys"), key).unwrap();
    let path = config(
        folder.path(),
        &format!(
            "version = 1\n[repository]\npath = '.'\n\
             [[auth.key]]\nname = 'jobs'\nroles = ['predict', 'operate']\nhashes = ['{hash}']\n\
             [[auth.key]]\nname = 'batch'\ntenant = 'research'\nmodels = ['echo']\nfile = 'keys'\n"
        ),
    );
    // The same key for two clients is told, without the key.
    let checked = penstock(&["check", &path]);
    assert_eq!(checked.status.code(), Some(64));
    let errors = text(&checked.stderr);
    assert!(errors.contains("auth.key[1].file: holds a key that another client has"), "{errors}");
    fs::write(folder.path().join("keys"), "some-other-key-of-the-client").unwrap();
    let (checked, as_json) = (penstock(&["check", &path]), penstock(&["check", "--json", &path]));
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).contains("predict, operate"), "{}", text(&checked.stdout));
    let clients: serde_json::Value = serde_json::from_slice(&as_json.stdout).expect("JSON");
    assert_eq!(clients["clients"][1][1], "research");
    for shown in [checked.stdout, as_json.stdout, checked.stderr].map(|bytes| text(&bytes)) {
        for secret in [key, &hash["sha256:".len()..], "some-other-key"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[test]
fn the_admin_port_faces_no_network_without_authentication() {
    let folder = repository(IDENTITY);
    let text_of = "version = 1\n[repository]\npath = '.'\n";
    let path = config(folder.path(), text_of);
    let output = penstock(&["serve", &path, "--admin", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("listen.admin: is no loopback address"));
}

#[test]
fn serving_nothing_that_exists_is_one_clear_line() {
    let output = penstock(&["serve", "no-such-file.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "penstock: no-such-file.toml is neither a configuration file nor a folder\n"
    );
}

#[test]
fn a_gateway_that_is_not_there_is_one_clear_line() {
    // Port 9 is reserved for a service that nobody runs.
    let output = penstock(&["status", "--url", "http://127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(
        errors.starts_with("penstock: cannot reach a gateway at http://127.0.0.1:9"),
        "{errors}"
    );
}

/// Answers one request with `status` and `body`; returns its address, and what was asked.
fn answering(status: &str, body: &str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut asked, mut piece) = (String::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut piece).unwrap();
            asked += &text(&piece[..read]);
            let Some((head, body)) = asked.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
            });
            if body.len() >= length.unwrap_or(0) {
                break;
            }
        }
        stream.write_all(answer.as_bytes()).unwrap();
        asked
    });
    (url, asked)
}

#[test]
fn a_share_is_set_with_what_was_said_and_the_change_is_printed() {
    let answer = r#"{"revision": 8, "changed": true, "diff": ["digits: canary 5% -> 10%"]}"#;
    let words = ["route", "set", "digits", "canary=10%", "--expect-revision", "7", "--reason", "x"];
    for json in [false, true] {
        let (url, asked) = answering("200 OK", answer);
        let mut arguments = [&words[..], &["--url", &url]].concat();
        if json {
            arguments.push("--json");
        }
        let output = penstock(&arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let asked = asked.join().unwrap();
        let (head, body) = asked.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("PATCH /v1/routes/digits HTTP/1.1"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let expected = serde_json::json!({
            "shares": { "canary": "10%" }, "expect_revision": 7, "reason": "x",
        });
        assert_eq!(body, expected);
        let shown = text(&output.stdout);
        if json {
            let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(shown, serde_json::from_str::<serde_json::Value>(answer).unwrap());
        } else {
            assert_eq!(shown, "revision 8\n  digits: canary 5% -> 10%\n");
        }
    }
}

#[test]
fn a_rollback_says_what_it_had_to_load() {
    let answer = r#"{"revision": 9, "changed": true, "restored": 7, "diff": ["digits: as it was"],
                     "needs_load": ["digits/1"]}"#;
    let (url, asked) = answering("200 OK", answer);
    let output = penstock(&["rollback", "--to", "7", "--url", &url]);
    assert!(asked.join().unwrap().ends_with(r#"{"to":7}"#));
    let expected = "revision 9: as revision 7\n  digits: as it was\n  \
                    loads digits/1, which had been unloaded\n";
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn a_refused_change_is_one_clear_line() {
    let refused = r#"{"error": "revision 8 is current, not 7", "revision": 8}"#;
    for words in [&["route", "set", "digits", "canary=10%"][..], &["rollback"], &["reload"]] {
        let (url, asked) = answering("409 Conflict", refused);
        let output = penstock(&[words, &["--url", &url]].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert_eq!(text(&output.stderr), "penstock: revision 8 is current, not 7\n");
        asked.join().unwrap();
    }
}

#[test]
fn a_file_that_is_not_applied_ends_like_check() {
    let refused = r#"{"error": "the file is not applied", "problems": [
        {"path": "route[0].arm", "message": "is missing"}, {"path": "", "message": "bad"}]}"#;
    let (url, asked) = answering("400 Bad Request", refused);
    let output = penstock(&["reload", "--url", &url]);
    asked.join().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let expected = "penstock: the file is not applied\n  route[0].arm: is missing\n  bad\n";
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn what_is_no_share_is_told_before_anybody_is_asked() {
    for bad in ["canary", "canary=10", "=10%", "canary=101%"] {
        let output = penstock(&["route", "set", "digits", bad, "--url", "http://127.0.0.1:9"]);
        assert_eq!(output.status.code(), Some(2), "{bad}");
    }
    let twice = ["route", "set", "digits", "canary=1%", "canary=2%", "--url", "http://127.0.0.1:9"];
    let output = penstock(&twice);
    assert_eq!(text(&output.stderr), "penstock: the arm 'canary' is named twice\n");
}

#[test]
fn completions_come_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = penstock(&["completions", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("penstock"), "{shell}");
    }
}

#[test]
fn inspect_refuses_what_is_no_input_description() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("model.pt");
    fs::write(&file, "not a model").unwrap();
    for bad in ["pixels", "pixels=FP32", "pixels=FP99[1]", "=FP32[1]", "x=FP32[0]", "x=FP32[a]"] {
        let output = penstock(&["inspect", &file.display().to_string(), "--input", bad]);
        assert_eq!(output.status.code(), Some(1), "{bad}");
        assert!(text(&output.stderr).contains("--input"), "{bad}: {}", text(&output.stderr));
    }
}

#[cfg(feature = "torch")]
#[test]
fn inspect_writes_a_manifest_that_serves() {
    let folder = TempDir::new().unwrap();
    let version = folder.path().join("digits/1");
    fs::create_dir_all(&version).unwrap();
    let model = crate::source::root().join("models/repository/digits/1/model.pt");
    fs::copy(model, version.join("model.pt")).unwrap();
    let file = version.join("model.pt").display().to_string();
    let output = penstock(&["inspect", &file, "--input", "pixels=FP32[-1,64]", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(shown["outputs"][0]["shape"], serde_json::json!([-1, 10]));
    assert_eq!(shown["max_batch_size"], 32);
    let checked = penstock(&["check", &folder.path().display().to_string()]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let wrong = penstock(&["inspect", &file, "--input", "pixels=FP32[-1,63]"]);
    assert_eq!(wrong.status.code(), Some(1));
}

/// A gateway that answers one request with this JSON; gives its address, and what it was asked.
fn gateway(answer: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut request, mut piece) = (Vec::new(), [0; 4096]);
        let length = |text: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            line.map_or(0, |length| length.parse::<usize>().unwrap())
        };
        loop {
            let read = stream.read(&mut piece).unwrap();
            request.extend_from_slice(&piece[..read]);
            let text = text(&request);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            if read == 0 || body.len() >= length(&head.to_lowercase()) {
                break;
            }
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
        let length = answer.len();
        write!(stream, "{head}\r\ncontent-length: {length}\r\n\r\n{answer}").unwrap();
        text(&request)
    });
    (address, asked)
}

#[test]
fn check_against_a_gateway_says_what_a_reload_would_change() {
    // What the file names is looked for by the gateway: here is nothing of it.
    let folder = TempDir::new().unwrap();
    let content = "version = 1\n[repository]\npath = '/nonexistent'\n".to_owned();
    let path = config(folder.path(), &content);
    let (url, asked) = gateway(
        r#"{"problems": [], "diff": ["breaker.consecutive: 5 -> 9"], "needs_restart": []}"#,
    );
    let output = penstock(&["check", &path, "--against", &url]);
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("POST /v1/check ") && asked.ends_with(&content), "{asked}");
    assert_eq!(text(&output.stdout), "breaker.consecutive: 5 -> 9\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let (url, asked) = gateway(r#"{"problems": [], "diff": [], "needs_restart": ["listen.http"]}"#);
    let output = penstock(&["check", &path, "--against", &url]);
    drop(asked.join().unwrap());
    assert!(text(&output.stderr).ends_with("listen.http: cannot change while the gateway runs\n"));
    assert_eq!(output.status.code(), Some(64));
    // What is no configuration needs no gateway to say so.
    let path = config(folder.path(), "version = 2\n");
    let output = penstock(&["check", &path, "--against", "http://127.0.0.1:9"]);
    assert!(text(&output.stderr).ends_with("version: is 2, this build reads 1\n"));
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn check_says_when_the_state_folder_cannot_be_written() {
    let models = repository(IDENTITY);
    let file = models.path().join("a-file");
    fs::write(&file, "").unwrap();
    let check = |state: &Path| {
        let repository = models.path().display();
        let state = state.display();
        let content = format!(
            "version = 1\n[repository]\npath = '{repository}'\n[state]\npath = '{state}'\n"
        );
        let output = penstock(&["check", &config(models.path(), &content)]);
        (output.status.code(), text(&output.stderr))
    };
    assert_eq!(check(&models.path().join("new/state")).0, Some(0));
    let (code, errors) = check(&file.join("state"));
    assert_eq!(code, Some(64));
    let expected = format!("cannot write {}: Not a directory", file.display());
    assert!(errors.contains("state.path: ") && errors.contains(&expected), "{errors}");
}

/// A configuration with a prediction log that says so much more.
fn logging(folder: &Path, log: &str) -> String {
    let text = format!("version = 1\n[repository]\npath = '.'\n[prediction_log]\n{log}");
    config(folder, &text)
}

#[test]
fn check_tells_when_the_folder_of_the_log_cannot_be_used() {
    let folder = repository(IDENTITY);
    let path = logging(folder.path(), "path = 'new/log'\n");
    let output = penstock(&["check", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!folder.path().join("new").exists());
    // As it is in the documentation: from where the file is.
    let here = |file: &str| command(&["check", file]).current_dir(folder.path()).output().unwrap();
    let output = here("penstock.toml");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));

    fs::write(folder.path().join("new"), "").unwrap();
    let errors = text(&penstock(&["check", &path]).stderr);
    let (log, file) = (folder.path().join("new/log"), folder.path().join("new"));
    let expected = format!(
        "prediction_log.path: {}: cannot write {}: Not a directory",
        log.display(),
        file.display()
    );
    assert!(errors.contains(&expected), "{errors}");

    // Where a part of it is something else.
    fs::create_dir_all(folder.path().join("old/segments")).unwrap();
    fs::write(folder.path().join("old/files"), "").unwrap();
    let output = penstock(&["check", &logging(folder.path(), "path = 'old'\n")]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("old/files: Not a directory"));
}

#[test]
fn a_command_that_nobody_reads_ends_as_it_would_have() {
    let folder = repository(IDENTITY);
    let path = config(folder.path(), "version = 1\n[repository]\npath = '.'\n");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(&["check", &path]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn check_tells_when_the_key_of_hashes_is_not_there() {
    let folder = repository(IDENTITY);
    for (key, expected) in [
        ("env:PENSTOCK_NO_SUCH_KEY", "the environment has no PENSTOCK_NO_SUCH_KEY"),
        ("file:missing", "missing: No such file"),
    ] {
        let path = logging(folder.path(), &format!("hash_key = '{key}'\n"));
        let output = penstock(&["check", &path]);
        assert_eq!(output.status.code(), Some(64));
        let errors = text(&output.stderr);
        assert!(errors.contains("prediction_log.hash_key: "), "{errors}");
        assert!(errors.contains(expected), "{errors}");
    }
}

#[test]
fn check_tells_when_a_rule_of_the_log_names_what_no_model_has() {
    let folder = repository(IDENTITY);
    let rules = |fields: &[&str]| -> String {
        let rule = |field| format!("[[prediction_log.redact]]\nfield = '{field}'\nhow = 'drop'\n");
        fields.iter().map(rule).collect()
    };
    let path = logging(folder.path(), &rules(&["in.x", "out.y", "caller_id"]));
    let output = penstock(&["check", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));

    let sampling = "[prediction_log.sampling]\nconfidence_output = 'x'\nconfidence_below = 0.5\n";
    let of_model = |name| format!("{}model = '{name}'\n", rules(&["in.x"]));
    let wrong =
        rules(&["in.x", "in.y", "out.x"]) + &of_model("echo") + &of_model("ecco") + sampling;
    let output = penstock(&["check", &logging(folder.path(), &wrong)]);
    assert_eq!(output.status.code(), Some(64));
    let errors = text(&output.stderr);
    assert_eq!(errors.lines().count(), 4, "{errors}");
    for expected in [
        "prediction_log.redact[1].field: names 'y', which is no input and no feature of one",
        "prediction_log.redact[2].field: names 'x', which is no output and no feature of one",
        "prediction_log.redact[4].model: is 'ecco', the repository has no such model",
        "prediction_log.sampling.confidence_output: names 'x', which is no output",
    ] {
        assert!(errors.contains(expected), "{errors}");
    }
}

#[test]
fn the_log_command_says_where_it_looked_in_vain() {
    let folder = repository(IDENTITY);
    let shown = folder.path().display().to_string();
    let plain = config(folder.path(), "version = 1\n[repository]\npath = '.'\n");
    for (arguments, status, expected) in [
        (&["stats", "--path", &shown][..], 1, format!("{shown}: here is no prediction log")),
        (&["verify", "--config", &plain], 1, format!("{plain} has no [prediction_log]")),
        (&["stats", "--config", &shown], 64, "cannot read".to_owned()),
        (&["export", "--path", &shown, "--from", "soon"], 2, "'soon' is no time".to_owned()),
        (&["stats", "--path", &shown, "--config", &plain], 2, "cannot be used with".to_owned()),
    ] {
        let output = penstock(&[&["log"], arguments].concat());
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{errors}");
        assert!(errors.contains(&expected), "{errors}");
    }
}
