//! `penstock check`: every problem of a configuration and of the models it names.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{BAD_CONFIG, table};
use crate::app;
use crate::config::{self, Config, Problem};
use crate::models::Repository;
use crate::server;

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
    let (problems, served) = match loaded {
        Err(problems) => (problems, vec![]),
        Ok(config) => {
            let mut problems = server::check(&config);
            let (more, served) = check_repository(&config);
            problems.extend(more);
            (problems, served)
        }
    };
    if arguments.json {
        let problems: Vec<_> =
            problems.iter().map(|p| json!({ "path": p.path, "message": p.message })).collect();
        println!("{}", json!({ "problems": problems, "models": served }));
    } else {
        for problem in &problems {
            eprintln!("{}: {problem}", path.display());
        }
        if problems.is_empty() {
            let mut rows = vec![table::row(&["MODEL", "VERSIONS", "PLATFORM", "DEVICE"])];
            rows.extend(served);
            print!("{}", table::render(&rows));
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
