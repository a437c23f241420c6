//! What a run's figures depend on: the machine, the commit and the versions of what was measured.

use std::path::Path;
use std::process::Command;

use crate::procfs;
use crate::report::Machine;

/// This machine.
#[must_use]
pub fn machine() -> Machine {
    let (cpu, cores) = procfs::cpu_model();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0_u64);
    // Rounded up: the kernel keeps some of it for itself.
    Machine { cpu, cores, kernel: procfs::kernel(), memory_gib: kibibytes.div_ceil(1 << 20) }
}

/// The commit that is checked out, with `-dirty` when files differ from it.
#[must_use]
pub fn commit() -> String {
    output(Command::new("git").args(["describe", "--always", "--dirty", "--exclude", "*"]))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// What a program calls its version.
#[must_use]
pub fn version(program: &Path) -> String {
    let text = output(Command::new(program).arg("--version"));
    // `name version …`
    text.as_deref()
        .and_then(|text| text.split_whitespace().nth(1))
        .map_or_else(|| "unknown".to_owned(), str::to_owned)
}

/// The first line that a program prints when it succeeds.
#[must_use]
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_cores_and_memory() {
        let machine = machine();
        assert!(machine.cores >= 1 && machine.memory_gib >= 1, "{machine:?}");
    }

    #[test]
    fn what_is_not_there_has_no_version() {
        assert_eq!(version(Path::new("/nonexistent/program")), "unknown");
    }
}
