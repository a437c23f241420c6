//! `penstock check`: every problem of a configuration and of the models it names.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{BAD_CONFIG, table};
use crate::app;
use crate::config::auth::{Auth, Jwks, Pattern};
use crate::config::{self, Config, Problem};
use crate::identity;
use crate::models::Repository;
use crate::server;
use crate::types::{Identity, Role, Roles};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A configuration file (.toml) or a model repository folder
    #[arg(default_value = "penstock.toml")]
    path: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = &arguments.path;
    let loaded = if path.is_dir() { Ok(Config::for_repository(path)) } else { config::load(path) };
    let (problems, served, clients) = match loaded {
        Err(problems) => (problems, vec![], vec![]),
        Ok(config) => {
            let mut problems = server::check(&config);
            let (more, served) = check_repository(&config);
            problems.extend(more);
            problems.extend(identity::check(&config.auth).err().into_iter().flatten());
            (problems, served, clients(&config.auth))
        }
    };
    if arguments.json {
        let problems: Vec<_> =
            problems.iter().map(|p| json!({ "path": p.path, "message": p.message })).collect();
        println!("{}", json!({ "problems": problems, "models": served, "clients": clients }));
    } else {
        for problem in &problems {
            eprintln!("{}: {problem}", path.display());
        }
        if problems.is_empty() {
            let mut rows = vec![table::row(&["MODEL", "VERSIONS", "PLATFORM", "DEVICE"])];
            rows.extend(served);
            print!("{}", table::render(&rows));
            if !clients.is_empty() {
                let heading = ["CLIENT", "TENANT", "ROLES", "MODELS", "KNOWN BY"];
                let rows = [vec![table::row(&heading)], clients].concat();
                print!("\n{}", table::render(&rows));
            }
            println!("{}: no problems", path.display());
        }
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BAD_CONFIG) })
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
    for (name, model) in models {
        let folder = match model {
            Ok(folder) => folder,
            Err(reason) => {
                problems.push(Problem::new(format!("repository/{name}"), reason));
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
