//! `penstock check`: every problem of a configuration and of the models it names.

mod predictions;
mod routes;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use rustix::fs::{Access as Rights, access};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::client::{Access, Client};
use super::{BAD_CONFIG, block_on, report, shown, table};
use crate::app;
use crate::config::auth::{Auth, Jwks, Pattern};
use crate::config::{self, Config, Problem, State};
use crate::identity;
use crate::models::{Repository, unknown_names};
use crate::server;
use crate::types::{Identity, Role, Roles};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A configuration file (.toml) or a model repository folder
    #[arg(default_value = "penstock.toml")]
    path: PathBuf,
    /// Show what a running gateway would change if this were its file; the URL of its admin port
    #[arg(long, value_name = "URL")]
    against: Option<String>,
    #[command(flatten)]
    access: Access,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = &arguments.path;
    if let Some(url) = &arguments.against {
        return against(arguments, url);
    }
    let loaded = if path.is_dir() { Ok(Config::for_repository(path)) } else { config::load(path) };
    let (problems, tables) = match loaded {
        Err(problems) => (problems, Tables::default()),
        Ok(config) => {
            let mut problems = server::check(&config);
            let (more, models) = check_repository(&config);
            problems.extend(more);
            problems.extend(state_folder(&config.state));
            problems.extend(config.prediction_log.iter().flat_map(predictions::check));
            problems.extend(identity::check(&config.auth).err().into_iter().flatten());
            let (clients, routes) = (clients(&config.auth), routes::rows(&config.routes));
            (problems, Tables { models, routes, clients })
        }
    };
    if arguments.access.json {
        let problems: Vec<_> =
            problems.iter().map(|p| json!({ "path": p.path, "message": p.message })).collect();
        let Tables { models, routes, clients } = tables;
        let report = json!({
            "problems": problems, "models": models, "routes": routes, "clients": clients,
        });
        println!("{report}");
    } else {
        for problem in &problems {
            eprintln!("{}: {problem}", path.display());
        }
        if problems.is_empty() {
            print!("{}", tables.render());
            println!("{}: no problems", path.display());
        }
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BAD_CONFIG) })
}

/// What a configuration without problems leads to, a line each.
#[derive(Default)]
struct Tables {
    models: Vec<Vec<String>>,
    routes: Vec<Vec<String>>,
    clients: Vec<Vec<String>>,
}

impl Tables {
    fn render(self) -> String {
        let models = ["MODEL", "VERSIONS", "PLATFORM", "DEVICE"];
        let clients = ["CLIENT", "TENANT", "ROLES", "MODELS", "KNOWN BY"];
        let mut shown = vec![table::render(&[vec![table::row(&models)], self.models].concat())];
        for (heading, rows) in [(&routes::HEADING, self.routes), (&clients, self.clients)] {
            if !rows.is_empty() {
                shown.push(table::render(&[vec![table::row(heading)], rows].concat()));
            }
        }
        shown.join("\n")
    }
}

/// Asks a running gateway what it would make of the file: what the file names is looked for there
/// and not here. Ends like a check with problems where it would not take it.
fn against(arguments: &Arguments, url: &str) -> anyhow::Result<ExitCode> {
    let path = &arguments.path;
    if path.is_dir() {
        bail!("--against: {} is a folder, a gateway follows a file", path.display());
    }
    if let Err(problems) = config::load(path) {
        return Ok(report(path, &problems));
    }
    let text = fs::read_to_string(path).with_context(|| shown(path))?;
    let answer =
        block_on(async { Client::new(url, &arguments.access)?.show("/v1/check", text).await })?;
    let list = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (problems, needs_restart) = (list("problems"), list("needs_restart"));
    if arguments.access.json {
        println!("{answer}");
    } else {
        for problem in &problems {
            let problem = Problem::new(words(&problem["path"]), words(&problem["message"]));
            eprintln!("{}: {problem}", path.display());
        }
        for key in &needs_restart {
            eprintln!("{}: {}: cannot change while the gateway runs", path.display(), words(key));
        }
        let lines = list("diff");
        for line in &lines {
            println!("{}", words(line));
        }
        if problems.is_empty() && needs_restart.is_empty() && lines.is_empty() {
            println!("{}: a reload would change nothing", path.display());
        }
    }
    let is_taken = problems.is_empty() && needs_restart.is_empty();
    Ok(if is_taken { ExitCode::SUCCESS } else { ExitCode::from(BAD_CONFIG) })
}

/// What keeps a gateway from using its state folder, where it needs one from the start on.
fn state_folder(state: &State) -> Option<Problem> {
    let path = state.path.as_deref().filter(|_| state.is_needed)?;
    unusable(path).map(|text| Problem::new("state.path", text))
}

/// Why a folder cannot be written to, or made.
fn unusable(path: &Path) -> Option<String> {
    // What is missing is made: where it begins to be missing is what has to be written.
    let here = |folder: &'_ Path| folder.as_os_str().is_empty();
    let mut folders = path.ancestors().map(|of| if here(of) { Path::new(".") } else { of });
    let there = folders.find(|folder| folder.exists()).unwrap_or(path);
    let is_folder = if there.is_dir() { Ok(()) } else { Err(Errno::NOTDIR) };
    let used = is_folder.and_then(|()| access(there, Rights::WRITE_OK | Rights::EXEC_OK));
    let error = io::Error::from(used.err()?);
    Some(format!("{}: cannot write {}: {error}", path.display(), there.display()))
}

/// Reads every manifest and says what would be served.
fn check_repository(config: &Config) -> (Vec<Problem>, Vec<Vec<String>>) {
    let root = &config.repository.path;
    let scanned = Repository::open(root).and_then(|repository| repository.scan());
    let models = match scanned {
        Ok(models) => models,
        Err(error) => {
            let text = format!("cannot read {}: {error}", root.display());
            return (vec![Problem::new("repository.path", text)], vec![]);
        }
    };
    let engines = app::engines();
    let (mut problems, mut served) = (Vec::new(), Vec::new());
    for (name, model) in &models {
        let folder = match model {
            Ok(folder) => folder,
            Err(reason) => {
                problems.push(Problem::new(format!("repository/{name}"), reason.clone()));
                continue;
            }
        };
        let manifest = &folder.manifest;
        let versions = manifest.policy.choose(&folder.versions.keys().copied().collect());
        let mut problem =
            |text: String| problems.push(Problem::new(format!("repository/{name}"), text));
        if versions.is_empty() {
            problem("has no version that its policy serves".to_owned());
        }
        match engines.iter().find(|engine| engine.platform() == manifest.platform) {
            None => problem(format!("this build has no engine for '{}'", manifest.platform)),
            Some(engine) => {
                if let Err(error) = engine.check_device(&manifest.device) {
                    problem(format!("engine.device: {error}"));
                }
            }
        }
        let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
        served.push(vec![
            name.to_string(),
            versions.join(", "),
            manifest.platform.clone(),
            manifest.device.clone(),
        ]);
    }
    problems.extend(routes::check_labels(&models));
    problems.extend(routes::check(&config.routes, &models));
    if let Some(log) = config.rules_to_check() {
        problems.extend(unknown_names(&log, &models));
    }
    (problems, served)
}

/// Who may call, without what they prove it by.
fn clients(auth: &Auth) -> Vec<Vec<String>> {
    let line = |identity: &Identity, proof: String| {
        let models = identity.models.as_ref().map_or_else(|| "all".to_owned(), |m| m.join(", "));
        vec![identity.name.clone(), identity.tenant.clone(), words(identity.roles), models, proof]
    };
    let keys = auth.keys.iter().map(|client| {
        let mut proofs = vec![format!("{} hashes", client.hashes.len())];
        proofs.extend(client.file.as_ref().map(|path| path.display().to_string()));
        proofs.extend(client.env.as_ref().map(|name| format!("${name}")));
        line(&client.identity, proofs.join(", "))
    });
    let certificates = auth.certificates.iter().map(|client| {
        let proof = match &client.pattern {
            Pattern::Subject(text) => format!("certificate of {text}"),
            Pattern::AlternativeName(text) => format!("certificate for {text}"),
        };
        line(&client.identity, proof)
    });
    let tokens = auth.jwt.iter().map(|jwt| {
        let claim = |path: &Option<String>, other: &str| {
            path.as_ref().map_or_else(|| other.to_owned(), |path| format!("({path})"))
        };
        let name = format!("({})", jwt.name_claim);
        let tenant = claim(&jwt.tenant_claim, &name);
        let roles = [words(jwt.roles), claim(&jwt.roles_claim, "")];
        let roles = roles.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        let proof = match &jwt.jwks {
            Jwks::File(path) => format!("token, keys in {}", path.display()),
            // An address may hold a secret behind its question mark.
            Jwks::Url { url, .. } => {
                format!("token, keys at {}", url.split('?').next().unwrap_or(""))
            }
        };
        vec![name, tenant, roles.join(", "), claim(&jwt.models_claim, "all"), proof]
    });
    keys.chain(certificates).chain(tokens).collect()
}

fn words(roles: Roles) -> String {
    let held = Role::ALL.into_iter().filter(|role| roles.contains(*role));
    held.map(Role::name).collect::<Vec<_>>().join(", ")
}
