//! What the parts of a run share: programs, a working folder, the digits servers side by side and
//! the windows that were measured on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::ceilings::Flavor;
use crate::ceilings::answers::Answers;
use crate::load::{Load, Loadtest, Protocol, Window};
use crate::process::{Server, folder};
use crate::repository::Repository;
use crate::say::progress;
use crate::settings::Settings;
use crate::torch::TorchLoop;

/// The small model that shows what everything around a model costs.
pub const DIGITS: &str = "digits";
/// Its version: one hidden layer of 32.
pub const VERSION: &str = "1";
/// How long a server is run in before it is measured, and how long answers are checked.
const RUN_IN: Duration = Duration::from_millis(500);

/// A run under way.
#[derive(Debug)]
pub struct Bench {
    // Servers go before the folder that they serve from.
    digits: Option<Digits>,
    cases: BTreeMap<Case, Rounds>,
    pub settings: Settings,
    pub loadtest: Loadtest,
    pub torch: TorchLoop,
    work: TempDir,
}

/// Servers of the digits model and its ceilings, all running, one under load at a time.
#[derive(Debug)]
pub struct Digits {
    pub penstock: Server,
    /// By flavour: multi-thread, current-thread.
    pub tonic: [Server; 2],
    pub hyper: [Server; 2],
    /// The folder it serves from.
    pub repository: Repository,
}

/// A closed loop of single rows on the digits model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    pub protocol: Protocol,
    pub callers: usize,
    /// Of gRPC; over HTTP each caller has its own.
    pub connections: usize,
}

/// Windows of a case, in turns.
#[derive(Debug, Clone, Default)]
pub struct Rounds {
    pub penstock: Vec<Window>,
    /// The ceiling on a multi-thread runtime.
    pub multi: Vec<Window>,
    /// The ceiling on one current-thread runtime.
    pub current: Vec<Window>,
}

/// A figure of each window.
pub fn figures(windows: &[Window], figure: impl Fn(&Window) -> f64) -> Vec<f64> {
    windows.iter().map(figure).collect()
}

impl Bench {
    /// Looks for the programs.
    ///
    /// # Errors
    /// When one cannot be run or there is no room for files.
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        Ok(Self {
            digits: None,
            cases: BTreeMap::new(),
            loadtest: Loadtest::new(&settings.given.loadtest)?,
            torch: TorchLoop::new(&settings.given.torch_loop),
            settings,
            work: tempfile::Builder::new().prefix("penstock-ratios-").tempdir()?,
        })
    }

    /// A folder of this name inside the working folder.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        folder(self.work.path(), name)
    }

    /// A gateway of a part's own with some models of a source folder. Its working folder, and the
    /// copy of the models in it, are named after the part.
    ///
    /// # Errors
    /// When a model is not there or the gateway does not start.
    pub fn gateway(
        &self,
        part: &str,
        (source, models): (&Path, &[&str]),
        options: &str,
        change: impl FnOnce(&Repository) -> anyhow::Result<()>,
    ) -> anyhow::Result<(Server, Repository)> {
        let work = self.folder(part)?;
        let repository = Repository::new(work.join("repository"))?;
        for model in models {
            repository.add(source, model)?;
        }
        change(&repository)?;
        let program = &self.settings.given.gateway;
        let server = Server::gateway(program, repository.path(), options, &work)?;
        Ok((server, repository))
    }

    /// The digits servers; the first call starts them and has every answer of the gateway checked
    /// over every protocol.
    ///
    /// # Errors
    /// When one does not start or the gateway answers wrongly.
    pub fn digits(&mut self) -> anyhow::Result<&Digits> {
        if self.digits.is_none() {
            let digits = self.start_digits()?;
            self.digits = Some(digits);
        }
        self.digits.as_ref().context("the digits servers were just started")
    }

    /// The gateway among them, where they were started.
    ///
    /// # Errors
    /// Before the first call of [`Self::digits`].
    pub fn penstock(&self) -> anyhow::Result<&Server> {
        Ok(&self.digits.as_ref().context("the digits servers are not started")?.penstock)
    }

    fn start_digits(&self) -> anyhow::Result<Digits> {
        progress("starting the digits model and its ceilings");
        let models = (self.settings.given.repository.as_path(), &[DIGITS, "digits_cnn"][..]);
        let (penstock, repository) = self.gateway("digits", models, "", |_| Ok(()))?;
        let answers = Answers::capture(&penstock.http, DIGITS, VERSION)?;
        let work = self.folder("ceilings")?;
        let digits = Digits {
            tonic: [Server::tonic(Flavor::Multi, &work)?, Server::tonic(Flavor::Current, &work)?],
            hyper: [
                Server::hyper(Flavor::Multi, &answers, &work)?,
                Server::hyper(Flavor::Current, &answers, &work)?,
            ],
            penstock,
            repository,
        };
        for protocol in [Protocol::Grpc, Protocol::HttpBinary, Protocol::HttpJson] {
            let sample = Load { callers: 16, connections: 4, ..self.load(protocol, RUN_IN) };
            self.loadtest.run(&digits.penstock, &Load { check: true, ..sample.clone() })?;
            for ceiling in digits.ceilings(protocol) {
                self.loadtest.run(ceiling, &sample)?;
            }
        }
        Ok(digits)
    }

    /// One caller with single digits.
    #[must_use]
    pub fn load(&self, protocol: Protocol, duration: Duration) -> Load<'_> {
        Load {
            version: VERSION,
            data: Some(&self.settings.given.data),
            ..Load::new(protocol, DIGITS, duration)
        }
    }

    /// The windows of a case, measured by the first call: the gateway and both ceilings in turns,
    /// another one first in every round.
    ///
    /// # Errors
    /// When a window failed.
    pub fn case(&mut self, case: Case) -> anyhow::Result<&Rounds> {
        if !self.cases.contains_key(&case) {
            self.digits()?;
            let digits = self.digits.as_ref().context("the digits servers are gone")?;
            let Case { protocol, callers, connections } = case;
            progress(format_args!(
                "{callers} callers over {} ({connections} connections)",
                protocol.title()
            ));
            let load =
                Load { callers, connections, ..self.load(protocol, self.settings.window(1.0)) };
            let [multi, current] = digits.ceilings(protocol);
            let mut rounds = Rounds::default();
            for round in 0..self.settings.rounds {
                for turn in 0..3 {
                    let (server, windows) = match (round + turn) % 3 {
                        0 => (&digits.penstock, &mut rounds.penstock),
                        1 => (multi, &mut rounds.multi),
                        _ => (current, &mut rounds.current),
                    };
                    windows.push(self.loadtest.run(server, &load)?);
                }
            }
            self.cases.insert(case, rounds);
        }
        self.cases.get(&case).context("the case was just measured")
    }
}

impl Digits {
    /// The bare servers of a protocol: multi-thread, current-thread.
    #[must_use]
    pub const fn ceilings(&self, protocol: Protocol) -> [&Server; 2] {
        let [multi, current] = match protocol {
            Protocol::Grpc => &self.tonic,
            Protocol::HttpBinary | Protocol::HttpJson => &self.hyper,
        };
        [multi, current]
    }
}
