//! Reading `[[route]]` tables.

use std::collections::BTreeSet;
use std::time::Duration;

use super::shares::{self, Given};
use super::terms::{Pins, RemoteVersion};
use super::{Arm, Fallback, Route, Shadow, StaticOutput, Sticky, Target, VersionChoice};
use crate::config::auth::wrong_pattern;
use crate::config::prediction_log::{GUARANTEES, Guarantee};
use crate::config::reader::Section;
use crate::config::value::Size;
use crate::types::{ArmName, ModelName, Share};

const MAX_ROUTES: usize = 10_000;
const MAX_ARMS: usize = 64;
const MAX_SHADOWS: usize = 8;
const MAX_TESTERS: usize = 1000;
const MAX_SALT: usize = 255;
const MAX_OUTPUTS: usize = 64;
/// Of one output of a static answer.
const MAX_ELEMENTS: usize = 65_536;
const MAX_IN_FLIGHT: usize = 65_536;
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);
/// What `fallback` says beside names of arms.
const WORDS: [&str; 2] = ["refuse", "static"];

impl Route {
    /// Reads every route; `None` in the place of one that could not be read.
    pub(in crate::config) fn read_all(
        root: &mut Section<'_>,
        upstreams: &BTreeSet<String>,
    ) -> Vec<Option<Self>> {
        let mut names = BTreeSet::new();
        let tables = bounded(root, "route", MAX_ROUTES).into_iter();
        tables.map(|section| Self::read(section, &mut names, upstreams)).collect()
    }

    fn read(
        mut section: Section<'_>,
        routes: &mut BTreeSet<ModelName>,
        upstreams: &BTreeSet<String>,
    ) -> Option<Self> {
        let name = section.required::<ModelName>("name");
        if let Some(name) = &name
            && !routes.insert(name.clone())
        {
            section.problem("name", format!("\"{name}\" is the name of another route"));
        }
        let sticky = section.or("sticky", Sticky::Off);
        let salt = section.take::<String>("salt");
        if salt.as_ref().is_some_and(|salt| salt.is_empty() || salt.len() > MAX_SALT) {
            section.problem("salt", format!("must have 1 to {MAX_SALT} bytes"));
        }
        let testers = read_testers(&mut section);
        let mut names = Names { taken: BTreeSet::new(), route: name.clone(), upstreams };
        let arms = read_arms(&mut section, &mut names);
        let of_arms = names.taken.clone();
        let fallback = read_fallback(&mut section, &of_arms);
        let shadows = bounded(&mut section, "shadow", MAX_SHADOWS).into_iter();
        let shadows: Vec<_> = shadows.map(|shadow| Shadow::read(shadow, &mut names)).collect();
        let log = section.has("log").then(|| section.choice("log", GUARANTEES, Guarantee::Off));
        if log.is_none() {
            section.take::<String>("log");
        }
        section.finish();
        let shadows = shadows.into_iter().collect::<Option<_>>();
        let name = name?;
        let salt = salt.unwrap_or_else(|| name.to_string());
        let (arms, shadows, fallback) = (arms?, shadows?, fallback?);
        Some(Self { name, sticky, salt, fallback, testers, arms, shadows, log })
    }
}

/// What the names inside of a route may be.
struct Names<'a> {
    /// By arms and shadows.
    taken: BTreeSet<ArmName>,
    route: Option<ModelName>,
    upstreams: &'a BTreeSet<String>,
}

impl Names<'_> {
    fn read(&mut self, section: &mut Section<'_>) -> Option<ArmName> {
        let name = section.required::<ArmName>("name")?;
        if WORDS.contains(&name.as_str()) {
            section.problem("name", format!("\"{name}\" is a word of fallback"));
        }
        if !self.taken.insert(name.clone()) {
            let text = format!("\"{name}\" is the name of another arm or shadow of the route");
            section.problem("name", text);
        }
        Some(name)
    }
}

fn read_arms(route: &mut Section<'_>, names: &mut Names<'_>) -> Option<Vec<Arm>> {
    let (mut given, mut pins, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    let mut is_whole = true;
    for mut section in bounded(route, "arm", MAX_ARMS) {
        let name = names.read(&mut section);
        let target = Target::read(&mut section, names);
        given.push(match (section.has("share"), section.take::<Share>("share")) {
            (_, Some(share)) => Given::Share(share),
            (true, None) => Given::Wrong,
            (false, None) => Given::Absent,
        });
        let has_pins = section.has("buckets");
        let found = section.take::<Pins>("buckets").map(|pins| pins.0);
        is_whole &= found.is_some() == has_pins;
        pins.push(found);
        rest.push(name.zip(target));
        section.finish();
    }
    if given.is_empty() {
        route.problem("arm", "is missing: a route needs at least one [[route.arm]]");
        return None;
    }
    let shares = shares::settle(route, &given)?;
    if is_whole {
        shares::check_pins(route, &shares, &pins);
    }
    let arms = rest.into_iter().zip(shares).zip(pins).map(|((rest, share), buckets)| {
        let (name, target) = rest?;
        Some(Arm { name, target, share, buckets })
    });
    arms.collect()
}

impl Target {
    fn read(section: &mut Section<'_>, names: &Names<'_>) -> Option<Self> {
        if !section.has("upstream") {
            section.take::<String>("upstream");
            let model = section.take::<ModelName>("model");
            let version = section.or("version", VersionChoice::Latest);
            return Some(Self::Local { model: model.or_else(|| names.route.clone())?, version });
        }
        let upstream = section.take::<String>("upstream");
        let model = section.take::<ModelName>("model").or_else(|| names.route.clone());
        let version = section.take::<RemoteVersion>("version").and_then(|version| version.0);
        let upstream = upstream?;
        if !names.upstreams.contains(&upstream) {
            section
                .problem("upstream", format!("is \"{upstream}\", no [[upstream]] has that name"));
        }
        Some(Self::Upstream { upstream, model: model?.into(), version })
    }
}

impl Shadow {
    fn read(mut section: Section<'_>, names: &mut Names<'_>) -> Option<Self> {
        let name = names.read(&mut section);
        let target = Target::read(&mut section, names);
        let sample = section.or("sample", Share::ALL);
        let max_in_flight = section.or("max_in_flight", 64);
        if max_in_flight == 0 || max_in_flight > MAX_IN_FLIGHT {
            section.problem("max_in_flight", format!("must be 1 to {MAX_IN_FLIGHT}"));
        }
        let max_bytes = section.or("max_bytes", Size::mib(64)).0;
        if max_bytes == 0 {
            section.problem("max_bytes", "must be at least 1B");
        }
        let timeout = section.or("timeout", Duration::from_secs(5));
        if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
            section.problem("timeout", "must be above zero and at most 1h");
        }
        section.finish();
        let (name, target) = (name?, target?);
        Some(Self { name, target, sample, max_in_flight, max_bytes, timeout })
    }
}

fn read_fallback(route: &mut Section<'_>, arms: &BTreeSet<ArmName>) -> Option<Fallback> {
    let outputs = bounded(route, "static", MAX_OUTPUTS);
    let is_given = !outputs.is_empty();
    let mut names = BTreeSet::new();
    let outputs: Vec<_> =
        outputs.into_iter().map(|output| StaticOutput::read(output, &mut names)).collect();
    let word = route.or("fallback", "refuse".to_owned());
    if is_given && word != "static" {
        route.problem("static", "has no effect without fallback = \"static\"");
    }
    match word.as_str() {
        "refuse" => Some(Fallback::Refuse),
        "static" if !is_given => {
            route.problem("static", "is missing: a static answer needs its [[route.static]]");
            None
        }
        "static" => outputs.into_iter().collect::<Option<_>>().map(Fallback::Static),
        name => {
            let arm = arms.iter().find(|arm| arm.as_str() == name);
            if arm.is_none() {
                let text = format!("is \"{name}\", must be an arm, \"refuse\" or \"static\"");
                route.problem("fallback", text);
            }
            arm.cloned().map(Fallback::Arm)
        }
    }
}

impl StaticOutput {
    fn read(mut section: Section<'_>, names: &mut BTreeSet<String>) -> Option<Self> {
        let name = section.required::<String>("output");
        if let Some(name) = &name {
            if name.is_empty() || name.len() > 255 {
                section.problem("output", "must have 1 to 255 bytes");
            }
            if !names.insert(name.clone()) {
                section.problem("output", format!("\"{name}\" is given twice"));
            }
        }
        let datatype = section.required::<engine::DataType>("dtype");
        let shape = section.required::<Vec<usize>>("shape");
        let data = section.required::<Vec<f64>>("data");
        if datatype == Some(engine::DataType::Bytes) {
            section.problem("dtype", "is BYTES, static answers are numbers");
        }
        let output = match (name, datatype, shape, data) {
            (Some(name), Some(datatype), Some(shape), Some(data)) => {
                Some(Self { name, datatype: datatype.to_string(), shape, data })
            }
            _ => None,
        };
        if let Some(output) = &output
            && datatype != Some(engine::DataType::Bytes)
        {
            output.check(&section);
        }
        section.finish();
        output
    }

    fn check(&self, section: &Section<'_>) {
        let elements = self.shape.iter().try_fold(1, |all: usize, size| all.checked_mul(*size));
        let count = self.data.len();
        match elements {
            Some(elements) if elements <= MAX_ELEMENTS => {
                if elements != count {
                    let shape = &self.shape;
                    let text = format!("has {count} elements, shape {shape:?} needs {elements}");
                    section.problem("data", text);
                } else if let Err(error) = self.tensor(1) {
                    section.problem("data", error);
                }
            }
            _ => section.problem("shape", format!("has more than {MAX_ELEMENTS} elements")),
        }
    }
}

fn read_testers(section: &mut Section<'_>) -> Vec<String> {
    let testers: Vec<String> = section.or("testers", vec![]);
    if testers.len() > MAX_TESTERS {
        section.problem("testers", format!("has more than {MAX_TESTERS} names"));
    }
    if let Some(problem) = testers.iter().find_map(|pattern| wrong_pattern(pattern)) {
        section.problem("testers", problem);
    }
    testers
}

/// The tables of a list that may be only so long.
pub(in crate::config) fn bounded<'p>(
    section: &mut Section<'p>,
    key: &str,
    most: usize,
) -> Vec<Section<'p>> {
    let mut tables = section.list(key);
    if tables.len() > most {
        section.problem(key, format!("has {} entries, the most are {most}", tables.len()));
        tables.truncate(most);
    }
    tables
}
